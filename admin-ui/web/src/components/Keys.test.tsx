import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { when } from "../lib/format";
import { Keys } from "./Keys";

const MINUTE = "2030-03-17T17:46:00Z";
const key = (name: string) => ({
  apiVersion: "mesh/v1",
  kind: "ApiKey",
  metadata: { tenant: "acme", name, revision: 3, created: "2030-01-01T00:00:00Z" },
  spec: { hash: "(redacted)", scopes: ["infer"], revoked: false },
});
const use = (name: string, last_used: string | null) => ({ tenant: "acme", key: name, last_used });

afterEach(() => vi.unstubAllGlobals());

it("shows when each key was last used", async () => {
  vi.stubGlobal("fetch", (path: string) => {
    const items = path.includes("/key-uses?")
      ? [use("idle", null), use("used", MINUTE)]
      : [key("idle"), key("new"), key("used")];
    return Promise.resolve(new Response(JSON.stringify({ items, next: null })));
  });
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
      <MantineProvider>
        <Keys tenant="acme" readOnly />
      </MantineProvider>
    </QueryClientProvider>,
  );
  expect(await screen.findByText(when(MINUTE))).toBeTruthy();
  const last = (name: string) => {
    const cells = within(screen.getByText(name).closest("tr")!).getAllByRole("cell");
    return cells[5]?.textContent;
  };
  expect([last("used"), last("idle"), last("new")]).toEqual([when(MINUTE), "never", "–"]);
});

it("leaves the focus where a key is changed, and by the others where one is gone", async () => {
  const user = userEvent.setup();
  const spec = (revoked: boolean) => ({ hash: "(redacted)", scopes: ["infer"], revoked });
  let there = [
    { ...key("first"), spec: spec(false) },
    { ...key("second"), spec: spec(true) },
  ];
  vi.stubGlobal("fetch", (path: string, init?: RequestInit) => {
    if (init?.method === "PUT") there = there.map((one) => ({ ...one, spec: spec(true) }));
    if (init?.method === "DELETE") there = there.filter(({ metadata }) => metadata.name !== "second");
    const items = path.includes("/key-uses?") ? [] : there;
    return Promise.resolve(new Response(JSON.stringify({ items, next: null })));
  });
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
      <MantineProvider>
        <Keys tenant="acme" readOnly={false} />
      </MantineProvider>
    </QueryClientProvider>,
  );
  await user.click(await screen.findByRole("button", { name: "Revoke key first" }));
  await user.click(within(await screen.findByRole("dialog")).getByRole("button", { name: "Revoke" }));
  const changed = await screen.findByLabelText("Delete key first");
  await waitFor(() => expect(document.activeElement).toBe(changed));
  await user.click(await screen.findByRole("button", { name: "Delete key second" }));
  await user.click(within(await screen.findByRole("dialog")).getByRole("button", { name: "Delete" }));
  await waitFor(() => expect(screen.queryByText("second")).toBeNull());
  const list = document.querySelector("[role=region][aria-label='API keys'].scroll");
  await waitFor(() => expect(document.activeElement).toBe(list));
});
