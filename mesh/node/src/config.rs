//! The configuration: checked once, before anything is opened or bound.
//!
//! Every mistake is told, not only the first. Whether a folder can be written or a port is free shows when it is used.

use std::{
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    thread::available_parallelism,
    time::Duration,
};

use mesh_protocol::HeaderPattern;
use mesh_router::{CacheBounds, DEFAULT_CACHE_BYTES, DEFAULT_TENANT_CACHE_BYTES};
use mesh_router_http::CorsOrigins;
use mesh_telemetry::{LogFormat, OtlpConfig};
use mesh_types::TenantId;

use crate::{
    code::CodeConfig,
    compat,
    login::LoginConfig,
    memory::{self, Amount},
    options::{ServeOptions, Text},
    tls::TlsConfig,
};

/// The largest configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most memory that may be set apart for remembered answers: a tebibyte.
const MAX_CACHE_BYTES: usize = 1 << 40;
/// The part of the machine's memory that models may take where nobody says another.
const CPU_MEMORY: &str = "60%";
/// Whose the models of a repository are where nobody says.
const REPOSITORY_TENANT: &str = "default";
const SERVICE_NAME: &str = "mesh";
/// The longest name in the server's metadata.
const MAX_SERVER_NAME_BYTES: usize = 128;
/// The sockets' library tells of each worker and connection what the doors say in one line.
const LOG_FILTER: &str = "info,actix_server=warn";

