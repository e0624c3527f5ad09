// A stand-in for the admin API, for working on the web app without a mesh: `node mock.mjs [PORT]` serves the built app and
// answers as the admin API does, with numbers that move. Never part of the mesh, and no test's judge: `run.mjs` is run
// against a real one.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../../admin-ui/web/dist/", import.meta.url));
const TOKEN = process.env.MESH_ADMIN_TOKEN ?? "meshadmin_mock";
const VIEWER = "meshadmin_viewer";
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".json": "application/json",
};
const CSP =
  "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const config = {
  max_batch_size: 64,
  input: [{ name: "pixels", datatype: "FP32", dims: [64] }],
  output: [{ name: "probabilities", datatype: "FP32", dims: [10] }],
};

const store = new Map();
const audit = [];
let revision = 0;
const now = () => new Date().toISOString();
function put(kind, tenant, name, spec, who = "root") {
  const key = [kind, tenant, name].filter(Boolean).join("/");
  const before = store.get(key);
  revision += 1;
  const resource = {
    apiVersion: "mesh/v1",
    kind,
    metadata: { ...(tenant && { tenant }), name, revision, created: before?.metadata.created ?? now(), updated: now() },
    spec,
  };
  store.set(key, resource);
  audit.push({
    revision,
    time: now(),
    who,
    source: "ui",
    changes: [{ action: before ? "changed" : "created", key }],
    hash: revision.toString(16).padStart(64, "0"),
  });
  return resource;
}
put("Tenant", null, "acme", {
  display_name: "Acme Corporation",
  weight: 2,
  limits: { requests: { per_second: 500, burst: 1000 } },
  suspended: false,
});
put("Tenant", null, "globex", { weight: 1, suspended: true });
for (const number of [1, 2])
  put("ModelVersion", "acme", `digit-classifier/${number}`, {
    format: "torchscript",
    artifact: { sha256: `${number}`.repeat(64), bytes: 40_000 * number },
    config,
    unloaded: false,
  });
put("Model", "acme", "digit-classifier", {
  description: "Reads handwritten digits",
  labels: { stable: 1, canary: 2 },
  default_version: "stable",
});
put("Endpoint", "acme", "digits", {
  description: "Handwritten digits",
  arms: [
    { name: "v1", model: "digit-classifier", version: "1", weight: 90 },
    { name: "v2", model: "digit-classifier", version: "2", weight: 10 },
  ],
  sticky_by: "user",
  salt: "5f".repeat(16),
});
put("ClientCertificate", "acme", "billing", {
  identity: { spiffe: "spiffe://example.org/ns/prod/sa/billing" },
  scopes: ["infer"],
  description: "invoices, at night",
});
put("ApiKey", "acme", "k1demo", {
  hash: "(redacted)",
  scopes: ["infer"],
  revoked: false,
  description: "the demo's load",
});

