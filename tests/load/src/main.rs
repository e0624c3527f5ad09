//! The load generator and the empty handler as a program; what they find is JSON on standard output.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{fs, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_load::{
    Arrivals, Floor, GrpcLoad, Load, OpenLoad, RequestParts, Soak, Spread, Summary, request_bytes, run, run_grpc,
    run_open, soak,
};

/// The mesh's own, so that the empty handler is as fast as it can be.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load for HTTP/1.1 servers, and the empty handler to hold it against.
#[derive(Debug, Parser)]
#[command(name = "mesh-load", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send requests over kept connections, each with one on its way, and print rates and latencies as JSON.
    Run(RunArguments),
    /// Send requests when they are due, whatever the server does, and print rates and latencies as JSON.
    Open(OpenArguments),
    /// Send valid, hostile and cancelled requests for a while, and print what came of the valid ones as JSON.
    Soak(SoakArguments),
    /// Serve the empty handler until interrupted; prints "listening on ADDRESS".
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Threads.
        #[arg(long, default_value = "1")]
        workers: NonZeroUsize,
        /// Bytes of each answer.
        #[arg(long, default_value_t = 64)]
        answer_bytes: usize,
    },
}

/// What is sent, and for how long.
#[derive(Debug, Args)]
struct What {
    /// The server.
    #[arg(long)]
    address: SocketAddr,
    /// The path.
    #[arg(long, default_value = "/")]
    path: String,
    /// The method.
    #[arg(long, default_value = "POST")]
    method: String,
    /// A header, such as "authorization: Bearer x"; may be given again.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A file of bearer tokens, one on each line; requests bear them in turn.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// A file that holds the body; given again, the files are sent in turn.
    #[arg(long = "body")]
    bodies: Vec<PathBuf>,
    /// Seconds before anything is counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    what: What,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// End after so many answers.
    #[arg(long)]
    requests: Option<u64>,
    /// Call over gRPC: the path is the call, and the body its message. Only tokens go beside it.
    #[arg(long)]
    grpc: bool,
}

#[derive(Debug, Args)]
struct OpenArguments {
    #[command(flatten)]
    what: What,
    /// Requests per second, in the mean.
    #[arg(long)]
    rate: f64,
    /// How they are spread.
    #[arg(long, default_value = "poisson")]
    spread: SpreadArgument,
    /// Of the random times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The most connections, and so the most requests on their way at a time.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// An answer is good if it comes within so many milliseconds of when its request was due.
    #[arg(long, default_value_t = 1_000)]
    within_ms: u64,
}

#[derive(Debug, Args)]
struct SoakArguments {
    /// The HTTP inference door.
    #[arg(long)]
    address: SocketAddr,
    /// The gRPC door.
    #[arg(long)]
    grpc_address: SocketAddr,
    /// A file whose first line is a tenant's key.
    #[arg(long)]
    tokens: PathBuf,
    /// A model that gives back its input `x` as `y`.
    #[arg(long)]
    model: String,
    /// For how long.
    #[arg(long)]
    seconds: f64,
    /// Callers of each kind.
    #[arg(long, default_value_t = 4)]
    callers: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SpreadArgument {
    /// The same gap every time.
    Even,
    /// As those of many independent callers.
    Poisson,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written name: value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => closed(&arguments),
        Command::Open(arguments) => open(&arguments),
        Command::Soak(arguments) => soaked(&arguments),
        Command::Floor {
            listen,
            workers,
            answer_bytes,
        } => actix_web::rt::System::new().block_on(async move {
            let floor = Floor::start(listen, workers, answer_bytes)?;
            println!("listening on {}", floor.address);
            let handle = floor.server.handle();
            let interrupted = async {
                tokio::signal::ctrl_c().await?;
                handle.stop(true).await;
                anyhow::Ok(())
            };
            let (served, stopped) = tokio::join!(floor.server, interrupted);
            served.context("the server ended")?;
            stopped
        }),
    }
}

