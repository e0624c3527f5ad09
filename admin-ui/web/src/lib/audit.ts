/** Reads an entry of the audit log. */
import type { AuditEntry } from "../api/types";

const text = (value: unknown): string => (typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value));
const record = (value: unknown): Record<string, unknown> => (typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {});

export const sequenceOf = (entry: AuditEntry): number => Number(entry["sequence"] ?? entry["revision"] ?? 0);

export function headOf(entry: AuditEntry) {
  const by = record(entry["by"] ?? entry["author"]);
  return {
    sequence: sequenceOf(entry),
    time: text(entry["time"] ?? entry["at"]),
    who: text(entry["who"] ?? by["who"]) || "–",
    source: text(entry["source"] ?? by["source"]),
    hash: text(entry["hash"]),
  };
}

/** One line for every change in it, such as "changed Endpoint/acme/digits". */
export function changesOf(entry: AuditEntry): string[] {
  const list = Array.isArray(entry["changes"]) ? (entry["changes"] as unknown[]) : [entry];
  return list.map((item) => {
    const change = record(item);
    const what = text(change["action"] ?? change["change"]);
    return `${what} ${text(change["key"])}`.trim();
  });
}
