//! What can be said on the command line, in the environment and in the file of `mesh serve`: the raw form.
//!
//! Everything is text until [`crate::NodeConfig`] has looked at it, so that all mistakes can be told at once. A flag wins
//! over the environment, the environment over the file. This crate is the only one that reads either.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Deserializer};

use crate::{CodeOptions, LoginOptions, tls::TlsOptions};

/// A setting as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl std::str::FromStr for Text {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text or a number")]
        enum Written {
            Text(String),
            Whole(i64),
            Fraction(f64),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.trim().to_owned(),
            Written::Whole(number) => number.to_string(),
            Written::Fraction(number) => number.to_string(),
        }))
    }
}

/// The settings of `mesh serve`. In the file they have the same names, with underscores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeOptions {
    /// The folder that holds everything: records, artifacts, the pepper. [default: ./mesh-data]
    #[arg(long, env = "MESH_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// A TOML file with any of these settings.
    #[arg(long, env = "MESH_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// A Triton model repository: a folder with a folder for each model, brought in once at the start.
    #[arg(long, env = "MESH_MODEL_REPOSITORY", value_name = "FOLDER")]
    pub model_repository: Option<PathBuf>,
    /// The tenant that its models are for, and whom callers are that need no credential; made if it is not there.
    /// [default: default]
    #[arg(long, env = "MESH_MODEL_REPOSITORY_TENANT", value_name = "NAME")]
    pub model_repository_tenant: Option<Text>,
    /// Whether models of the repository are loaded on demand: none (all are brought in at the start) or explicit (none is but
    /// those of --load-model; the tenant loads and unloads them at the inference doors). [default: none]
    #[arg(long, env = "MESH_MODEL_CONTROL_MODE", value_name = "MODE")]
    pub model_control_mode: Option<Text>,
    /// With --model-control-mode explicit: a model to bring in at the start; * for all. May be repeated.
    #[arg(long, env = "MESH_LOAD_MODEL", value_name = "NAME", value_delimiter = ',')]
    pub load_model: Option<Vec<Text>>,
    /// Whose clients find what they expect: triton. Lets callers on this machine in without a credential.
    #[arg(long, env = "MESH_COMPAT", value_name = "SERVER")]
    pub compat: Option<Text>,
    /// The name in the server's metadata. [default: mesh; triton with --compat triton]
    #[arg(long, env = "MESH_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<Text>,
    /// The inference door. [default: 0.0.0.0:8000]
    #[arg(long, env = "MESH_HTTP_LISTEN", value_name = "ADDRESS", help_heading = "Doors")]
    pub http_listen: Option<Text>,
    /// The inference door for gRPC. [default: 0.0.0.0:8001]
    #[arg(long, env = "MESH_GRPC_LISTEN", value_name = "ADDRESS", help_heading = "Doors")]
    pub grpc_listen: Option<Text>,
    /// Metrics and health. [default: 0.0.0.0:8002]
    #[arg(long, env = "MESH_METRICS_LISTEN", value_name = "ADDRESS", help_heading = "Doors")]
    pub metrics_listen: Option<Text>,
    /// The admin door: web pages and API. [default: 127.0.0.1:8080]
    #[arg(long, env = "MESH_ADMIN_LISTEN", value_name = "ADDRESS", help_heading = "Doors")]
    pub admin_listen: Option<Text>,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs, reason = "each of its settings says what it is")]
    pub tls: TlsOptions,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs, reason = "each of its settings says what it is")]
    pub code: CodeOptions,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs, reason = "each of its settings says what it is")]
    pub login: LoginOptions,
    /// Threads of each inference door. [default: half the processors, at least 1]
    #[arg(long, env = "MESH_HTTP_WORKERS", value_name = "N", help_heading = "Doors")]
    pub http_workers: Option<Text>,
    /// The largest body of a request, and the largest message. [default: 67108864]
    #[arg(long, env = "MESH_MAX_BODY_BYTES", value_name = "BYTES", help_heading = "Doors")]
    pub max_body_bytes: Option<Text>,
    /// Headers that become parameters of inference requests: a regular expression for their whole names. [default: none]
    #[arg(long, env = "MESH_FORWARD_HEADERS", value_name = "REGEX", help_heading = "Doors")]
    pub forward_headers: Option<Text>,
    /// Web pages that may call the HTTP inference door: their origins with commas between them, or * for all. [default: none]
    #[arg(long, env = "MESH_CORS_ORIGINS", value_name = "ORIGINS", help_heading = "Doors")]
    pub cors_origins: Option<Text>,
    /// Let callers have tensors in POSIX shared memory of this machine (/dev/shm), and in memory of its CUDA devices: whoever may
    /// call may then reach what the mesh may open there, if it knows its name or handle.
    #[arg(long, env = "MESH_ALLOW_CLIENT_SHM", help_heading = "Doors")]
    pub allow_client_shm: bool,
    /// The library of CUDA's driver, for callers' memory on devices. [default: libcuda.so.1 of the system, if it is there]
    #[arg(long, env = "MESH_CUDA_DRIVER", value_name = "FILE", help_heading = "Doors")]
    pub cuda_driver: Option<PathBuf>,
    /// Let callers change what is traced and logged, for everybody.
    #[arg(long, env = "MESH_ALLOW_CLIENT_SETTINGS", help_heading = "Doors")]
    pub allow_client_settings: bool,
    /// Also write the first admin token to this file, readable by its owner only.
    #[arg(long, env = "MESH_ADMIN_TOKEN_FILE", value_name = "FILE", help_heading = "Doors")]
    pub admin_token_file: Option<PathBuf>,
    /// The deadline of requests that bring none. [default: 30000]
    #[arg(long, env = "MESH_REQUEST_TIMEOUT_MS", value_name = "MS", help_heading = "Requests")]
    pub request_timeout_ms: Option<Text>,
    /// Requests at once, of all tenants, per thread of the door. [default: 4096]
    #[arg(long, env = "MESH_MAX_IN_FLIGHT", value_name = "N", help_heading = "Requests")]
    pub max_in_flight: Option<Text>,
    /// Memory for remembered answers of endpoints with a cache, in bytes. [default: 268435456]
    #[arg(long, env = "MESH_CACHE_BYTES", value_name = "BYTES", help_heading = "Requests")]
    pub cache_bytes: Option<Text>,
    /// The most of it that one tenant's answers take. [default: 67108864]
    #[arg(
        long,
        env = "MESH_CACHE_TENANT_BYTES",
        value_name = "BYTES",
        help_heading = "Requests"
    )]
    pub cache_tenant_bytes: Option<Text>,
    /// How long a shutdown waits for requests under way. [default: 30000]
    #[arg(long, env = "MESH_GRACE_MS", value_name = "MS", help_heading = "Requests")]
    pub grace_ms: Option<Text>,
    /// CPU devices; each has queues and threads of its own. GPUs come on top. [default: 1]
    #[arg(long, env = "MESH_DEVICES", value_name = "N", help_heading = "Devices")]
    pub devices: Option<Text>,
    /// Threads of a device; each holds an instance of every model. [default: the number of processors]
    #[arg(long, env = "MESH_THREADS_PER_DEVICE", value_name = "N", help_heading = "Devices")]
    pub threads_per_device: Option<Text>,
    /// Threads within one operation of libtorch; more than 1 helps large models only. [default: 1]
    #[arg(long, env = "MESH_INTRA_OP_THREADS", value_name = "N", help_heading = "Devices")]
    pub intra_op_threads: Option<Text>,
    /// The most memory that models may take on the CPU devices together: bytes with KiB, MiB or GiB, or a share of the
    /// machine's memory (or of the limit of its container) such as 60%. [default: 60%]
    #[arg(long, env = "MESH_CPU_MEMORY", value_name = "SIZE", help_heading = "Devices")]
    pub cpu_memory: Option<Text>,
    /// The most memory that models may take on each GPU, in percent of what it has. [default: 90]
    #[arg(long, env = "MESH_GPU_MEMORY_PERCENT", value_name = "N", help_heading = "Devices")]
    pub gpu_memory_percent: Option<Text>,
    /// Models that a device loads at the same time, beside those that serve. [default: 2]
    #[arg(long, env = "MESH_PARALLEL_LOADS", value_name = "N", help_heading = "Devices")]
    pub parallel_loads: Option<Text>,
    /// The most requests that wait for one model on one device. [default: 4096]
    #[arg(long, env = "MESH_QUEUE", value_name = "N", help_heading = "Devices")]
    pub queue: Option<Text>,
    /// How long open sequences may go on where their device is drained or their model unloaded. [default: 30000]
    #[arg(long, env = "MESH_SEQUENCE_GRACE_MS", value_name = "MS", help_heading = "Devices")]
    pub sequence_grace_ms: Option<Text>,
    /// Memory for the states of sequences, per device; one tenant has at most half of it. [default: 1073741824]
    #[arg(
        long,
        env = "MESH_SEQUENCE_STATE_BYTES",
        value_name = "BYTES",
        help_heading = "Devices"
    )]
    pub sequence_state_bytes: Option<Text>,
    /// Push traces and metrics to this OTLP/gRPC collector, such as http://localhost:4317.
    #[arg(long, env = "MESH_OTLP_ENDPOINT", value_name = "URL", help_heading = "Telemetry")]
    pub otlp_endpoint: Option<Text>,
    /// The share of requests traced where the caller has not decided, 0 to 1. [default: 0.01]
    #[arg(
        long,
        env = "MESH_OTLP_SAMPLE_RATIO",
        value_name = "SHARE",
        help_heading = "Telemetry"
    )]
    pub otlp_sample_ratio: Option<Text>,
    /// Log lines: text for people or json for collectors. [default: text]
    #[arg(long, env = "MESH_LOG_FORMAT", value_name = "FORMAT", help_heading = "Telemetry")]
    pub log_format: Option<Text>,
    /// What is logged: a level, or directives such as info,mesh_worker=debug. [default: info,actix_server=warn]
    #[arg(long, env = "MESH_LOG", value_name = "FILTER", help_heading = "Telemetry")]
    pub log: Option<Text>,
}