const isVersion = (item) => item.kind === "ModelVersion";
const counts = { v1: 0, v2: 0 };
const started = Date.now();
function overview() {
  const arms = store.get("Endpoint/acme/digits")?.spec.arms ?? [];
  const rps = 180 + 40 * Math.sin(Date.now() / 9000) + 10 * Math.random();
  const rows = arms.map((arm) => {
    const rate = (rps * arm.weight) / 100;
    counts[arm.name] = (counts[arm.name] ?? 0) + Math.round(rate / 10);
    return {
      tenant: "acme",
      target: "digits",
      arm: arm.name,
      version: Number(arm.version ?? 1),
      requests_per_second: rate,
      p50_ms: 0.8 + Math.random() / 5,
      p99_ms: 3 + Math.random(),
      ok: counts[arm.name],
      errors: 0,
      refused: 2,
    };
  });
  return {
    time: now(),
    uptime_seconds: (Date.now() - started) / 1000,
    in_flight: 3,
    totals: { ok: 1000, refused: 4, errors: 0 },
    rates: { requests_per_second: rps, errors_per_second: 0, refused_per_second: Math.random() < 0.2 ? 0.4 : 0 },
    latency_ms: { p50: 0.8 + Math.random() / 5, p90: 1.9, p99: 3 + Math.random() },
    endpoints: rows,
    devices: [
      {
        device: "cpu:0",
        draining,
        models: [...store.values()].filter(isVersion).map(({ metadata }) => ({
          tenant: metadata.tenant,
          model: metadata.name.split("/")[0],
          version: Number(metadata.name.split("/")[1]),
          state: metadata.name.startsWith("digit") ? "READY" : "FAILED",
          reason: metadata.name.startsWith("digit") ? null : "no TorchScript archive",
          memory_bytes: 80_000,
        })),
      },
    ],
  };
}
let draining = false;
function devices() {
  return overview().devices.map((device) => ({
    ...device,
    kind: "cpu",
    threads: 2,
    abandoned_threads: 0,
    in_flight: draining ? 0 : 3,
    open_sequences: 0,
    sequence_state_bytes: 0,
    up_seconds: (Date.now() - started) / 1000,
    busy_seconds: (Date.now() - started) / 2500,
    busy_fraction: 0.2,
    recent_busy_fraction: draining ? 0 : 0.3 + Math.random() / 10,
    memory_bytes: 80_000 * device.models.length,
    budget_bytes: 8_000_000_000,
    models: device.models.map((model) => ({
      ...model,
      queue_length: 2,
      requests: 1000,
      failed: 0,
      rows: 4000,
      executions: 250,
      mean_batch_rows: 16,
      mean_latency_ms: 1.4,
      mean_queue_ms: 0.6,
      mean_compute_ms: 0.5,
      cancelled: 1,
      expired: 0,
      rejected: 4,
      non_finite: 0,
      loads: 1,
      load_failures: 0,
      evictions: 0,
      idle_unloads: 0,
      crashed: 0,
      out_of_memory: 0,
      prediction_error: 0.08,
      sequences: null,
    })),
    tenants: [{ tenant: "acme", seconds: (Date.now() - started) / 2500 }],
    other_tenants_seconds: 0,
  }));
}
/** One door whose certificate ends soon, one whose new files do not fit, and one without TLS. */
function doors() {
  const day = 86_400_000;
  const at = (days) => new Date(Date.now() + days * day).toISOString();
  const certificate = (subject, days, standing) => ({
    subject,
    issuer: "CN=Example authority, O=Example",
    names: ["mesh.example.org", "10.0.0.7"],
    more_names: 0,
    not_before: at(-80),
    not_after: at(days),
    standing,
    sha256: "ab".repeat(32),
  });
  const tls = (more) => ({
    chain: 2,
    since: at(-2),
    renewals: 1,
    refused_since: null,
    oldest_version: "1.3",
    clients: "off",
    authorities: [],
    more_authorities: 0,
    ...more,
  });
  const callers = certificate("CN=Callers of Example", 900, "valid");
  return [
    {
      door: "inference",
      tls: tls({
        certificate: certificate("CN=mesh.example.org", 9, "ends_soon"),
        clients: "optional",
        authorities: [callers],
      }),
    },
    {
      door: "admin",
      tls: tls({ certificate: certificate("CN=admin.example.org", 70, "valid"), renewals: 0, refused_since: at(0) }),
    },
    { door: "metrics", tls: null },
  ];
}
const KINDS = {
  certificates: "ClientCertificate",
  tenants: "Tenant", keys: "ApiKey", models: "Model", versions: "ModelVersion", endpoints: "Endpoint" };
function softmax(pixels, version) {
  const scores = Array.from(
    { length: 10 },
    (_, digit) =>
      pixels.reduce((sum, pixel, at) => sum + pixel * Math.sin((digit + 1) * (at + 1) * 0.7), 0) /
      (version === 1 ? 40 : 20),
  );
  const top = Math.max(...scores);
  const raised = scores.map((score) => Math.exp(score - top));
  const total = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / total);
}

