//! A backup of everything, as an archive that is made while it is sent.
//!
//! One at a time, for who may do `mesh:backup`, and an entry of the audit trail. A caller that stands still or goes away ends it: what a
//! backup holds cannot be taken away on disk meanwhile.

use std::time::Duration;

use actix_web::{HttpResponse, body::SizedStream, http::header, web::Bytes};
use futures::stream;
use jiff::Timestamp;
use mesh_actors::ShutdownSignal;
use mesh_registry::{Backup, RegistryError};
use tokio::{sync::mpsc, time::timeout};

use crate::{AdminState, auth::Caller, error::ApiError};

/// Backups at once, over all callers.
pub(crate) const MAX_BACKUPS: usize = 1;
/// Pieces on their way to the caller.
const PIECES: usize = 2;
/// The longest that a piece waits for the caller.
const MAX_PAUSE: Duration = Duration::from_secs(30);

type Piece = Result<Bytes, RegistryError>;

/// Answers with the archive.
pub(crate) async fn download(state: &AdminState, caller: &Caller) -> Result<HttpResponse, ApiError> {
    let busy = || ApiError::busy("a backup is being made: wait for it to end");
    let permit = state.inner.backups.try_acquire().ok_or_else(busy)?;
    let registry = &state.inner.parts.registry;
    registry.note(caller.author(), "backup").await?;
    let now = Timestamp::from_second(state.now_unix()).unwrap_or_default();
    let backup = registry.backup(now).await?;
    let (revision, bytes) = (backup.revision(), backup.bytes());
    tracing::info!(who = %caller.who, revision, bytes, files = backup.files(), "a backup is sent");
    let (to, from) = mpsc::channel(PIECES);
    state.inner.tasks.spawn("backup", move |ending| async move {
        send(backup, to, ending).await;
        drop(permit);
    });
    let pieces = stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
    let name = format!("attachment; filename=\"mesh-backup-{revision}.tar\"");
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((header::CONTENT_DISPOSITION, name))
        .body(SizedStream::new(bytes, pieces)))
}

/// Reads a backup piece by piece and hands it on, until its end or its caller's.
async fn send(mut backup: Backup, to: mpsc::Sender<Piece>, mut ending: ShutdownSignal) {
    loop {
        let Some((again, piece)) = next(backup).await else {
            return;
        };
        backup = again;
        let broken = piece.is_err();
        if !hand_on(&to, piece, &mut ending).await {
            tracing::warn!("a backup broke off: its caller went away or stood still, or the mesh is ending");
            return;
        }
        if broken {
            return;
        }
    }
}

/// The next piece; none: that was all. It is read from disk and hashed, so not on the door's thread.
async fn next(mut backup: Backup) -> Option<(Backup, Piece)> {
    let read = tokio::task::spawn_blocking(move || {
        let piece = backup.next_chunk();
        (backup, piece)
    });
    let (backup, piece) = read.await.ok()?;
    let piece = piece.transpose()?;
    if let Err(error) = &piece {
        tracing::error!(%error, "a backup broke off");
    }
    Some((backup, piece))
}

/// Whether the caller took a piece before it stood still for too long, and before the mesh ended.
async fn hand_on(to: &mpsc::Sender<Piece>, piece: Piece, ending: &mut ShutdownSignal) -> bool {
    tokio::select! {
        handed = timeout(MAX_PAUSE, to.send(piece)) => matches!(handed, Ok(Ok(()))),
        () = ending.ended() => false,
    }
}

#[cfg(test)]
mod tests {
    use mesh_actors::Tasks;

    use super::*;
    use crate::fixture_tests::Fixture;

    #[actix_web::test]
    async fn a_caller_who_stands_still_ends_it() {
        let fixture = Fixture::new().await;
        let registry = &fixture.state.inner.parts.registry;
        // More pieces than wait on the way: each file of the archive is several.
        let backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let tasks = Tasks::new();
        let (to, mut from) = mpsc::channel(PIECES);
        tokio::time::pause();
        send(backup, to, tasks.signal()).await;
        let mut pieces = 0;
        while let Some(piece) = from.recv().await {
            pieces += usize::from(piece.is_ok());
        }
        assert_eq!(pieces, PIECES);
    }

    #[actix_web::test]
    async fn the_end_of_the_mesh_ends_it() {
        let fixture = Fixture::new().await;
        let registry = &fixture.state.inner.parts.registry;
        let backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let tasks = Tasks::new();
        let (to, from) = mpsc::channel(PIECES);
        tasks.spawn("backup", |ending| send(backup, to, ending));
        assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
        drop(from);
    }
}
