/** A tenant's API keys. A new one is shown once; the mesh itself keeps only its hash. */
import { Alert, Button, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { call, paths } from "../api/client";
import { keys, keyUses } from "../api/queries";
import type { ApiKey, CreatedKey, KeyUse } from "../api/types";
import { when } from "../lib/format";
import { Code, Copy, Curl } from "./Copy";
import { Dot, Empty, Failure, Surface } from "./states";
import { Sure } from "./Sure";
import { Listed, type Column } from "./Table";

function State({ spec }: ApiKey) {
  if (spec.revoked) return <Dot tone="bad">revoked</Dot>;
  if (spec.expires && new Date(spec.expires).getTime() < Date.now()) return <Dot tone="warn">ended</Dot>;
  return <Dot tone="good">valid</Dot>;
}

/** When a key was last used; a dash while that is not known. */
function lastUse(uses: KeyUse[] | undefined, key: string): string {
  const use = uses?.find((one) => one.key === key);
  if (!use) return "–";
  return use.last_used ? when(use.last_used) : "never";
}

export function Keys({ tenant, readOnly }: { tenant: string; readOnly: boolean }) {
  const list = useQuery(keys(tenant));
  const uses = useQuery(keyUses(tenant));
  const [open, setOpen] = useState(false);
  const [leaving, setLeaving] = useState<ApiKey | null>(null);
  const columns: Column<ApiKey>[] = [
    { name: "Key", cell: ({ metadata }) => metadata.name, mono: true },
    { name: "For", cell: ({ spec }) => spec.description ?? "–" },
    { name: "State", cell: (key) => <State {...key} /> },
    { name: "Created", cell: ({ metadata }) => when(metadata.created) },
    { name: "Ends", cell: ({ spec }) => (spec.expires ? when(spec.expires) : "never") },
    { name: "Last used", cell: ({ metadata }) => lastUse(uses.data, metadata.name) },
    {
      name: "Actions",
      silent: true,
      num: true,
      cell: (key) =>
        !readOnly && (
          <Button
            size="compact-xs"
            variant="default"
            aria-label={`${key.spec.revoked ? "Delete" : "Revoke"} key ${key.metadata.name}`}
            onClick={() => setLeaving(key)}
          >
            {key.spec.revoked ? "Delete" : "Revoke"}
          </Button>
        ),
    },
  ];
  return (
    <Surface
      title="API keys"
      aside={
        !readOnly && (
          <Button size="compact-sm" onClick={() => setOpen(true)}>
            Create a key
          </Button>
        )
      }
    >
      <Listed
        query={list}
        label="API keys"
        columns={columns}
        id={({ metadata }) => metadata.name}
        empty={<Empty title="No keys">Without one nobody can call as {tenant}, unless a token issuer says so.</Empty>}
      />
      <Create tenant={tenant} open={open} close={() => setOpen(false)} />
      <Revoke key={leaving?.metadata.name ?? ""} tenant={tenant} leaving={leaving} close={() => setLeaving(null)} />
    </Surface>
  );
}

function Create({ tenant, open, close }: { tenant: string; open: boolean; close: () => void }) {
  const [description, setDescription] = useState("");
  const [ends, setEnds] = useState("");
  const client = useQueryClient();
  const json = { ...(description && { description }), ...(ends && { expires: `${ends}T00:00:00Z` }) };
  const create = useMutation({
    mutationFn: () => call<CreatedKey>(paths.keys(tenant), { method: "POST", json }),
    onSuccess: () => client.invalidateQueries({ queryKey: ["keys", tenant] }),
  });
  const leave = () => {
    // The key is gone from this page's memory with the window.
    create.reset();
    setDescription("");
    setEnds("");
    close();
  };
  return (
    <Modal
      opened={open}
      onClose={leave}
      title="API key"
      size="lg"
      closeOnClickOutside={!create.data}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {create.data ? (
        <Stack>
          <Alert color="orange" variant="outline" title="This is the only time it is shown">
            Copy it now and keep it where secrets are kept. The mesh has only its hash.
          </Alert>
          <Code text={create.data.key} label="The new API key" />
          <Group justify="space-between">
            <Copy value={create.data.key} label="Copy key" />
            <Button onClick={leave}>I have it</Button>
          </Group>
        </Stack>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            create.mutate();
          }}
        >
          <Stack>
            <TextInput
              label="What for"
              placeholder="checkout service, production"
              value={description}
              onChange={(event) => setDescription(event.currentTarget.value)}
              data-autofocus
            />
            <TextInput
              label="Ends on"
              type="date"
              description="Empty: never"
              value={ends}
              onChange={(event) => setEnds(event.currentTarget.value)}
            />
            {create.isError && <Failure error={create.error} />}
            <Group justify="space-between">
              <Curl call={{ method: "POST", path: paths.keys(tenant), json }} />
              <Button type="submit" loading={create.isPending}>
                Create
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}

function Revoke({ tenant, leaving, close }: { tenant: string; leaving: ApiKey | null; close: () => void }) {
  const client = useQueryClient();
  const name = leaving?.metadata.name ?? "";
  // A valid key is revoked first and stays in the list; one that is revoked can go.
  const gone = leaving?.spec.revoked ?? false;
  const json = leaving
    ? { ...leaving, metadata: { tenant, name }, spec: { ...leaving.spec, revoked: true } }
    : undefined;
  const write = gone ? ({ method: "DELETE" } as const) : ({ method: "PUT", json } as const);
  const revoke = useMutation({
    mutationFn: () => call(paths.key(tenant, name), { ...write, ifMatch: leaving?.metadata.revision }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["keys", tenant] });
      close();
    },
  });
  return (
    <Sure
      title={gone ? "Delete this key?" : "Revoke this key?"}
      opened={leaving !== null}
      close={close}
      act={gone ? "Delete" : "Revoke"}
      danger
      mutation={revoke}
      call={{ ...write, path: paths.key(tenant, name) }}
    >
      <Text size="sm">
        {gone
          ? "It is revoked already. It leaves this list; the audit log keeps its trace: "
          : "Calls are refused from then on with the key "}
        <span className="mono">{name}</span>.
      </Text>
    </Sure>
  );
}
