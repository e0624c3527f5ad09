/** How the mesh does right now; to who is bound to a tenant, how that tenant does. */
import { Anchor, Stack } from "@mantine/core";
import { useMemo } from "react";
import { Link } from "react-router";

import type { Device } from "../api/types";
import { Chart } from "../components/Chart";
import { LiveTable } from "../components/LiveTable";
import { Dot, Empty, PageHead, Reason, Rows, Scroll, stateTone, Surface, type Tone } from "../components/states";
import { bytes, count, duration, millis, rate } from "../lib/format";
import { useBound } from "../lib/session";
import { useLive } from "../live/LiveProvider";

function Tile({ name, value, note, tone = "plain" }: { name: string; value: string; note?: string; tone?: Tone }) {
  return (
    <div className="tile" data-tone={tone}>
      <dt>{name}</dt>
      <dd>
        {value} {note && <small>{note}</small>}
      </dd>
    </div>
  );
}

export function Overview() {
  const { latest, samples } = useLive();
  const bound = useBound();
  const times = useMemo(() => samples.map((sample) => sample.time), [samples]);
  const traffic = useMemo(
    () => [
      { label: "requests", values: samples.map((sample) => sample.requests) },
      { label: "refused", values: samples.map((sample) => sample.refused) },
      { label: "errors", values: samples.map((sample) => sample.errors) },
    ],
    [samples],
  );
  const latency = useMemo(
    () => [
      { label: "p50", values: samples.map((sample) => sample.p50) },
      { label: "p99", values: samples.map((sample) => sample.p99) },
    ],
    [samples],
  );
  if (!latest)
    return (
      <>
        <PageHead title="Overview" />
        <Rows count={6} />
      </>
    );
  const { rates, totals, latency_ms } = latest;
  return (
    <>
      <PageHead
        title="Overview"
        note={`${bound === null ? "" : `Requests of ${bound} alone. `}The last five minutes, a point a second. Up for ${duration(latest.uptime_seconds)}.`}
      />
      <Stack gap={14}>
        <dl className="tiles" style={{ margin: 0 }} aria-label="Now">
          <Tile name="Requests" value={rate(rates.requests_per_second)} note="/s" />
          <Tile name="Latency p50" value={millis(latency_ms.p50)} />
          <Tile name="Latency p99" value={millis(latency_ms.p99)} />
          <Tile name="In flight" value={count(latest.in_flight)} />
          <Tile
            name="Refused"
            value={rate(rates.refused_per_second)}
            note={`/s · ${count(totals.refused)} in all`}
            tone={rates.refused_per_second > 0 ? "warn" : "plain"}
          />
          <Tile
            name="Errors"
            value={rate(rates.errors_per_second)}
            note={`/s · ${count(totals.errors)} in all`}
            tone={rates.errors_per_second > 0 ? "bad" : "plain"}
          />
        </dl>
        <div className="charts">
          <Chart title="Requests per second" unit="/s" times={times} series={traffic} />
          <Chart title="Latency" unit=" ms" times={times} series={latency} />
        </div>
        <Surface title="Endpoints and arms">
          {latest.endpoints.length === 0 ? (
            <Empty title="Nobody has called yet">
              <Anchor component={Link} to="/endpoints">
                Endpoints
              </Anchor>{" "}
              show a ready-made call to try.
            </Empty>
          ) : (
            <LiveTable rows={latest.endpoints} />
          )}
        </Surface>
        <Surface title={bound === null ? "Devices" : "Models on devices"}>
          {latest.devices.length === 0 ? (
            bound === null ? (
              <Empty title="No device has reported">A worker reports its devices when it starts.</Empty>
            ) : (
              <Empty title="No device holds a model of yours">
                <Anchor component={Link} to="/models">
                  Models
                </Anchor>{" "}
                show what is published.
              </Empty>
            )
          ) : (
            <Devices devices={latest.devices} />
          )}
        </Surface>
      </Stack>
    </>
  );
}

function DeviceName({ device }: { device: Device }) {
  const bound = useBound();
  return (
    <>
      {bound === null ? (
        <Anchor component={Link} to="/devices" className="mono">
          {device.device}
        </Anchor>
      ) : (
        <span className="mono">{device.device}</span>
      )}
      {device.draining && (
        <div>
          <Dot tone="warn">draining</Dot>
        </div>
      )}
    </>
  );
}

function Devices({ devices }: { devices: Device[] }) {
  return (
    <Scroll label="Devices and their models">
      <table className="grid">
        <thead>
          <tr>
            <th scope="col">Device</th>
            <th scope="col">Model</th>
            <th scope="col">Version</th>
            <th scope="col">State</th>
            <th scope="col" className="num">
              Memory
            </th>
          </tr>
        </thead>
        <tbody>
          {devices.map((device) =>
            device.models.length === 0 ? (
              <tr key={device.device}>
                <td>
                  <DeviceName device={device} />
                </td>
                <td colSpan={4}>holds no model</td>
              </tr>
            ) : (
              device.models.map((model, at) => (
                <tr key={`${device.device}/${model.tenant}/${model.model}/${model.version}`}>
                  <td>{at === 0 && <DeviceName device={device} />}</td>
                  <td>
                    <Anchor component={Link} to={`/models/${model.tenant}/${model.model}`}>
                      {model.tenant}/{model.model}
                    </Anchor>
                  </td>
                  <td>{model.version}</td>
                  <td>
                    <Dot tone={stateTone(model.state)}>{model.state.toLowerCase()}</Dot>
                    {model.reason && <Reason>{model.reason}</Reason>}
                  </td>
                  <td className="num">{model.memory_bytes ? bytes(model.memory_bytes) : "–"}</td>
                </tr>
              ))
            ),
          )}
        </tbody>
      </table>
    </Scroll>
  );
}
