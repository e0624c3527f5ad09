import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, it, vi } from "vitest";

import type { Tenant, TenantSpec } from "../api/types";
import { TenantForm } from "./TenantForm";

const SPEC: TenantSpec = {
  display_name: "Acme",
  weight: 3,
  limits: { requests: { per_second: 10, burst: 20 }, concurrency: 4 },
  suspended: false,
  isolation: "isolated",
};

function show(spec: TenantSpec): Tenant[] {
  const sent: Tenant[] = [];
  vi.stubGlobal("fetch", (_: string, init: RequestInit) => {
    sent.push(JSON.parse(String(init.body)) as Tenant);
    return Promise.resolve(new Response("{}"));
  });
  const tenant: Tenant = { apiVersion: "mesh/v1", kind: "Tenant", metadata: { name: "acme", revision: 7 }, spec };
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <TenantForm tenant={tenant} readOnly={false} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return sent;
}
afterEach(() => vi.unstubAllGlobals());

describe("the tenant form", () => {
  it("writes everything back as it was, also what it does not know", async () => {
    const of_a_newer_mesh = { ...SPEC, residency: "eu" };
    const sent = show(of_a_newer_mesh);
    await userEvent.setup().click(screen.getByRole("button", { name: "Save" }));
    expect(sent.map((tenant) => tenant.spec)).toEqual([of_a_newer_mesh]);
  });
  it("writes limits of every unit and budgets, and leaves the marks that it does not show", async () => {
    const user = userEvent.setup();
    const budgets = { daily: { requests: { soft: 5 } } };
    const sent = show({ ...SPEC, budgets });
    await user.type(screen.getByLabelText("Rows per second"), "7");
    await user.type(screen.getByLabelText("Daily requests"), "9");
    await user.type(screen.getByLabelText("Monthly device milliseconds"), "3");
    await user.click(screen.getByRole("switch", { name: /^Limits in shadow/ }));
    await user.click(screen.getByRole("button", { name: "Save" }));
    expect(sent[0]?.spec.limits).toEqual({ ...SPEC.limits, rows: { per_second: 7, burst: 7 }, enforce: "shadow" });
    expect(sent[0]?.spec.budgets).toEqual({
      daily: { requests: { soft: 5, hard: 9 } },
      monthly: { device_ms: { hard: 3 } },
    });
  });
  it("takes a limit away that is emptied", async () => {
    const user = userEvent.setup();
    const sent = show(SPEC);
    await user.clear(screen.getByLabelText("Requests per second"));
    await user.clear(screen.getByLabelText("Requests at once"));
    await user.click(screen.getByRole("button", { name: "Save" }));
    expect(sent[0]?.spec.limits).toEqual({});
  });
  it("switches isolation", async () => {
    const user = userEvent.setup();
    const sent = show(SPEC);
    const isolated = screen.getByRole("switch", { name: /^Isolated/ });
    expect((isolated as HTMLInputElement).checked).toBe(true);
    await user.click(isolated);
    await user.click(screen.getByRole("button", { name: "Save" }));
    expect(sent[0]?.spec).toEqual({ ...SPEC, isolation: "shared" });
  });
});
