/** One endpoint: its live arms, its split to edit, how to call it, and a place to try it. Also makes new ones. */
import { Button, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { call, paths } from "../api/client";
import {
  endpoint as endpointQuery,
  models as modelsQuery,
  tenants as tenantsQuery,
  versions as versionsQuery,
} from "../api/queries";
import type { Endpoint, Model, ModelVersion } from "../api/types";
import { CallIt } from "../components/CallIt";
import { Chart } from "../components/Chart";
import { EndpointForm } from "../components/EndpointForm";
import { LiveTable } from "../components/LiveTable";
import { Purge } from "../components/Purge";
import { TryIt } from "../components/TryIt";
import { Empty, Failure, PageHead, Rows, Surface } from "../components/states";
import { when } from "../lib/format";
import { drawable, numberOf, resolve, versionsOf } from "../lib/models";
import { useReadOnly } from "../lib/session";
import { useLive } from "../live/LiveProvider";

export default function EndpointPage() {
  const { tenant, endpoint } = useParams();
  return tenant && endpoint ? <Existing key={`${tenant}/${endpoint}`} tenant={tenant} name={endpoint} /> : <New />;
}

/** What arms of this tenant can name. */
export function choicesOf(tenant: string, models: Model[], versions: ModelVersion[]) {
  const mine = models.filter((model) => model.metadata.tenant === tenant || model.spec.grants?.includes(tenant));
  return {
    models: [...new Set(mine.map((model) => model.metadata.name))],
    versions: (name: string) => {
      const model = mine.find((item) => item.metadata.name === name);
      if (!model) return [];
      const numbers = versionsOf(versions, model.metadata.tenant ?? tenant, name).map((version) =>
        String(numberOf(version)),
      );
      return [...Object.keys(model.spec.labels ?? {}), ...numbers];
    },
  };
}

function Existing({ tenant, name }: { tenant: string; name: string }) {
  const found = useQuery(endpointQuery(tenant, name));
  const models = useQuery(modelsQuery);
  const versions = useQuery(versionsQuery);
  const readOnly = useReadOnly();
  const choices = useMemo(
    () => choicesOf(tenant, models.data ?? [], versions.data ?? []),
    [tenant, models.data, versions.data],
  );
  if (found.isPending || models.isPending || versions.isPending) return <Rows count={6} />;
  if (found.isError) return <Failure error={found.error} retry={() => void found.refetch()} />;
  const resolved = found.data.spec.arms.map((arm) => resolve(arm, tenant, models.data ?? [], versions.data ?? []));
  const first = resolved.find((version) => version !== undefined)?.spec;
  return (
    <>
      <PageHead
        title={name}
        note={`Endpoint of ${tenant}, revision ${found.data.metadata.revision ?? "–"}, changed ${when(found.data.metadata.updated)}. ${found.data.spec.description ?? ""}`}
      >
        {!readOnly && found.data.spec.cache && <Purge tenant={tenant} endpoint={name} />}
        {!readOnly && <Remove endpoint={found.data} />}
      </PageHead>
      <Stack gap={14}>
        <LiveArms tenant={tenant} name={name} />
        <EndpointForm server={found.data} choices={choices} readOnly={readOnly} />
        <TryIt
          key={first ? "known" : "unknown"}
          tenant={tenant}
          endpoint={name}
          spec={first}
          drawable={drawable(first)}
        />
        <CallIt endpoint={found.data} spec={first} />
      </Stack>
    </>
  );
}

function LiveArms({ tenant, name }: { tenant: string; name: string }) {
  const { latest, samples } = useLive();
  const prefix = `${tenant}/${name}/`;
  const keys = useMemo(
    () =>
      [...new Set(samples.flatMap((sample) => Object.keys(sample.arms)))]
        .filter((key) => key.startsWith(prefix) && key !== prefix)
        .sort(),
    [samples, prefix],
  );
  const times = useMemo(() => samples.map((sample) => sample.time), [samples]);
  const series = useMemo(
    () =>
      keys.map((key) => ({ label: key.slice(prefix.length), values: samples.map((sample) => sample.arms[key] ?? 0) })),
    [keys, samples, prefix],
  );
  const rows = (latest?.endpoints ?? []).filter((row) => row.tenant === tenant && row.target === name);
  if (rows.length === 0 && keys.length === 0)
    return (
      <Surface title="Live">
        <Empty title="Nobody has called it yet">Its arms show here from the first request on.</Empty>
      </Surface>
    );
  const all = rows.reduce((sum, row) => sum + row.requests_per_second, 0);
  const shares = new Map<string, number>();
  for (const row of rows) if (row.arm) shares.set(row.arm, (shares.get(row.arm) ?? 0) + row.requests_per_second);
  return (
    <div className="charts">
      <Chart title="Requests per second by arm" unit="/s" times={times} series={series} />
      <Surface title="Live by arm">
        <LiveTable rows={rows} within />
        {all > 0 && (
          <Text size="sm" mt="sm">
            Seen now: {[...shares].map(([arm, rate]) => `${arm} ${((rate / all) * 100).toFixed(1)} %`).join(", ")}
          </Text>
        )}
      </Surface>
    </div>
  );
}

function Remove({ endpoint }: { endpoint: Endpoint }) {
  const { tenant = "", name, revision } = endpoint.metadata;
  const [open, setOpen] = useState(false);
  const [typed, setTyped] = useState("");
  const client = useQueryClient();
  const go = useNavigate();
  const remove = useMutation({
    mutationFn: () => call(paths.endpoint(tenant, name), { method: "DELETE", ifMatch: revision }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["endpoints"], exact: true });
      await go("/endpoints");
    },
  });
  return (
    <>
      <Button variant="default" onClick={() => setOpen(true)}>
        Delete
      </Button>
      <Modal
        opened={open}
        onClose={() => setOpen(false)}
        title={`Delete ${name}`}
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <Stack>
          <Text size="sm">Whoever calls it gets an error from then on. Type its name to go on.</Text>
          <TextInput
            label="Name"
            value={typed}
            onChange={(event) => setTyped(event.currentTarget.value)}
            data-autofocus
          />
          {remove.isError && <Failure error={remove.error} />}
          <Button color="red.9" disabled={typed !== name} loading={remove.isPending} onClick={() => remove.mutate()}>
            Delete
          </Button>
        </Stack>
      </Modal>
    </>
  );
}

