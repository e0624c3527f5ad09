/** What a page shows when it has nothing to show: loading, nothing there, broken. And the small marks that all pages share. */
import { Alert, Button, Group, Skeleton, Stack, Text, Title } from "@mantine/core";
import { useEffect, type ReactNode } from "react";

import { ApiError } from "../api/client";

export function Rows({ count = 4 }: { count?: number }) {
  return (
    <Stack gap="sm" role="status" aria-label="Loading">
      {Array.from({ length: count }, (_, at) => (
        <Skeleton key={at} height={38} radius="md" />
      ))}
    </Stack>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Stack align="center" gap={6} py="xl" ta="center">
      <Text fw={600}>{title}</Text>
      <Text component="div" c="dimmed" size="sm" maw={520}>
        {children}
      </Text>
    </Stack>
  );
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const problems = error instanceof ApiError ? error.problems : [];
  const text = error instanceof Error ? error.message : String(error);
  return (
    <Alert color="red" variant="outline" title="That did not work" role="alert">
      <Text size="sm">{text}</Text>
      {problems.length > 0 && (
        <ul style={{ margin: "6px 0 0", paddingLeft: 18 }}>
          {problems.map((problem) => (
            <li key={problem.field + problem.problem}>
              <span className="mono">{problem.field}</span>: {problem.problem}
            </li>
          ))}
        </ul>
      )}
      {retry && (
        <Button mt="sm" size="xs" variant="default" onClick={retry}>
          Try again
        </Button>
      )}
    </Alert>
  );
}

/** Why something is as it is, below it. */
export const Reason = ({ children }: { children: ReactNode }) => (
  <div style={{ color: "var(--mantine-color-dimmed)", fontSize: "0.82rem", maxWidth: 560 }}>{children}</div>
);

export type Tone = "good" | "warn" | "bad" | "plain";
export const Dot = ({ tone, children }: { tone: Tone; children: ReactNode }) => (
  <span className="dot" data-tone={tone}>
    {children}
  </span>
);

export function stateTone(state: string): Tone {
  const word = state.toLowerCase();
  if (word === "ready" || word === "available") return "good";
  if (/fail|error|unavailable|quarantine/.test(word)) return "bad";
  return word.includes("load") || word.includes("warm") || word === "pending" || word === "waking"
    ? "warn"
    : "plain";
}

export function PageHead({ title, note, children }: { title: string; note?: ReactNode; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · mesh`;
  }, [title]);
  return (
    <Group justify="space-between" align="flex-end" mb="md" gap="sm">
      <div>
        <Title order={1}>{title}</Title>
        {note && (
          <Text component="div" c="dimmed" size="sm" mt={2}>
            {note}
          </Text>
        )}
      </div>
      <Group gap="xs">{children}</Group>
    </Group>
  );
}

export function Surface({ title, aside, children }: { title?: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section className="surface" aria-label={title}>
      {title && (
        <Group justify="space-between" mb="sm" gap="xs">
          <Title order={2}>{title}</Title>
          {aside}
        </Group>
      )}
      {children}
    </section>
  );
}

/** A table that scrolls sideways on small screens, also by keyboard. */
export function Scroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="scroll" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}
