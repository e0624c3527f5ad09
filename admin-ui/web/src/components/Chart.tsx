/** A live chart of a few lines, with its sentence and its table for those who do not see or do not want the picture. */
import { Button, Group, Text, Title, useComputedColorScheme } from "@mantine/core";
import { useEffect, useId, useMemo, useRef, useState } from "react";
import uPlot from "uplot";

import { summary } from "../live/reducer";
import { Scroll } from "./states";

const HEIGHT = 170;
const TABLE_ROWS = 30;
/** What a chart spans, in seconds: a minute at first, then with what there is. */
const LEAST_SPAN = 60;
const clock = (time: number) => new Date(time * 1000).toLocaleTimeString("en-GB");
export const COLOURS = ["--series-0", "--series-1", "--series-2", "--series-3"];
export const colour = (at: number): string => `var(${COLOURS[at % COLOURS.length] ?? "--series-0"})`;

export interface Series {
  label: string;
  values: (number | null)[];
}

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function optionsOf(labels: string[], width: number): uPlot.Options {
  const axis: uPlot.Axis = {
    stroke: css("--mantine-color-dimmed"),
    grid: { stroke: css("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { range: (_, min, max) => [Math.min(min, max - LEAST_SPAN), max] },
      y: { range: (_, __, max) => [0, Math.max(max * 1.15, 1)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 30, incrs: [15, 30, 60], values: (_, splits) => splits.map(clock) },
      { ...axis, size: 46 },
    ],
    series: [
      {},
      ...labels.map((label, at) => ({
        label,
        stroke: css(COLOURS[at % COLOURS.length] ?? ""),
        width: 2,
        points: { show: false },
        spanGaps: true,
      })),
    ],
  };
}

export function Chart({
  title,
  unit,
  times,
  series,
}: {
  title: string;
  unit: string;
  times: number[];
  series: Series[];
}) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [table, setTable] = useState(false);
  const scheme = useComputedColorScheme("light");
  const id = useId();
  const labels = series.map((line) => line.label).join("\n");
  const data = useMemo(() => [times, ...series.map((line) => line.values)] as uPlot.AlignedData, [times, series]);
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const box = holder.current;
    if (!box || table) return;
    const made = new uPlot(optionsOf(labels.split("\n"), box.clientWidth || 400), latest.current, box);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    watch.observe(box);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [labels, scheme, table]);
  useEffect(() => plot.current?.setData(data), [data]);

  return (
    <figure className="surface" style={{ margin: 0 }} aria-labelledby={id}>
      <Group justify="space-between" mb={4} gap="xs" wrap="nowrap" align="flex-start">
        <Title order={2} id={id}>
          {title}
        </Title>
        <Button
          size="compact-xs"
          variant="default"
          style={{ flex: "none" }}
          aria-pressed={table}
          onClick={() => setTable(!table)}
        >
          {table ? "Show chart" : "Show table"}
        </Button>
      </Group>
      <div className="legend">
        {series.map((line, at) => (
          <span key={line.label}>
            <span className="swatch" style={{ background: colour(at) }} />
            {line.label}
          </span>
        ))}
      </div>
      {table ? (
        <Numbers title={title} unit={unit} times={times} series={series} />
      ) : (
        <div ref={holder} aria-hidden="true" style={{ minHeight: HEIGHT }} />
      )}
      <Text component="figcaption" size="xs" c="dimmed" mt={6}>
        {series.map((line) => summary(line.label, unit, line.values)).join(" ")}
      </Text>
    </figure>
  );
}

function Numbers({ title, unit, times, series }: { title: string; unit: string; times: number[]; series: Series[] }) {
  const from = Math.max(0, times.length - TABLE_ROWS);
  return (
    <div
      style={{ maxHeight: HEIGHT, overflowY: "auto" }}
      tabIndex={0}
      role="region"
      aria-label={`${title}: the last ${TABLE_ROWS} seconds`}
    >
      <Scroll label={`${title} as a table`}>
        <table className="grid">
          <thead>
            <tr>
              <th scope="col">Time</th>
              {series.map((line) => (
                <th scope="col" className="num" key={line.label}>
                  {line.label}
                  {unit}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {times.slice(from).map((time, at) => (
              <tr key={time}>
                <td>{clock(time)}</td>
                {series.map((line) => (
                  <td className="num" key={line.label}>
                    {line.values[from + at]?.toFixed(2) ?? "–"}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </div>
  );
}
