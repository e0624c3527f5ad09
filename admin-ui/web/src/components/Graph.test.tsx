import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";

import { PIPE } from "../lib/graph.sample";
import { Graph } from "./Graph";

afterEach(() => vi.unstubAllGlobals());

const show = (answer: unknown, status = 200) => {
  const asked: string[] = [];
  vi.stubGlobal("fetch", (path: string) => {
    asked.push(path);
    return Promise.resolve(new Response(JSON.stringify(answer), { status }));
  });
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
        <Graph tenant="acme" model="pipe" version={1} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return asked;
};

describe("an ensemble's graph", () => {
  it("is drawn, and said in a table", async () => {
    const asked = show(PIPE);
    expect(await screen.findByRole("img", { name: /Graph of version 1/ })).toBeTruthy();
    expect(asked).toEqual(["/admin/v1/tenants/acme/models/pipe/graph?version=1"]);
    expect(screen.getByText(PIPE.reason!)).toBeTruthy();
    const table = within(screen.getByRole("region", { name: "Steps of version 1" }));
    const down = within(table.getByRole("row", { name: /^down/ }));
    expect(down.getByText("digits@stable, version 2").getAttribute("data-tone")).toBe("bad");
    expect(down.getByText("it broke")).toBeTruthy();
    expect(down.getByText("x = mid")).toBeTruthy();
    expect(down.getByText("way: otherwise; at most 3 at once")).toBeTruthy();
    expect(within(table.getByRole("row", { name: /^first/ })).getByText("always")).toBeTruthy();
    expect(screen.getByText(/4 answered, 1 failed, 3 cancelled, 2.00 ms on average, 0.25 ms of it between steps/)).toBeTruthy();
  });
  it("says what is wrong where it does not hold together", async () => {
    show({ ...PIPE, steps: [], reason: "graph.steps[0].model: model 'm' has no version 3" });
    expect(await screen.findByText("not ready")).toBeTruthy();
    expect(screen.getByText(/has no version 3/)).toBeTruthy();
    expect(screen.queryByRole("img")).toBeNull();
  });
  it("says that it cannot be read", async () => {
    show({ error: "there is no graph" }, 404);
    expect(await screen.findByText("there is no graph")).toBeTruthy();
  });
});
