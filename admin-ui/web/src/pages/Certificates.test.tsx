import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, within } from "@testing-library/react";
import { MemoryRouter } from "react-router";
import { afterEach, describe, expect, it, vi } from "vitest";

import type { CertificateView, ClientCertificate, DoorTls, DoorView } from "../api/types";
import { asksCallers, until, warningsOf } from "../lib/certificates";
import { SessionContext } from "../lib/session";
import Certificates from "./Certificates";

const DAY = 86_400_000;
const NOW = Date.parse("2030-01-01T00:00:00Z");
const at = (days: number) => new Date(NOW + days * DAY).toISOString();

const certificate = (more: Partial<CertificateView> = {}): CertificateView => ({
  subject: "CN=mesh.example.org",
  issuer: "CN=authority",
  names: ["mesh.example.org", "10.0.0.1"],
  more_names: 0,
  not_before: at(-60),
  not_after: at(30),
  standing: "valid",
  sha256: "00",
  ...more,
});
const door = (more: Partial<DoorTls> = {}): DoorView => ({
  door: "inference",
  tls: {
    certificate: certificate(),
    chain: 2,
    since: at(-1),
    renewals: 3,
    refused_since: null,
    oldest_version: "1.3",
    clients: "optional",
    authorities: [certificate({ subject: "CN=callers", sha256: "11" })],
    more_authorities: 0,
    ...more,
  },
});
const CALLER: ClientCertificate = {
  apiVersion: "mesh/v1",
  kind: "ClientCertificate",
  metadata: { tenant: "acme", name: "billing" },
  spec: { identity: { spiffe: "spiffe://example.org/billing" }, scopes: ["infer"] },
};

function show(doors: DoorView[], callers: ClientCertificate[], tenant: string | null = null): string[] {
  const asked: string[] = [];
  vi.stubGlobal("fetch", (path: string) => {
    asked.push(path);
    const body = path.includes("/door-certificates") ? doors : { items: callers, next: null };
    return Promise.resolve(new Response(JSON.stringify(body)));
  });
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <MemoryRouter>
          <SessionContext value={{ who: "root", role: "admin", tenant }}>
            <Certificates />
          </SessionContext>
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
  return asked;
}
afterEach(() => vi.unstubAllGlobals());

describe("the certificates", () => {
  it("of the doors are shown, and who comes in by one of its own", async () => {
    show([door(), { door: "metrics", tls: null }], [CALLER]);
    const doors = within(await screen.findByRole("region", { name: "Doors" }));
    const row = within(await doors.findByRole("row", { name: /inference \(HTTP and gRPC\)/ }));
    expect(row.getByText("mesh.example.org, 10.0.0.1")).toBeTruthy();
    expect(row.getByText("valid").getAttribute("data-tone")).toBe("good");
    expect(row.getByText("3× since the start")).toBeTruthy();
    expect(row.getByText(/of CN=callers/)).toBeTruthy();
    expect(doors.getByRole("row", { name: /metrics speaks no TLS/ })).toBeTruthy();
    const callers = within(await screen.findByRole("row", { name: /billing/ }));
    expect(callers.getByText("spiffe://example.org/billing")).toBeTruthy();
    expect(await callers.findByText("admitted")).toBeTruthy();
    expect(screen.queryByRole("alert")).toBeNull();
  });
  it("warn before one ends", async () => {
    show([door({ certificate: certificate({ standing: "ends_soon" }) })], []);
    expect(await screen.findByText(/certificate of the inference door ends/)).toBeTruthy();
    expect(screen.getByText("ends soon").getAttribute("data-tone")).toBe("warn");
    expect(await screen.findByText("Nobody is known by a certificate")).toBeTruthy();
  });
  it("tell the worst first", async () => {
    const soon = door({ certificate: certificate({ standing: "ends_soon" }) });
    show([soon, { ...door({ refused_since: at(-1) }), door: "admin" }], []);
    const titles = (await screen.findAllByRole("alert")).map((alert) => alert.textContent);
    expect(titles.map((title) => title?.slice(0, 7))).toEqual(["Act now", "Renew i"]);
  });
  it("that doors share are warned of once", async () => {
    const soon = door({ certificate: certificate({ standing: "ends_soon" }) });
    show([soon, { ...soon, door: "admin" }, { ...soon, door: "metrics" }], []);
    const alerts = await screen.findAllByRole("alert");
    expect(alerts).toHaveLength(1);
    expect(alerts[0]?.textContent).toContain("The certificate of the inference, admin and metrics doors ends");
  });
  it("of callers admit nobody where the door asks for none", async () => {
    show([door({ clients: "off", authorities: [] })], [CALLER]);
    const row = within(await screen.findByRole("row", { name: /billing/ }));
    expect((await row.findByText("not asked for")).getAttribute("data-tone")).toBe("warn");
    expect(row.getByText("The inference door asks nobody for a certificate.")).toBeTruthy();
    expect(screen.queryByText("admitted")).toBeNull();
  });
  it("of the doors are not asked for by who is bound to a tenant", async () => {
    const asked = show([door()], [CALLER], "acme");
    // So nothing is said of whether a door asks for it.
    expect(await screen.findByText("valid")).toBeTruthy();
    expect(screen.queryByText("admitted")).toBeNull();
    expect(screen.queryByRole("region", { name: "Doors" })).toBeNull();
    expect(asked.some((path) => path.includes("door-certificates"))).toBe(false);
  });
});

