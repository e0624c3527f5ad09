/** Makes or edits a tenant. */
import { Button, Group, NumberInput, Stack, Switch, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { call, paths } from "../api/client";
import type { Budgets, Limits, Tenant, TenantSpec } from "../api/types";
import { Curl } from "./Copy";
import { LimitsFields } from "./LimitsFields";
import { Failure } from "./states";

type Amount = number | string;
const filled = (value: Amount): value is number => typeof value === "number";

interface Props {
  tenant: Tenant | null;
  readOnly: boolean;
  done?: () => void;
}

export function TenantForm({ tenant, readOnly, done }: Props) {
  const was = tenant?.spec;
  const [name, setName] = useState(tenant?.metadata.name ?? "");
  const [title, setTitle] = useState(was?.display_name ?? "");
  const [weight, setWeight] = useState<Amount>(was?.weight ?? 1);
  const [limits, setLimits] = useState<Limits>(was?.limits ?? {});
  const [budgets, setBudgets] = useState<Budgets>(was?.budgets ?? {});
  const [suspended, setSuspended] = useState(was?.suspended ?? false);
  const [isolated, setIsolated] = useState(was?.isolation === "isolated");
  const client = useQueryClient();

  // A PUT writes all of it: what this form does not know stays as it was.
  const spec: TenantSpec = {
    ...was,
    weight: filled(weight) ? weight : 1,
    limits,
    suspended,
    isolation: isolated ? "isolated" : "shared",
  };
  if (Object.keys(budgets).length > 0) spec.budgets = budgets;
  else delete spec.budgets;
  if (title) spec.display_name = title;
  else delete spec.display_name;
  const body: Tenant = { apiVersion: "mesh/v1", kind: "Tenant", metadata: { name }, spec };
  const save = useMutation({
    mutationFn: () =>
      call<Tenant>(paths.tenant(name), {
        method: "PUT",
        json: body,
        ...(tenant ? { ifMatch: tenant.metadata.revision } : { createOnly: true }),
      }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["tenants"] });
      done?.();
    },
  });
  const headers: Record<string, string> = tenant
    ? { "If-Match": `"${tenant.metadata.revision ?? ""}"` }
    : { "If-None-Match": "*" };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <Stack>
        {!tenant && (
          <TextInput
            label="Name"
            description="Lowercase letters, digits, '-', '_' and '.'"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            required
            maxLength={63}
            data-autofocus
          />
        )}
        <div className="fields">
          <TextInput
            label="Shown as"
            value={title}
            disabled={readOnly}
            onChange={(event) => setTitle(event.currentTarget.value)}
          />
          <NumberInput
            label="Weight"
            description="Share of a busy device, 1 to 1000"
            value={weight}
            onChange={setWeight}
            min={1}
            max={1000}
            allowDecimal={false}
            disabled={readOnly}
          />
        </div>
        <LimitsFields
          limits={limits}
          budgets={budgets}
          readOnly={readOnly}
          onLimits={setLimits}
          onBudgets={setBudgets}
        />
        <Switch
          label="Isolated"
          description="Its rows are never in one batch with another tenant's; that costs throughput where traffic is thin"
          checked={isolated}
          disabled={readOnly}
          onChange={(event) => setIsolated(event.currentTarget.checked)}
        />
        <Switch
          label="Suspended"
          description="Every call is refused until it is lifted"
          checked={suspended}
          disabled={readOnly}
          onChange={(event) => setSuspended(event.currentTarget.checked)}
        />
        {save.isError && <Failure error={save.error} />}
        <Group justify="space-between">
          <Curl call={{ method: "PUT", path: paths.tenant(name || "NAME"), json: body, headers }} />
          <Button type="submit" loading={save.isPending} disabled={readOnly || name === ""}>
            {tenant ? "Save" : "Create"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
