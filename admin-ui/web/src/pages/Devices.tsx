/** What the devices do: how busy each is, with which models, for whom; and taking one out of service. */
import { Anchor, Button, Group, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";

import { devices as devicesQuery } from "../api/queries";
import type { DeviceDetail, LoadProgress, ModelDetail } from "../api/types";
import { Busy } from "../components/Busy";
import { Drain } from "../components/Drain";
import { Dot, Empty, Failure, PageHead, Reason, Rows, Scroll, stateTone, Surface } from "../components/states";
import { bytes, count, duration, millis, percent } from "../lib/format";
import { useReadOnly } from "../lib/session";

/** Memory, where a runtime tells it. */
const known = (memory: number | null | undefined): string => (memory ? bytes(memory) : "–");

export default function Devices() {
  const list = useQuery(devicesQuery);
  const serving = list.data?.filter((device) => !device.draining).length ?? 0;
  return (
    <>
      <PageHead title="Devices" note="What each holds, how busy it is, and whose requests use its time." />
      <Stack gap={14}>
        {list.isPending && <Rows count={6} />}
        {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
        {list.data?.length === 0 && (
          <Empty title="No device has reported">A worker reports its devices when it starts.</Empty>
        )}
        {list.data?.map((device) => (
          <One key={device.device} device={device} last={serving === 1} />
        ))}
      </Stack>
    </>
  );
}

function Standing({ device }: { device: DeviceDetail }) {
  if (!device.draining) return <Dot tone="good">serving</Dot>;
  const left = [
    device.in_flight > 0 && `${count(device.in_flight)} in flight`,
    device.open_sequences > 0 && `${count(device.open_sequences)} open sequences`,
  ].filter(Boolean);
  return left.length > 0 ? (
    <Dot tone="warn">draining: {left.join(", ")}</Dot>
  ) : (
    <Dot tone="warn">drained</Dot>
  );
}

function One({ device, last }: { device: DeviceDetail; last: boolean }) {
  const [open, setOpen] = useState(false);
  const readOnly = useReadOnly();
  const facts: [string, string][] = [
    ["Kind", device.kind === "cuda" ? "GPU" : "CPU"],
    ["Threads", count(device.threads)],
    ["In flight", count(device.in_flight)],
    ["Memory of models", known(device.memory_bytes)],
    ["Memory for models", known(device.budget_bytes)],
    ...(device.open_sequences > 0
      ? ([
          ["Open sequences", count(device.open_sequences)],
          ["Their state", known(device.sequence_state_bytes)],
        ] as [string, string][])
      : []),
    ["Busy", duration(device.busy_seconds)],
    ["Up", duration(device.up_seconds)],
  ];
  return (
    <Surface
      title={device.device}
      aside={
        <Group gap="md">
          <Standing device={device} />
          {!readOnly && (
            <Button size="compact-sm" variant="default" onClick={() => setOpen(true)}>
              {device.draining ? "Undrain" : "Drain"}
              <span className="sr"> {device.device}</span>
            </Button>
          )}
        </Group>
      }
    >
      <div className="meters">
        <Busy name="Busy, last 10 s" fraction={device.recent_busy_fraction} />
        <Busy name="Busy since the start" fraction={device.busy_fraction} />
      </div>
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {device.abandoned_threads > 0 && (
        <Text component="div" size="sm" mb="md">
          <Dot tone="bad">
            {device.abandoned_threads} given up: an execution hangs on {device.abandoned_threads === 1 ? "it" : "each"}
          </Dot>
        </Text>
      )}
      <Stack gap="lg">
        {device.models.length === 0 ? (
          <Text size="sm" c="dimmed">
            It holds no model.
          </Text>
        ) : (
          <Models device={device} />
        )}
        <Tenants device={device} />
      </Stack>
      <Drain device={device} last={last} opened={open} close={() => setOpen(false)} />
    </Surface>
  );
}

/** What did not end as it should, each kind that there was. */
function wentWrong(model: ModelDetail): string {
  const kinds: [number, string][] = [
    [model.rejected, "refused"],
    [model.expired, "too late"],
    [model.cancelled, "cancelled"],
    [model.failed, "failed"],
    [model.non_finite, "not finite"],
    [model.crashed, "crashes"],
    [model.out_of_memory, "out of memory"],
    [model.sequences?.idle ?? 0, "sequences idle"],
    [model.sequences?.lost ?? 0, "sequences lost"],
  ];
  const there = kinds.filter(([number]) => number > 0);
  return there.map(([number, kind]) => `${count(number)} ${kind}`).join(", ") || "–";
}

/** What a load is at. */
function progressText({ stage, instance, instances, rows, record }: LoadProgress): string {
  if (instance === 0) return `${stage} for its turn to load`;
  const at = record ? ` on record '${record}'` : rows ? ` at ${count(rows)} rows` : "";
  return `${stage} instance ${instance} of ${instances}${at}`;
}

/** How often it was loaded, and how often it made room or was idle. */
function cameAndWent(model: ModelDetail): string {
  const parts = [count(model.loads)];
  if (model.evictions > 0) parts.push(`made room ${count(model.evictions)}×`);
  if (model.idle_unloads > 0) parts.push(`idle ${count(model.idle_unloads)}×`);
  if (model.load_failures > 0) parts.push(`failed ${count(model.load_failures)}×`);
  return parts.join(", ");
}

const COLUMNS = ["Memory", "Waiting", "Requests", "Rows each", "Latency", "Queued", "Computed", "Forecast off by"];

function Models({ device }: { device: DeviceDetail }) {
  return (
    <Scroll label={`Models on ${device.device}`}>
      <table className="grid">
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">State</th>
            {COLUMNS.map((name) => (
              <th scope="col" className="num" key={name}>
                {name}
              </th>
            ))}
            <th scope="col">Loads</th>
            <th scope="col">Went wrong</th>
          </tr>
        </thead>
        <tbody>
          {device.models.map((model) => (
            <tr key={`${model.tenant}/${model.model}/${model.version}`}>
              <td>
                <Anchor component={Link} to={`/models/${model.tenant}/${model.model}`}>
                  {model.tenant}/{model.model}
                </Anchor>{" "}
                {model.version}
              </td>
              <td>
                <Dot tone={stateTone(model.state)}>{model.state.toLowerCase()}</Dot>
                {model.reason && <Reason>{model.reason}</Reason>}
                {model.progress && <Reason>{progressText(model.progress)}</Reason>}
              </td>
              <td className="num">{known(model.memory_bytes)}</td>
              <td className="num">{count(model.queue_length)}</td>
              <td className="num">{count(model.requests)}</td>
              <td className="num">{model.mean_batch_rows?.toFixed(1) ?? "–"}</td>
              <td className="num">{millis(model.mean_latency_ms)}</td>
              <td className="num">{millis(model.mean_queue_ms)}</td>
              <td className="num">{millis(model.mean_compute_ms)}</td>
              <td className="num">
                {typeof model.prediction_error === "number" ? percent(model.prediction_error) : "–"}
              </td>
              <td>{cameAndWent(model)}</td>
              <td>{wentWrong(model)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Tenants({ device }: { device: DeviceDetail }) {
  const others = device.other_tenants_seconds;
  const all = device.tenants.reduce((sum, one) => sum + one.seconds, others);
  const rows = [
    ...device.tenants.map(({ tenant, seconds }) => ({ tenant, seconds, named: true })),
    ...(others > 0 ? [{ tenant: "all others", seconds: others, named: false }] : []),
  ];
  if (rows.length === 0)
    return (
      <Text size="sm" c="dimmed">
        No tenant has used it yet.
      </Text>
    );
  return (
    <Scroll label={`Time of ${device.device} by tenant`}>
      <table className="grid" style={{ maxWidth: 720 }}>
        <thead>
          <tr>
            <th scope="col">Tenant</th>
            <th scope="col" className="num">
              Device time
            </th>
            <th scope="col" style={{ width: "50%" }}>
              Share
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ tenant, seconds, named }) => (
            <tr key={tenant}>
              <td>
                {named ? (
                  <Anchor component={Link} to={`/tenants/${tenant}`}>
                    {tenant}
                  </Anchor>
                ) : (
                  tenant
                )}
              </td>
              <td className="num">{seconds.toFixed(seconds < 10 ? 3 : 1)} s</td>
              <td>
                <div className="meters">
                  <span className="sr">Share</span>
                  <div className="busybar" aria-hidden="true" style={{ gridColumn: "1 / 3" }}>
                    <span style={{ width: `${all > 0 ? (seconds / all) * 100 : 0}%` }} />
                  </div>
                  <span>{percent(all > 0 ? Math.round((seconds / all) * 1000) / 1000 : 0)}</span>
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
