import { describe, expect, it } from "vitest";

import type { ArmSpec } from "../api/types";
import { clean, diff, even, faults, MAX_ARMS, newArm, sum, withWeight } from "./split";

const arm = (name: string, weight: number): ArmSpec => ({ name, model: "digit-classifier", weight });

describe("the sum rule", () => {
  it("counts in hundredths, where floating point would not add up", () => {
    expect(faults([arm("a", 33.33), arm("b", 33.33), arm("c", 33.34)])).toEqual([]);
    expect(sum([arm("a", 0.1), arm("b", 0.2), arm("c", 99.7)])).toBe(100);
  });
  it.each([
    [[90, 5], "sum to 95, they must sum to 100: 5 to give"],
    [[90, 10.01], "sum to 100.01, they must sum to 100: 0.01 too much"],
  ])("refuses %j", (weights, fault) => {
    expect(faults(weights.map((weight, at) => arm(`v${at}`, weight))).join()).toContain(fault);
  });
  it("refuses names twice, odd names, no model, and weights out of range", () => {
    expect(faults([arm("a", 50), arm("a", 50)]).join()).toContain("two arms are called 'a'");
    expect(faults([arm("A b", 100)]).join()).toContain("is no arm name");
    expect(faults([{ ...arm("a", 100), model: "" }]).join()).toContain("needs a model");
    expect(faults([arm("a", 150), arm("b", -50)])).toHaveLength(2);
    expect(faults([])).toEqual(["an endpoint needs at least one arm"]);
  });
  it("knows the bound of arms", () => {
    const many = (count: number) => even(Array.from({ length: count }, (_, at) => arm(`v${at}`, 0)));
    expect(faults(many(MAX_ARMS))).toEqual([]);
    expect(faults(many(MAX_ARMS + 1)).join()).toContain("at most 16 arms");
  });
});

describe("editing", () => {
  it("gives the rest to the other of two, and leaves three alone", () => {
    expect(withWeight([arm("a", 90), arm("b", 10)], 0, 72.5).map((item) => item.weight)).toEqual([72.5, 27.5]);
    expect(withWeight([arm("a", 90), arm("b", 5), arm("c", 5)], 0, 80).map((item) => item.weight)).toEqual([80, 5, 5]);
    expect(withWeight([arm("a", 90), arm("b", 10)], 0, 400).map((item) => item.weight)).toEqual([100, 0]);
  });
  it("splits evenly to the last hundredth", () => {
    const three = even([arm("a", 0), arm("b", 0), arm("c", 0)]);
    expect(three.map((item) => item.weight)).toEqual([33.34, 33.33, 33.33]);
    expect(faults(three)).toEqual([]);
  });
  it("finds a free name", () => {
    expect(newArm([arm("v1", 50), arm("v3", 50)]).name).toBe("v4");
    expect(newArm([]).weight).toBe(100);
  });
  it("leaves empty texts out of what is sent", () => {
    const batch = { arms: [arm("a", 100)], service_class: "batch" as const };
    expect(clean(batch)).toEqual(batch);
    expect(clean({ ...batch, service_class: "interactive" })).toEqual({ arms: batch.arms });
    const newer = { ...batch, of_a_newer_mesh: 1 };
    expect(clean(newer)).toEqual(newer);
    expect(clean({ arms: [{ ...arm("a", 100), version: "" }], sticky_by: "", description: "" })).toEqual({
      arms: [arm("a", 100)],
    });
  });
});

describe("the diff", () => {
  it("names arms by their name, whatever their place", () => {
    const before = { arms: [arm("v1", 90), arm("v2", 10)] };
    const after = { arms: [arm("v2", 50), arm("v1", 50)], sticky_by: "user" };
    expect(diff(before, after)).toEqual([
      { field: "arms.v1.weight", before: "90", after: "50" },
      { field: "arms.v2.weight", before: "10", after: "50" },
      { field: "sticky_by", before: "—", after: "user" },
    ]);
  });
  it("is empty when nothing changed", () => {
    expect(diff({ arms: [arm("v1", 100)] }, { arms: [arm("v1", 100)] })).toEqual([]);
  });
  it("shows what is new as a whole, leaf by leaf", () => {
    expect(diff(null, { arms: [arm("v1", 100)] }).map((change) => change.field)).toEqual([
      "arms.v1.name",
      "arms.v1.model",
      "arms.v1.weight",
    ]);
  });
});
