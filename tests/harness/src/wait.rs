//! Waiting for what can be observed.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How long anything may take that should come soon.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A client that does not wait for ever either.
pub(crate) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().timeout(PATIENCE).build();
    // Without its own settings a client still is one.
    client.unwrap_or_default()
}

/// Looks again and again until there is something to see; fails after [`PATIENCE`] with what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if began.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
