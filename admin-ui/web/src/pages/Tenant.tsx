/** One tenant: its limits and its API keys. */
import { Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useParams } from "react-router";

import { tenant as tenantQuery } from "../api/queries";
import { Keys } from "../components/Keys";
import { Purge } from "../components/Purge";
import { Dot, Failure, PageHead, Rows, Surface } from "../components/states";
import { TenantForm } from "../components/TenantForm";
import { useBound, useReadOnly } from "../lib/session";

export default function TenantPage() {
  const { tenant: name = "" } = useParams();
  const found = useQuery(tenantQuery(name));
  const readOnly = useReadOnly();
  const bound = useBound();
  if (found.isPending) return <Rows count={6} />;
  if (found.isError) return <Failure error={found.error} retry={() => void found.refetch()} />;
  const tenant = found.data;
  return (
    <>
      <PageHead
        title={name}
        note={
          tenant.spec.suspended ? <Dot tone="bad">suspended: every call is refused</Dot> : <Dot tone="good">active</Dot>
        }
      >
        {!readOnly && <Purge tenant={name} />}
      </PageHead>
      <Stack gap={14}>
        <Surface title="Limits and weight">
          {bound !== null && !readOnly && (
            <Text size="sm" c="dimmed" mb="sm">
              Whoever administers the mesh sets these.
            </Text>
          )}
          <TenantForm key={tenant.metadata.revision} tenant={tenant} readOnly={readOnly || bound !== null} />
        </Surface>
        <Keys tenant={name} readOnly={readOnly} />
      </Stack>
    </>
  );
}
