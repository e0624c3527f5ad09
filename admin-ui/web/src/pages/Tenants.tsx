/** All tenants. */
import { Anchor, Button, Modal } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";

import { tenants } from "../api/queries";
import type { Tenant } from "../api/types";
import { Dot, Empty, PageHead, Reason, Surface } from "../components/states";
import { Listed, type Column } from "../components/Table";
import { TenantForm } from "../components/TenantForm";
import { useBound, useReadOnly } from "../lib/session";

const limitsOf = ({ spec }: Tenant): string => {
  const { requests, concurrency } = spec.limits ?? {};
  const parts = [
    requests && `${requests.per_second}/s, bursts of ${requests.burst}`,
    concurrency && `${concurrency} at once`,
  ].filter(Boolean);
  return parts.join("; ") || "none";
};

const COLUMNS: Column<Tenant>[] = [
  {
    name: "Tenant",
    cell: ({ metadata, spec }) => (
      <>
        <Anchor component={Link} fw={600} to={`/tenants/${metadata.name}`}>
          {metadata.name}
        </Anchor>
        {spec.display_name && <Reason>{spec.display_name}</Reason>}
      </>
    ),
  },
  {
    name: "State",
    cell: ({ spec }) => (spec.suspended ? <Dot tone="bad">suspended</Dot> : <Dot tone="good">active</Dot>),
  },
  { name: "Weight", cell: ({ spec }) => spec.weight, num: true },
  { name: "Limits", cell: limitsOf },
];

export default function Tenants() {
  const list = useQuery(tenants);
  const [open, setOpen] = useState(false);
  // A tenant's own admins make no others.
  const readOnly = [useReadOnly(), useBound() !== null].some(Boolean);
  return (
    <>
      <PageHead title="Tenants" note="Who may call, how much, and with which share.">
        {!readOnly && <Button onClick={() => setOpen(true)}>New tenant</Button>}
      </PageHead>
      <Surface>
        <Listed
          query={list}
          label="Tenants"
          columns={COLUMNS}
          id={({ metadata }) => metadata.name}
          empty={<Empty title="No tenants yet">A tenant owns models, endpoints and API keys.</Empty>}
        />
      </Surface>
      <Modal
        opened={open}
        onClose={() => setOpen(false)}
        title="New tenant"
        size="lg"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <TenantForm tenant={null} readOnly={readOnly} done={() => setOpen(false)} />
      </Modal>
    </>
  );
}
