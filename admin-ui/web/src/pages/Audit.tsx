/** Who changed what, the newest first, and whether the chain still holds. */
import { Button, Group, Text } from "@mantine/core";
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";

import { call } from "../api/client";
import { audit } from "../api/queries";
import type { AuditVerdict } from "../api/types";
import { Copy } from "../components/Copy";
import { Dot, Empty, Failure, PageHead, Rows, Scroll, Surface } from "../components/states";
import { when } from "../lib/format";

const PAGE = 50;
/** Changes of one write that are listed. */
const SHOWN = 10;

export default function Audit() {
  const [query, setQuery] = useSearchParams();
  const upTo = Math.max(0, Number(query.get("upto")) || 0) || null;
  const page = useQuery({ ...audit(upTo, PAGE), placeholderData: keepPreviousData });
  const verify = useMutation({ mutationFn: () => call<AuditVerdict>("/audit/verify") });
  const items = [...(page.data?.items ?? [])].reverse();
  const { last = 0, latest = 0, begins = 1 } = page.data ?? {};
  return (
    <>
      <PageHead title="Audit" note="Every change, chained by hash: none can be altered or left out unnoticed.">
        <Button variant="default" loading={verify.isPending} onClick={() => verify.mutate()}>
          Verify the chain
        </Button>
      </PageHead>
      {verify.isSuccess && (
        <Text component="div" mb="md" role="status">
          {verify.data.valid ? (
            <>
              <Dot tone="good">The chain holds.</Dot> {verify.data.entries} changes
              {(verify.data.begins ?? 1) > 1 && `, from number ${verify.data.begins} on`}, and the hash of all is{" "}
              <span className="mono" style={{ wordBreak: "break-all" }}>
                {verify.data.head}
              </span>
              . Kept elsewhere, it proves later that none of them was altered.
            </>
          ) : (
            <Dot tone="bad">The chain is broken: {verify.data.problem}</Dot>
          )}
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
        {page.isSuccess && items.length === 0 && <Empty title="Nothing has been changed yet" />}
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
                {items.map((entry) => (
                  <tr key={entry.revision}>
                    <td className="num">{entry.revision}</td>
                    <td style={{ whiteSpace: "nowrap" }}>{when(entry.time)}</td>
                    <td style={{ whiteSpace: "nowrap" }}>
                      {entry.who}
                      <span className="chip" style={{ marginLeft: 8 }}>
                        {entry.source}
                      </span>
                    </td>
                    <td>
                      {entry.signed_by && <div>signed everything before it</div>}
                      {entry.event && (
                        <div>
                          happened: <span className="mono">{entry.event}</span>
                        </div>
                      )}
                      {entry.changes.slice(0, SHOWN).map((change) => (
                        <div key={change.key}>
                          {change.action} <span className="mono">{change.key}</span>
                        </div>
                      ))}
                      {entry.changes.length > SHOWN && <div>and {entry.changes.length - SHOWN} more</div>}
                    </td>
                    <td>
                      <Group gap={6} wrap="nowrap">
                        <span className="mono" title={entry.hash}>
                          {entry.hash.slice(0, 12)}
                        </span>
                        <Copy value={entry.hash} />
                      </Group>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
        {begins > 1 && (
          <Text size="sm" c="dimmed" mt="md">
            History begins with number {begins}. What was changed before is in the resources as they are, and in backups.
          </Text>
        )}
        <Group justify="space-between" mt="md">
          <Button
            variant="default"
            size="xs"
            disabled={last >= latest}
            onClick={() => setQuery(last + PAGE < latest ? { upto: String(last + PAGE) } : {})}
          >
            Newer
          </Button>
          <Button
            variant="default"
            size="xs"
            disabled={last - PAGE < Math.max(1, begins)}
            onClick={() => setQuery({ upto: String(last - PAGE) })}
          >
            Older
          </Button>
        </Group>
      </Surface>
    </>
  );
}
