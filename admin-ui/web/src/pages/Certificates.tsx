/** The certificates that the doors serve with, until when; and who comes in by a certificate of its own. */
import { Alert, Anchor, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";

import { clientCertificates, doors as doorsQuery } from "../api/queries";
import type { ClientCertificate, DoorView } from "../api/types";
import { Dot, Empty, Failure, PageHead, Reason, Rows, Surface } from "../components/states";
import { Listed, Table, type Column } from "../components/Table";
import { asksCallers, nameOf, namesOf, STANDING, until, warningsOf } from "../lib/certificates";
import { count, when } from "../lib/format";
import { useBound } from "../lib/session";

export default function Certificates() {
  const bound = useBound();
  return (
    <>
      <PageHead
        title="Certificates"
        note="What the doors show to who calls, and who is known by a certificate of its own."
      />
      <Stack gap={14}>
        {bound === null && <Doors />}
        <Surface title="Callers known by their certificates">
          <Callers />
        </Surface>
      </Stack>
    </>
  );
}

const ASKED = {
  off: "not asked for one",
  optional: "may show one",
  required: "must show one",
} as const;

const DOORS: Column<DoorView>[] = [
  { name: "Door", cell: ({ door }) => (door === "inference" ? "inference (HTTP and gRPC)" : door) },
  {
    name: "Certificate",
    cell: ({ tls }) =>
      tls ? (
        <>
          {nameOf(tls.certificate)}
          <Reason>signed by {tls.certificate.issuer || "–"}</Reason>
        </>
      ) : (
        "speaks no TLS"
      ),
  },
  { name: "Names", cell: ({ tls }) => (tls ? namesOf(tls.certificate) : "–") },
  {
    name: "State",
    cell: ({ tls }) =>
      tls ? (
        <Dot tone={STANDING[tls.certificate.standing].tone}>{STANDING[tls.certificate.standing].text}</Dot>
      ) : (
        <Dot tone="plain">plain</Dot>
      ),
  },
  {
    name: "Ends",
    cell: ({ tls }) =>
      tls ? (
        <>
          {when(tls.certificate.not_after)}
          <Reason>{until(tls.certificate.not_after, Date.now())}</Reason>
        </>
      ) : (
        "–"
      ),
  },
  {
    name: "Last renewed",
    cell: ({ tls }) =>
      tls ? (
        <>
          {tls.renewals > 0 ? when(tls.since) : "not since the start"}
          <Reason>
            {tls.renewals > 0 ? `${count(tls.renewals)}× since the start` : `serves since ${when(tls.since)}`}
          </Reason>
        </>
      ) : (
        "–"
      ),
  },
  {
    name: "Callers",
    cell: ({ tls }) =>
      tls ? (
        <>
          {ASKED[tls.clients]}
          {tls.authorities.map((one) => (
            <Reason key={one.sha256}>
              of {nameOf(one)}, which ends {until(one.not_after, Date.now())}
            </Reason>
          ))}
          {tls.more_authorities > 0 && <Reason>and of {count(tls.more_authorities)} more</Reason>}
        </>
      ) : (
        "–"
      ),
  },
];

function Doors() {
  const list = useQuery(doorsQuery);
  const warnings = warningsOf(list.data ?? [], Date.now());
  return (
    <>
      {warnings.map(({ bad, text }) => (
        <Alert key={text} color={bad ? "red" : "orange"} variant="outline" title={bad ? "Act now" : "Renew in time"}>
          <Text size="sm">{text}</Text>
        </Alert>
      ))}
      <Surface title="Doors">
        {list.isPending && <Rows count={3} />}
        {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
        {list.data && <Table label="Doors" columns={DOORS} rows={list.data} id={({ door }) => door} />}
      </Surface>
    </>
  );
}

function Identity({ spec }: ClientCertificate) {
  const { spiffe, dns, spki_sha256 } = spec.identity;
  const [kind, value] = spiffe ? ["SPIFFE ID", spiffe] : dns ? ["DNS name", dns] : ["public key", spki_sha256 ?? "–"];
  return (
    <>
      <span className="mono" style={{ wordBreak: "break-all" }}>
        {value}
      </span>
      <Reason>{kind}</Reason>
    </>
  );
}

/** Whether one who shows it comes in, as far as that is known. */
function State({ spec, asked }: ClientCertificate & { asked: boolean | null }) {
  if (spec.revoked) return <Dot tone="bad">revoked</Dot>;
  if (spec.expires && new Date(spec.expires).getTime() < Date.now()) return <Dot tone="warn">ended</Dot>;
  if (asked === null) return <Dot tone="good">valid</Dot>;
  if (asked) return <Dot tone="good">admitted</Dot>;
  return (
    <>
      <Dot tone="warn">not asked for</Dot>
      <Reason>The inference door asks nobody for a certificate.</Reason>
    </>
  );
}

const callers = (asked: boolean | null): Column<ClientCertificate>[] => [
  { name: "Caller", cell: ({ metadata }) => metadata.name, mono: true },
  {
    name: "Tenant",
    cell: ({ metadata }) => (
      <Anchor component={Link} to={`/tenants/${metadata.tenant}`}>
        {metadata.tenant}
      </Anchor>
    ),
  },
  { name: "Known by", cell: (row) => <Identity {...row} /> },
  { name: "For", cell: ({ spec }) => spec.description ?? "–" },
  { name: "State", cell: (row) => <State {...row} asked={asked} /> },
  { name: "Ends", cell: ({ spec }) => (spec.expires ? when(spec.expires) : "with the certificate") },
];

function Callers() {
  // Who is bound to a tenant is not told of the doors.
  const doors = useQuery({ ...doorsQuery, enabled: useBound() === null });
  return (
    <Listed
      query={useQuery(clientCertificates)}
      label="Callers known by their certificates"
      columns={callers(asksCallers(doors.data))}
      id={({ metadata }) => `${metadata.tenant}/${metadata.name}`}
      empty={
        <Empty title="Nobody is known by a certificate">
          <span className="mono">mesh certificate create</span> makes a certificate stand for a tenant&apos;s caller.
        </Empty>
      }
    />
  );
}
