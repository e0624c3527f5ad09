/** Lets an admin in, by the identity provider or by token. */
import { Alert, Button, Divider, Group, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { ApiError, call } from "../api/client";
import { session, signIn } from "../api/queries";
import { SchemeToggle } from "../components/Shell";
import { failureIn, signInAddress, withoutFailure } from "../lib/signIn";

export function Login() {
  const [token, setToken] = useState("");
  const [place] = useState(() => ({ path: window.location.pathname, search: window.location.search }));
  const failure = failureIn(place.search);
  const provider = useQuery(signIn).data?.oidc;
  const client = useQueryClient();
  const login = useMutation({
    mutationFn: () => call("/session", { method: "POST", json: { token: token.trim() } }),
    onSuccess: () => client.resetQueries({ queryKey: session.queryKey }),
  });
  useEffect(() => {
    document.title = "Log in · mesh";
    // A reload or a bookmark is no failed sign-in.
    if (failure) window.history.replaceState(null, "", withoutFailure(place.path, place.search));
  }, [failure, place]);
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
            {failure && (
              <Alert color="red" variant="light" title="Not signed in">
                {failure}
              </Alert>
            )}
            {provider && (
              <>
                <Button component="a" href={signInAddress(place.path, place.search)}>
                  Sign in with {provider}
                </Button>
                <Divider label="or" />
              </>
            )}
            <PasswordInput
              label="Admin token"
              description="The first start of the mesh prints one; it begins with meshadmin_."
              value={token}
              onChange={(event) => setToken(event.currentTarget.value)}
              autoComplete="current-password"
              required
              autoFocus={!provider}
              error={error ? (refused ? "This token is not known, or it has ended." : error.message) : undefined}
            />
            <Button type="submit" variant={provider ? "default" : "filled"} loading={login.isPending} disabled={token.trim() === ""}>
              Log in
            </Button>
            <Text size="xs" c="dimmed">
              The session lasts 12 hours, or 2 without use, and stays in this browser only.
            </Text>
          </Stack>
        </form>
      </Paper>
    </main>
  );
}
