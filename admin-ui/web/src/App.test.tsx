import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, render, screen, within } from "@testing-library/react";
import { MemoryRouter } from "react-router";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Overview, Session } from "./api/types";
import { App } from "./App";

// A chart draws on a canvas, which this document has not.
vi.mock("./components/Chart", () => ({ Chart: () => null }));

const OVERVIEW: Overview = {
  tenant: "acme",
  time: "2030-01-01T00:00:00Z",
  uptime_seconds: 60,
  in_flight: 1,
  totals: { ok: 3, refused: 0, errors: 0 },
  rates: { requests_per_second: 3, errors_per_second: 0, refused_per_second: 0 },
  latency_ms: { p50: 1, p90: 1, p99: 1 },
  endpoints: [],
  devices: [
    {
      device: "cpu:0",
      draining: false,
      models: [{ tenant: "acme", model: "digits", version: 1, state: "READY" }],
    },
  ],
};

/** The stream of events, by hand. */
class Stream extends EventTarget {
  static readonly CLOSED = 2;
  static all: Stream[] = [];
  readyState = 1;
  readonly url: string;
  constructor(url: string) {
    super();
    this.url = url;
    Stream.all.push(this);
  }
  close() {}
  tell(overview: Overview) {
    this.dispatchEvent(new MessageEvent("overview", { data: JSON.stringify(overview) }));
  }
}

/** A mesh that knows who is there and holds nothing; remembers what it was asked. */
function mesh(session: Session): string[] {
  const asked: string[] = [];
  vi.stubGlobal("fetch", (path: string) => {
    asked.push(path);
    const body = path.endsWith("/session") ? session : { items: [], next: null };
    return Promise.resolve(new Response(JSON.stringify(body)));
  });
  return asked;
}
beforeEach(() => {
  Stream.all = [];
  vi.stubGlobal("EventSource", Stream);
});
afterEach(() => vi.unstubAllGlobals());

async function open(path: string, overview = OVERVIEW) {
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <MemoryRouter initialEntries={[path]}>
          <App />
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
  await screen.findByRole("navigation", { name: "Pages" });
  act(() => Stream.all.at(-1)?.tell(overview));
}
const pages = () =>
  within(screen.getByRole("navigation", { name: "Pages" }))
    .getAllByRole("link")
    .map((link) => link.textContent);

describe("who is bound to a tenant", () => {
  const bound: Session = { who: "ann", role: "admin", tenant: "acme" };
  it("sees that tenant's overview, and no page of the whole mesh", async () => {
    mesh(bound);
    await open("/");
    expect(await screen.findByText(/Requests of acme alone/)).toBeTruthy();
    const models = within(screen.getByRole("region", { name: "Devices and their models" }));
    expect(models.getByRole("link", { name: "acme/digits" })).toBeTruthy();
    expect(models.queryByRole("link", { name: "cpu:0" })).toBeNull();
    expect(pages()).toEqual(["Overview", "Endpoints", "Models", "Tenants", "Certificates"]);
  });
  it("is told so where an address leads to such a page, and nothing is asked that would be refused", async () => {
    for (const path of ["/devices", "/policies", "/audit"]) {
      const asked = mesh(bound);
      await open(path);
      expect(await screen.findByText("This is about the whole mesh")).toBeTruthy();
      expect(screen.queryByRole("alert")).toBeNull();
      expect(asked.filter((one) => one !== "/admin/v1/session")).toEqual([]);
      cleanup();
    }
  });
  it("makes no tenants", async () => {
    mesh(bound);
    await open("/tenants");
    await screen.findByText("No tenants yet");
    expect(screen.queryByRole("button", { name: "New tenant" })).toBeNull();
  });
});

describe("who is bound to none", () => {
  it("sees the mesh and every page", async () => {
    mesh({ who: "root", role: "admin", tenant: null });
    await open("/", { ...OVERVIEW, tenant: null });
    expect(await screen.findByRole("link", { name: "cpu:0" })).toBeTruthy();
    expect(screen.queryByText(/Requests of/)).toBeNull();
    expect(pages()).toContain("Audit");
    expect(pages()).toContain("Devices");
  });
});
