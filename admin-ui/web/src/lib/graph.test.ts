import { describe, expect, it } from "vitest";

import { draw, INPUTS, OUTPUTS, runsWhen } from "./graph";
import { PIPE } from "./graph.sample";

describe("a graph", () => {
  it("has a column for each level between its inputs and its outputs", () => {
    const drawing = draw(PIPE);
    const at = (id: string) => drawing.boxes.find((box) => box.id === id)!;
    expect(at(INPUTS).x).toBeLessThan(at("first").x);
    expect(at("first").x).toBeLessThan(at("up").x);
    expect(at("up").x).toBe(at("down").x);
    expect(at("up").y).not.toBe(at("down").y);
    expect(at(OUTPUTS).x).toBeGreaterThan(at("down").x);
    expect(at(OUTPUTS).x).toBeLessThan(drawing.width);
  });
  it("has a line from every maker of a tensor to whatever takes it", () => {
    const lines = draw(PIPE).lines.map((line) => `${line.from} ${line.label} ${line.to}`);
    expect(lines).toEqual(["inputs x first", "first mid up", "first mid down", "up y outputs", "down y outputs"]);
  });
  it("says when a step runs", () => {
    expect(PIPE.steps.map(runsWhen)).toEqual(["", "way: when mid > 0; may fail", "way: otherwise; at most 3 at once"]);
  });
});
