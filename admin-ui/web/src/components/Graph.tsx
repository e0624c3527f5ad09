/** An ensemble's graph: drawn, and as a table that says the same and more. */
import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";

import { graph as graphQuery } from "../api/queries";
import type { GraphStep, GraphView, GraphWire } from "../api/types";
import { count, millis } from "../lib/format";
import { BOX, draw, runsWhen, type Drawing } from "../lib/graph";
import { Copy } from "./Copy";
import { Dot, Failure, Reason, Rows, Scroll } from "./states";

export function Graph({ tenant, model, version }: { tenant: string; model: string; version: number }) {
  const shown = useQuery(graphQuery(tenant, model, version));
  if (shown.isPending) return <Rows count={2} />;
  if (shown.isError) return <Failure error={shown.error} retry={() => void shown.refetch()} />;
  const graph = shown.data;
  return (
    <>
      <Dot tone={graph.ready ? "good" : "bad"}>{graph.ready ? "all steps are ready" : "not ready"}</Dot>
      {graph.reason && <Reason>{graph.reason}</Reason>}
      {graph.steps.length > 0 && (
        <>
          <Picture drawing={draw(graph)} label={`Graph of version ${version}`} />
          <Steps graph={graph} label={`Steps of version ${version}`} />
          <Text size="sm" c="dimmed" mt="xs">
            {graph.numbers
              ? `${count(graph.numbers.ok)} answered, ${count(graph.numbers.failed)} failed, ` +
                `${count(graph.numbers.cancelled)} cancelled, ` +
                `${millis(graph.numbers.mean_ms)} on average, ${millis(graph.numbers.mean_compose_ms)} of it between steps. `
              : "Nobody has asked yet. "}
            For Graphviz: <Copy value={graph.dot} />
          </Text>
        </>
      )}
    </>
  );
}

function Picture({ drawing, label }: { drawing: Drawing; label: string }) {
  const box = new Map(drawing.boxes.map((item) => [item.id, item]));
  return (
    <Scroll label={label}>
      <svg
        className="graph"
        role="img"
        aria-label={`${label}; the table below says the same`}
        width={drawing.width + 4}
        height={drawing.height + 4}
        viewBox={`-2 -2 ${drawing.width + 4} ${drawing.height + 4}`}
      >
        {drawing.lines.map((line) => {
          const [from, to] = [box.get(line.from), box.get(line.to)];
          if (!from || !to) return null;
          const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
          const [x2, y2] = [to.x, to.y + BOX.height / 2];
          const bend = Math.max(24, (x2 - x1) / 2);
          return (
            <path key={`${line.from} ${line.to}`} d={`M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`}>
              <title>{`${line.label}: from ${line.from} to ${line.to}`}</title>
            </path>
          );
        })}
        {drawing.boxes.map((item) => (
          <g key={item.id} data-soft={item.soft} data-ready={item.ready}>
            <title>{`${item.label}: ${item.note}`}</title>
            <rect x={item.x} y={item.y} width={BOX.width} height={BOX.height} rx={8} />
            <text x={item.x + 10} y={item.y + 19}>
              {short(item.label, 22)}
            </text>
            <text className="note" x={item.x + 10} y={item.y + 36}>
              {short(item.note, 27)}
            </text>
          </g>
        ))}
      </svg>
    </Scroll>
  );
}

const short = (text: string, length: number) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

const wires = (list: GraphWire[]) => list.map((wire) => `${wire.name} = ${wire.tensors.join(" or ")}`).join("\n");

function Steps({ graph, label }: { graph: GraphView; label: string }) {
  const columns = ["Step", "Model", "Takes", "Makes", "Runs"];
  return (
    <Scroll label={label}>
      <table className="grid">
        <thead>
          <tr>
            {columns.map((name) => (
              <th scope="col" key={name}>
                {name}
              </th>
            ))}
            <th scope="col" className="num">
              OK
            </th>
            <th scope="col" className="num">
              Failed
            </th>
            <th scope="col" className="num">
              Left out
            </th>
            <th scope="col" className="num">
              Mean
            </th>
          </tr>
        </thead>
        <tbody>
          {graph.steps.map((step) => (
            <Step key={step.name} step={step} tenant={graph.tenant} />
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Step({ step, tenant }: { step: GraphStep; tenant: string }) {
  const owner = step.owner === tenant ? "" : ` of ${step.owner}`;
  return (
    <tr>
      <th scope="row">{step.name}</th>
      <td>
        <Dot tone={step.ready ? "good" : "bad"}>{`${step.model}${owner}, version ${step.version}`}</Dot>
        {step.reason && <Reason>{step.reason}</Reason>}
      </td>
      <td className="mono" style={{ whiteSpace: "pre-line" }}>
        {wires(step.inputs)}
      </td>
      <td className="mono" style={{ whiteSpace: "pre-line" }}>
        {wires(step.outputs)}
      </td>
      <td>{runsWhen(step) || "always"}</td>
      <td className="num">{count(step.numbers?.ok)}</td>
      <td className="num">{count(step.numbers?.failed)}</td>
      <td className="num">{count(step.numbers?.left_out)}</td>
      <td className="num">{millis(step.numbers?.mean_ms)}</td>
    </tr>
  );
}