describe("what is wrong with a door", () => {
  const warned = (doors: DoorView[]) => warningsOf(doors, NOW);
  it("is said, the worst first", () => {
    const bad = { refused_since: at(-1), certificate: certificate({ standing: "ended", not_after: at(-3) }) };
    expect(warned([door(bad)])).toEqual([
      { bad: true, text: "The certificate of the inference door has ended 3 days ago: clients refuse it." },
    ]);
    expect(warned([door({ refused_since: at(-1) })])[0]?.text).toContain("the certificate before serves on");
    const soon = door({ authorities: [certificate({ standing: "ends_soon", not_after: at(2) })] });
    expect(warned([soon])).toMatchObject([{ bad: false }]);
    expect(warned([door(), { door: "admin", tls: null }])).toEqual([]);
  });
  it("is said once of doors that share it, and apart of others", () => {
    const soon = (sha256: string) => door({ certificate: certificate({ standing: "ends_soon", sha256 }) });
    const other = { ...soon("01"), door: "metrics" };
    expect(warned([soon("00"), { ...soon("00"), door: "admin" }, other]).map(({ text }) => text.slice(0, 58))).toEqual([
      "The certificate of the inference and admin doors ends in 3",
      "The certificate of the metrics door ends in 30 days: put a",
    ]);
    // The same certificate, and another trouble with it.
    const refused = { ...door({ refused_since: at(-1) }), door: "admin" };
    expect(warned([soon("00"), refused]).map(({ bad }) => bad)).toEqual([true, false]);
    const by = door({ authorities: [certificate({ subject: "CN=callers", standing: "ends_soon", not_after: at(2) })] });
    expect(warned([by, { ...by, door: "admin" }]).map(({ text }) => text)).toEqual([
      "The authority CN=callers, whose clients the inference and admin doors admit, ends in 2 days.",
    ]);
    expect(warned([by])[0]?.text).toContain("whose clients the inference door admits, ends");
  });
  it("counts days, hours of the last two, and minutes of the last hour", () => {
    expect(until(at(2), NOW)).toBe("in 2 days");
    expect(until(at(1.5), NOW)).toBe("in 36 hours");
    expect(until(at(-1 / 24), NOW)).toBe("1 hour ago");
    const minutes = (many: number) => until(at(many / 1440), NOW);
    expect([59, 1, 0.5].map(minutes)).toEqual(["in 59 minutes", "in 1 minute", "in less than a minute"]);
    expect([-0.5, -2].map(minutes)).toEqual(["less than a minute ago", "2 minutes ago"]);
  });
});

describe("whether callers are asked for a certificate", () => {
  it("is the inference door's to say", () => {
    expect(asksCallers(undefined)).toBeNull();
    expect(asksCallers([door()])).toBe(true);
    expect(asksCallers([door({ clients: "required" })])).toBe(true);
    expect(asksCallers([{ door: "inference", tls: null }, { ...door(), door: "admin" }])).toBe(false);
    expect(asksCallers([door({ clients: "off" })])).toBe(false);
  });
});
