// Draws the server's OpenAPI documents. Asks this server only; what is drawn is text, never markup; the key stays in a variable.
"use strict";

const at = (id) => document.getElementById(id);
let key = "";

function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") element.className = value;
    else if (name === "on") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function say(text) {
  at("told").textContent = text;
  setTimeout(() => { if (at("told").textContent === text) at("told").textContent = ""; }, 3000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser does not allow copying here: select the text and copy it.");
  }
}

const quote = (text) => "'" + String(text).replaceAll("'", "'\\''") + "'";

function resolve(root, value) {
  for (let depth = 0; value && value.$ref && depth < 16; depth += 1) {
    value = value.$ref.slice(2).split("/").reduce((found, part) => found && found[part], root);
  }
  return value || {};
}

function curl(root, verb, path, operation) {
  const parts = ["curl"];
  if (verb === "post") parts.push("-X POST");
  parts.push(quote(location.origin + path.replace("{model}", "MODEL").replace("{version}", "VERSION")));
  if (!operation.security) parts.push('-H "Authorization: Bearer $MESH_API_KEY"');
  const json = operation.requestBody && operation.requestBody.content["application/json"];
  if (json) {
    const schema = resolve(root, json.schema);
    const example = json.example || (schema.properties && schema.properties.inputs ? INPUTS : {});
    parts.push("-H 'Content-Type: application/json'", "-d " + quote(JSON.stringify(example)));
  }
  return parts.join(" \\\n  ");
}
const INPUTS = { inputs: [{ name: "x", datatype: "FP32", shape: [1, 2], data: [0.5, 1.5] }] };

function block(label, text) {
  return make("div", {}, make("pre", { tabindex: "0", "aria-label": label }, make("code", {}, text)),
    make("button", { type: "button", "aria-label": "Copy " + label, on: () => copy(text) }, "Copy"));
}

function table(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))));
  return make("table", { "aria-label": caption }, make("thead", {}, head), make("tbody", {}, ...body));
}

function linked(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return make("a", { href: "#schema-" + name }, name);
  }
  return make("code", {}, JSON.stringify(schema));
}

function drawn(root, verb, path, operation) {
  const parts = [];
  if (operation.security) parts.push(make("p", { class: "open" }, "Needs no credential."));
  const parameters = (operation.parameters || []).map((one) => resolve(root, one));
  if (parameters.length) {
    parts.push(make("h3", {}, "Parameters"), table("Parameters", ["Name", "Where", "Meaning", "Schema"], parameters.map((one) =>
      [make("code", {}, one.name), one.in, one.description || "", linked(one.schema)])));
  }
  const content = operation.requestBody ? Object.entries(operation.requestBody.content) : [];
  if (content.length) {
    parts.push(make("h3", {}, "Body"), table("Body", ["Type", "Schema"], content.map(([type, body]) => [type, linked(body.schema)])));
  }
  const answers = Object.entries(operation.responses).map(([status, one]) => {
    const answer = resolve(root, one);
    const bodies = Object.values(answer.content || {});
    return [make("code", {}, status), answer.description || "", linked(bodies.length ? bodies[0].schema : null)];
  });
  parts.push(make("h3", {}, "Answers"), table("Answers", ["Status", "When", "Body"], answers));
  parts.push(make("h3", {}, "Call it"), block("curl command", curl(root, verb, path, operation)));
  return make("details", { id: operation.operationId },
    make("summary", {}, make("span", { class: "verb " + verb }, verb), " ", make("code", {}, path), " ", operation.summary),
    make("div", {}, ...parts));
}

function draw(root) {
  at("title").textContent = root.info.title;
  document.title = root.info.title;
  at("about").textContent = root.info.description;
  const operations = Object.entries(root.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([verb, operation]) => ({ verb, path, operation })));
  const groups = root.tags.map((tag) => ({ tag, of: operations.filter((one) => one.operation.tags.includes(tag.name)) }));
  const sections = groups.filter((group) => group.of.length).flatMap(({ tag, of }) => [
    make("h2", {}, tag.name), make("p", { class: "hint" }, tag.description),
    ...of.map(({ verb, path, operation }) => drawn(root, verb, path, operation))]);
  at("operations").replaceChildren(...sections);
  at("contents").replaceChildren(make("ul", {}, ...operations.map(({ verb, path, operation }) =>
    make("li", {}, make("a", { href: "#" + operation.operationId }, verb.toUpperCase() + " " + path)))));
  const schemas = Object.entries(root.components.schemas).map(([name, schema]) =>
    make("details", { id: "schema-" + name },
      make("summary", {}, name, schema.title ? ": " + schema.title : "", schema.description ? " — " + schema.description : ""),
      make("div", {}, block("schema " + name, JSON.stringify(schema, null, 2)))));
  at("schemas").replaceChildren(make("h2", {}, "Schemas"), ...schemas);
  open();
}

function open() {
  const target = location.hash.length > 1 ? at(decodeURIComponent(location.hash.slice(1))) : null;
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}

function address() {
  const model = at("model").value.trim(), version = at("version").value.trim();
  if (!model) return "openapi.json";
  const part = version ? "/versions/" + encodeURIComponent(version) : "";
  return "models/" + encodeURIComponent(model) + part + "/openapi.json";
}

async function show() {
  at("problem").textContent = "";
  try {
    const headers = key && at("model").value.trim() ? { authorization: "Bearer " + key } : {};
    const answer = await fetch(address(), { headers, credentials: "omit", cache: "no-store" });
    const body = await answer.json();
    if (!answer.ok) throw new Error(answer.status + ": " + (body.error || "no reason was given"));
    draw(body);
  } catch (error) {
    at("problem").textContent = error.message;
  }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  const asked = new URLSearchParams();
  for (const name of ["model", "version"]) if (at(name).value.trim()) asked.set(name, at(name).value.trim());
  history.replaceState(null, "", asked.size ? "?" + asked : location.pathname);
  show();
});
window.addEventListener("hashchange", open);

const given = new URLSearchParams(location.search);
for (const name of ["model", "version"]) at(name).value = given.get(name) || "";
if (at("model").value) {
  at("about").textContent = "Enter a key and choose Show.";
  at("key").focus();
} else {
  show();
}
