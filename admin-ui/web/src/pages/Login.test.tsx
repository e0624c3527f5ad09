import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { failureIn, signInAddress } from "../lib/signIn";
import { Login } from "./Login";

/** The page at an address, before a door that has this provider or none, or is not there. */
function at(address: string, oidc: string | null | undefined) {
  window.history.replaceState(null, "", address);
  vi.stubGlobal("fetch", () =>
    oidc === undefined
      ? Promise.reject(new TypeError("nobody there"))
      : Promise.resolve(new Response(JSON.stringify({ oidc }))),
  );
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
      <MantineProvider>
        <Login />
      </MantineProvider>
    </QueryClientProvider>,
  );
}

beforeEach(() => window.history.replaceState(null, "", "/"));
afterEach(() => vi.unstubAllGlobals());

describe("the page for signing in", () => {
  it("leads to the provider, and back to the page that was asked for", async () => {
    at("/tenants/acme?tab=keys", "Acme");
    const link = await screen.findByRole("link", { name: "Sign in with Acme" });
    expect(link.getAttribute("href")).toBe("/admin/v1/sign-in/oidc?to=%2Ftenants%2Facme%3Ftab%3Dkeys");
    expect(screen.getByLabelText(/Admin token/)).toBeTruthy();
  });

  it.each([null, undefined])("takes tokens where there is no provider or no answer (%s)", async (oidc) => {
    at("/", oidc);
    expect(await screen.findByLabelText(/Admin token/)).toBeTruthy();
    await new Promise((done) => setTimeout(done, 20));
    expect(screen.queryByRole("link")).toBeNull();
  });

  it("says why a sign-in failed, once, and offers it again", async () => {
    at("/?sign_in=unavailable", "Acme");
    expect((await screen.findByRole("alert")).textContent).toContain("does not answer");
    expect(window.location.search).toBe("");
    const link = await screen.findByRole("link", { name: "Sign in with Acme" });
    expect(link.getAttribute("href")).toBe("/admin/v1/sign-in/oidc?to=%2F");
  });

  it("never shows what an address says", () => {
    expect(failureIn("?sign_in=%3Cscript%3E")).toBe("Signing in failed: begin again.");
    expect(failureIn("?sign_in=toString")).toBe("Signing in failed: begin again.");
    expect(failureIn("?other=role")).toBeNull();
    expect(signInAddress("/", "?sign_in=role&a=b")).toBe("/admin/v1/sign-in/oidc?to=%2F%3Fa%3Db");
  });
});
