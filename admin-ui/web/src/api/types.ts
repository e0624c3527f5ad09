/** What the admin API speaks, as it is on the wire. */

export type Role = "admin" | "operator" | "experimenter" | "viewer";
export interface Session {
  who: string;
  role: Role;
  /** The tenant that it is bound to; absent or null: none. */
  tenant?: string | null;
}

/** The ways to sign in beside a token. */
export interface SignInWays {
  /** The identity provider's name; null: there is none. */
  oidc: string | null;
}

/** What came of a sign-out. */
export interface SignedOut {
  /** Where the browser is to go, so that it is signed out at the identity provider, too; null: nowhere. */
  provider: string | null;
}

export type Kind =
  | "Tenant"
  | "Issuer"
  | "ApiKey"
  | "ClientCertificate"
  | "Model"
  | "ModelVersion"
  | "Endpoint"
  | "AdminToken"
  | "Policy";

export interface Metadata {
  tenant?: string;
  name: string;
  revision?: number;
  created?: string;
  updated?: string;
}

export interface Resource<S> {
  apiVersion: "mesh/v1";
  kind: Kind;
  metadata: Metadata;
  spec: S;
}

export interface Rate {
  per_second: number;
  burst: number;
}
export type Unit = "requests" | "rows" | "input_bytes" | "device_ms";
export type Limits = { [unit in Unit]?: Rate } & {
  enforce?: "refuse" | "shadow";
  concurrency?: number;
  queued_rows?: number;
  queued_bytes?: number;
};
export type Budget = { [unit in Unit]?: { soft?: number; hard?: number } };
export interface Budgets {
  enforce?: "refuse" | "shadow";
  daily?: Budget;
  monthly?: Budget;
}
export interface TenantSpec {
  display_name?: string;
  weight: number;
  limits?: Limits;
  budgets?: Budgets;
  suspended: boolean;
  isolation?: "shared" | "isolated";
}
export interface ApiKeySpec {
  hash: string;
  scopes: string[];
  expires?: string;
  revoked: boolean;
  description?: string;
}
export interface PolicySpec {
  description?: string;
  cedar: string;
}
export interface PolicyAction {
  name: string;
  about: string;
  resources: string[];
  role?: string | null;
}
export interface PolicySchema {
  schema: string;
  builtin: string;
  actions: PolicyAction[];
}
/** Whether somebody may do something to something, and which statements decide. */
export interface PolicyAnswer {
  allowed: boolean;
  reason: string;
  decided_by: { policy: string; statement: number; line: number; effect: "permit" | "forbid" }[];
  principal: string;
  principal_known: boolean;
  action: string;
  resource: string;
}
export interface KeyUse {
  tenant: string;
  key: string;
  /** The minute; null: never. */
  last_used: string | null;
}
export interface ModelSpec {
  description?: string;
  labels?: Record<string, number>;
  default_version?: string;
  grants?: string[];
}
export interface TensorSpec {
  name: string;
  datatype: string;
  dims: number[];
  optional?: boolean;
  unbatched?: boolean;
}
export interface ModelConfig {
  max_batch_size: number;
  input: TensorSpec[];
  output: TensorSpec[];
  dynamic_batching?: { preferred_batch_size: number[]; max_queue_delay_microseconds: number; max_queue_size: number };
  [other: string]: unknown;
}
export interface ArtifactRef {
  sha256: string;
  bytes: number;
}
export interface VersionSpec {
  format: "torchscript" | "torch_aoti" | "builtin" | "ensemble";
  artifact?: ArtifactRef;
  config: ModelConfig;
  unloaded?: boolean;
  description?: string;
}
export interface ArmSpec {
  name: string;
  model: string;
  version?: string;
  weight: number;
}
export type ServiceClass = "interactive" | "batch";
export interface EndpointSpec {
  description?: string;
  arms: ArmSpec[];
  sticky_by?: string;
  salt?: string;
  timeout_ms?: number;
  service_class?: ServiceClass;
  cache?: { ttl_seconds: number; max_entry_bytes?: number };
}

/** Exactly one of these. */
export interface CertificateIdentity {
  spiffe?: string;
  dns?: string;
  spki_sha256?: string;
}
export interface ClientCertificateSpec {
  identity: CertificateIdentity;
  scopes: string[];
  expires?: string;
  revoked?: boolean;
  description?: string;
}

export type Tenant = Resource<TenantSpec>;
export type ClientCertificate = Resource<ClientCertificateSpec>;
export type Policy = Resource<PolicySpec>;
export type ApiKey = Resource<ApiKeySpec>;
export type Model = Resource<ModelSpec>;
export type ModelVersion = Resource<VersionSpec>;
export type Endpoint = Resource<EndpointSpec>;

export interface Page<T> {
  items: T[];
  next?: string | null;
}
export interface DryRun<T> {
  before: T | null;
  after: T | null;
}
export interface CreatedKey {
  key: string;
  resource: ApiKey;
}

export interface Problem {
  field: string;
  problem: string;
}

