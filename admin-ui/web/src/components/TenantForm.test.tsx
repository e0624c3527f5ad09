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
