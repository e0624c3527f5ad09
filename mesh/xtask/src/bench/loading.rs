//! What others notice of a large model that is loaded and warmed beside them, and what its own first request takes.
//!
//! The large model is on demand and leaves memory a second after its last use, so that it can be loaded again and again.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, send},
        models::{self, Body, ENCODER, LARGE, MLP, Model, SMALL, TENANT},
        streams::{Met, Stream, meet},
        table::{Row, median},
    },
    node::{Node, PATIENCE},
    process,
};

/// Of what it can do, what is asked of the device meanwhile.
const LIVE_PART: f64 = 0.2;
const PEAK_CONCURRENCY: usize = 16;
const DEADLINE_MS: u64 = 10_000;
const WARM_UP: f64 = 1.0;
/// A p99 over fewer answers says little.
const ENOUGH: f64 = 500.0;
/// Requests, each on a connection of its own, whose median is the steady one.
const STEADY: usize = 15;
/// How long a model may take to come into memory, and to leave it.
const LEAVING: Duration = Duration::from_secs(60);

struct Live<'a> {
    bench: &'a Bench,
    node: &'a Node,
    keys: &'a Path,
}

/// The rows.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let node = bench.start("loading", &[], PATIENCE)?;
    let keys = models::declare(&node, &bench.folder, &[&MLP, &ENCODER, &SMALL, &LARGE])?;
    let live = Live {
        bench,
        node: &node,
        keys: &keys,
    };
    let mut rows = Vec::new();
    for model in [&MLP, &ENCODER] {
        rows.extend(live.beside_loads(model)?);
    }
    for model in [&SMALL, &LARGE] {
        rows.push(live.first(model)?);
    }
    node.stop()?;
    Ok(rows)
}

impl Live<'_> {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.node.ports.inference))
    }

    fn send(&self, model: &Model, amount: Amount) -> anyhow::Result<super::load::Summary> {
        let aim = Aim {
            address: self.address(),
            path: &path(model),
            keys: self.keys,
            body: &models::body(&self.bench.folder, model)?,
            grpc: false,
        };
        send(self.bench, &aim, amount)
    }

    /// The p99 of steady traffic, alone and while the large model is loaded.
    fn beside_loads(&self, model: &Model) -> anyhow::Result<Vec<Row>> {
        let amount = Amount {
            concurrency: PEAK_CONCURRENCY,
            warm_up: WARM_UP,
            seconds: self.bench.seconds,
            requests: None,
        };
        let rate = self.send(model, amount)?.requests_per_second * LIVE_PART;
        let body = models::body(&self.bench.folder, model)?;
        let path = path(model);
        let seconds = (ENOUGH / rate).max(self.bench.seconds * 2.0);
        let (mut alone, mut beside, mut loads) = (Vec::new(), Vec::new(), 0);
        for round in 0..self.bench.rounds {
            eprintln!("{} at {rate:.0}/s, round {round}: alone, then beside loads", model.name);
            let stream = self.stream(&path, &body, rate, seconds, round);
            self.until_gone(&LARGE)?;
            alone.extend(meet(self.bench, std::slice::from_ref(&stream))?);
            let (met, loaded) = self.while_loading(&stream)?;
            eprintln!(
                "  p99 {:.2} ms alone, {:.2} ms beside {loaded} loads",
                alone.last().map_or(f64::NAN, |met| met.ok.p99_us / 1e3),
                met.ok.p99_us / 1e3
            );
            beside.push(met);
            loads += loaded;
        }
        let figure = |side: &[Met], of: fn(&Met) -> f64| median(side.iter().map(of).collect());
        let name = |figure: &str| format!("{} at 20 %, beside loads of 100 MB: {figure}", model.name);
        let pair = |of: fn(&Met) -> f64| (figure(&beside, of), figure(&alone, of));
        let note = format!("beside the same traffic alone; {loads} loads");
        let p99 = pair(|met| met.ok.p99_us);
        Ok(vec![
            Row::pair(name("p50"), "us", pair(|met| met.ok.p50_us), &note),
            Row::pair(name("p99"), "us", p99, &note),
            Row::pair(name("answered"), "1", pair(|met| met.good_share), &note),
        ])
    }

    fn stream<'b>(&'b self, path: &'b str, body: &'b Body, rate: f64, seconds: f64, seed: u32) -> Stream<'b> {
        Stream {
            address: self.address(),
            path,
            keys: self.keys,
            body,
            rate,
            deadline_ms: DEADLINE_MS,
            warm_up: WARM_UP,
            seconds,
            seed: u64::from(seed),
        }
    }

    /// What the stream meets while the large model comes and goes, and how often it came.
    fn while_loading(&self, stream: &Stream<'_>) -> anyhow::Result<(Met, u32)> {
        thread::scope(|scope| {
            let met = scope.spawn(|| meet(self.bench, std::slice::from_ref(stream)));
            let mut loads = 0;
            while !met.is_finished() {
                self.node.hint(TENANT, LARGE.name)?;
                self.until(&LARGE, true)?;
                loads += 1;
                self.until_gone(&LARGE)?;
            }
            let met = met.join().ok().context("the stream's thread panicked")??;
            Ok((met.into_iter().next().context("one stream has met nothing")?, loads))
        })
    }

    fn warm(&self, model: &Model) -> anyhow::Result<()> {
        process::output(&mut self.node.cli(&["model", "warm", model.name, "-t", TENANT])).map(drop)
    }

    fn until_gone(&self, model: &Model) -> anyhow::Result<()> {
        self.until(model, false)
    }

    /// Waits until the model is in memory, or is not.
    fn until(&self, model: &Model, there: bool) -> anyhow::Result<()> {
        let line = format!("model=\"{TENANT}/{}/1\"", model.name);
        let deadline = Instant::now() + LEAVING;
        // A series of its memory is there for as long as it is in memory.
        let is_there = |metrics: &str| {
            let of = |text: &&str| text.starts_with("mesh_model_memory_bytes{") && text.contains(&line);
            metrics.lines().find(of).is_some_and(|text| !text.ends_with(" 0"))
        };
        while is_there(&self.node.metrics()?) != there {
            let what = if there { "come into" } else { "leave" };
            ensure!(Instant::now() < deadline, "{} does not {what} memory", model.name);
            ensure!(!self.bench.interrupt.wait(Duration::from_millis(50)), "interrupted");
        }
        Ok(())
    }

    /// The first request after a model is ready, beside those after it.
    fn first(&self, model: &Model) -> anyhow::Result<Row> {
        let once = Amount {
            concurrency: 1,
            warm_up: 0.0,
            seconds: 60.0,
            requests: Some(1),
        };
        let (mut firsts, mut steady) = (Vec::new(), Vec::new());
        for round in 0..self.bench.rounds {
            eprintln!("{}, round {round}: the first request, and those after it", model.name);
            self.until_gone(model)?;
            self.warm(model)?;
            firsts.push(self.send(model, once)?.p50_us);
            let later: anyhow::Result<Vec<f64>> = (0..STEADY).map(|_| Ok(self.send(model, once)?.p50_us)).collect();
            steady.push(median(later?));
        }
        let name = format!("{}: first request once it is ready", model.name);
        let note = "beside the median of later ones, each on a connection of its own";
        Ok(Row::pair(name, "us", (median(firsts), median(steady)), note))
    }
}

fn path(model: &Model) -> String {
    format!("/v2/models/{}/infer", model.name)
}
