/** Lets an admin in, by token. */
import { Button, Group, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { ApiError, call } from "../api/client";
import { session } from "../api/queries";
import { SchemeToggle } from "../components/Shell";

export function Login() {
  const [token, setToken] = useState("");
  const client = useQueryClient();
  const login = useMutation({
    mutationFn: () => call("/session", { method: "POST", json: { token: token.trim() } }),
    onSuccess: () => client.resetQueries({ queryKey: session.queryKey }),
  });
  useEffect(() => {
    document.title = "Log in · mesh";
  }, []);
  const error = login.error;
  const refused = error instanceof ApiError && error.status === 401;
  return (
    <main style={{ minHeight: "100vh", display: "grid", placeItems: "center", padding: 16 }}>
      <Paper withBorder p="xl" w="100%" maw={420} style={{ background: "var(--surface)" }}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            login.mutate();
          }}
        >
          <Stack>
            <Group justify="space-between">
              <Group gap="sm">
                <img src="/mesh.svg" width={34} height={34} alt="" />
                <Title order={1}>mesh admin</Title>
              </Group>
              <SchemeToggle />
            </Group>
            <PasswordInput
              label="Admin token"
              description="The first start of the mesh prints one; it begins with meshadmin_."
              value={token}
              onChange={(event) => setToken(event.currentTarget.value)}
              autoComplete="current-password"
              required
              autoFocus
              error={error ? (refused ? "This token is not known, or it has ended." : error.message) : undefined}
            />
            <Button type="submit" loading={login.isPending} disabled={token.trim() === ""}>
              Log in
            </Button>
            <Text size="xs" c="dimmed">
              The session lasts 12 hours and stays in this browser only.
            </Text>
          </Stack>
        </form>
      </Paper>
    </main>
  );
}
