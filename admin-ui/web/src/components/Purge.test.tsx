import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, it, vi } from "vitest";

import { forgotten, Purge } from "./Purge";

/** A mesh that answers a purge so; remembers what it was asked. */
function mesh(status: number, body: unknown): string[] {
  const asked: string[] = [];
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => {
    asked.push(`${init.method} ${path}`);
    return Promise.resolve(new Response(JSON.stringify(body), { status }));
  });
  return asked;
}
afterEach(() => vi.unstubAllGlobals());

const show = (endpoint?: string) =>
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <Purge tenant="acme" {...(endpoint && { endpoint })} />
      </QueryClientProvider>
    </MantineProvider>,
  );

describe("the cache", () => {
  it("of an endpoint is purged after a question, and what was forgotten is said", async () => {
    const user = userEvent.setup();
    const asked = mesh(200, { entries: 3, bytes: 4500 });
    show("digits");
    await user.click(screen.getByRole("button", { name: "Purge cache" }));
    const sure = within(await screen.findByRole("dialog", { name: "Purge the cache of digits?" }));
    expect(asked).toEqual([]);
    await user.click(sure.getByRole("button", { name: "Purge" }));
    expect(await screen.findByText("Forgot 3 answers, 4.5 kB in all.")).toBeTruthy();
    expect(asked).toEqual(["POST /admin/v1/tenants/acme/endpoints/digits/cache/purge"]);
    // Whoever asks again is asked again.
    await user.click(within(screen.getByRole("dialog")).getByText("Close"));
    await user.click(screen.getByRole("button", { name: "Purge cache" }));
    expect(within(await screen.findByRole("dialog")).getByRole("button", { name: "Purge" })).toBeTruthy();
  });
  it("that was purged leaves the focus with what is said, and then where it was", async () => {
    const user = userEvent.setup();
    mesh(200, { entries: 1, bytes: 10 });
    show("digits");
    const opener = screen.getByRole("button", { name: "Purge cache" });
    await user.click(opener);
    const sure = within(await screen.findByRole("dialog"));
    await user.click(sure.getByRole("button", { name: "Purge" }));
    await screen.findByText("Forgot 1 answer, 10 B in all.");
    const close = sure.getByText("Close").closest("button");
    await waitFor(() => expect(document.activeElement).toBe(close));
    await user.keyboard("{Enter}");
    await waitFor(() => expect(document.activeElement).toBe(opener));
  });
  it("that was not purged leaves the focus with the question, and then where it was", async () => {
    const user = userEvent.setup();
    mesh(403, { error: "ann may not do that" });
    show("digits");
    const opener = screen.getByRole("button", { name: "Purge cache" });
    await user.click(opener);
    const sure = within(await screen.findByRole("dialog"));
    const act = sure.getByRole("button", { name: "Purge" });
    await user.click(act);
    await screen.findByText(/may not do that/);
    expect(document.activeElement).toBe(act);
    await user.keyboard("{Escape}");
    await waitFor(() => expect(document.activeElement).toBe(opener));
  });
  it("of a tenant is purged, and a refusal is told", async () => {
    const user = userEvent.setup();
    const asked = mesh(403, { error: "ann may not do endpoint:route to Endpoint/acme/digits" });
    show();
    await user.click(screen.getByRole("button", { name: "Purge cache" }));
    const sure = within(await screen.findByRole("dialog", { name: "Purge the cache of acme?" }));
    await user.click(sure.getByRole("button", { name: "Purge" }));
    expect(await screen.findByText(/may not do endpoint:route/)).toBeTruthy();
    expect(asked).toEqual(["POST /admin/v1/tenants/acme/cache/purge"]);
  });
  it("that was empty says so", () => {
    expect(forgotten({ entries: 0, bytes: 0 })).toBe("No answer was remembered.");
    expect(forgotten({ entries: 1, bytes: 10 })).toBe("Forgot 1 answer, 10 B in all.");
  });
});