impl ServeOptions {
    /// What is said here, and for the rest what the other says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            config: self.config.or(other.config),
            model_repository: self.model_repository.or(other.model_repository),
            model_repository_tenant: self.model_repository_tenant.or(other.model_repository_tenant),
            model_control_mode: self.model_control_mode.or(other.model_control_mode),
            load_model: self.load_model.or(other.load_model),
            compat: self.compat.or(other.compat),
            server_name: self.server_name.or(other.server_name),
            http_listen: self.http_listen.or(other.http_listen),
            grpc_listen: self.grpc_listen.or(other.grpc_listen),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            admin_listen: self.admin_listen.or(other.admin_listen),
            tls: self.tls.or(other.tls),
            code: self.code.or(other.code),
            login: self.login.or(other.login),
            http_workers: self.http_workers.or(other.http_workers),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            forward_headers: self.forward_headers.or(other.forward_headers),
            cors_origins: self.cors_origins.or(other.cors_origins),
            allow_client_shm: self.allow_client_shm || other.allow_client_shm,
            cuda_driver: self.cuda_driver.or(other.cuda_driver),
            allow_client_settings: self.allow_client_settings || other.allow_client_settings,
            admin_token_file: self.admin_token_file.or(other.admin_token_file),
            request_timeout_ms: self.request_timeout_ms.or(other.request_timeout_ms),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            cache_bytes: self.cache_bytes.or(other.cache_bytes),
            cache_tenant_bytes: self.cache_tenant_bytes.or(other.cache_tenant_bytes),
            grace_ms: self.grace_ms.or(other.grace_ms),
            devices: self.devices.or(other.devices),
            threads_per_device: self.threads_per_device.or(other.threads_per_device),
            intra_op_threads: self.intra_op_threads.or(other.intra_op_threads),
            cpu_memory: self.cpu_memory.or(other.cpu_memory),
            gpu_memory_percent: self.gpu_memory_percent.or(other.gpu_memory_percent),
            parallel_loads: self.parallel_loads.or(other.parallel_loads),
            queue: self.queue.or(other.queue),
            sequence_grace_ms: self.sequence_grace_ms.or(other.sequence_grace_ms),
            sequence_state_bytes: self.sequence_state_bytes.or(other.sequence_state_bytes),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            otlp_sample_ratio: self.otlp_sample_ratio.or(other.otlp_sample_ratio),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
        }
    }
}
