/** Where the steps of a graph are drawn: a column for each level, and lines from what makes a tensor to what takes it. */
import type { GraphView } from "../api/types";

export const BOX = { width: 168, height: 46, gapX: 64, gapY: 18 };

export interface Box {
  id: string;
  label: string;
  note: string;
  x: number;
  y: number;
  /** Whether its failure leaves the rest alone. */
  soft: boolean;
  ready: boolean;
}
export interface Line {
  from: string;
  to: string;
  label: string;
}
export interface Drawing {
  width: number;
  height: number;
  boxes: Box[];
  lines: Line[];
}

export const INPUTS = "inputs";
export const OUTPUTS = "outputs";

/** Lays a graph out. */
export function draw(graph: GraphView): Drawing {
  const levels = [...new Set(graph.steps.map((step) => step.level))].sort((a, b) => a - b);
  const column = (level: number) => 1 + levels.indexOf(level);
  const last = levels.length + 1;
  const counts = new Map<number, number>();
  const place = (at: number) => {
    const row = counts.get(at) ?? 0;
    counts.set(at, row + 1);
    return { x: at * (BOX.width + BOX.gapX), y: row * (BOX.height + BOX.gapY) };
  };
  const plain = { soft: false, ready: true };
  const names = (list: { name: string }[]) => list.map((item) => item.name).join(", ");
  const boxes: Box[] = [
    { id: INPUTS, label: "Inputs", note: names(graph.inputs), ...place(0), ...plain },
    ...graph.steps.map((step) => ({
      id: step.name,
      label: step.name,
      note: `${step.model}, version ${step.version}`,
      ...place(column(step.level)),
      soft: step.soft,
      ready: step.ready,
    })),
    { id: OUTPUTS, label: "Outputs", note: names(graph.outputs), ...place(last), ...plain },
  ];
  const makers = new Map<string, string[]>();
  for (const input of graph.inputs) makers.set(input.name, [INPUTS]);
  for (const step of graph.steps)
    for (const tensor of step.outputs.flatMap((wire) => wire.tensors))
      makers.set(tensor, [...(makers.get(tensor) ?? []), step.name]);
  const lines: Line[] = [];
  const join = (tensors: string[], to: string) => {
    for (const tensor of tensors)
      for (const from of makers.get(tensor) ?? []) {
        const same = lines.find((line) => line.from === from && line.to === to);
        if (same) same.label += `, ${tensor}`;
        else lines.push({ from, to, label: tensor });
      }
  };
  for (const step of graph.steps)
    join(
      step.inputs.flatMap((wire) => wire.tensors),
      step.name,
    );
  for (const output of graph.outputs) join(output.from, OUTPUTS);
  const rows = Math.max(1, ...counts.values());
  return {
    width: (last + 1) * BOX.width + last * BOX.gapX,
    height: rows * BOX.height + (rows - 1) * BOX.gapY,
    boxes,
    lines,
  };
}

/** When a step runs, in words; empty if always. */
export function runsWhen(step: GraphView["steps"][number]): string {
  const parts = [
    step.route && `${step.route.choice}: ${step.route.when}`,
    step.when && `when ${step.when}`,
    step.soft && "may fail",
    step.max_inflight_requests > 0 && `at most ${step.max_inflight_requests} at once`,
  ];
  return parts.filter(Boolean).join("; ");
}
