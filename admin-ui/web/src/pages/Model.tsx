/** One model: its versions, where each is loaded, and which labels point at them. */
import { Button, Group, Modal, NumberInput, Stack, TextInput, Text } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useParams } from "react-router";

import { call, paths } from "../api/client";
import { models, versions as versionsQuery } from "../api/queries";
import type { Device, Model, ModelVersion, TensorSpec } from "../api/types";
import { Copy, Curl } from "../components/Copy";
import { Graph } from "../components/Graph";
import { Loaded } from "../components/Loaded";
import { Dot, Empty, Failure, PageHead, Reason, Rows, Scroll, stateTone, Surface } from "../components/states";
import { documentsOf } from "../lib/door";
import { bytes, when } from "../lib/format";
import { heldBy, numberOf, versionsOf } from "../lib/models";
import { useBound, useReadOnly } from "../lib/session";
import { useLive } from "../live/LiveProvider";

const tensors = (list: TensorSpec[]) =>
  list
    .map((tensor) => {
      const marks = [tensor.optional && "optional", tensor.unbatched && "one for a batch"].filter(Boolean);
      return `${tensor.name} ${tensor.datatype}[${tensor.dims.join(",")}] ${marks.join(", ")}`.trim();
    })
    .join("\n");

export default function ModelPage() {
  const { tenant = "", model: name = "" } = useParams();
  const list = useQuery(models);
  const all = useQuery(versionsQuery);
  const readOnly = useReadOnly();
  const { latest } = useLive();
  const model = list.data?.find((item) => item.metadata.tenant === tenant && item.metadata.name === name);
  const versions = versionsOf(all.data ?? [], tenant, name);
  if (list.isPending || all.isPending) return <Rows count={6} />;
  if (list.isError || all.isError) return <Failure error={list.error ?? all.error} />;
  if (!model) return <Empty title={`There is no model ${name} of ${tenant}`} />;
  return (
    <>
      <PageHead title={name} note={`Model of ${tenant}. ${model.spec.description ?? ""}`}>
        <Button component="a" variant="default" href={documentsOf(name)} target="_blank" rel="noreferrer">
          API documents
        </Button>
        {!readOnly && (
          <Button component={Link} to={`/models/publish?tenant=${tenant}&model=${name}`}>
            Publish a version
          </Button>
        )}
      </PageHead>
      <Stack gap={14}>
        <Labels model={model} versions={versions} readOnly={readOnly} />
        {versions.length === 0 && (
          <Surface title="Versions">
            <Empty title="No version is published" />
          </Surface>
        )}
        {versions.map((version) => (
          <Version key={version.metadata.name} version={version} model={model} devices={latest?.devices ?? []} />
        ))}
      </Stack>
    </>
  );
}

