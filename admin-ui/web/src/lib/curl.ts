/** The same call for a terminal. Values are quoted for a POSIX shell. */
import { BASE } from "../api/client";

export const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

export interface CurlCall {
  method: string;
  path: string;
  json?: unknown;
  headers?: Record<string, string>;
  file?: string;
}

export function curl(call: CurlCall, origin = window.location.origin): string {
  const lines = [
    `curl -X ${call.method} ${quote(origin + BASE + call.path)}`,
    `-H "Authorization: Bearer $MESH_ADMIN_TOKEN"`,
  ];
  for (const [name, value] of Object.entries(call.headers ?? {})) lines.push(`-H ${quote(`${name}: ${value}`)}`);
  if (call.json !== undefined)
    lines.push("-H 'Content-Type: application/json'", `-d ${quote(JSON.stringify(call.json))}`);
  if (call.file) lines.push(`--data-binary ${quote(`@${call.file}`)}`);
  return lines.join(" \\\n  ");
}
