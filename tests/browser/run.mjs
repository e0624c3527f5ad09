// Uses the admin app as a person would, in a real browser, against a real mesh that the demo's resources were applied to:
// tenant acme, endpoint digits with the arms v1 and v2 on the model digit-classifier.
//
//   node run.mjs --out DIR      needs MESH_ADMIN_URL, MESH_ADMIN_TOKEN; MESH_CHROMIUM names another Chromium; with MESH_URL and
//                               MESH_API_KEY the inference door's page of documents is read too
//
// Ends with `N passed, N failed` and exit code 0 or 1. Leaves a screenshot of every page, light and dark, in DIR.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

import { documents } from "./docs.mjs";

const outAt = process.argv.indexOf("--out");
const out = outAt > 0 ? process.argv[outAt + 1] : "out";
const base = process.env.MESH_ADMIN_URL;
const token = process.env.MESH_ADMIN_TOKEN;
if (!base || !token || !out) {
  console.error("set MESH_ADMIN_URL and MESH_ADMIN_TOKEN, and give --out DIR");
  process.exit(2);
}
const TENANT = "acme";
const ENDPOINT = "digits";
const MODEL = "digit-classifier";
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const WAIT = 15_000;
const PAGES = [
  ["overview", "/", "Overview"],
  ["endpoints", "/endpoints", "Endpoints"],
  ["endpoint", `/endpoints/${TENANT}/${ENDPOINT}`, ENDPOINT],
  ["endpoint-new", "/endpoints/new", "New endpoint"],
  ["models", "/models", "Models"],
  ["model", `/models/${TENANT}/${MODEL}`, MODEL],
  ["publish", `/models/publish?tenant=${TENANT}&model=${MODEL}`, "Publish a version"],
  ["devices", "/devices", "Devices"],
  ["tenants", "/tenants", "Tenants"],
  ["tenant", `/tenants/${TENANT}`, TENANT],
  ["certificates", "/certificates", "Certificates"],
  ["policies", "/policies", "Policies"],
  ["audit", "/audit", "Audit"],
  ["not-found", "/no-such-page", "Not found"],
];

await mkdir(out, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.MESH_CHROMIUM ?? "/usr/bin/chromium",
  args: ARGUMENTS,
});
const context = await browser.newContext({
  viewport: { width: 1360, height: 900 },
  colorScheme: "light",
  reducedMotion: "reduce",
});
context.setDefaultTimeout(WAIT);
const page = await context.newPage();

// What the browser itself complains of: script errors, policy violations, failed loads.
let complaints = [];
const EXPECTED = new Set();
page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
page.on("console", (message) => {
  if (message.type() !== "error" && !/content.security.policy/i.test(message.text())) return;
  // Chromium logs every answer over 399; those that a step is about are not complaints.
  const status = /status of (\d{3})/.exec(message.text())?.[1];
  if (status && EXPECTED.has(status)) return;
  complaints.push(`console: ${message.text()} ${message.location().url}`);
});

