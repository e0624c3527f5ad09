// The page of the inference door's documents, as somebody reads it who calls models: the door's own document without a key, and a
// model's with one; in both colours, on a small screen, by keyboard, without a network beyond the door.
import { join } from "node:path";

import AxeBuilder from "@axe-core/playwright";

function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** Reads the page at the inference door `url` with a key that may call `model`. */
export async function documents({ browser, url, key, model, out }) {
  for (const scheme of ["light", "dark"]) {
    const context = await browser.newContext({ colorScheme: scheme, viewport: { width: 1360, height: 900 } });
    context.setDefaultTimeout(15_000);
    const page = await context.newPage();
    const complaints = [];
    const asked = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("request", (request) => asked.push(request.url()));
    const axe = async (where) => {
      const found = (await new AxeBuilder({ page }).analyze()).violations;
      const bad = found.filter((violation) => ["serious", "critical"].includes(violation.impact));
      check(bad.length === 0, `axe, ${where}: ${JSON.stringify(bad.map((one) => [one.id, one.nodes[0]?.target]))}`);
    };
    try {
      await page.goto(`${url}/v2/docs`);
      const infer = page.locator("#infer");
      await infer.locator("summary").waitFor();
      check((await page.locator("#operations details").count()) >= 15, "operations are missing");
      await infer.locator("summary").focus();
      await page.keyboard.press("Enter");
      await infer.getByRole("table", { name: "Answers" }).waitFor();
      check((await infer.innerText()).includes("x-request-timeout-ms"), "a header is missing");
      await page.goto(`${url}/v2/docs#schema-InferRequest`);
      await page.locator("#schema-InferRequest pre").waitFor();
      await page.screenshot({ path: join(out, `docs-${scheme}.png`), fullPage: true });
      await axe(`the door's document, ${scheme}`);

      await page.goto(`${url}/v2/docs?model=${model}`);
      await page.getByLabel("API key or JWT").fill(key);
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { level: 1, name: model, exact: true }).waitFor();
      await page.locator("#infer summary").click();
      const curl = await page.locator("#infer pre").innerText();
      check(curl.includes(`/v2/models/${model}/infer`) && curl.includes('"inputs"'), `curl: ${curl}`);
      check(!(await page.content()).includes(key) && !curl.includes(key), "the key is in the page");
      check(!page.url().includes(key), "the key is in the address");
      await page.screenshot({ path: join(out, `docs-model-${scheme}.png`), fullPage: true });
      await axe(`a model's document, ${scheme}`);
      await page.setViewportSize({ width: 390, height: 844 });
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      check(over <= 0, `${over} pixels too wide`);
      check(complaints.length === 0, `the browser complained: ${complaints.join("; ")}`);

      await page.getByRole("textbox", { name: "Model" }).fill("no-such-model");
      await page.getByRole("button", { name: "Show" }).click();
      await page.getByRole("alert").getByText("404").waitFor();
      const kept = await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length);
      check(kept === 0, "something is kept in the browser");
      const foreign = asked.filter((one) => !one.startsWith(url) && !one.startsWith("data:"));
      check(foreign.length === 0, `asked elsewhere: ${foreign}`);
    } finally {
      await context.close();
    }
  }
}
