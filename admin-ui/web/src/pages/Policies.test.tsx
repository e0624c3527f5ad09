import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { MemoryRouter } from "react-router";
import { afterEach, describe, expect, it, vi } from "vitest";

import type { Policy, PolicyAnswer, Role } from "../api/types";
import { SessionContext } from "../lib/session";
import Policies from "./Policies";

const POLICY: Policy = {
  apiVersion: "mesh/v1",
  kind: "Policy",
  metadata: { name: "interns", revision: 7 },
  spec: { description: "one endpoint", cedar: "forbid (principal, action, resource);" },
};
const DENIED: PolicyAnswer = {
  allowed: false,
  reason: "forbidden by interns (statement 1, line 1)",
  decided_by: [{ policy: "interns", statement: 1, line: 1, effect: "forbid" }],
  principal: 'Mesh::Key::"acme/ci"',
  principal_known: false,
  action: "model:infer",
  resource: 'Mesh::Model::"acme/digits"',
};
const SCHEMA = {
  schema: "",
  builtin: "",
  actions: [
    { name: "model:infer", about: "Calls a model.", resources: ["Model", "Endpoint"], role: null },
    { name: "device:drain", about: "Takes a device out.", resources: ["Device"], role: "operator" },
  ],
};

interface Asked {
  method: string;
  path: string;
  body: Record<string, unknown> | null;
  headers: Record<string, string>;
}

/** A mesh with these policies, which refuses a text without a semicolon; remembers what it was asked. */
function mesh(start: Policy[]): Asked[] {
  let all = start;
  const asked: Asked[] = [];
  const answer = (value: unknown, status = 200) =>
    Promise.resolve(new Response(status === 204 ? null : JSON.stringify(value), { status }));
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => {
    const method = init.method ?? "GET";
    const body = typeof init.body === "string" ? (JSON.parse(init.body) as Record<string, unknown>) : null;
    asked.push({ method, path, body, headers: init.headers as Record<string, string> });
    if (path.endsWith("/policy-schema")) return answer(SCHEMA);
    if (path.endsWith("/policy-test")) return answer(DENIED);
    if (method === "PUT") {
      const written = body as unknown as Policy;
      if (!written.spec.cedar.includes(";")) {
        const problem = { field: "spec.cedar", problem: "line 1, column 7: unexpected end of input" };
        return answer({ error: "nothing was written: see the problems", problems: [problem] }, 400);
      }
      all = [{ ...written, metadata: { ...written.metadata, revision: 8 } }];
      return answer(all[0]);
    }
    if (method === "DELETE") {
      all = [];
      return answer(undefined, 204);
    }
    return answer({ items: all });
  });
  return asked;
}
afterEach(() => vi.unstubAllGlobals());

const show = (role: Role = "admin") =>
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
        <MemoryRouter>
          <SessionContext value={{ who: "root", role }}>
            <Policies />
          </SessionContext>
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );

describe("the policies", () => {
  it("are listed, opened, and a question is asked with the text as it stands", async () => {
    const user = userEvent.setup();
    const asked = mesh([POLICY]);
    show();
    const table = within(await screen.findByRole("region", { name: "Policies" }));
    expect(table.getByText("one endpoint")).toBeTruthy();
    await user.click(table.getByRole("button", { name: "Open interns" }));
    const text = await screen.findByLabelText<HTMLTextAreaElement>(/Statements/);
    expect(text.value).toBe(POLICY.spec.cedar);
    await user.type(text, " // more");
    await user.click(screen.getByRole("button", { name: "Ask" }));
    expect(await screen.findByText("Denied")).toBeTruthy();
    expect(screen.getByText(DENIED.reason)).toBeTruthy();
    expect(screen.getByText(/has no record of who asks/)).toBeTruthy();
    const question = asked.find((one) => one.path.endsWith("/policy-test"));
    expect(question?.body).toMatchObject({
      principal: "Key/acme/ci",
      action: "model:infer",
      resource: "Model/acme/digits",
      policies: [{ name: "interns", cedar: `${POLICY.spec.cedar} // more` }],
    });
    expect(asked.some((one) => one.method === "PUT")).toBe(false);
  });
  it("ask without a draft as the mesh is, and a user with its issuer", async () => {
    const user = userEvent.setup();
    const asked = mesh([]);
    show("viewer");
    expect(await screen.findByText("No policy is declared")).toBeTruthy();
    expect(screen.getByText("As the mesh is now.")).toBeTruthy();
    const who = screen.getByLabelText(/Who/);
    await user.clear(who);
    await user.type(who, "User/acme/alice");
    await user.type(screen.getByLabelText(/Issuer/), "https://idp");
    await user.type(screen.getByLabelText(/In groups/), "a, b");
    await user.click(screen.getByRole("button", { name: "Ask" }));
    await screen.findByText("Denied");
    const question = asked.find((one) => one.path.endsWith("/policy-test"));
    expect(question?.body).toMatchObject({ issuer: "https://idp", groups: ["a", "b"], policies: [] });
  });
  it("are written and refused with their place", async () => {
    const user = userEvent.setup();
    const asked = mesh([]);
    show();
    await user.type(await screen.findByLabelText(/Name/), "p");
    const text = screen.getByLabelText(/Statements/);
    await user.clear(text);
    await user.type(text, "permit");
    await user.click(screen.getByRole("button", { name: "Write it" }));
    expect(await screen.findByText(/line 1, column 7: unexpected end/)).toBeTruthy();
    await user.type(text, ";");
    await user.click(screen.getByRole("button", { name: "Write it" }));
    expect(await screen.findByRole("button", { name: "Save" })).toBeTruthy();
    const put = asked.filter((one) => one.method === "PUT").at(-1);
    expect(put?.path).toBe("/admin/v1/policies/p");
    expect(put?.headers["if-none-match"]).toBe("*");
  });
  it("are deleted after a second thought, and by no viewer", async () => {
    const user = userEvent.setup();
    const asked = mesh([POLICY]);
    const { unmount } = show();
    await user.click(await screen.findByRole("button", { name: "Open interns" }));
    await user.click(await screen.findByRole("button", { name: "Delete" }));
    expect(asked.some((one) => one.method === "DELETE")).toBe(false);
    await user.click(screen.getByRole("button", { name: "Delete it, for good" }));
    expect(await screen.findByText("No policy is declared")).toBeTruthy();
    const gone = asked.find((one) => one.method === "DELETE");
    expect([gone?.path, gone?.headers["if-match"]]).toEqual(["/admin/v1/policies/interns", '"7"']);
    unmount();
    mesh([POLICY]);
    show("viewer");
    await user.click(await screen.findByRole("button", { name: "Open interns" }));
    await screen.findByLabelText(/Statements/);
    expect(screen.queryByRole("button", { name: "Delete" })).toBeNull();
    expect(screen.queryByRole("button", { name: "Save" })).toBeNull();
  });
});
