//! The load generator and the empty handler as a program; what they find is JSON on standard output.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{fs, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use mesh_load::{Floor, Load, RequestParts, request_bytes, run};

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

#[derive(Debug, Args)]
struct RunArguments {
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
    /// A file that holds the body; given again, the files are sent in turn.
    #[arg(long = "body")]
    bodies: Vec<PathBuf>,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Seconds before anything is counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// End after so many answers.
    #[arg(long)]
    requests: Option<u64>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written name: value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => load(&arguments),
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

fn load(arguments: &RunArguments) -> anyhow::Result<()> {
    let seconds = |value: f64| Duration::try_from_secs_f64(value).context("seconds are a positive number");
    let mut requests = Vec::new();
    let host = arguments.address.to_string();
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut bodies = arguments.bodies.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    if bodies.is_empty() {
        bodies.push(Vec::new());
    }
    for body in &bodies {
        requests.push(request_bytes(&RequestParts {
            method: &arguments.method,
            path: &arguments.path,
            host: &host,
            headers: &arguments.headers,
            body,
        }));
    }
    let load = Load {
        address: arguments.address,
        requests,
        concurrency: arguments.concurrency,
        warm_up: seconds(arguments.warm_up)?,
        duration: seconds(arguments.seconds)?,
        max_requests: arguments.requests,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(run(&load))?.summary();
    println!("{}", serde_json::to_string(&summary)?);
    if summary.ok == 0 {
        bail!("no request was answered with status 200: {:?}", summary.statuses);
    }
    Ok(())
}
