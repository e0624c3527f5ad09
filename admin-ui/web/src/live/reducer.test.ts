import { describe, expect, it } from "vitest";

import type { Overview } from "../api/types";
import {
  armKey,
  EMPTY,
  MAX_ARMS_KEPT,
  MAX_SAMPLES,
  reduce,
  STALE_AFTER_MS,
  staleFor,
  summary,
  type Live,
} from "./reducer";

const START = Date.parse("2026-01-01T00:00:00Z");
function overview(second: number, requests = 10, arms = 1): Overview {
  const row = (at: number) => ({
    tenant: "acme",
    target: "digits",
    arm: `v${at}`,
    version: 1,
    requests_per_second: requests / arms,
    ok: 0,
    errors: 0,
    refused: 0,
  });
  return {
    time: new Date(START + second * 1000).toISOString(),
    uptime_seconds: second,
    in_flight: 0,
    totals: { ok: 0, refused: 0, errors: 0 },
    rates: { requests_per_second: requests, errors_per_second: 0, refused_per_second: 0 },
    latency_ms: { p50: null, p90: null, p99: 4 },
    endpoints: Array.from({ length: arms }, (_, at) => row(at)),
    devices: [],
  };
}
const fed = (seconds: number): Live =>
  Array.from({ length: seconds }).reduce<Live>((live, _, at) => reduce(live, overview(at), at * 1000), EMPTY);

describe("the live window", () => {
  it("holds five minutes and no more", () => {
    expect(fed(MAX_SAMPLES).samples).toHaveLength(MAX_SAMPLES);
    const over = fed(MAX_SAMPLES + 1).samples;
    expect(over).toHaveLength(MAX_SAMPLES);
    expect(over[0]?.time).toBe(START / 1000 + 1);
  });
  it("takes the same second again in place, and stays in order", () => {
    const twice = reduce(fed(3), overview(2, 99), 0);
    expect(twice.samples.map((sample) => sample.requests)).toEqual([10, 10, 99]);
  });
  it("starts over when the mesh's clock went back", () => {
    expect(reduce(fed(5), overview(1), 0).samples.map((sample) => sample.time - START / 1000)).toEqual([0, 1]);
  });
  it("keeps no more arms than its bound, and adds up versions of one arm", () => {
    expect(Object.keys(reduce(EMPTY, overview(0, 1, MAX_ARMS_KEPT), 0).samples[0]?.arms ?? {})).toHaveLength(
      MAX_ARMS_KEPT,
    );
    expect(Object.keys(reduce(EMPTY, overview(0, 1, MAX_ARMS_KEPT + 1), 0).samples[0]?.arms ?? {})).toHaveLength(
      MAX_ARMS_KEPT,
    );
    const both = overview(0, 10);
    both.endpoints = [...both.endpoints, ...both.endpoints];
    expect(reduce(EMPTY, both, 0).samples[0]?.arms).toEqual({
      [armKey({ tenant: "acme", target: "digits", arm: "v0" })]: 20,
    });
  });
  it("keeps what was not measured apart from zero", () => {
    expect(reduce(EMPTY, overview(0), 0).samples[0]).toMatchObject({ p50: null, p99: 4 });
  });
});

describe("staleness", () => {
  it("begins past ten seconds, counted from the start when nothing was heard", () => {
    const live = reduce(EMPTY, overview(0), 1_000);
    expect(staleFor(live, 0, 1_000 + STALE_AFTER_MS)).toBeNull();
    expect(staleFor(live, 0, 1_001 + STALE_AFTER_MS)).toBe(STALE_AFTER_MS + 1);
    expect(staleFor(EMPTY, 500, 501 + STALE_AFTER_MS)).toBe(STALE_AFTER_MS + 1);
  });
});

describe("the sentence", () => {
  it("tells now, range and trend", () => {
    const rising = Array.from({ length: 20 }, (_, at) => at);
    expect(summary("requests", "/s", rising)).toBe("requests: now 19/s, between 0/s and 19/s in this time, rising.");
    expect(summary("p50", " ms", [null, null])).toBe("p50: nothing measured yet.");
  });
});
