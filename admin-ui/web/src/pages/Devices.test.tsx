import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { MemoryRouter } from "react-router";
import { afterEach, describe, expect, it, vi } from "vitest";

import type { DeviceDetail, Role } from "../api/types";
import { SessionContext } from "../lib/session";
import Devices from "./Devices";

const MODEL = {
  tenant: "acme",
  model: "digits",
  version: 2,
  state: "QUARANTINED",
  reason: "quarantined after crashes in a row",
  memory_bytes: 80_000,
  queue_length: 6,
  requests: 4,
  failed: 0,
  rows: 12,
  executions: 3,
  mean_batch_rows: 6,
  mean_latency_ms: 2.5,
  mean_queue_ms: 0.5,
  mean_compute_ms: null,
  cancelled: 0,
  expired: 2,
  rejected: 5,
  non_finite: 0,
  crashed: 3,
  out_of_memory: 0,
  loads: 3,
  load_failures: 0,
  evictions: 2,
  idle_unloads: 0,
  progress: { stage: "warming", instance: 1, instances: 2, bytes: 80_000, rows: 8, record: null },
  prediction_error: 0.125,
};
const DEVICE: DeviceDetail = {
  device: "cpu:0",
  kind: "cpu",
  threads: 2,
  abandoned_threads: 0,
  draining: false,
  in_flight: 3,
  open_sequences: 0,
  sequence_state_bytes: 0,
  up_seconds: 100,
  busy_seconds: 50,
  busy_fraction: 0.25,
  recent_busy_fraction: null,
  memory_bytes: 80_000,
  budget_bytes: 1_000_000,
  models: [MODEL],
  tenants: [{ tenant: "acme", seconds: 3 }],
  other_tenants_seconds: 1,
};

/** A mesh of one device that can be drained; remembers what it was asked. */
function mesh(device = DEVICE): string[] {
  let now = device;
  const asked: string[] = [];
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => {
    asked.push(`${init.method} ${path}`);
    if (path.endsWith("/drain")) now = { ...now, draining: true };
    if (path.endsWith("/undrain")) now = { ...now, draining: false };
    return Promise.resolve(new Response(JSON.stringify(init.method === "POST" ? now : [now])));
  });
  return asked;
}
afterEach(() => vi.unstubAllGlobals());

const show = (role: Role = "admin") =>
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <MemoryRouter>
          <SessionContext value={{ who: "root", role }}>
            <Devices />
          </SessionContext>
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );

describe("the devices", () => {
  it("are shown with how busy they are, their models and who used them", async () => {
    mesh();
    show();
    const meter = await screen.findByRole("meter", { name: "Busy since the start" });
    expect(meter.getAttribute("aria-valuenow")).toBe("25");
    const models = within(screen.getByRole("region", { name: "Models on cpu:0" }));
    expect(models.getByText("quarantined").getAttribute("data-tone")).toBe("bad");
    expect(models.getByText("quarantined after crashes in a row")).toBeTruthy();
    expect(models.getByText("5 refused, 2 too late, 3 crashes")).toBeTruthy();
    const tenants = within(screen.getByRole("region", { name: "Time of cpu:0 by tenant" }));
    expect(tenants.getByRole("row", { name: /acme.*75 %/ })).toBeTruthy();
    expect(tenants.getByRole("row", { name: /all others.*25 %/ })).toBeTruthy();
  });
  it("are drained and undrained, each after a question", async () => {
    const user = userEvent.setup();
    const asked = mesh();
    show();
    await user.click(await screen.findByRole("button", { name: "Drain cpu:0" }));
    const sure = within(await screen.findByRole("dialog", { name: "Drain cpu:0?" }));
    expect(sure.getByText(/every call is answered with 503/)).toBeTruthy();
    expect(asked.some((call) => call.startsWith("POST"))).toBe(false);
    await user.click(sure.getByRole("button", { name: "Drain" }));
    expect(asked).toContain("POST /admin/v1/devices/cpu%3A0/drain");
    expect(await screen.findByText("draining: 3 in flight")).toBeTruthy();
    await user.click(await screen.findByRole("button", { name: "Undrain cpu:0" }));
    const back = within(await screen.findByRole("dialog", { name: "Undrain cpu:0?" }));
    await user.click(back.getByRole("button", { name: "Undrain" }));
    expect(asked).toContain("POST /admin/v1/devices/cpu%3A0/undrain");
    expect(await screen.findByText("serving")).toBeTruthy();
  });
  it("are not drained before their sequences have ended", async () => {
    mesh({ ...DEVICE, draining: true, in_flight: 0, open_sequences: 4, sequence_state_bytes: 2048 });
    show();
    expect(await screen.findByText("draining: 4 open sequences")).toBeTruthy();
    expect(screen.getByText("Their state")).toBeTruthy();
  });
  it("cannot be drained by a viewer", async () => {
    mesh();
    show("viewer");
    await screen.findByText("serving");
    expect(screen.queryByRole("button", { name: /rain/ })).toBeNull();
  });
});
