/** What pages read, by name, so that a write knows what to ask for again. */
import { queryOptions } from "@tanstack/react-query";

import { call, listAll, paths } from "./client";
import type {
  AuditPage,
  ClientCertificate,
  DeviceDetail,
  DoorView,
  Endpoint,
  GraphView,
  KeyUse,
  Model,
  ModelVersion,
  Policy,
  PolicySchema,
  Session,
  SignInWays,
  Tenant,
  ApiKey,
} from "./types";

export const session = queryOptions({
  queryKey: ["session"],
  queryFn: () => call<Session>("/session"),
  retry: false,
  staleTime: 60_000,
});
export const signIn = queryOptions({
  queryKey: ["sign-in"],
  queryFn: () => call<SignInWays>("/sign-in"),
  retry: false,
  staleTime: 60_000,
});
export const tenants = queryOptions({ queryKey: ["tenants"], queryFn: () => listAll<Tenant>("tenants") });
export const tenant = (name: string) =>
  queryOptions({ queryKey: ["tenants", name], queryFn: () => call<Tenant>(paths.tenant(name)) });
export const keys = (name: string) =>
  queryOptions({ queryKey: ["keys", name], queryFn: () => listAll<ApiKey>("keys", name) });
/** How often the last uses of keys are asked for again; they are to the minute. */
const USES_MS = 30_000;
export const keyUses = (name: string) =>
  queryOptions({
    queryKey: ["key-uses", name],
    queryFn: () => listAll<KeyUse>("key-uses", name),
    refetchInterval: USES_MS,
  });
export const clientCertificates = queryOptions({
  queryKey: ["certificates"],
  queryFn: () => listAll<ClientCertificate>("certificates"),
});
/** How often the doors' certificates are asked for again. */
const DOORS_MS = 30_000;
export const doors = queryOptions({
  queryKey: ["doors"],
  queryFn: () => call<DoorView[]>("/door-certificates"),
  refetchInterval: DOORS_MS,
});
export const models = queryOptions({ queryKey: ["models"], queryFn: () => listAll<Model>("models") });
export const versions = queryOptions({ queryKey: ["versions"], queryFn: () => listAll<ModelVersion>("versions") });
export const endpoints = queryOptions({ queryKey: ["endpoints"], queryFn: () => listAll<Endpoint>("endpoints") });
export const endpoint = (tenantName: string, name: string) =>
  queryOptions({
    queryKey: ["endpoints", tenantName, name],
    queryFn: () => call<Endpoint>(paths.endpoint(tenantName, name)),
  });
export const policies = queryOptions({ queryKey: ["policies"], queryFn: () => listAll<Policy>("policies") });
export const policySchema = queryOptions({
  queryKey: ["policy-schema"],
  queryFn: () => call<PolicySchema>("/policy-schema"),
  staleTime: Infinity,
});
/** How often the numbers of devices are asked for again. */
const DEVICES_MS = 2_000;
export const devices = queryOptions({
  queryKey: ["devices"],
  queryFn: () => call<DeviceDetail[]>("/devices"),
  refetchInterval: DEVICES_MS,
});
/** How often a graph's state and numbers are asked for again. */
const GRAPH_MS = 5_000;
export const graph = (tenantName: string, model: string, version: number) =>
  queryOptions({
    queryKey: ["graph", tenantName, model, version],
    queryFn: () => call<GraphView>(`${paths.model(tenantName, model)}/graph?version=${version}`),
    refetchInterval: GRAPH_MS,
  });
/** The changes up to one, at most `limit` of them; without one, the newest. */
export const audit = (upTo: number | null, limit: number) =>
  queryOptions({
    queryKey: ["audit", upTo, limit],
    queryFn: async () => {
      const last = upTo ?? (await call<AuditPage>("/audit?limit=1")).latest;
      const page = await call<AuditPage>(`/audit?after=${Math.max(0, last - limit)}&limit=${limit}`);
      return { ...page, last };
    },
  });
