/** A field of 8x8 pixels to draw on, by pointer or keyboard. */
import { useRef, useState, type KeyboardEvent, type PointerEvent } from "react";

import { MAX, pixels, SIDE, stroke, withPixel, type Drawing } from "../lib/drawing";

const STEP: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };

interface Props {
  drawing: Drawing;
  onChange: (drawing: Drawing) => void;
  /** A stroke has ended. */
  onDone: () => void;
}

export function DigitGrid({ drawing, onChange, onDone }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const last = useRef<[number, number] | null>(null);
  const latest = useRef(drawing);
  latest.current = drawing;
  const [focus, setFocus] = useState(0);
  const values = pixels(drawing);

  const change = (next: Drawing) => {
    latest.current = next;
    onChange(next);
  };
  const place = (event: { clientX: number; clientY: number }): [number, number] => {
    const rect = box.current?.getBoundingClientRect();
    if (!rect) return [0, 0];
    return [(event.clientX - rect.left) / rect.width, (event.clientY - rect.top) / rect.height];
  };
  const down = (event: PointerEvent) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    last.current = place(event);
    change(stroke(latest.current, last.current, last.current, event.button === 2));
  };
  const move = (event: PointerEvent) => {
    if (!last.current) return;
    const here = place(event);
    change(stroke(latest.current, last.current, here, (event.buttons & 2) !== 0));
    last.current = here;
  };
  const up = () => {
    if (last.current) onDone();
    last.current = null;
  };
  const key = (event: KeyboardEvent) => {
    const step = STEP[event.key];
    const value = values[focus] ?? 0;
    if (step !== undefined) {
      const next = focus + step;
      const wraps = Math.abs(step) === 1 && Math.floor(next / SIDE) !== Math.floor(focus / SIDE);
      if (next >= 0 && next < SIDE * SIDE && !wraps) {
        setFocus(next);
        box.current?.querySelector<HTMLElement>(`[data-cell="${next}"]`)?.focus();
      }
    } else if (event.key === " " || event.key === "Enter") change(withPixel(drawing, focus, value > 0 ? 0 : MAX));
    else if (event.key === "+" || event.key === "=") change(withPixel(drawing, focus, value + 4));
    else if (event.key === "-") change(withPixel(drawing, focus, value - 4));
    else return;
    event.preventDefault();
    if (step === undefined) onDone();
  };

  return (
    <div
      ref={box}
      className="pixels"
      role="grid"
      aria-label="Drawing, 8 by 8 pixels. Arrow keys move, space sets or clears, plus and minus change."
      onPointerDown={down}
      onPointerMove={move}
      onPointerUp={up}
      onPointerCancel={up}
      onKeyDown={key}
      onContextMenu={(event) => event.preventDefault()}
    >
      {Array.from({ length: SIDE }, (_, row) => (
        <div role="row" key={row}>
          {Array.from({ length: SIDE }, (__, column) => {
            const cell = row * SIDE + column;
            const value = values[cell] ?? 0;
            return (
              <div
                key={cell}
                role="gridcell"
                data-cell={cell}
                tabIndex={cell === focus ? 0 : -1}
                onFocus={() => setFocus(cell)}
                aria-label={`row ${row + 1}, column ${column + 1}: ${value} of ${MAX}`}
                style={{ background: `rgba(236, 248, 250, ${value / MAX})` }}
              />
            );
          })}
        </div>
      ))}
    </div>
  );
}
