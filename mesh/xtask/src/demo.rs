//! `cargo xtask demo`: one command to a mesh that two tenants use.
//!
//! Owns the order of things. Everything it makes is kept in its folder, so that the second start finds it again; what was
//! changed by hand meanwhile stays as it is.

mod declare;
mod digits;
mod guide;
mod traffic;

pub(crate) use declare::declare;
pub(crate) use digits::Digits;
pub(crate) use traffic::{Plan, run as send};

use std::path::PathBuf;

use clap::Args;

use crate::{
    commands, environment,
    interrupt::Interrupt,
    node::{Node, NodeSettings, PATIENCE, Ports},
    programs::Programs,
};

/// The tenants of the demo; the model is the first one's, granted to the second.
pub(crate) const TENANTS: [&str; 2] = ["acme", "globex"];
/// The endpoint that both call.
pub(crate) const ENDPOINT: &str = "digits";
/// Predictions of a demo that is run `--once`.
const ONCE: u64 = 200;

/// What can be said about a demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The inference door's port; metrics are 2 above, the admin door 80 above. 0 takes free ports.
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    port_base: u16,
    /// Where everything is kept. [default: demo in cargo's target folder]
    #[arg(long, value_name = "FOLDER")]
    data_folder: Option<PathBuf>,
    /// Requests per second, over both tenants.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// Stop after so many predictions.
    #[arg(long, value_name = "N", conflicts_with = "once")]
    requests: Option<u64>,
    /// Stop after 200 predictions.
    #[arg(long)]
    once: bool,
    /// Take the programs that the last optimised build left.
    #[arg(long)]
    no_build: bool,
}

impl DemoArguments {
    fn bound(&self) -> Option<u64> {
        self.requests.or(self.once.then_some(ONCE))
    }
}

/// Builds, trains, starts, declares, sends traffic, and stops when told to.
pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    let environment = commands::setup()?;
    let ports = Ports::of(arguments.port_base)?;
    // Before anything that takes time.
    ports.check()?;
    let programs = if arguments.no_build {
        Programs::built(environment)?
    } else {
        Programs::release(environment)?
    };
    let folder = match &arguments.data_folder {
        Some(folder) => std::path::absolute(folder)?,
        None => environment::target()?.join("demo"),
    };
    // From here on: before, Ctrl-C ends the builds as ever.
    let interrupt = Interrupt::listen()?;
    let digits = Digits::provide(&programs, &folder.join("digits"))?;
    eprintln!("starting the mesh");
    let settings = NodeSettings {
        programs: &programs,
        folder: &folder,
        ports,
        options: &[],
        under: &[],
        patience: PATIENCE,
    };
    let node = Node::start(&settings, &interrupt)?;
    let keys = declare(&node, &digits)?;
    guide::print(&node, &digits, &keys)?;
    let served = send(&Plan {
        node: &node,
        digits: &digits,
        keys: &keys,
        rate: arguments.rate,
        bound: arguments.bound(),
        interrupt: &interrupt,
        quiet: false,
    });
    eprintln!("stopping the mesh");
    let stopped = node.stop();
    let served = served?;
    stopped?;
    println!(
        "served {served} predictions; everything is kept in {}",
        folder.display()
    );
    Ok(())
}
