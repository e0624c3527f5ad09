import { describe, expect, it } from "vitest";

import type { Model, ModelVersion } from "../api/types";
import { quote } from "./curl";
import { drawable, exampleInputs, numberOf, resolve } from "./models";

const version = (number: number, dims = [64], max = 64): ModelVersion => ({
  apiVersion: "mesh/v1",
  kind: "ModelVersion",
  metadata: { tenant: "acme", name: `digit-classifier/${number}` },
  spec: {
    format: "torchscript",
    config: { max_batch_size: max, input: [{ name: "pixels", datatype: "FP32", dims }], output: [] },
  },
});
const model = (spec: Model["spec"]): Model => ({
  apiVersion: "mesh/v1",
  kind: "Model",
  metadata: { tenant: "acme", name: "digit-classifier" },
  spec,
});
const all = [version(1), version(2), version(10)];
const arm = (of?: string) => ({ name: "a", model: "digit-classifier", weight: 100, ...(of && { version: of }) });
const number = (of: ModelVersion | undefined) => of && numberOf(of);

describe("which version an arm means", () => {
  it("takes a number, a label, the default, or the newest", () => {
    const labelled = [model({ labels: { stable: 1 }, default_version: "stable" })];
    expect(number(resolve(arm("2"), "acme", labelled, all))).toBe(2);
    expect(number(resolve(arm("stable"), "acme", labelled, all))).toBe(1);
    expect(number(resolve(arm(), "acme", labelled, all))).toBe(1);
    expect(number(resolve(arm(), "acme", [model({})], all))).toBe(10);
    expect(resolve(arm("7"), "acme", labelled, all)).toBeUndefined();
  });
  it("finds a model granted by another tenant, and no other", () => {
    expect(number(resolve(arm("2"), "beta", [model({ grants: ["beta"] })], all))).toBe(2);
    expect(resolve(arm("2"), "beta", [model({})], all)).toBeUndefined();
  });
});

describe("inputs", () => {
  it("offers drawing for one 8x8 picture only", () => {
    for (const dims of [[64], [8, 8], [1, 8, 8]]) expect(drawable(version(1, dims).spec)?.name).toBe("pixels");
    for (const dims of [[63], [-1], [8, 8, 3]]) expect(drawable(version(1, dims).spec)).toBeUndefined();
  });
  it("has a batch dimension when the model has one", () => {
    expect(exampleInputs(version(1).spec, undefined)[0]).toMatchObject({ shape: [1, 64], datatype: "FP32" });
    expect(exampleInputs(version(1, [64], 0).spec, undefined)[0]?.shape).toEqual([64]);
  });
});

it("quotes for a shell", () => {
  expect(quote(`it's "x" $HOME`)).toBe(`'it'\\''s "x" $HOME'`);
});
