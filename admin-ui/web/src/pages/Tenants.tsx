/** All tenants. */
import { Anchor, Button, Modal } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";

import { tenants } from "../api/queries";
import type { Tenant } from "../api/types";
import { Dot, Empty, Failure, PageHead, Rows, Scroll, Surface } from "../components/states";
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

export default function Tenants() {
  const list = useQuery(tenants);
  const [open, setOpen] = useState(false);
  // A tenant's own admins make no others.
  const readOnly = [useReadOnly(), useBound() !== null].some(Boolean);
  const items = list.data ?? [];
  return (
    <>
      <PageHead title="Tenants" note="Who may call, how much, and with which share.">
        {!readOnly && <Button onClick={() => setOpen(true)}>New tenant</Button>}
      </PageHead>
      <Surface>
        {list.isPending && <Rows />}
        {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
        {list.isSuccess && items.length === 0 && (
          <Empty title="No tenants yet">A tenant owns models, endpoints and API keys.</Empty>
        )}
        {items.length > 0 && (
          <Scroll label="Tenants">
            <table className="grid">
              <thead>
                <tr>
                  <th scope="col">Tenant</th>
                  <th scope="col">State</th>
                  <th scope="col" className="num">
                    Weight
                  </th>
                  <th scope="col">Limits</th>
                </tr>
              </thead>
              <tbody>
                {items.map((tenant) => (
                  <tr key={tenant.metadata.name}>
                    <td>
                      <Anchor component={Link} fw={600} to={`/tenants/${tenant.metadata.name}`}>
                        {tenant.metadata.name}
                      </Anchor>
                      {tenant.spec.display_name && (
                        <div style={{ color: "var(--mantine-color-dimmed)", fontSize: "0.85rem" }}>
                          {tenant.spec.display_name}
                        </div>
                      )}
                    </td>
                    <td>{tenant.spec.suspended ? <Dot tone="bad">suspended</Dot> : <Dot tone="good">active</Dot>}</td>
                    <td className="num">{tenant.spec.weight}</td>
                    <td>{limitsOf(tenant)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
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
