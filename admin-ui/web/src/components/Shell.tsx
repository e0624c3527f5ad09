/** The frame around every page: where to go, whether the numbers are live, light or dark, who is looking. */
import {
  ActionIcon,
  Alert,
  AppShell,
  Burger,
  Button,
  Group,
  Text,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type ReactNode } from "react";
import { NavLink } from "react-router";

import { call } from "../api/client";
import { session as sessionQuery } from "../api/queries";
import { type SignedOut } from "../api/types";
import { useBound, useSession } from "../lib/session";
import { useLive } from "../live/LiveProvider";
import { Dot } from "./states";

/** The pages; those `ofMesh` are not for who is bound to a tenant. */
const PAGES: { to: string; label: string; icon: ReactNode; ofMesh?: boolean }[] = [
  { to: "/", label: "Overview", icon: <path d="M3 12h4l3-8 4 16 3-8h4" /> },
  { to: "/endpoints", label: "Endpoints", icon: <path d="M4 12h5m0 0 5-6h6M9 12l5 6h6" /> },
  { to: "/models", label: "Models", icon: <path d="m12 3 8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9" /> },
  {
    to: "/devices",
    label: "Devices",
    ofMesh: true,
    icon: <path d="M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4" />,
  },
  {
    to: "/tenants",
    label: "Tenants",
    icon: <path d="M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 21c0-4 3-6 7-6s7 2 7 6M16 4a4 4 0 0 1 0 7M19 15c2 1 3 3 3 6" />,
  },
  {
    to: "/certificates",
    label: "Certificates",
    icon: <path d="M5 3h14v11H5zM8 7h8M8 10h5M12 17a3 3 0 1 0 0-6M10 14l-1 7 3-2 3 2-1-7" />,
  },
  {
    to: "/policies",
    label: "Policies",
    ofMesh: true,
    icon: <path d="M12 3 4 6v6c0 5 3 8 8 9 5-1 8-4 8-9V6zM9 12l2 2 4-4" />,
  },
  { to: "/audit", label: "Audit", ofMesh: true, icon: <path d="M6 3h9l4 4v14H6zM9 12h7M9 16h7M9 8h3" /> },
];

export const Icon = ({ children }: { children: ReactNode }) => (
  <svg
    viewBox="0 0 24 24"
    width="18"
    height="18"
    fill="none"
    stroke="currentColor"
    strokeWidth="1.8"
    strokeLinecap="round"
    strokeLinejoin="round"
    aria-hidden="true"
  >
    {children}
  </svg>
);

export function SchemeToggle() {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");
  const other = scheme === "dark" ? "light" : "dark";
  return (
    <ActionIcon
      variant="default"
      size="lg"
      aria-label={`Switch to ${other} colours`}
      onClick={() => setColorScheme(other)}
    >
      <Icon>
        {scheme === "dark" ? (
          <path d="M12 17a5 5 0 1 0 0-10 5 5 0 0 0 0 10zM12 1v2M12 21v2M4 4l1.5 1.5M18.5 18.5 20 20M1 12h2M21 12h2M4 20l1.5-1.5M18.5 5.5 20 4" />
        ) : (
          <path d="M21 13A9 9 0 1 1 11 3a7 7 0 0 0 10 10z" />
        )}
      </Icon>
    </ActionIcon>
  );
}

export function Shell({ children }: { children: ReactNode }) {
  const [open, { toggle, close }] = useDisclosure();
  const { stale, heard } = useLive();
  const who = useSession();
  const bound = useBound();
  const client = useQueryClient();
  const logout = useMutation({
    mutationFn: () => call<SignedOut>("/session", { method: "DELETE" }),
    // The provider signs out there, and sends back here.
    onSuccess: ({ provider }) => {
      if (provider) window.location.assign(provider);
    },
    // Nothing that one admin saw may be there for the next.
    onSettled: () => {
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== sessionQuery.queryKey[0] });
      void client.resetQueries({ queryKey: sessionQuery.queryKey });
    },
  });
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 208, breakpoint: "sm", collapsed: { mobile: !open } }}
      padding="lg"
    >
      <a className="skip" href="#content">
        Skip to content
      </a>
      <AppShell.Header style={{ background: "var(--surface)", borderColor: "var(--line)" }}>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={open} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
            <img src="/mesh.svg" width={28} height={28} alt="" />
            <Text fw={700} size="lg" visibleFrom="xs">
              mesh
            </Text>
          </Group>
          <Group gap="sm" wrap="nowrap">
            <Text component="div" size="sm" aria-live="polite">
              {stale !== null ? (
                <Dot tone="bad">Not live</Dot>
              ) : heard === null ? (
                <Dot tone="warn">Connecting</Dot>
              ) : (
                <Dot tone="good">Live</Dot>
              )}
            </Text>
            <SchemeToggle />
            <Text size="sm" visibleFrom="sm">
              {who.who}
              {bound !== null && (
                <span className="chip" style={{ marginLeft: 8 }}>
                  {bound}
                </span>
              )}
              {who.role === "viewer" && (
                <span className="chip" style={{ marginLeft: 8 }}>
                  Read only
                </span>
              )}
            </Text>
            <Button variant="default" size="compact-sm" loading={logout.isPending} onClick={() => logout.mutate()}>
              Log out
            </Button>
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="sm" style={{ background: "var(--surface)", borderColor: "var(--line)" }}>
        <nav className="nav" aria-label="Pages">
          {PAGES.filter((page) => bound === null || !page.ofMesh).map((page) => (
            <NavLink key={page.to} to={page.to} end={page.to === "/"} onClick={close}>
              <Icon>{page.icon}</Icon>
              {page.label}
            </NavLink>
          ))}
        </nav>
      </AppShell.Navbar>
      <AppShell.Main id="content" tabIndex={-1} style={{ outline: "none" }}>
        {stale !== null && (
          <Alert color="orange" variant="outline" mb="md" title="These numbers are old" role="alert">
            No news from the mesh for {Math.round(stale / 1000)} s. The stream is tried again by itself; what you see is
            how things were.
          </Alert>
        )}
        {who.role === "viewer" && (
          <Text size="sm" c="dimmed" mb="sm">
            Your token may look and change nothing.
          </Text>
        )}
        {children}
      </AppShell.Main>
    </AppShell>
  );
}
