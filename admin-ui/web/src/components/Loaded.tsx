/** What loading a version came to: the runtime, the forms of the model that were tried, and which one runs. */
import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";

import { devices } from "../api/queries";
import type { LoadReport, VariantReport } from "../api/types";
import { loadsOf } from "../lib/models";
import { Dot, Scroll } from "./states";

const TONES = { chosen: "good", slower: "plain", differs: "warn", failed: "warn" } as const;

const small = (value: number | null | undefined) => (typeof value === "number" ? value.toExponential(1) : "–");

/** The reports of one version, a device each; nothing while none is loaded. */
export function Loaded({ tenant, model, version }: { tenant: string; model: string; version: number }) {
  const all = useQuery(devices);
  const loads = loadsOf(all.data ?? [], tenant, model, version);
  if (loads.length === 0) return <Text size="sm">–</Text>;
  return loads.map(({ device, load }) => <Report key={device} device={device} load={load} />);
}

export function Report({ device, load }: { device: string; load: LoadReport }) {
  return (
    <div>
      <Text size="sm">
        {device}: {load.runtime}, runs {load.chosen}
      </Text>
      {load.remark && (
        <Text size="sm" c="dimmed">
          {load.remark}
        </Text>
      )}
      {load.variants.length > 0 && (
        <Scroll label={`Forms tried on ${device}`}>
          <table className="grid">
            <thead>
              <tr>
                <th scope="col">Form</th>
                <th scope="col">Verdict</th>
                <th scope="col" className="num">
                  Off by
                </th>
                <th scope="col" className="num">
                  Tolerance
                </th>
                <th scope="col">Time by rows</th>
              </tr>
            </thead>
            <tbody>
              {load.variants.map((tried) => (
                <Tried key={tried.variant} tried={tried} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </div>
  );
}

function Tried({ tried }: { tried: VariantReport }) {
  const times = tried.times.map((time) => `${time.rows}: ${time.milliseconds.toFixed(3)} ms`);
  return (
    <tr>
      <td>{tried.variant}</td>
      <td>
        <Dot tone={TONES[tried.verdict]}>{tried.verdict}</Dot>
        {tried.reason && <div>{tried.reason}</div>}
      </td>
      <td className="num">{small(tried.relative_difference)}</td>
      <td className="num">{small(tried.tolerance)}</td>
      <td>{times.join(", ") || "–"}</td>
    </tr>
  );
}