async function api(request, response, path, query) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const raw = Buffer.concat(chunks);
  const body = raw.length > 0 && request.headers["content-type"]?.includes("json") ? JSON.parse(raw.toString()) : {};
  const send = (status, json, headers = {}) =>
    response
      .writeHead(status, { "content-type": "application/json", ...headers })
      .end(json === undefined ? "" : JSON.stringify(json));
  const held = /mesh_session=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
  const role = held === "admin" || held === "viewer" ? held : null;
  if (path === "/session" && request.method === "POST") {
    const known = body.token === TOKEN ? "admin" : body.token === VIEWER ? "viewer" : null;
    return known
      ? send(204, undefined, { "set-cookie": `mesh_session=${known}; HttpOnly; SameSite=Strict; Path=/admin` })
      : send(401, { error: "this token is not known" });
  }
  if (path === "/sign-in") return send(200, { oidc: null });
  if (!role) return send(401, { error: "log in first" });
  if (path === "/session")
    return request.method === "DELETE"
      ? send(200, { provider: null }, { "set-cookie": "mesh_session=; Max-Age=0; Path=/admin" })
      : send(200, { who: role === "admin" ? "root" : "looker", role });
  if (path === "/events") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    let id = 0;
    const tick = () => response.write(`id: ${(id += 1)}\nevent: overview\ndata: ${JSON.stringify(overview())}\n\n`);
    tick();
    const timer = setInterval(tick, 1000);
    return request.on("close", () => clearInterval(timer));
  }
  if (path === "/overview") return send(200, overview());
  if (path === "/devices") return send(200, devices());
  const order = /^\/devices\/cpu%3A0\/(drain|undrain)$/.exec(path)?.[1];
  if (order && role === "admin") {
    draining = order === "drain";
    revision += 1;
    audit.push({ ...audit.at(-1), revision, time: now(), changes: [], event: `${order} cpu:0` });
    return send(200, devices()[0]);
  }
  if (path === "/audit")
    return send(200, {
      items: audit
        .filter((entry) => entry.revision > Number(query.get("after") ?? 0))
        .slice(0, Number(query.get("limit") ?? 50)),
      next: null,
      latest: audit.length,
      begins: 1,
    });
  if (path === "/door-certificates") return send(200, doors());
  if (path.endsWith("/cache/purge") && role === "admin") {
    const [, , tenant, , name] = path.split("/");
    const key = path.includes("/endpoints/") ? `Endpoint/${tenant}/${name}` : `Tenant/${tenant}`;
    revision += 1;
    audit.push({ ...audit.at(-1), revision, time: now(), changes: [], event: `purge cache of ${key}` });
    return send(200, { entries: 12, bytes: 34_000 });
  }
  if (path === "/audit/verify") return send(200, { valid: true, entries: audit.length, head: audit.at(-1).hash });
  if (request.method !== "GET" && role !== "admin") return send(403, { error: "this token may only look" });
  if (path === "/admin-tokens") return send(201, { token: VIEWER, resource: { metadata: { name: "viewer" } } });
  if (path.startsWith("/admin-tokens/")) return send(204);
  if (path === "/artifacts") return send(201, { sha256: "ab".repeat(32), bytes: raw.length });
  const parts = path.slice(1).split("/").map(decodeURIComponent);
  if (parts.length === 1 && KINDS[parts[0]])
    return send(200, {
      items: [...store.values()].filter(
        (item) =>
          item.kind === KINDS[parts[0]] && (!query.get("tenant") || item.metadata.tenant === query.get("tenant")),
      ),
      next: null,
    });
  if (path === "/key-uses") {
    const keys = [...store.values()].filter((item) => item.kind === "ApiKey");
    const mine = keys.filter((key) => !query.get("tenant") || key.metadata.tenant === query.get("tenant"));
    const use = ({ metadata }) => ({ tenant: metadata.tenant, key: metadata.name, last_used: null });
    return send(200, { items: mine.map(use), next: null });
  }
  const [, tenant, plural, name, more] = parts;
  if (more === "try") {
    const arms = store.get(`Endpoint/${tenant}/${name}`).spec.arms;
    return send(200, {
      arms: arms.map((arm) => ({
        arm: arm.name,
        version: Number(arm.version ?? 1),
        milliseconds: 0.9,
        response: {
          outputs: [
            {
              name: "probabilities",
              datatype: "FP32",
              shape: [1, 10],
              data: softmax(body.inputs[0].data, Number(arm.version ?? 1)),
            },
          ],
        },
      })),
    });
  }
  if (plural === "keys" && request.method === "POST") {
    const id = Math.random().toString(36).slice(2, 10);
    return send(201, {
      key: `mesh_live_${id}_${"Ab3".repeat(14)}x_0badcafe`,
      resource: put("ApiKey", tenant, id, { hash: "(redacted)", scopes: ["infer"], revoked: false, ...body }),
    });
  }
  if (more === "versions" && request.method === "POST") {
    const number = [...store.keys()].filter((key) => key.startsWith(`ModelVersion/${tenant}/${name}/`)).length + 1;
    put("Model", tenant, name, store.get(`Model/${tenant}/${name}`)?.spec ?? {});
    return send(201, put("ModelVersion", tenant, `${name}/${number}`, body.spec));
  }
  if (more === "versions" && request.method === "DELETE") {
    store.delete(`ModelVersion/${tenant}/${name}/${parts[5]}`);
    return send(204);
  }
  const kind = parts.length === 2 ? "Tenant" : KINDS[plural];
  const key = parts.length === 2 ? `Tenant/${tenant}` : `${kind}/${tenant}/${name}`;
  const found = store.get(key);
  if (request.method === "GET") return found ? send(200, found) : send(404, { error: `there is no ${key}` });
  const expected = /"(\d+)"/.exec(request.headers["if-match"] ?? "")?.[1];
  if ((expected && Number(expected) !== found?.metadata.revision) || (request.headers["if-none-match"] && found))
    return send(409, { error: `${key} is at revision ${found?.metadata.revision}` });
  if (request.method === "DELETE") {
    store.delete(key);
    return send(204);
  }
  if (query.get("dry_run")) return send(200, { before: found ?? null, after: { ...body, spec: body.spec } });
  return send(200, put(kind, kind === "Tenant" ? null : tenant, kind === "Tenant" ? tenant : name, body.spec));
}

createServer((request, response) => {
  const url = new URL(request.url, "http://mock");
  if (url.pathname.startsWith("/admin/v1"))
    return void api(request, response, url.pathname.slice("/admin/v1".length), url.searchParams);
  const file = join(DIST, normalize(url.pathname));
  const found = file.startsWith(DIST) && existsSync(file) && statSync(file).isFile() ? file : join(DIST, "index.html");
  response.writeHead(200, {
    "content-type": TYPES[extname(found)] ?? "application/octet-stream",
    "content-security-policy": CSP,
  });
  createReadStream(found).pipe(response);
}).listen(Number(process.argv[2] ?? 0), "127.0.0.1", function () {
  console.log(`http://127.0.0.1:${this.address().port}`);
});
