import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, within } from "@testing-library/react";
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
