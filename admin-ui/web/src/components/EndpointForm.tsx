/**
 * Edits an endpoint: draft, a look at what would change, save. A draft is never lost: when somebody else saved first, it
 * stays, and the two can be compared before it is put on top.
 */
import { Alert, Button, Group, Modal, NativeSelect, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { ApiError, call, paths } from "../api/client";
import { endpoint as endpointQuery } from "../api/queries";
import type { DryRun, Endpoint, EndpointSpec, ServiceClass } from "../api/types";
import { clean, diff, faults } from "../lib/split";
import { Curl } from "./Copy";
import { Diff } from "./Diff";
import { SplitEditor, type Choices } from "./SplitEditor";
import { Failure, Surface } from "./states";

interface Props {
  server: Endpoint;
  choices: Choices;
  readOnly: boolean;
  create?: boolean;
}

const isConflict = (error: unknown): boolean =>
  error instanceof ApiError && (error.status === 409 || error.status === 412);

export function EndpointForm({ server, choices, readOnly, create }: Props) {
  const { tenant = "", name } = server.metadata;
  const path = paths.endpoint(tenant, name);
  // What the draft is made on; the server's may have gone on since.
  const [base, setBase] = useState<Endpoint>(server);
  const [draft, setDraft] = useState<EndpointSpec | null>(null);
  const [preview, setPreview] = useState<DryRun<Endpoint> | null>(null);
  const client = useQueryClient();
  const go = useNavigate();

  const spec = draft ?? server.spec;
  const sent: Endpoint = { apiVersion: "mesh/v1", kind: "Endpoint", metadata: { tenant, name }, spec: clean(spec) };
  const made = draft ? base : server;
  const dirty = draft !== null && (create || diff(clean(made.spec), clean(draft)).length > 0);
  const behind = draft !== null && !create && server.metadata.revision !== base.metadata.revision;
  const options = create ? { createOnly: true } : { ifMatch: made.metadata.revision };

  const edit = (change: Partial<EndpointSpec>) => {
    if (draft === null) setBase(server);
    setDraft({ ...spec, ...change });
  };
  const onConflict = (error: unknown) => {
    if (!isConflict(error) || create) return;
    setPreview(null);
    void client.invalidateQueries({ queryKey: endpointQuery(tenant, name).queryKey });
  };
  const look = useMutation({
    mutationFn: () => call<DryRun<Endpoint>>(`${path}?dry_run=true`, { method: "PUT", json: sent, ...options }),
    onSuccess: setPreview,
    onError: onConflict,
  });
  const save = useMutation({
    mutationFn: () => call<Endpoint>(path, { method: "PUT", json: sent, ...options }),
    onSuccess: async (saved) => {
      if (saved?.spec) client.setQueryData(endpointQuery(tenant, name).queryKey, saved);
      setPreview(null);
      setDraft(null);
      await client.invalidateQueries({ queryKey: ["endpoints"] });
      if (create) await go(`/endpoints/${tenant}/${name}`);
    },
    onError: onConflict,
  });
  const reset = () => {
    setDraft(null);
    look.reset();
    save.reset();
  };
  const rebase = () => {
    setBase(server);
    look.reset();
    save.reset();
  };
  const failed = [look.error, save.error].find((error) => error && (create || !isConflict(error)));
  const broken = faults(spec.arms).length > 0;
  const headers: Record<string, string> = create
    ? { "If-None-Match": "*" }
    : { "If-Match": `"${made.metadata.revision ?? ""}"` };

  return (
    <Surface title="Split">
      <Stack>
        <SplitEditor arms={spec.arms} choices={choices} readOnly={readOnly} onChange={(arms) => edit({ arms })} />
        <div className="fields">
          <TextInput
            label="Sticky by"
            description="The unit that always meets the same arm, such as user; empty: each request alone"
            value={spec.sticky_by ?? ""}
            disabled={readOnly}
            onChange={(event) => edit({ sticky_by: event.currentTarget.value || undefined })}
          />
          <NumberInput
            label="Timeout"
            description="Milliseconds, for requests that bring none; empty: the mesh's default"
            value={spec.timeout_ms ?? ""}
            min={1}
            allowDecimal={false}
            disabled={readOnly}
            onChange={(value) => edit({ timeout_ms: value === "" ? undefined : Number(value) })}
          />
          <NativeSelect
            label="Service class"
            description="How urgent its requests are on a busy device; a caller may lower it"
            data={[
              { value: "interactive", label: "Interactive" },
              { value: "batch", label: "Batch: when nothing interactive waits" },
            ]}
            value={spec.service_class ?? "interactive"}
            disabled={readOnly}
            onChange={(event) => edit({ service_class: event.currentTarget.value as ServiceClass })}
          />
        </div>
        {behind && (
          <Alert color="orange" variant="outline" role="alert" title="Somebody else has changed this endpoint">
            <Text size="sm" mb="xs">
              Your edit is kept. It was made on revision {base.metadata.revision}, now it is {server.metadata.revision}.
              Between the two:
            </Text>
            <Diff before={base.spec} after={server.spec} />
            <Group mt="sm" gap="xs">
              <Button size="xs" onClick={rebase}>
                Keep my edit, on top of theirs
              </Button>
              <Button size="xs" variant="default" onClick={reset}>
                Take theirs
              </Button>
            </Group>
          </Alert>
        )}
        {failed !== undefined && failed !== null && preview === null && <Failure error={failed} />}
        <Group justify="space-between">
          <Curl call={{ method: "PUT", path, json: sent, headers }} />
          <Group gap="xs">
            {dirty && !create && (
              <Button variant="default" onClick={reset}>
                Discard
              </Button>
            )}
            <Button
              disabled={readOnly || !dirty || broken || behind}
              loading={look.isPending}
              onClick={() => look.mutate()}
            >
              Review and save
            </Button>
          </Group>
        </Group>
      </Stack>
      <Modal
        opened={preview !== null}
        onClose={() => setPreview(null)}
        title="What changes"
        size="lg"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <Stack>
          <Diff before={preview?.before?.spec} after={preview?.after?.spec} />
          <Text size="sm" c="dimmed">
            New requests follow as soon as it is saved; those on their way are not touched.
          </Text>
          {save.isError && <Failure error={save.error} />}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={() => setPreview(null)}>
              Back
            </Button>
            <Button loading={save.isPending} onClick={() => save.mutate()} data-autofocus>
              Save
            </Button>
          </Group>
        </Stack>
      </Modal>
    </Surface>
  );
}