/// How a node is set up; every value is within its bounds.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The folder that holds everything.
    pub data: PathBuf,
    /// A Triton model repository, and whose its models are to be.
    pub model_repository: Option<(PathBuf, TenantId)>,
    /// The models to bring in at the start where models are loaded on demand; none: all are, and nobody loads any later.
    pub on_demand: Option<Vec<String>>,
    /// Whether the doors answer as Triton's server does where the two differ; see [`Self::local_tenant`].
    pub as_triton: bool,
    /// Whom callers on this machine are who show no credential; none: they are refused like all others.
    pub local_tenant: Option<TenantId>,
    /// The name in the server's metadata.
    pub server_name: String,
    /// The inference door.
    pub http: SocketAddr,
    /// The inference door for gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The admin door.
    pub admin: SocketAddr,
    /// How the doors speak TLS.
    pub tls: TlsConfig,
    /// Whose models are taken.
    pub code: CodeConfig,
    /// How people sign in to the admin door with an identity provider; none: by tokens only.
    pub login: Option<LoginConfig>,
    /// Threads of each inference door.
    pub http_workers: usize,
    /// The largest body of a request.
    pub max_body_bytes: usize,
    /// Headers that become parameters of requests.
    pub forward_headers: Option<HeaderPattern>,
    /// Web pages that may call the HTTP inference door.
    pub cors_origins: Option<CorsOrigins>,
    /// Whether callers may have tensors in shared memory.
    pub allow_client_shm: bool,
    /// The library of CUDA's driver, by which callers' memory on devices is opened; none: the system's, if it is there.
    pub cuda_driver: Option<PathBuf>,
    /// Whether callers may change what is traced and logged.
    pub allow_client_settings: bool,
    /// Where the first admin token is written as well.
    pub admin_token_file: Option<PathBuf>,
    /// The deadline of requests that bring none.
    pub request_timeout: Duration,
    /// Requests at once per thread of the door.
    pub max_in_flight: usize,
    /// How long a shutdown waits for requests.
    pub grace: Duration,
    /// CPU devices.
    pub devices: u16,
    /// Threads of a device.
    pub threads_per_device: u16,
    /// Threads within an operation of libtorch.
    pub intra_op_threads: u16,
    /// The most memory that models may take on the CPU devices together; none where the machine does not say what it has.
    pub cpu_memory: Option<u64>,
    /// The most that they may take on each GPU, in percent of what it has.
    pub gpu_memory_percent: u8,
    /// Models that a device loads at the same time.
    pub parallel_loads: usize,
    /// The most requests that wait for a model on a device.
    pub queue: usize,
    /// How long open sequences may go on where their device is drained or their model unloaded.
    pub sequence_grace: Duration,
    /// How much is remembered of answers.
    pub cache: CacheBounds,
    /// Memory for the states of sequences, per device.
    pub sequence_state_bytes: u64,
    /// Where traces and metrics are pushed.
    pub otlp: Option<OtlpConfig>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Each names the setting, what was wrong and what would be right.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn one(problem: String) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl NodeConfig {
    /// Adds the file's settings, if a file is named, fills in what nobody said, and checks everything.
    pub fn load(options: ServeOptions) -> Result<Self, ConfigError> {
        let file = match &options.config {
            Some(path) => read_file(path)?,
            None => ServeOptions::default(),
        };
        Self::check(options.or(file))
    }

    /// Fills in what was not said and checks everything.
    #[expect(clippy::too_many_lines, reason = "a line for each setting")]
    pub fn check(options: ServeOptions) -> Result<Self, ConfigError> {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let mut desk = Desk { problems: Vec::new() };
        let tenant = desk.tenant(options.model_repository_tenant);
        let name_said = options.server_name.is_some();
        let (threads, states) = (
            u16::try_from(cores).unwrap_or(256).clamp(1, 256),
            options.sequence_state_bytes,
        );
        let mut config = Self {
            data: options.data.unwrap_or_else(|| PathBuf::from("./mesh-data")),
            model_repository: options.model_repository.zip(tenant.clone()),
            on_demand: desk.on_demand(options.model_control_mode.as_ref(), options.load_model),
            as_triton: desk.compat(options.compat.as_ref()),
            local_tenant: None,
            server_name: desk.server_name(options.server_name),
            http: desk.address("http_listen", options.http_listen, ([0, 0, 0, 0], 8000)),
            grpc: desk.address("grpc_listen", options.grpc_listen, ([0, 0, 0, 0], 8001)),
            metrics: desk.address("metrics_listen", options.metrics_listen, ([0, 0, 0, 0], 8002)),
            admin: desk.address("admin_listen", options.admin_listen, ([127, 0, 0, 1], 8080)),
            tls: options.tls.check(&mut desk.problems),
            code: options.code.check(&mut desk.problems),
            login: None,
            http_workers: desk.number("http_workers", options.http_workers, 1..=256, (cores / 2).clamp(1, 256)),
            max_body_bytes: desk.number("max_body_bytes", options.max_body_bytes, 1_024..=1 << 30, 64 << 20),
            forward_headers: desk.optional("forward_headers", options.forward_headers),
            cors_origins: desk.optional("cors_origins", options.cors_origins),
            cuda_driver: desk.cuda_driver(options.cuda_driver, options.allow_client_shm),
            allow_client_shm: options.allow_client_shm,
            allow_client_settings: options.allow_client_settings,
            admin_token_file: options.admin_token_file,
            request_timeout: desk.millis("request_timeout_ms", options.request_timeout_ms, 1..=600_000, 30_000),
            max_in_flight: desk.number("max_in_flight", options.max_in_flight, 1..=1_000_000, 4_096),
            grace: desk.millis("grace_ms", options.grace_ms, 0..=600_000, 30_000),
            devices: desk.number("devices", options.devices, 1..=64, 1),
            threads_per_device: desk.number("threads_per_device", options.threads_per_device, 1..=256, threads),
            intra_op_threads: desk.number("intra_op_threads", options.intra_op_threads, 1..=256, 1),
            cpu_memory: desk.memory(options.cpu_memory),
            gpu_memory_percent: desk.number("gpu_memory_percent", options.gpu_memory_percent, 1..=100, 90),
            parallel_loads: desk.number("parallel_loads", options.parallel_loads, 1..=16, 2),
            cache: desk.cache(options.cache_bytes, options.cache_tenant_bytes),
            queue: desk.number("queue", options.queue, 1..=1_000_000, 4_096),
            sequence_grace: desk.millis("sequence_grace_ms", options.sequence_grace_ms, 0..=3_600_000, 30_000),
            sequence_state_bytes: desk.number("sequence_state_bytes", states, 1_024..=1 << 40, 1 << 30),
            otlp: desk.otlp(options.otlp_endpoint, options.otlp_sample_ratio),
            log_format: desk.log_format(options.log_format.as_ref()),
            log: options.log.map_or_else(|| LOG_FILTER.to_owned(), |Text(filter)| filter),
        };
        config.login = options.login.check(config.admin, &mut desk.problems);
        if let Some(tenant) = tenant.filter(|_| config.as_triton) {
            compat::turn_on(&mut config, tenant, name_said);
        }
        if config.on_demand.is_some() && config.model_repository.is_none() {
            let text = "model_control_mode: explicit loads models of a repository: name one with model_repository";
            desk.problems.push(text.to_owned());
        }
        desk.clashes(&config);
        if desk.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                problems: desk.problems,
            })
        }
    }
}

