/** Calls the admin API. Every failure is an `ApiError` that says what the mesh said. */
import type { Problem } from "./types";

export const BASE = "/admin/v1";

export class ApiError extends Error {
  readonly status: number;
  readonly problems: Problem[];
  constructor(status: number, message: string, problems: Problem[] = []) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.problems = problems;
  }
}

export interface Call {
  method?: "GET" | "PUT" | "POST" | "DELETE";
  json?: unknown;
  body?: Blob;
  ifMatch?: number | undefined;
  createOnly?: boolean;
  signal?: AbortSignal;
}

let onUnauthenticated: () => void = () => undefined;
/** What to do when the mesh no longer knows the session. */
export function whenUnauthenticated(act: () => void): void {
  onUnauthenticated = act;
}

function headersOf(call: Call): Record<string, string> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (call.json !== undefined) headers["content-type"] = "application/json";
  if (call.body) headers["content-type"] = "application/octet-stream";
  if (call.ifMatch !== undefined) headers["if-match"] = `"${call.ifMatch}"`;
  if (call.createOnly) headers["if-none-match"] = "*";
  return headers;
}

async function failure(answer: Response): Promise<ApiError> {
  const text = await answer.text().catch(() => "");
  try {
    const body = JSON.parse(text) as { error?: unknown; problems?: Problem[] };
    const message = typeof body.error === "string" ? body.error : `the mesh answered ${answer.status}`;
    return new ApiError(answer.status, message, Array.isArray(body.problems) ? body.problems : []);
  } catch {
    return new ApiError(answer.status, `the mesh answered ${answer.status} ${answer.statusText}`.trim());
  }
}

/** One call; the answer's JSON, or undefined when it has none. */
export async function call<T>(path: string, options: Call = {}): Promise<T> {
  const init: RequestInit = {
    method: options.method ?? "GET",
    headers: headersOf(options),
    credentials: "same-origin",
  };
  if (options.json !== undefined) init.body = JSON.stringify(options.json);
  if (options.body) init.body = options.body;
  if (options.signal) init.signal = options.signal;
  let answer: Response;
  try {
    answer = await fetch(BASE + path, init);
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "the mesh cannot be reached: is it running, and is this its address?");
  }
  if (!answer.ok) {
    const error = await failure(answer);
    if (answer.status === 401 && !path.startsWith("/session") && path !== "/sign-in") onUnauthenticated();
    throw error;
  }
  if (answer.status === 204) return undefined as T;
  const text = await answer.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

const PAGE_SIZE = 100;
const MAX_PAGES = 20;

/** Every item of a list, page by page, up to 2,000. */
export async function listAll<T>(plural: string, tenant?: string): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null | undefined = null;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
    if (tenant) query.set("tenant", tenant);
    if (cursor) query.set("cursor", cursor);
    const answer: { items: T[]; next?: string | null } = await call(`/${plural}?${query}`);
    items.push(...answer.items);
    cursor = answer.next;
    if (!cursor) break;
  }
  return items;
}

/** Uploads a file and tells how far it is. `fetch` cannot tell. */
export function upload(file: Blob, progress: (fraction: number) => void): Promise<{ sha256: string; bytes: number }> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${BASE}/artifacts`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "the upload broke off: try again"));
    request.onload = () => {
      let body: { error?: string; sha256?: string; bytes?: number } = {};
      try {
        body = JSON.parse(request.responseText) as typeof body;
      } catch {
        // An answer that is no JSON is told by its status below.
      }
      if (request.status >= 200 && request.status < 300 && body.sha256)
        resolve({ sha256: body.sha256, bytes: body.bytes ?? file.size });
      else reject(new ApiError(request.status, body.error ?? `the mesh answered ${request.status}`));
    };
    request.send(file);
  });
}

export const segment = encodeURIComponent;
export const paths = {
  device: (device: string, action: "drain" | "undrain") => `/devices/${segment(device)}/${action}`,
  tenant: (tenant: string) => `/tenants/${segment(tenant)}`,
  policy: (name: string) => `/policies/${segment(name)}`,
  keys: (tenant: string) => `/tenants/${segment(tenant)}/keys`,
  key: (tenant: string, key: string) => `/tenants/${segment(tenant)}/keys/${segment(key)}`,
  model: (tenant: string, model: string) => `/tenants/${segment(tenant)}/models/${segment(model)}`,
  versions: (tenant: string, model: string) => `/tenants/${segment(tenant)}/models/${segment(model)}/versions`,
  endpoint: (tenant: string, endpoint: string) => `/tenants/${segment(tenant)}/endpoints/${segment(endpoint)}`,
};
