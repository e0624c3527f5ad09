/** Text to take along: a button that copies, and the command-line form of a call. */
import { Button, Collapse, CopyButton, Group, Text } from "@mantine/core";
import { useState } from "react";

import { curl, type CurlCall } from "../lib/curl";

export function Copy({ value, label = "Copy" }: { value: string; label?: string }) {
  return (
    <CopyButton value={value}>
      {({ copied, copy }) => (
        <Button size="compact-sm" variant="default" onClick={copy}>
          {copied ? "Copied" : label}
        </Button>
      )}
    </CopyButton>
  );
}

export function Code({ text, label }: { text: string; label: string }) {
  return (
    <pre className="code" tabIndex={0} role="region" aria-label={label}>
      {text}
    </pre>
  );
}

/** The same write for a terminal, folded until asked for. */
export function Curl({ call, title = "Same call with curl" }: { call: CurlCall; title?: string }) {
  const [open, setOpen] = useState(false);
  const text = curl(call);
  return (
    <div>
      <Group gap="xs">
        <Button size="compact-sm" variant="subtle" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? "Hide curl" : title}
        </Button>
        <Copy value={text} label="Copy curl" />
      </Group>
      <Collapse expanded={open}>
        <Text size="xs" c="dimmed" my={6}>
          With an admin token in MESH_ADMIN_TOKEN.
        </Text>
        <Code text={text} label="curl command" />
      </Collapse>
    </div>
  );
}
