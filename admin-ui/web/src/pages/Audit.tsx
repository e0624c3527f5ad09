/** Who changed what, from the first change on, and whether the chain still holds. */
import { Button, Group, Text } from "@mantine/core";
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";

import { call } from "../api/client";
import { audit } from "../api/queries";
import type { AuditSummary } from "../api/types";
import { Copy } from "../components/Copy";
import { Dot, Empty, Failure, PageHead, Rows, Scroll, Surface } from "../components/states";
import { changesOf, headOf, sequenceOf } from "../lib/audit";
import { when } from "../lib/format";

const PAGE = 50;

export default function Audit() {
  const [query, setQuery] = useSearchParams();
  const after = Math.max(0, Number(query.get("after")) || 0);
  const page = useQuery({ ...audit(after, PAGE), placeholderData: keepPreviousData });
  const verify = useMutation({ mutationFn: () => call<AuditSummary>("/audit/verify") });
  const items = page.data?.items ?? [];
  const last = items.at(-1);
  return (
    <>
      <PageHead title="Audit" note="Every change, chained by hash: none can be altered or left out unnoticed.">
        <Button variant="default" loading={verify.isPending} onClick={() => verify.mutate()}>
          Verify the chain
        </Button>
      </PageHead>
      {verify.isSuccess && (
        <Text component="div" mb="md" role="status">
          <Dot tone="good">The chain holds.</Dot>{" "}
          <span className="mono" style={{ wordBreak: "break-all" }}>
            {Object.entries(verify.data ?? {})
              .map(([name, value]) => `${name} ${String(value)}`)
              .join(", ")}
          </span>
        </Text>
      )}
      {verify.isError && (
        <div style={{ marginBottom: 14 }}>
          <Failure error={verify.error} />
        </div>
      )}
      <Surface>
        {page.isPending && <Rows />}
        {page.isError && <Failure error={page.error} retry={() => void page.refetch()} />}
        {page.isSuccess && items.length === 0 && <Empty title={after === 0 ? "Nothing has been changed yet" : "No later changes"} />}
        {items.length > 0 && (
          <Scroll label="Changes">
            <table className="grid">
              <thead>
                <tr>
                  <th scope="col" className="num">
                    No.
                  </th>
                  <th scope="col">When</th>
                  <th scope="col">Who</th>
                  <th scope="col">Change</th>
                  <th scope="col">Hash</th>
                </tr>
              </thead>
              <tbody>
                {items.map((entry) => {
                  const head = headOf(entry);
                  return (
                    <tr key={head.sequence}>
                      <td className="num">{head.sequence}</td>
                      <td style={{ whiteSpace: "nowrap" }}>{when(head.time)}</td>
                      <td>
                        {head.who}
                        {head.source && <span className="chip" style={{ marginLeft: 8 }}>{head.source}</span>}
                      </td>
                      <td className="mono">
                        {changesOf(entry).map((change) => (
                          <div key={change}>{change}</div>
                        ))}
                      </td>
                      <td>
                        {head.hash && (
                          <Group gap={6} wrap="nowrap">
                            <span className="mono" title={head.hash}>
                              {head.hash.slice(0, 12)}
                            </span>
                            <Copy value={head.hash} />
                          </Group>
                        )}
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </Scroll>
        )}
        <Group justify="space-between" mt="md">
          <Button variant="default" size="xs" disabled={after === 0} onClick={() => setQuery(after > PAGE ? { after: String(after - PAGE) } : {})}>
            Earlier
          </Button>
          <Button variant="default" size="xs" disabled={items.length < PAGE || !last} onClick={() => last && setQuery({ after: String(sequenceOf(last)) })}>
            Later
          </Button>
        </Group>
      </Surface>
    </>
  );
}
