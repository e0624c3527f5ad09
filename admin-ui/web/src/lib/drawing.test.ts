import { describe, expect, it } from "vitest";

import { blank, fromPixels, MAX, pixels, stroke, withPixel } from "./drawing";
import { SAMPLES } from "./samples";

describe("the drawing", () => {
  it("reads a stroke as 64 pixels of 0 to 16, strongest in the middle", () => {
    const values = pixels(stroke(blank(), [0.4375, 0.1], [0.4375, 0.9]));
    expect(values).toHaveLength(64);
    expect(Math.max(...values)).toBe(MAX);
    expect(values[3 * 8 + 3]).toBe(MAX);
    expect(values[3 * 8 + 7]).toBe(0);
  });
  it("rubs out", () => {
    const drawn = stroke(blank(), [0.5, 0.5], [0.5, 0.5]);
    expect(pixels(stroke(drawn, [0.5, 0.5], [0.5, 0.5], true)).every((value) => value === 0)).toBe(true);
  });
  it.each(SAMPLES.map((sample, digit) => [digit, sample] as const))(
    "gives the handwritten %i back unchanged",
    (_, sample) => {
      expect(pixels(fromPixels(sample))).toEqual(sample);
    },
  );
  it("keeps a pixel within its bounds", () => {
    expect(pixels(withPixel(blank(), 9, MAX))[9]).toBe(MAX);
    expect(pixels(withPixel(blank(), 9, MAX + 1))[9]).toBe(MAX);
    expect(pixels(withPixel(blank(), 9, -1))[9]).toBe(0);
  });
});