function Version({ version, model, devices }: { version: ModelVersion; model: Model; devices: Device[] }) {
  const number = numberOf(version);
  const { spec, metadata } = version;
  const ensemble = spec.format === "ensemble";
  // What loading came to is told with the devices, which are the mesh's.
  const bound = useBound();
  const labels = Object.entries(model.spec.labels ?? {}).filter(([, to]) => to === number);
  const held = heldBy(devices, metadata.tenant ?? "", model.metadata.name).filter(
    (item) => Number(item.version) === number,
  );
  return (
    <Surface
      title={`Version ${number}`}
      aside={
        <Group gap={6}>
          {labels.map(([label]) => (
            <span className="chip" key={label}>
              {label}
            </span>
          ))}
        </Group>
      }
    >
      <Scroll label={`Version ${number}`}>
        <table className="grid">
          <tbody>
            {!ensemble && (
              <tr>
                <th scope="row">Devices</th>
                <td>
                  {held.length === 0 ? (
                    <Dot tone="plain">{spec.unloaded ? "not to be loaded" : "on no device"}</Dot>
                  ) : (
                    <Group gap="md">
                      {held.map((item) => (
                        <div key={item.device}>
                          <Dot tone={stateTone(item.state)}>
                            {item.device}: {item.state.toLowerCase()}
                          </Dot>
                          {item.reason && <Reason>{item.reason}</Reason>}
                        </div>
                      ))}
                    </Group>
                  )}
                </td>
              </tr>
            )}
            <tr>
              <th scope="row">Format</th>
              <td>
                {spec.format}
                {spec.artifact && `, ${bytes(spec.artifact.bytes)}`}
              </td>
            </tr>
            {spec.artifact && (
              <tr>
                <th scope="row">SHA-256</th>
                <td>
                  <Group gap="xs">
                    <span className="mono" style={{ wordBreak: "break-all" }}>
                      {spec.artifact.sha256}
                    </span>
                    <Copy value={spec.artifact.sha256} />
                  </Group>
                </td>
              </tr>
            )}
            <tr>
              <th scope="row">Inputs</th>
              <td className="mono" style={{ whiteSpace: "pre-line" }}>
                {tensors(spec.config.input)}
              </td>
            </tr>
            <tr>
              <th scope="row">Outputs</th>
              <td className="mono" style={{ whiteSpace: "pre-line" }}>
                {tensors(spec.config.output)}
              </td>
            </tr>
            <tr>
              <th scope="row">Batches</th>
              <td>
                {spec.config.max_batch_size === 0 ? "no batch dimension" : `up to ${spec.config.max_batch_size} rows`}
              </td>
            </tr>
            {bound === null && (
              <tr>
                <th scope="row">Loaded</th>
                <td>
                  <Loaded tenant={metadata.tenant ?? ""} model={model.metadata.name} version={number} />
                </td>
              </tr>
            )}
            <tr>
              <th scope="row">Published</th>
              <td>
                {when(metadata.created)}
                {spec.description && ` · ${spec.description}`}
              </td>
            </tr>
          </tbody>
        </table>
      </Scroll>
      {ensemble && <Graph tenant={metadata.tenant ?? ""} model={model.metadata.name} version={number} />}
    </Surface>
  );
}

function Labels({ model, versions, readOnly }: { model: Model; versions: ModelVersion[]; readOnly: boolean }) {
  const [open, setOpen] = useState(false);
  const labels = Object.entries(model.spec.labels ?? {});
  return (
    <Surface
      title="Labels"
      aside={
        !readOnly &&
        versions.length > 0 && (
          <Button size="compact-sm" variant="default" onClick={() => setOpen(true)}>
            Set a label
          </Button>
        )
      }
    >
      {labels.length === 0 ? (
        <Text c="dimmed" size="sm">
          None. A label such as stable lets an arm follow a version without being edited.
        </Text>
      ) : (
        <Group gap="xs">
          {labels.map(([label, version]) => (
            <span className="chip" key={label}>
              {label} → {version}
            </span>
          ))}
        </Group>
      )}
      <Modal
        opened={open}
        onClose={() => setOpen(false)}
        title="Set a label"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <LabelForm model={model} versions={versions} done={() => setOpen(false)} />
      </Modal>
    </Surface>
  );
}

function LabelForm({ model, versions, done }: { model: Model; versions: ModelVersion[]; done: () => void }) {
  const [label, setLabel] = useState("stable");
  const [number, setNumber] = useState<number>(numberOf(versions[0] as ModelVersion));
  const client = useQueryClient();
  const { tenant = "", name } = model.metadata;
  const body: Model = {
    ...model,
    metadata: { tenant, name },
    spec: { ...model.spec, labels: { ...model.spec.labels, [label]: number } },
  };
  const save = useMutation({
    mutationFn: () => call(paths.model(tenant, name), { method: "PUT", json: body, ifMatch: model.metadata.revision }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["models"] });
      done();
    },
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <Stack>
        <TextInput
          label="Label"
          value={label}
          onChange={(event) => setLabel(event.currentTarget.value)}
          required
          data-autofocus
        />
        <NumberInput
          label="Version"
          value={number}
          onChange={(value) => setNumber(Number(value))}
          min={1}
          allowDecimal={false}
          required
        />
        {save.isError && <Failure error={save.error} />}
        <Group justify="space-between">
          <Curl
            call={{
              method: "PUT",
              path: paths.model(tenant, name),
              json: body,
              headers: { "If-Match": `"${model.metadata.revision}"` },
            }}
          />
          <Button type="submit" loading={save.isPending}>
            Set
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
