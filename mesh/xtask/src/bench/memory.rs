//! The mesh's memory over a flood: whether it stays where it was once queues are full.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::bench::{
    Bench,
    overload::Overload,
    samples::resident_mib,
    streams::meet,
    table::{Row, median},
};

const EVERY: Duration = Duration::from_secs(1);
/// Before the flood is held to anything: queues and pools fill.
const MOST_SETTLING: f64 = 60.0;

/// The row: the growth from the end of the first minute (of a shorter run: of its first third) to the end.
pub(crate) fn row(bench: &Bench, overload: &Overload<'_>, minutes: f64) -> anyhow::Result<Row> {
    let seconds = minutes * 60.0;
    eprintln!("memory: a flood of {seconds:.0} s");
    let flood = overload.flood(seconds);
    let is_over = AtomicBool::new(false);
    let (met, samples) = thread::scope(|scope| {
        let watch = || {
            let mut samples = vec![resident_mib(overload.pid())?];
            while !is_over.load(Ordering::Acquire) && !bench.interrupt.wait(EVERY) {
                samples.push(resident_mib(overload.pid())?);
            }
            anyhow::Ok(samples)
        };
        let watcher = thread::Builder::new().spawn_scoped(scope, watch)?;
        let met = meet(bench, std::slice::from_ref(&flood));
        is_over.store(true, Ordering::Release);
        let samples = watcher.join().ok().context("the memory was not watched to the end")?;
        anyhow::Ok((met?, samples?))
    })?;
    let served = met.first().map_or(0, |met| met.ok.count);
    ensure!(served > 0, "the flood was not served at all");
    let (settled, end) = ends(&samples).context("the flood was too short to watch its memory")?;
    let note =
        format!("growth over {minutes} min of 3x the peak, {served} served; beside the memory at the start of it");
    Ok(Row::pair(
        "mesh, flooded: memory".to_owned(),
        "MiB",
        (end - settled, settled),
        &note,
    ))
}

/// Memory once settled, and at the end: each the median of a sixth of the samples.
pub(crate) fn ends(samples: &[f64]) -> Option<(f64, f64)> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "some hundred samples"
    )]
    let settling = (samples.len() as f64 / 3.0).min(MOST_SETTLING) as usize;
    let part = samples.len() / 6;
    let first = samples.get(settling..settling + part)?;
    let last = samples.get(samples.len() - part..)?;
    (part > 0).then(|| (median(first.to_vec()), median(last.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_counted_after_settling() {
        let samples: Vec<f64> = (0..60)
            .map(|second| if second < 20 { f64::from(second) } else { 20.0 })
            .collect();
        assert_eq!(ends(&samples), Some((20.0, 20.0)));
        let leaking: Vec<f64> = (0..600).map(f64::from).collect();
        // From the samples after 60 s to the last: 110 and 550 are their middles.
        assert_eq!(ends(&leaking), Some((109.5, 549.5)));
        assert_eq!(ends(&[1.0; 5]), None);
    }
}
