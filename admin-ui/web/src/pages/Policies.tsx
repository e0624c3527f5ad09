/** Who may do what: the declared policies, one that is being written, and "may X do Y to Z, and why" with it. */
import { Button, Group, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { call, paths } from "../api/client";
import { policies as policiesQuery, policySchema } from "../api/queries";
import type { Policy } from "../api/types";
import { Curl } from "../components/Copy";
import { MayIt } from "../components/MayIt";
import { Empty, Failure, PageHead, Rows, Scroll, Surface } from "../components/states";
import { useSession } from "../lib/session";

const NEW = `forbid (principal in Mesh::Group::"acme/interns", action == Mesh::Action::"model:infer", resource)
unless { resource == Mesh::Endpoint::"acme/front" };
`;

export default function Policies() {
  const list = useQuery(policiesQuery);
  const [chosen, choose] = useState<string | null>(null);
  const [made, setMade] = useState(0);
  const policy = list.data?.find((one) => one.metadata.name === chosen) ?? null;
  return (
    <>
      <PageHead
        title="Policies"
        note="Beside what scopes and roles grant. They permit and forbid within a tenant, and never reach across."
      >
        <Button
          variant="default"
          onClick={() => {
            choose(null);
            setMade(made + 1);
          }}
        >
          New policy
        </Button>
      </PageHead>
      <Stack gap={14}>
        <Surface title="Declared">
          {list.isPending && <Rows />}
          {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
          {list.data?.length === 0 && (
            <Empty title="No policy is declared">Scopes and roles alone say who may do what.</Empty>
          )}
          {list.data && list.data.length > 0 && <Declared all={list.data} choose={choose} />}
        </Surface>
        {/* Another policy, or another state of it, is another text to write on. */}
        <Desk key={policy ? `${policy.metadata.name} ${policy.metadata.revision}` : `new ${made}`} policy={policy} done={choose} />
      </Stack>
    </>
  );
}

function Declared({ all, choose }: { all: Policy[]; choose: (name: string) => void }) {
  return (
    <Scroll label="Policies">
      <table className="grid">
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">What for</th>
            <th scope="col">Begins with</th>
            <th scope="col">
              <span className="sr">Open</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {all.map((policy) => (
            <tr key={policy.metadata.name}>
              <td>{policy.metadata.name}</td>
              <td>{policy.spec.description ?? "–"}</td>
              <td className="mono">{policy.spec.cedar.trim().split("\n", 1)[0]?.slice(0, 90)}</td>
              <td>
                <Button size="compact-sm" variant="default" onClick={() => choose(policy.metadata.name)}>
                  Open<span className="sr"> {policy.metadata.name}</span>
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

/** Where one policy is written and tried out. */
function Desk({ policy, done }: { policy: Policy | null; done: (name: string | null) => void }) {
  const client = useQueryClient();
  const schema = useQuery(policySchema);
  // Who may write is the mesh's to say; who surely may not is not offered it.
  const readOnly = useSession().role !== "admin";
  const [name, setName] = useState(policy?.metadata.name ?? "");
  const [about, setAbout] = useState(policy?.spec.description ?? "");
  const [cedar, setCedar] = useState(policy?.spec.cedar ?? NEW);
  const [sure, setSure] = useState(false);
  const [trying, setTrying] = useState(policy !== null);
  const body: Policy = {
    apiVersion: "mesh/v1",
    kind: "Policy",
    metadata: { name },
    spec: { ...(about && { description: about }), cedar },
  };
  const refresh = () => client.invalidateQueries({ queryKey: policiesQuery.queryKey });
  const save = useMutation({
    mutationFn: () =>
      call<Policy>(paths.policy(name), {
        method: "PUT",
        json: body,
        ...(policy ? { ifMatch: policy.metadata.revision } : { createOnly: true }),
      }),
    onSuccess: async () => {
      await refresh();
      done(name);
    },
  });
  const remove = useMutation({
    mutationFn: () => call(paths.policy(name), { method: "DELETE", ifMatch: policy?.metadata.revision }),
    onSuccess: async () => {
      done(null);
      await refresh();
    },
  });
  const failed = save.error ?? remove.error;
  const draft = trying && name && cedar ? { name, cedar } : null;
  return (
    <>
      <Surface title={policy ? policy.metadata.name : "A new policy"}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <Stack gap="sm">
            <Group align="flex-start">
              <TextInput
                label="Name"
                value={name}
                disabled={policy !== null}
                onChange={(event) => setName(event.currentTarget.value)}
                required
                maxLength={63}
              />
              <TextInput
                label="What for"
                value={about}
                disabled={readOnly}
                onChange={(event) => setAbout(event.currentTarget.value)}
                w={360}
              />
            </Group>
            <Textarea
              label="Statements, in Cedar"
              value={cedar}
              rows={10}
              resize="vertical"
              styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
              spellCheck={false}
              onChange={(event) => {
                setCedar(event.currentTarget.value);
                setTrying(true);
              }}
            />
            {failed && <Failure error={failed} />}
            {!readOnly && (
              <Group>
                <Button type="submit" loading={save.isPending}>
                  {policy ? "Save" : "Write it"}
                </Button>
                {policy && (
                  <Button
                    variant="default"
                    color="red"
                    loading={remove.isPending}
                    onClick={() => (sure ? remove.mutate() : setSure(true))}
                  >
                    {sure ? "Delete it, for good" : "Delete"}
                  </Button>
                )}
                <Curl
                  call={{
                    method: "PUT",
                    path: paths.policy(name || "NAME"),
                    headers: policy
                      ? { "If-Match": `"${policy.metadata.revision ?? ""}"` }
                      : { "If-None-Match": "*" },
                    json: body,
                  }}
                />
              </Group>
            )}
          </Stack>
        </form>
      </Surface>
      <MayIt actions={schema.data?.actions ?? []} draft={draft} />
      {schema.isError && <Failure error={schema.error} />}
      {schema.data && (
        <Text size="sm" c="dimmed">
          {schema.data.actions.length} actions; what holds without any policy is printed by{" "}
          <span className="mono">mesh policy schema --builtin</span>.
        </Text>
      )}
    </>
  );
}