impl What {
    /// Every token with every body.
    fn requests(&self) -> anyhow::Result<Vec<Bytes>> {
        let host = self.address.to_string();
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut bodies = self.bodies.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        if bodies.is_empty() {
            bodies.push(Vec::new());
        }
        let tokens = match &self.tokens {
            Some(path) => String::from_utf8(read(path)?).context("the tokens are not text")?,
            None => String::new(),
        };
        let mut callers: Vec<Vec<(String, String)>> = Vec::new();
        for token in tokens.lines().map(str::trim).filter(|token| !token.is_empty()) {
            let bearer = ("authorization".to_owned(), format!("Bearer {token}"));
            callers.push(self.headers.iter().cloned().chain([bearer]).collect());
        }
        match &self.tokens {
            Some(path) => ensure!(!callers.is_empty(), "{} holds no token", path.display()),
            None => callers.push(self.headers.clone()),
        }
        let request = |(body, headers): (&Vec<u8>, &Vec<(String, String)>)| {
            request_bytes(&RequestParts {
                method: &self.method,
                path: &self.path,
                host: &host,
                headers,
                body,
            })
        };
        let pairs = bodies
            .iter()
            .flat_map(|body| callers.iter().map(move |caller| (body, caller)));
        Ok(pairs.map(request).collect())
    }
}

fn seconds(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).context("seconds are a positive number")
}

fn grpc(arguments: &RunArguments) -> anyhow::Result<GrpcLoad> {
    let what = &arguments.what;
    let [body] = what.bodies.as_slice() else {
        bail!("over gRPC there is one body: the message");
    };
    let tokens = what.tokens.as_ref().map(fs::read_to_string).transpose()?;
    Ok(GrpcLoad {
        address: what.address,
        path: what.path.clone(),
        tokens: tokens
            .unwrap_or_default()
            .lines()
            .map(|token| token.trim().to_owned())
            .collect(),
        message: fs::read(body)
            .with_context(|| format!("cannot read {}", body.display()))?
            .into(),
        concurrency: arguments.concurrency,
        warm_up: seconds(what.warm_up)?,
        duration: seconds(what.seconds)?,
        max_requests: arguments.requests,
    })
}

fn closed(arguments: &RunArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.grpc {
        return told(&runtime.block_on(run_grpc(&grpc(arguments)?))?.summary());
    }
    let load = Load {
        address: arguments.what.address,
        requests: arguments.what.requests()?,
        concurrency: arguments.concurrency,
        warm_up: seconds(arguments.what.warm_up)?,
        duration: seconds(arguments.what.seconds)?,
        max_requests: arguments.requests,
    };
    told(&runtime.block_on(run(&load))?.summary())
}

fn told(summary: &Summary) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(summary)?);
    if summary.ok == 0 {
        bail!("no request was answered with status 200: {:?}", summary.statuses);
    }
    Ok(())
}

fn soaked(arguments: &SoakArguments) -> anyhow::Result<()> {
    let path = &arguments.tokens;
    let tokens = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let wanted = Soak {
        http: arguments.address,
        grpc: arguments.grpc_address,
        key: tokens.lines().next().context("there is no key")?.trim().to_owned(),
        model: arguments.model.clone(),
        duration: seconds(arguments.seconds)?,
        callers: arguments.callers,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", serde_json::to_string(&runtime.block_on(soak(&wanted))?)?);
    Ok(())
}

fn open(arguments: &OpenArguments) -> anyhow::Result<()> {
    let spread = match arguments.spread {
        SpreadArgument::Even => Spread::Even,
        SpreadArgument::Poisson => Spread::Poisson,
    };
    let load = OpenLoad {
        address: arguments.what.address,
        requests: arguments.what.requests()?,
        arrivals: Arrivals::new(spread, arguments.rate, arguments.seed).context("the rate is a positive number")?,
        connections: arguments.connections,
        warm_up: seconds(arguments.what.warm_up)?,
        duration: seconds(arguments.what.seconds)?,
        within: Duration::from_millis(arguments.within_ms),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(run_open(&load))?.summary();
    println!("{}", serde_json::to_string(&summary)?);
    ensure!(!summary.statuses.is_empty(), "no request was answered");
    Ok(())
}
