/** "May X do Y to Z, and why": asked of the mesh, with a policy that is not written yet where there is one. */
import { Button, Group, NativeSelect, Stack, Text, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { call } from "../api/client";
import type { PolicyAction, PolicyAnswer } from "../api/types";
import { Dot, Failure, Surface } from "./states";

export interface Draft {
  name: string;
  cedar: string;
}

interface Props {
  actions: PolicyAction[];
  draft: Draft | null;
}

export function MayIt({ actions, draft }: Props) {
  const [principal, setPrincipal] = useState("Key/acme/ci");
  const [issuer, setIssuer] = useState("");
  const [groups, setGroups] = useState("");
  const [action, setAction] = useState("model:infer");
  const [resource, setResource] = useState("Model/acme/digits");
  const isUser = /^user\//i.test(principal);
  const ask = useMutation({
    mutationFn: () =>
      call<PolicyAnswer>("/policy-test", {
        method: "POST",
        json: {
          principal,
          action,
          resource,
          ...(isUser && { issuer }),
          groups: groups.split(/[\s,]+/).filter(Boolean),
          policies: draft ? [draft] : [],
        },
      }),
  });
  const done = actions.find((one) => one.name === action);
  return (
    <Surface title="May they?">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          ask.mutate();
        }}
      >
        <Stack gap="sm">
          <Group align="flex-start">
            <TextInput
              label="Who"
              description="Key/TENANT/NAME, User/TENANT/SUB or Admin/NAME"
              value={principal}
              onChange={(event) => setPrincipal(event.currentTarget.value)}
              required
              w={280}
            />
            {isUser && (
              <TextInput
                label="Issuer"
                description="The iss of the user's tokens"
                value={issuer}
                onChange={(event) => setIssuer(event.currentTarget.value)}
                required
              />
            )}
            <TextInput
              label="In groups"
              description="Of whom is no record; blanks between"
              value={groups}
              onChange={(event) => setGroups(event.currentTarget.value)}
            />
          </Group>
          <Group align="flex-start">
            <NativeSelect
              label="Does what"
              description={done?.about ?? "An action"}
              data={actions.length > 0 ? actions.map((one) => one.name) : [action]}
              value={action}
              onChange={(event) => setAction(event.currentTarget.value)}
              maw={420}
            />
            <TextInput
              label="To what"
              description={done ? `One of: ${done.resources.join(", ")}` : "KIND/TENANT/NAME"}
              value={resource}
              onChange={(event) => setResource(event.currentTarget.value)}
              required
              w={280}
            />
          </Group>
          <Group>
            <Button type="submit" variant="default" loading={ask.isPending}>
              Ask
            </Button>
            <Text size="sm" c="dimmed">
              {draft ? `With '${draft.name}' as it stands above, written or not.` : "As the mesh is now."}
            </Text>
          </Group>
          {ask.isError && <Failure error={ask.error} />}
          {ask.isSuccess && <Told answer={ask.data} />}
        </Stack>
      </form>
    </Surface>
  );
}

function Told({ answer }: { answer: PolicyAnswer }) {
  return (
    <div role="status">
      <Text component="div">
        <Dot tone={answer.allowed ? "good" : "bad"}>{answer.allowed ? "Allowed" : "Denied"}</Dot> {answer.reason}
      </Text>
      <Text component="div" size="sm" c="dimmed" className="mono">
        {answer.principal} {answer.action} {answer.resource}
      </Text>
      {!answer.principal_known && (
        <Text size="sm" c="dimmed">
          The mesh has no record of who asks: it was taken to be what the question says.
        </Text>
      )}
      {answer.decided_by.length > 0 && (
        <ul style={{ margin: "6px 0 0", paddingLeft: 18 }}>
          {answer.decided_by.map((one) => (
            <li key={`${one.policy} ${one.statement}`}>
              {one.effect} by <span className="mono">{one.policy}</span>, statement {one.statement}, line {one.line}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
