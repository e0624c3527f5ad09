/** Forgets the remembered answers of an endpoint, or of all endpoints of a tenant, after a question; says how many there were. */
import { Button, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { call, paths } from "../api/client";
import type { Purged } from "../api/types";
import { bytes, count } from "../lib/format";
import { Sure } from "./Sure";

export const forgotten = ({ entries, bytes: taken }: Purged): string => {
  if (entries === 0) return "No answer was remembered.";
  return `Forgot ${count(entries)} answer${entries === 1 ? "" : "s"}, ${bytes(taken)} in all.`;
};

export function Purge({ tenant, endpoint }: { tenant: string; endpoint?: string }) {
  const [open, setOpen] = useState(false);
  const client = useQueryClient();
  const path = `${endpoint ? paths.endpoint(tenant, endpoint) : paths.tenant(tenant)}/cache/purge`;
  const purge = useMutation({
    mutationFn: () => call<Purged>(path, { method: "POST" }),
    onSuccess: () => client.invalidateQueries({ queryKey: ["audit"] }),
  });
  const whose = endpoint ?? tenant;
  return (
    <>
      <Button variant="default" onClick={() => setOpen(true)}>
        Purge cache
      </Button>
      <Sure
        title={`Purge the cache of ${whose}?`}
        opened={open}
        close={() => setOpen(false)}
        act="Purge"
        danger
        mutation={purge}
        call={{ method: "POST", path }}
        done={forgotten}
      >
        <Text size="sm">
          {endpoint
            ? "All answers that are remembered of it are forgotten: each is computed again when it is asked for next."
            : "All answers that are remembered of its endpoints are forgotten: each is computed again when it is asked for next."}{" "}
          It is an entry of the audit log.
        </Text>
      </Sure>
    </>
  );
}
