/**
 * The rules of a split: weights are percents with two decimals and sum to 100. Counted in hundredths, so that
 * 33.33 + 33.33 + 33.34 is 100 and nothing else is.
 */
import type { ArmSpec, EndpointSpec } from "../api/types";

export const ALL = 10_000;
export const MAX_ARMS = 16;
const NAME = /^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$/;

export const hundredths = (weight: number): number => (Number.isFinite(weight) ? Math.round(weight * 100) : 0);
export const sum = (arms: ArmSpec[]): number => arms.reduce((total, arm) => total + hundredths(arm.weight), 0) / 100;

/** Why the arms cannot be saved; empty when they can. */
export function faults(arms: ArmSpec[]): string[] {
  const found: string[] = [];
  if (arms.length === 0) found.push("an endpoint needs at least one arm");
  if (arms.length > MAX_ARMS) found.push(`an endpoint has at most ${MAX_ARMS} arms`);
  const names = new Set<string>();
  for (const arm of arms) {
    if (!NAME.test(arm.name) || arm.name.length > 63)
      found.push(`'${arm.name}' is no arm name: use lowercase letters, digits, '-', '_' and '.'`);
    else if (names.has(arm.name)) found.push(`two arms are called '${arm.name}'`);
    names.add(arm.name);
    if (!arm.model) found.push(`arm '${arm.name}' needs a model`);
    if (!(arm.weight >= 0 && arm.weight <= 100)) found.push(`arm '${arm.name}': the weight must be within 0 and 100`);
  }
  const total = sum(arms);
  if (arms.length > 0 && hundredths(total) !== ALL) {
    const off = (ALL - hundredths(total)) / 100;
    found.push(`the weights sum to ${total}, they must sum to 100: ${off > 0 ? `${off} to give` : `${-off} too much`}`);
  }
  return found;
}

/** Sets one arm's weight; with two arms the other takes the rest, so that a slider is enough. */
export function withWeight(arms: ArmSpec[], index: number, weight: number): ArmSpec[] {
  const set = Math.min(ALL, Math.max(0, hundredths(weight)));
  return arms.map((arm, at) => {
    if (at === index) return { ...arm, weight: set / 100 };
    return arms.length === 2 ? { ...arm, weight: (ALL - set) / 100 } : arm;
  });
}

/** Gives each arm the same share; what does not divide goes to the first. */
export function even(arms: ArmSpec[]): ArmSpec[] {
  const each = Math.floor(ALL / Math.max(1, arms.length));
  return arms.map((arm, at) => ({ ...arm, weight: (at === 0 ? ALL - each * (arms.length - 1) : each) / 100 }));
}

/** An arm that is not there yet: a free name, no traffic. */
export function newArm(arms: ArmSpec[]): ArmSpec {
  const names = new Set(arms.map((arm) => arm.name));
  let number = arms.length + 1;
  while (names.has(`v${number}`)) number += 1;
  return { name: `v${number}`, model: arms.at(-1)?.model ?? "", weight: arms.length === 0 ? 100 : 0 };
}

export interface Change {
  field: string;
  before: string;
  after: string;
}

/** What differs between two values, leaf by leaf, in the words of the resource. Lists of named things go by name. */
export function diff(before: unknown, after: unknown, at = ""): Change[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  const left = fields(before);
  const right = fields(after);
  if (left === null && right === null) return [{ field: at, before: show(before), after: show(after) }];
  const names = [...new Set([...Object.keys(left ?? {}), ...Object.keys(right ?? {})])];
  return names.flatMap((name) => diff(left?.[name], right?.[name], at === "" ? name : `${at}.${name}`));
}

function fields(value: unknown): Record<string, unknown> | null {
  if (Array.isArray(value)) {
    const named = value.every((item) => typeof item === "object" && item !== null && "name" in item);
    return Object.fromEntries(
      value.map((item: unknown, at) => [named ? String((item as { name: unknown }).name) : String(at), item]),
    );
  }
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
}

function show(value: unknown): string {
  if (value === undefined || value === null) return "—";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** An endpoint's spec as it should be sent: empty values are left out, and what an editor does not know is kept. */
export function clean(spec: EndpointSpec): EndpointSpec {
  const out: EndpointSpec = { ...spec, arms: spec.arms.map((arm) => ({ ...arm })) };
  for (const arm of out.arms) if (!arm.version) delete arm.version;
  if (!out.description) delete out.description;
  if (!out.sticky_by) delete out.sticky_by;
  if (!out.salt) delete out.salt;
  if (!out.timeout_ms) delete out.timeout_ms;
  // The mesh leaves the default out, so that choosing it again is no change.
  if (out.service_class === "interactive") delete out.service_class;
  return out;
}