export interface LiveRow {
  tenant: string;
  target: string;
  arm?: string | null;
  version?: number | string | null;
  requests_per_second: number;
  p50_ms?: number | null;
  p99_ms?: number | null;
  ok: number;
  errors: number;
  refused: number;
}
export interface LoadProgress {
  stage: string;
  instance: number;
  instances: number;
  bytes: number;
  rows?: number | null;
  record?: string | null;
}
export interface DeviceModel {
  tenant: string;
  model: string;
  version: number | string;
  state: string;
  reason?: string | null;
  memory_bytes?: number | null;
  peak_bytes?: number | null;
  load_seconds?: number | null;
  progress?: LoadProgress | null;
}
export interface Device {
  device: string;
  draining: boolean;
  models: DeviceModel[];
}
export interface ModelDetail extends DeviceModel {
  queue_length: number;
  requests: number;
  failed: number;
  rows: number;
  executions: number;
  mean_batch_rows?: number | null;
  mean_latency_ms?: number | null;
  mean_queue_ms?: number | null;
  mean_compute_ms?: number | null;
  cancelled: number;
  expired: number;
  rejected: number;
  non_finite: number;
  crashed: number;
  out_of_memory: number;
  loads: number;
  load_failures: number;
  evictions: number;
  idle_unloads: number;
  prediction_error?: number | null;
  load?: LoadReport | null;
  sequences?: SequenceNumbers | null;
}
export interface LoadReport {
  runtime: string;
  chosen: string;
  remark?: string | null;
  variants: VariantReport[];
}
export interface VariantReport {
  variant: string;
  verdict: "chosen" | "slower" | "differs" | "failed";
  reason?: string | null;
  absolute_difference?: number | null;
  relative_difference?: number | null;
  tolerance?: number | null;
  times: { rows: number; milliseconds: number }[];
}
export interface SequenceNumbers {
  open: number;
  backlog: number;
  ended: number;
  idle: number;
  not_begun: number;
  lost: number;
  closed: number;
}
export interface DeviceDetail {
  device: string;
  kind: string;
  threads: number;
  abandoned_threads: number;
  draining: boolean;
  in_flight: number;
  open_sequences: number;
  sequence_state_bytes: number;
  up_seconds: number;
  busy_seconds: number;
  busy_fraction: number;
  recent_busy_fraction?: number | null;
  memory_bytes: number;
  budget_bytes?: number | null;
  models: ModelDetail[];
  tenants: { tenant: string; seconds: number }[];
  other_tenants_seconds: number;
}
/** What was forgotten of the response cache. */
export interface Purged {
  entries: number;
  bytes: number;
}
export interface CertificateView {
  subject: string;
  issuer: string;
  names: string[];
  more_names: number;
  not_before: string;
  not_after: string;
  standing: "not_yet" | "valid" | "ends_soon" | "ended";
  sha256: string;
}
export interface DoorTls {
  certificate: CertificateView;
  chain: number;
  since: string;
  renewals: number;
  refused_since: string | null;
  oldest_version: string;
  clients: "off" | "optional" | "required";
  authorities: CertificateView[];
  more_authorities: number;
}
export interface DoorView {
  door: string;
  /** Null: it speaks none. */
  tls: DoorTls | null;
}
export interface Overview {
  /** Whose numbers these are; absent or null: the whole mesh's. */
  tenant?: string | null;
  time: string | number;
  uptime_seconds: number;
  in_flight: number;
  totals: { ok: number; refused: number; errors: number };
  rates: { requests_per_second: number; errors_per_second: number; refused_per_second: number };
  latency_ms: { p50?: number | null; p90?: number | null; p99?: number | null };
  endpoints: LiveRow[];
  devices: Device[];
}

export interface AuditPage {
  items: AuditEntry[];
  next?: number | null;
  latest: number;
  begins: number;
}
export interface AuditEntry {
  revision: number;
  time: string;
  who: string;
  source: string;
  request?: string | null;
  from?: string;
  changes: { key: string; action: "created" | "changed" | "deleted" }[];
  event?: string;
  signed_by?: string;
  hash: string;
}
export interface AuditVerdict {
  valid: boolean;
  entries: number;
  begins?: number | null;
  head?: string | null;
  heads?: number;
  signed?: number | null;
  public_key?: string | null;
  problem?: string | null;
}

export interface TensorJson {
  name: string;
  datatype: string;
  shape: number[];
  data: unknown[];
}
export interface TryArm {
  arm: string;
  version?: number | string | null;
  response?: { outputs?: TensorJson[]; [other: string]: unknown } | null;
  error?: string | { error?: string } | null;
  milliseconds?: number | null;
}
export interface TryAnswer {
  arms: TryArm[];
}

export interface GraphWire {
  name: string;
  tensors: string[];
}
export interface GraphStep {
  name: string;
  model: string;
  owner: string;
  version: number;
  ready: boolean;
  reason?: string | null;
  level: number;
  inputs: GraphWire[];
  outputs: GraphWire[];
  when?: string | null;
  soft: boolean;
  max_inflight_requests: number;
  route?: { choice: string; route: number; when: string } | null;
  numbers?: { ok: number; failed: number; cancelled: number; left_out: number; mean_ms?: number | null } | null;
}
export interface GraphView {
  tenant: string;
  model: string;
  version: number;
  ready: boolean;
  reason?: string | null;
  inputs: { name: string; datatype: string; shape: number[] }[];
  steps: GraphStep[];
  choices: { name: string; kind: string; when?: string | null; routes: string[] }[];
  outputs: { name: string; from: string[]; optional: boolean }[];
  numbers?: {
    ok: number;
    failed: number;
    cancelled: number;
    mean_ms?: number | null;
    mean_compose_ms?: number | null;
  } | null;
  text: string;
  dot: string;
}
