/** All endpoints with their splits. */
import { Anchor, Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";

import { endpoints } from "../api/queries";
import { SplitBar } from "../components/SplitBar";
import { Empty, Failure, PageHead, Rows, Scroll, Surface } from "../components/states";
import { rate } from "../lib/format";
import { useReadOnly } from "../lib/session";
import { useLive } from "../live/LiveProvider";

export default function Endpoints() {
  const list = useQuery(endpoints);
  const { latest } = useLive();
  const readOnly = useReadOnly();
  const items = list.data ?? [];
  const rateOf = (tenant: string | undefined, name: string) =>
    (latest?.endpoints ?? [])
      .filter((row) => row.tenant === tenant && row.target === name)
      .reduce((sum, row) => sum + row.requests_per_second, 0);
  return (
    <>
      <PageHead title="Endpoints" note="The names that tenants call, and how requests are split between versions.">
        {!readOnly && (
          <Button component={Link} to="/endpoints/new">
            New endpoint
          </Button>
        )}
      </PageHead>
      <Surface>
        {list.isPending && <Rows />}
        {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
        {list.isSuccess && items.length === 0 && (
          <Empty title="No endpoints yet">
            An endpoint gives one name to one or more model versions, and says how requests are split.
          </Empty>
        )}
        {items.length > 0 && (
          <Scroll label="Endpoints">
            <table className="grid">
              <thead>
                <tr>
                  <th scope="col">Endpoint</th>
                  <th scope="col">Tenant</th>
                  <th scope="col" style={{ width: "45%" }}>
                    Split
                  </th>
                  <th scope="col">Sticky by</th>
                  <th scope="col" className="num">
                    Requests/s
                  </th>
                </tr>
              </thead>
              <tbody>
                {items.map(({ metadata, spec }) => (
                  <tr key={`${metadata.tenant}/${metadata.name}`}>
                    <td>
                      <Anchor component={Link} fw={600} to={`/endpoints/${metadata.tenant}/${metadata.name}`}>
                        {metadata.name}
                      </Anchor>
                    </td>
                    <td>{metadata.tenant}</td>
                    <td>
                      <SplitBar arms={spec.arms} />
                    </td>
                    <td>{spec.sticky_by ?? "–"}</td>
                    <td className="num">{rate(rateOf(metadata.tenant, metadata.name))}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
      </Surface>
    </>
  );
}
