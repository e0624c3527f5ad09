/**
 * A drawing of 32x32 dots, read as 8x8 pixels of 0 to 16: a pixel is the number of dots set in its block of 4x4.
 * The digits data set was made in just this way, so what is drawn looks to a model like what it was trained on.
 */
export const SIDE = 8;
export const MAX = 16;
const DOTS = 32;
const BLOCK = DOTS / SIDE;
/** In dots; makes strokes of the data set's thickness. */
const PEN = 2.3;

export type Drawing = Uint8Array;
export const blank = (): Drawing => new Uint8Array(DOTS * DOTS);

/** Draws a stroke between two places, each within 0 to 1. */
export function stroke(drawing: Drawing, from: [number, number], to: [number, number], erase = false): Drawing {
  const next = drawing.slice();
  const [x0, y0, x1, y1] = [from[0] * DOTS, from[1] * DOTS, to[0] * DOTS, to[1] * DOTS];
  for (let y = 0; y < DOTS; y += 1) {
    for (let x = 0; x < DOTS; x += 1) {
      if (distance(x + 0.5, y + 0.5, x0, y0, x1, y1) <= PEN) next[y * DOTS + x] = erase ? 0 : 1;
    }
  }
  return next;
}

function distance(x: number, y: number, x0: number, y0: number, x1: number, y1: number): number {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length));
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

export function pixels(drawing: Drawing): number[] {
  const out = new Array<number>(SIDE * SIDE).fill(0);
  drawing.forEach((dot, at) => {
    const cell = Math.floor(Math.floor(at / DOTS) / BLOCK) * SIDE + Math.floor((at % DOTS) / BLOCK);
    out[cell] = (out[cell] ?? 0) + dot;
  });
  return out;
}

/** Sets one pixel to a value, for the keyboard. */
export function withPixel(drawing: Drawing, cell: number, value: number): Drawing {
  const next = drawing.slice();
  const filled = Math.min(MAX, Math.max(0, Math.round(value)));
  for (let dot = 0; dot < BLOCK * BLOCK; dot += 1) {
    const x = (cell % SIDE) * BLOCK + (dot % BLOCK);
    const y = Math.floor(cell / SIDE) * BLOCK + Math.floor(dot / BLOCK);
    next[y * DOTS + x] = dot < filled ? 1 : 0;
  }
  return next;
}

export function fromPixels(values: number[]): Drawing {
  return values.reduce((drawing, value, cell) => withPixel(drawing, cell, value), blank());
}