fn read_file(path: &Path) -> Result<ServeOptions, ConfigError> {
    let name = path.display();
    let unreadable = |error: std::io::Error| ConfigError::one(format!("config: cannot read {name}: {error}"));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(ConfigError::one(format!(
            "config: {name} has {size} bytes, at most {MAX_FILE_BYTES} are read"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| ConfigError::one(format!("config: {name}: {}", error.to_string().trim_end())))
}

/// Where mistakes are gathered.
struct Desk {
    problems: Vec<String>,
}

impl Desk {
    fn say(&mut self, name: &str, text: &str, right: &str) {
        let text: String = text.chars().take(100).collect();
        self.problems.push(format!("{name}: '{text}' is not {right}"));
    }

    fn read<T: FromStr>(&mut self, name: &str, text: Option<Text>, right: &str, default: T) -> T {
        let Some(Text(text)) = text else { return default };
        text.parse().unwrap_or_else(|_| {
            self.say(name, &text, right);
            default
        })
    }

    /// What is off where nobody says it; the type's own error says what would be right.
    fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, text: Option<Text>) -> Option<T> {
        let Text(text) = text?;
        text.parse()
            .map_err(|error| self.problems.push(format!("{name}: {error}")))
            .ok()
    }

    fn address(&mut self, name: &str, text: Option<Text>, default: ([u8; 4], u16)) -> SocketAddr {
        let right = "an address and port: write 127.0.0.1:8000 or [::]:8000";
        self.read(name, text, right, default.into())
    }

    fn number<T>(&mut self, name: &str, text: Option<Text>, bounds: RangeInclusive<T>, default: T) -> T
    where
        T: FromStr + PartialOrd + Copy + fmt::Display,
    {
        let right = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = self.read(name, text, &right, default);
        if bounds.contains(&number) {
            return number;
        }
        self.say(name, &number.to_string(), &right);
        default
    }

    fn millis(&mut self, name: &str, text: Option<Text>, bounds: RangeInclusive<u64>, default: u64) -> Duration {
        Duration::from_millis(self.number(name, text, bounds, default))
    }

    fn cuda_driver(&mut self, library: Option<PathBuf>, shared: bool) -> Option<PathBuf> {
        if library.is_some() && !shared {
            let text = "cuda_driver: it opens memory that callers share, which allow_client_shm must allow";
            self.problems.push(text.to_owned());
        }
        library
    }

    fn cache(&mut self, bytes: Option<Text>, of_tenant: Option<Text>) -> CacheBounds {
        let bounds = 0..=MAX_CACHE_BYTES;
        CacheBounds {
            bytes: self.number("cache_bytes", bytes, bounds.clone(), DEFAULT_CACHE_BYTES),
            tenant_bytes: self.number("cache_tenant_bytes", of_tenant, bounds, DEFAULT_TENANT_CACHE_BYTES),
        }
    }

    fn memory(&mut self, text: Option<Text>) -> Option<u64> {
        let Text(text) = text.unwrap_or_else(|| Text(CPU_MEMORY.to_owned()));
        match memory::parse(&text) {
            Some(Amount::Bytes(bytes)) => Some(bytes),
            Some(Amount::Percent(percent)) => memory::of_machine().map(|bytes| bytes / 100 * u64::from(percent)),
            None => {
                self.say("cpu_memory", &text, "a size: write 6GiB, 512MiB or 60%");
                None
            }
        }
    }

    fn tenant(&mut self, name: Option<Text>) -> Option<TenantId> {
        let Text(name) = name.unwrap_or_else(|| Text(REPOSITORY_TENANT.to_owned()));
        let tenant = TenantId::parse(&name);
        tenant
            .map_err(|error| self.problems.push(format!("model_repository_tenant: {error}")))
            .ok()
    }

    fn on_demand(&mut self, mode: Option<&Text>, named: Option<Vec<Text>>) -> Option<Vec<String>> {
        let named: Vec<String> = named.into_iter().flatten().map(|Text(name)| name).collect();
        match mode.map(|Text(mode)| mode.as_str()) {
            Some("explicit") => return Some(named),
            None | Some("none") if !named.is_empty() => {
                let text = "load_model: all models are brought in at the start, but with model_control_mode explicit";
                self.problems.push(text.to_owned());
            }
            None | Some("none") => {}
            Some(other) => self.say("model_control_mode", other, "a mode: write none or explicit"),
        }
        None
    }

    fn compat(&mut self, server: Option<&Text>) -> bool {
        match server.map(|Text(server)| server.as_str()) {
            None => false,
            Some("triton") => true,
            Some(other) => {
                self.say("compat", other, "a server whose clients are known: write triton");
                false
            }
        }
    }

    fn server_name(&mut self, name: Option<Text>) -> String {
        let Text(name) = name.unwrap_or_else(|| Text(SERVICE_NAME.to_owned()));
        if !(1..=MAX_SERVER_NAME_BYTES).contains(&name.len()) {
            let right = format!("a name of 1 to {MAX_SERVER_NAME_BYTES} bytes");
            self.say("server_name", &name, &right);
        }
        name
    }

    fn otlp(&mut self, endpoint: Option<Text>, ratio: Option<Text>) -> Option<OtlpConfig> {
        const SHARE: &str = "a share from 0 to 1";
        let sample_ratio: f64 = self.read("otlp_sample_ratio", ratio, SHARE, 0.01);
        if !(0.0..=1.0).contains(&sample_ratio) {
            self.say("otlp_sample_ratio", &sample_ratio.to_string(), SHARE);
        }
        let Text(endpoint) = endpoint?;
        let known = endpoint.starts_with("http://") || endpoint.starts_with("https://");
        if !known {
            self.say("otlp_endpoint", &endpoint, "an address: write http://localhost:4317");
        }
        Some(OtlpConfig {
            endpoint,
            service_name: SERVICE_NAME.to_owned(),
            sample_ratio,
        })
    }

    fn log_format(&mut self, text: Option<&Text>) -> LogFormat {
        match text.map(|Text(text)| text.as_str()) {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.say("log_format", other, "a format: write text or json");
                LogFormat::Text
            }
        }
    }

    fn clashes(&mut self, config: &NodeConfig) {
        let doors = [
            ("http_listen", config.http),
            ("grpc_listen", config.grpc),
            ("metrics_listen", config.metrics),
            ("admin_listen", config.admin),
        ];
        for (index, (name, address)) in doors.iter().enumerate() {
            let same = |other: &&(&str, SocketAddr)| other.1 == *address && address.port() != 0;
            if let Some((other, _)) = doors.iter().take(index).find(same) {
                self.problems
                    .push(format!("{name}: {address} is also {other}: each door needs its own"));
            }
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