function New() {
  const [tenant, setTenant] = useState<string | null>(null);
  const [name, setName] = useState("");
  const tenants = useQuery(tenantsQuery);
  const models = useQuery(modelsQuery);
  const versions = useQuery(versionsQuery);
  const readOnly = useReadOnly();
  const only = tenants.data?.length === 1 ? tenants.data[0]?.metadata.name : undefined;
  useEffect(() => {
    if (only && tenant === null) setTenant(only);
  }, [only, tenant]);
  const choices = choicesOf(tenant ?? "", models.data ?? [], versions.data ?? []);
  const draft: Endpoint = {
    apiVersion: "mesh/v1",
    kind: "Endpoint",
    metadata: { tenant: tenant ?? "", name },
    spec: { arms: [{ name: "v1", model: "", weight: 100 }] },
  };
  return (
    <>
      <PageHead title="New endpoint" note="A name that a tenant can call, and where its requests go." />
      <Stack gap={14}>
        <Surface title="Name">
          <div className="fields">
            <Select
              label="Tenant"
              data={(tenants.data ?? []).map((item) => item.metadata.name)}
              value={tenant}
              onChange={setTenant}
              required
            />
            <TextInput
              label="Name"
              placeholder="digits"
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
              required
            />
          </div>
        </Surface>
        <EndpointForm server={draft} choices={choices} readOnly={readOnly || !tenant || name === ""} create />
      </Stack>
    </>
  );
}
