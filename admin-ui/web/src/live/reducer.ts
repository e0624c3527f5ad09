/**
 * The last five minutes of the mesh, one sample a second. Pure: what comes in and when is passed in. Bounded: samples,
 * and the arms that a sample knows.
 */
import type { LiveRow, Overview } from "../api/types";

export const MAX_SAMPLES = 300;
export const MAX_ARMS_KEPT = 200;
/** Without news for this long, what is shown is old. */
export const STALE_AFTER_MS = 10_000;

export interface Sample {
  /** Seconds since 1970, as charts want it. */
  time: number;
  requests: number;
  errors: number;
  refused: number;
  p50: number | null;
  p99: number | null;
  arms: Record<string, number>;
}

export interface Live {
  latest: Overview | null;
  samples: Sample[];
  /** When the last news came, in milliseconds of the local clock. */
  heard: number | null;
}

export const EMPTY: Live = { latest: null, samples: [], heard: null };

export const armKey = (row: Pick<LiveRow, "tenant" | "target" | "arm">): string =>
  `${row.tenant}/${row.target}/${row.arm ?? ""}`;

const number = (value: number | null | undefined): number | null =>
  typeof value === "number" && Number.isFinite(value) ? value : null;

/** Takes news in. News that is not newer than the last replaces it: a reconnect sends the same second again. */
export function reduce(live: Live, overview: Overview, now: number): Live {
  const stated = new Date(overview.time).getTime();
  const time = Math.floor((Number.isFinite(stated) ? stated : now) / 1000);
  const arms: Record<string, number> = {};
  for (const row of overview.endpoints.slice(0, MAX_ARMS_KEPT)) {
    const key = armKey(row);
    arms[key] = (arms[key] ?? 0) + row.requests_per_second;
  }
  const sample: Sample = {
    time,
    requests: overview.rates.requests_per_second,
    errors: overview.rates.errors_per_second,
    refused: overview.rates.refused_per_second,
    p50: number(overview.latency_ms.p50),
    p99: number(overview.latency_ms.p99),
    arms,
  };
  const older = live.samples.filter((kept) => kept.time < time);
  return { latest: overview, samples: [...older, sample].slice(-MAX_SAMPLES), heard: now };
}

/** How old the news is, when that is too old; else null. */
export function staleFor(live: Live, started: number, now: number): number | null {
  const age = now - (live.heard ?? started);
  return age > STALE_AFTER_MS ? age : null;
}

/** A chart in one sentence, for those who do not see it. */
export function summary(name: string, unit: string, values: (number | null)[]): string {
  const known = values.filter((value): value is number => value !== null);
  const last = known.at(-1);
  if (last === undefined) return `${name}: nothing measured yet.`;
  const show = (value: number) => `${Number(value.toFixed(value < 10 ? 2 : 1))}${unit}`;
  const middle = Math.floor(known.length / 2);
  const mean = (part: number[]) => part.reduce((a, b) => a + b, 0) / Math.max(1, part.length);
  const [early, late] = [mean(known.slice(0, middle)), mean(known.slice(middle))];
  const trend =
    known.length < 10 ? "" : late > early * 1.2 ? ", rising" : late < early * 0.8 ? ", falling" : ", steady";
  return `${name}: now ${show(last)}, between ${show(Math.min(...known))} and ${show(Math.max(...known))} in this time${trend}.`;
}