let passed = 0;
let failed = 0;
async function step(name, act) {
  complaints = [];
  try {
    await act();
    if (complaints.length > 0) throw new Error(`the browser complained:\n    ${complaints.join("\n    ")}`);
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n    ${String(error.message).split("\n").slice(0, 14).join("\n    ")}`);
    await page.screenshot({ path: join(out, `failed-${failed}.png`), fullPage: true }).catch(() => undefined);
  }
}
function check(condition, message) {
  if (!condition) throw new Error(message);
}
// A page may load several lists at a time.
const nothingLoads = (on) =>
  on.waitForFunction(() => !document.querySelector('[role="status"][aria-label="Loading"]'));
const heading = (name) => page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
const open = async (path, name) => {
  await page.goto(base + path);
  await heading(name);
};
const percentBox = (arm) => page.getByLabel(`Percent for arm ${arm}`);
const percentOf = async (arm) => Number.parseFloat(await percentBox(arm).inputValue());
const settled = async () => {
  await nothingLoads(page);
  await page.waitForTimeout(350);
};
async function axe() {
  const found = await new AxeBuilder({ page }).analyze();
  const bad = found.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
  const told = bad.flatMap((violation) =>
    violation.nodes.map((node) => `${violation.id}: ${node.target.join(" ")} ${node.any[0]?.message ?? ""}`),
  );
  check(bad.length === 0, `axe:\n${told.join("\n")}`);
}
/** A picture of the whole page, from its top: the fixed header would be in the middle of it. */
async function picture(name) {
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
}
/** The endpoint as the API has it, asked with the page's own session. */
const stored = () =>
  page.evaluate(
    async ([tenant, name]) => (await fetch(`/admin/v1/tenants/${tenant}/endpoints/${name}`)).json(),
    [TENANT, ENDPOINT],
  );
async function saveSplit(arm, percent) {
  await percentBox(arm).fill(String(percent));
  await percentBox(arm).blur();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog", { name: "What changes" }).waitFor();
}
const confirm = async () => {
  const dialog = page.getByRole("dialog", { name: "What changes" });
  await dialog.getByRole("button", { name: "Save", exact: true }).click();
  await dialog.waitFor({ state: "hidden" });
};

await step("a wrong token is refused, in words", async () => {
  EXPECTED.add("401");
  await page.goto(`${base}/tenants/${TENANT}`);
  await page.getByLabel("Admin token", { exact: false }).first().fill("meshadmin_wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("This token is not known").waitFor();
  await axe();
  await page.screenshot({ path: join(out, "login.png") });
});
await step("the admin token logs in and the address asked for is shown", async () => {
  await page.getByLabel("Admin token", { exact: false }).first().fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await heading(TENANT);
  EXPECTED.clear();
});
await step("the session is still there after a reload, and out of reach of scripts", async () => {
  await page.reload();
  await heading(TENANT);
  check(!(await page.evaluate(() => document.cookie)).includes("mesh_session"), "scripts can read the session cookie");
});
await step("the overview is live", async () => {
  await open("/", "Overview");
  await page.getByText("Live", { exact: true }).waitFor();
  const chart = page.getByRole("figure", { name: "Requests per second" });
  await chart.getByRole("button", { name: "Show table" }).click();
  const rows = () => chart.getByRole("row").count();
  await page.waitForTimeout(1_500);
  const before = await rows();
  await page.waitForTimeout(3_000);
  check((await rows()) > before, `the table has ${before} rows and gets no more`);
  check((await chart.locator("figcaption").innerText()).includes("requests: now"), "the chart has no sentence");
  await chart.getByRole("button", { name: "Show chart" }).click();
  await chart.locator("canvas").waitFor();
});
await step("the endpoint's live numbers change", async () => {
  await open(`/endpoints/${TENANT}/${ENDPOINT}`, ENDPOINT);
  const live = page.getByRole("region", { name: "Live by arm" });
  await live.waitFor();
  const counted = async () => (await live.locator("tbody tr").allInnerTexts()).join("\n");
  const before = await counted();
  await page.waitForTimeout(4_000);
  check((await counted()) !== before, `nothing moved in four seconds: ${before}`);
});
await step("weights that do not sum to 100 cannot be saved", async () => {
  await page.getByRole("button", { name: "Add an arm" }).click();
  await percentBox("v3").fill("7");
  await percentBox("v3").blur();
  await page.getByText(/sum to 107, they must sum to 100: 7 too much/).waitFor();
  check(await page.getByRole("button", { name: "Review and save" }).isDisabled(), "it can be saved");
  await page.getByRole("button", { name: "Discard" }).click();
  check((await percentBox("v3").count()) === 0, "the third arm is still there");
});
await step("the split is changed, shown as a diff, saved and kept", async () => {
  const before = await percentOf("v1");
  const target = before === 60 ? 70 : 60;
  await saveSplit("v1", target);
  const dialog = page.getByRole("dialog", { name: "What changes" });
  check((await dialog.innerText()).includes("arms.v1.weight"), "the diff does not name the weight");
  await page.waitForTimeout(350);
  await axe();
  await page.screenshot({ path: join(out, "diff.png") });
  await confirm();
  check((await percentOf("v2")) === 100 - target, "the other arm did not take the rest");
  const arms = (await stored()).spec.arms;
  check(arms.find((arm) => arm.name === "v1").weight === target, `the mesh has ${JSON.stringify(arms)}`);
  await page.reload();
  await percentBox("v1").waitFor();
  check((await percentOf("v1")) === target, "after a reload it is gone");
});
await step("an edit survives that somebody else saved first", async () => {
  EXPECTED.add("409").add("412");
  await percentBox("v1").fill("55");
  await percentBox("v1").blur();
  const status = await page.evaluate(
    async ([tenant, name]) => {
      const path = `/admin/v1/tenants/${tenant}/endpoints/${name}`;
      const found = await (await fetch(path)).json();
      found.spec.description = `Handwritten digits, ${Date.now()}`;
      const answer = await fetch(path, {
        method: "PUT",
        headers: { "content-type": "application/json", "if-match": `"${found.metadata.revision}"` },
        body: JSON.stringify({ ...found, metadata: { tenant, name } }),
      });
      return answer.status;
    },
    [TENANT, ENDPOINT],
  );
  check(status === 200, `the other write got ${status}`);
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByText("Somebody else has changed this endpoint").waitFor();
  check((await percentOf("v1")) === 55, "the edit is lost");
  await settled();
  await axe();
  await picture("conflict");
  await page.getByRole("button", { name: "Keep my edit, on top of theirs" }).click();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog", { name: "What changes" }).waitFor();
  await confirm();
  const after = await stored();
  check(after.spec.arms[0].weight === 55, "the edit was not saved");
  EXPECTED.clear();
});
async function probabilities() {
  const table = page.getByRole("region", { name: "Probabilities by class" });
  await table.waitFor();
  return table
    .locator("tbody tr")
    .evaluateAll((rows) =>
      rows.map((row) =>
        [...row.querySelectorAll("[data-probability]")].map((cell) => Number(cell.dataset.probability)),
      ),
    );
}
const checkProbabilities = (rows) => {
  check(rows.length === 10, `${rows.length} classes`);
  for (const arm of [0, 1]) {
    const sum = rows.reduce((total, row) => total + row[arm], 0);
    check(Math.abs(sum - 1) < 0.01, `arm ${arm} sums to ${sum}`);
  }
};
await step("a drawn digit is answered by both versions", async () => {
  const grid = page.getByRole("grid");
  await grid.scrollIntoViewIfNeeded();
  const box = await grid.boundingBox();
  const at = (x, y) => [box.x + (x / 8) * box.width, box.y + (y / 8) * box.height];
  const answered = page.waitForResponse((response) => response.url().endsWith("/try"));
  await page.mouse.move(...at(2.2, 1));
  await page.mouse.down();
  for (const [x, y] of [
    [5.8, 1],
    [4.6, 3.4],
    [3.8, 5],
    [3.2, 7.3],
  ])
    await page.mouse.move(...at(x, y), { steps: 6 });
  await page.mouse.up();
  const response = await answered;
  check(response.ok(), `the mesh answered ${response.status()}`);
  checkProbabilities(await probabilities());
  const said = await page.getByText(/v1 says \d .*v2 says \d/).innerText();
  console.log(`        a drawn seven: ${said}`);
  await picture("draw");
});
await step("handwritten digits are read right", async () => {
  let right = 0;
  for (const digit of [0, 3, 4, 6, 8]) {
    const answered = page.waitForResponse((response) => response.url().endsWith("/try"));
    await page.getByRole("button", { name: `Load a handwritten ${digit}` }).click();
    await answered;
    await page.waitForTimeout(150);
    const rows = await probabilities();
    checkProbabilities(rows);
    const best = rows.map((row) => row[1]).indexOf(Math.max(...rows.map((row) => row[1])));
    right += best === digit ? 1 : 0;
  }
  console.log(`        v2 read ${right} of 5 right`);
  check(process.env.MESH_MOCK || right >= 4, `v2 read only ${right} of 5`);
});
await step("the drawing works by keyboard", async () => {
  await page.getByRole("button", { name: "Clear", exact: true }).click();
  await page.locator('[data-cell="0"]').focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  const answered = page.waitForResponse((response) => response.url().endsWith("/try"));
  await page.keyboard.press("Space");
  await answered;
  const label = await page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  check(label === "row 2, column 2: 16 of 16", `the cell says ${label}`);
});
await step("a written input is answered too", async () => {
  await page.getByText("JSON", { exact: true }).click();
  const answered = page.waitForResponse((response) => response.url().endsWith("/try"));
  await page.getByRole("button", { name: "Send to every arm" }).click();
  await answered;
  checkProbabilities(await probabilities());
});
await step("a key is shown once and then revoked", async () => {
  await open(`/tenants/${TENANT}`, TENANT);
  const purpose = `browser test ${Date.now()}`;
  await page.getByRole("button", { name: "Create a key" }).click();
  await page.getByLabel("What for").fill(purpose);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  const shown = await page.getByRole("region", { name: "The new API key" }).innerText();
  check(/^mesh_[a-z]+_[A-Za-z0-9-]+_/.test(shown), `shown: ${shown.slice(0, 12)}..`);
  await settled();
  await axe();
  await page.screenshot({
    path: join(out, "key.png"),
    mask: [page.getByRole("region", { name: "The new API key" })],
    maskColor: "#8a979f",
  });
  await page.getByRole("button", { name: "I have it" }).click();
  await page.getByText(purpose).waitFor();
  check(!(await page.content()).includes(shown), "the key is still in the page");
  await page
    .getByRole("row")
    .filter({ hasText: purpose })
    .getByRole("button", { name: /Revoke/ })
    .click();
  const sure = page.getByRole("dialog", { name: "Revoke this key?" });
  await sure.getByRole("button", { name: "Revoke", exact: true }).click();
  await sure.waitFor({ state: "hidden" });
  await page.getByRole("row").filter({ hasText: purpose }).getByText("revoked").waitFor();
});
await step("a tenant's cache is purged after a question, and what was forgotten is said", async () => {
  await open(`/tenants/${TENANT}`, TENANT);
  await page.getByRole("button", { name: "Purge cache" }).click();
  const sure = page.getByRole("dialog", { name: `Purge the cache of ${TENANT}?` });
  await sure.getByText("computed again").waitFor();
  await settled();
  await axe();
  await page.screenshot({ path: join(out, "purge.png") });
  await sure.getByRole("button", { name: "Purge", exact: true }).click();
  // The demo's endpoint remembers nothing.
  await sure.getByText(/^(No answer was remembered\.|Forgot .* in all\.)$/).waitFor();
  await page.screenshot({ path: join(out, "purged.png") });
  await sure.getByText("Close", { exact: true }).click();
  await sure.waitFor({ state: "hidden" });
  await open("/audit", "Audit");
  await page.getByText(`purge cache of Tenant/${TENANT}`).first().waitFor();
});
await step("an endpoint is made, and deleted by typing its name", async () => {
  await open("/endpoints/new", "New endpoint");
  await page.getByLabel("Tenant").first().click();
  await page.getByRole("option", { name: TENANT, exact: true }).click();
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("browser-test");
  await page.getByLabel("Model", { exact: true }).first().fill(MODEL);
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog", { name: "What changes" }).waitFor();
  await confirm();
  await heading("browser-test");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Delete browser-test" });
  check(await dialog.getByRole("button", { name: "Delete" }).isDisabled(), "it can be deleted without its name");
  await dialog.getByLabel("Name").fill("browser-test");
  await dialog.getByRole("button", { name: "Delete" }).click();
  await heading("Endpoints");
  await settled();
  check((await page.getByRole("link", { name: "browser-test" }).count()) === 0, "it is still listed");
});
await step("a file that is no model is published, and the page says that it does not load", async () => {
  await open(`/models/publish?tenant=${TENANT}&model=browser-test`, "Publish a version");
  const file = { name: "no-model.pt", mimeType: "application/octet-stream", buffer: Buffer.from("no model") };
  await page.locator('input[type="file"]').setInputFiles(file);
  await page.getByText("no-model.pt, 8 B").waitFor();
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await heading("browser-test");
  await page
    .getByText(/: failed/)
    .first()
    .waitFor();
  await settled();
  await axe();
  await picture("failed-to-load");
  const gone = await page.evaluate(async (tenant) => {
    const model = `/admin/v1/tenants/${tenant}/models/browser-test`;
    const version = await fetch(`${model}/versions/1`, { method: "DELETE" });
    return [version.status, (await fetch(model, { method: "DELETE" })).status];
  }, TENANT);
  check(
    gone.every((status) => status === 204),
    `taking it away got ${gone}`,
  );
});
await step("a device is drained after a question, refuses, and serves again when undrained", async () => {
  await open("/devices", "Devices");
  const device = page.getByRole("region", { name: "cpu:0", exact: true });
  await device.getByText("serving").waitFor();
  const busy = device.getByRole("meter", { name: "Busy since the start" });
  check(Number(await busy.getAttribute("aria-valuenow")) >= 0, "it does not say how busy the device is");
  await device.getByRole("region", { name: "Models on cpu:0" }).getByText(`${TENANT}/${MODEL}`).first().waitFor();
  const shares = await device.getByRole("region", { name: "Time of cpu:0 by tenant" }).locator("tbody tr").allInnerTexts();
  check(
    shares.some((row) => row.includes(TENANT)),
    `no time of ${TENANT}: ${shares}`,
  );
  // By keyboard, there and back.
  await device.getByRole("button", { name: "Drain cpu:0" }).focus();
  await page.keyboard.press("Enter");
  const sure = page.getByRole("dialog", { name: "Drain cpu:0?" });
  await sure.getByText("every call is answered with 503").waitFor();
  await settled();
  await axe();
  await page.screenshot({ path: join(out, "drain.png") });
  await page.keyboard.press("Escape");
  await sure.waitFor({ state: "hidden" });
  await device.getByText("serving").waitFor();
  await device.getByRole("button", { name: "Drain cpu:0" }).click();
  await sure.getByRole("button", { name: "Drain", exact: true }).click();
  await sure.waitFor({ state: "hidden" });
  await device.getByText("drained").waitFor();
  await settled();
  await axe();
  await picture("drained");
  await device.getByRole("button", { name: "Undrain cpu:0" }).click();
  const back = page.getByRole("dialog", { name: "Undrain cpu:0?" });
  await back.getByRole("button", { name: "Undrain", exact: true }).click();
  await back.waitFor({ state: "hidden" });
  await device.getByText("serving").waitFor();
});
await step("the audit trail names what happened to the device", async () => {
  await open("/audit", "Audit");
  await page.getByText("undrain cpu:0").first().waitFor();
});
await step("an endpoint's class and a tenant's isolation are changed and kept by other edits", async () => {
  await open(`/endpoints/${TENANT}/${ENDPOINT}`, ENDPOINT);
  await page.getByLabel("Service class").selectOption("batch");
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog", { name: "What changes" }).getByText("service_class").waitFor();
  await confirm();
  await saveSplit("v1", 65);
  await confirm();
  const kept = (await stored()).spec;
  check(kept.service_class === "batch" && kept.arms[0].weight === 65, `the mesh has ${JSON.stringify(kept)}`);
  await page.getByLabel("Service class").selectOption("interactive");
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog", { name: "What changes" }).waitFor();
  await confirm();
  const tenant = () => page.evaluate(async (name) => (await fetch(`/admin/v1/tenants/${name}`)).json(), TENANT);
  const put = (response) => response.request().method() === "PUT" && response.url().endsWith(`/tenants/${TENANT}`);
  await open(`/tenants/${TENANT}`, TENANT);
  for (const isolation of ["isolated", "shared"]) {
    await page.getByRole("switch", { name: /^Isolated/ }).click();
    const save = page.getByRole("button", { name: "Save", exact: true });
    const [saved] = await Promise.all([page.waitForResponse(put), save.click()]);
    check(saved.ok(), `saving got ${saved.status()}`);
    const spec = (await tenant()).spec;
    check((spec.isolation ?? "shared") === isolation, `the mesh has ${JSON.stringify(spec)}`);
    await settled();
  }
});
await step("the audit chain holds, and names this session's change", async () => {
  await open("/audit", "Audit");
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await page.getByText("The chain holds.").waitFor();
  await page.getByText(`Endpoint/${TENANT}/${ENDPOINT}`).first().waitFor();
  const numbers = (await page.locator("tbody td:first-child").allInnerTexts()).map(Number);
  check(
    numbers.length > 1 && numbers.every((number, at) => at === 0 || number < numbers[at - 1]),
    `not the newest first: ${numbers}`,
  );
});
for (const scheme of ["light", "dark"]) {
  await step(`${scheme} colours by the toggle`, async () => {
    await open("/", "Overview");
    const toggle = page.getByRole("button", { name: `Switch to ${scheme} colours` });
    if (await toggle.count()) await toggle.click();
    const now = await page.evaluate(() => document.documentElement.dataset.mantineColorScheme);
    check(now === scheme, `the page is ${now}`);
  });
  for (const [name, path, title] of PAGES) {
    await step(`${name}, ${scheme}: no serious fault by axe, nothing on the console`, async () => {
      await open(path, title);
      await settled();
      if (name === "overview" || name === "endpoint") await page.waitForTimeout(2_500);
      await picture(`${name}-${scheme}`);
      await axe();
    });
  }
}
await step("a small screen shows everything without scrolling sideways", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  for (const [name, path, title] of PAGES) {
    await open(path, title);
    await settled();
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    await picture(`${name}-small`);
    check(over <= 0, `${name} is ${over} pixels too wide`);
  }
  await page.setViewportSize({ width: 1360, height: 900 });
});
await step("when the stream is lost the page says that its numbers are old", async () => {
  await open("/", "Overview");
  await page.getByText("Live", { exact: true }).waitFor();
  EXPECTED.add("401").add("503");
  await page.route("**/admin/v1/events", (route) => route.fulfill({ status: 503, body: "" }));
  await page.route("**/admin/v1/overview", (route) => route.fulfill({ status: 503, body: "" }));
  await page.reload();
  await page.getByText("These numbers are old").waitFor({ timeout: 20_000 });
  await page.screenshot({ path: join(out, "stale.png") });
  await page.unrouteAll();
  await page.getByText("Live", { exact: true }).waitFor({ timeout: 20_000 });
  EXPECTED.clear();
});
await step("a viewer sees everything and can change nothing", async () => {
  const made = await page.evaluate(async () => {
    const answer = await fetch("/admin/v1/admin-tokens", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ role: "viewer" }),
    });
    return answer.json();
  });
  const other = await browser.newContext({
    viewport: { width: 1360, height: 900 },
    colorScheme: "light",
    reducedMotion: "reduce",
  });
  const view = await other.newPage();
  try {
    await view.goto(`${base}/endpoints/${TENANT}/${ENDPOINT}`);
    await view.getByLabel("Admin token", { exact: false }).first().fill(made.token);
    await view.getByRole("button", { name: "Log in" }).click();
    await view.getByText("Read only").waitFor();
    await view.getByLabel("Percent for arm v1").waitFor();
    check(await view.getByLabel("Percent for arm v1").isDisabled(), "the split can be edited");
    check(await view.getByRole("button", { name: "Review and save" }).isDisabled(), "the split can be saved");
    check((await view.getByRole("button", { name: "Delete" }).count()) === 0, "the endpoint can be deleted");
    await view.screenshot({ path: join(out, "viewer.png"), fullPage: true });
    const status = await view.evaluate(
      async (tenant) =>
        (
          await fetch(`/admin/v1/tenants/${tenant}/keys`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: "{}",
          })
        ).status,
      TENANT,
    );
    check(status === 403, `making a key got ${status}, not 403`);
  } finally {
    await other.close();
    await page.evaluate(
      (name) => fetch(`/admin/v1/admin-tokens/${name}`, { method: "DELETE" }),
      made.resource.metadata.name,
    );
  }
});
await step("who is bound to a tenant sees that tenant, live, and no broken panel", async () => {
  const made = await page.evaluate(async (tenant) => {
    const answer = await fetch("/admin/v1/admin-tokens", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ role: "admin", tenant }),
    });
    return answer.json();
  }, TENANT);
  const other = await browser.newContext({ viewport: { width: 1360, height: 900 }, reducedMotion: "reduce" });
  const view = await other.newPage();
  const refused = [];
  view.on("response", (response) => response.status() >= 400 && refused.push(`${response.status()} ${response.url()}`));
  try {
    await view.goto(base);
    await view.getByLabel("Admin token", { exact: false }).first().fill(made.token);
    await view.getByRole("button", { name: "Log in" }).click();
    await view.getByRole("heading", { level: 1, name: "Overview", exact: true }).waitFor();
    // What was asked before anybody was there does not count.
    refused.length = 0;
    await view.getByText("Live", { exact: true }).waitFor();
    await view.getByText(`Requests of ${TENANT} alone`).waitFor();
    const called = await view.getByRole("region", { name: "Traffic now" }).locator("tbody tr").allInnerTexts();
    check(called.length > 0 && called.every((row) => row.startsWith(`${TENANT}/`)), `rows: ${called}`);
    await view.getByRole("region", { name: "Devices and their models" }).getByText(`${TENANT}/${MODEL}`).first().waitFor();
    for (const scheme of ["light", "dark"]) {
      await view.emulateMedia({ colorScheme: scheme });
      await view.waitForTimeout(1_500);
      await view.screenshot({ path: join(out, `bound-${scheme}.png`), fullPage: true });
    }
    for (const [name, path, title] of PAGES.filter(([name]) => name !== "not-found")) {
      await view.goto(base + path);
      await view.getByRole("heading", { level: 1, name: title, exact: true }).waitFor();
      await nothingLoads(view);
      check((await view.getByRole("alert").count()) === 0, `${name} shows a failure`);
    }
    check(refused.length === 0, `refused: ${refused.join(", ")}`);
  } finally {
    await other.close();
    await page.evaluate(
      (name) => fetch(`/admin/v1/admin-tokens/${name}`, { method: "DELETE" }),
      made.resource.metadata.name,
    );
  }
});
if (process.env.MESH_URL && process.env.MESH_API_KEY) {
  await step("the inference door's documents are shown, a model's with a key that is not kept", () =>
    documents({ browser, url: process.env.MESH_URL, key: process.env.MESH_API_KEY, model: MODEL, out }),
  );
}
await step("logging out ends the session", async () => {
  EXPECTED.add("401");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "mesh admin" }).waitFor();
  const status = await page.evaluate(async () => (await fetch("/admin/v1/overview")).status);
  check(status === 401, `the API still answers ${status}`);
});

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
