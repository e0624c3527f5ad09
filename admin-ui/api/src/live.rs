//! The overview once a second: one task counts, everyone who looks gets the same bytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header, web::Bytes};
use futures::stream;
use jiff::Timestamp;
use mesh_actors::{Permit, ShutdownSignal, Tasks};
use mesh_authz::Thing;
use mesh_policies::authorization::Action;
use mesh_types::DeviceId;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    AdminParts, AdminState,
    auth::Caller,
    devices::BusyWindow,
    error::ApiError,
    overview::{Overview, Window},
};

/// Streams of events at once.
pub const MAX_EVENT_CLIENTS: usize = 64;
const TICK: Duration = Duration::from_secs(1);

/// One second's overview.
pub(crate) struct Tick {
    id: u64,
    /// The overview as JSON.
    json: Bytes,
    /// How long threads of each device were busy per second, over the last ticks.
    pub(crate) busy: BTreeMap<DeviceId, f64>,
}

impl Tick {
    fn new(id: u64, overview: &Overview, busy: &BusyWindow) -> Self {
        let rate = |device: DeviceId| Some((device, busy.rate(device)?));
        let devices = overview.devices.iter().map(|device| device.device);
        let json = serde_json::to_vec(overview).unwrap_or_else(|error| {
            tracing::error!(%error, "overview cannot be written");
            b"null".to_vec()
        });
        Self {
            id,
            json: json.into(),
            busy: devices.filter_map(rate).collect(),
        }
    }

    fn frame(&self) -> Bytes {
        let mut frame = format!("id: {}\nevent: overview\ndata: ", self.id).into_bytes();
        // JSON as written here holds no line break, which would end the data.
        frame.extend_from_slice(&self.json);
        frame.extend_from_slice(b"\n\n");
        frame.into()
    }
}

/// Starts the task that counts.
pub(crate) fn start(parts: &AdminParts, tasks: &Tasks) -> watch::Receiver<Arc<Tick>> {
    let (parts, started) = (parts.clone(), parts.clock.now());
    let (mut window, mut busy) = (Window::default(), BusyWindow::default());
    let mut count = move |id: u64| {
        let (now, time) = (parts.clock.now(), Timestamp::from_second(parts.clock.unix_seconds()));
        let live = parts.telemetry.metrics().live();
        window.tick(&live, now);
        busy.tick(&live.busy, now);
        let uptime = now.saturating_duration_since(started).as_secs_f64();
        let overview = window.overview(time.unwrap_or_default(), uptime, parts.fleet.devices());
        Arc::new(Tick::new(id, &overview, &busy))
    };
    let (sender, receiver) = watch::channel(count(0));
    tasks.spawn("admin overview", move |mut signal| async move {
        let mut seconds = interval(TICK);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        seconds.tick().await;
        for id in 1.. {
            tokio::select! {
                () = signal.ended() => return,
                _ = seconds.tick() => {}
            }
            sender.send_replace(count(id));
        }
    });
    receiver
}

/// The newest overview.
pub(crate) fn overview(state: &AdminState) -> HttpResponse {
    let json = state.inner.ticks.borrow().json.clone();
    HttpResponse::Ok().content_type("application/json").body(json)
}

struct Listener {
    state: AdminState,
    caller: Caller,
    ticks: watch::Receiver<Arc<Tick>>,
    ending: ShutdownSignal,
    _permit: Permit,
}

impl Listener {
    /// The next frame, or none once the door closes, or the caller's token or right is gone.
    async fn next(mut self) -> Option<(Result<Bytes, actix_web::Error>, Self)> {
        tokio::select! {
            () = self.ending.ended() => return None,
            changed = self.ticks.changed() => changed.ok()?,
        }
        let may = || self.caller.may(&self.state, Action::MeshRead, &Thing::mesh()).is_ok();
        if !self.caller.is_still_valid(&self.state) || !may() {
            return None;
        }
        let frame = self.ticks.borrow_and_update().frame();
        Some((Ok(frame), self))
    }
}

/// A stream of overviews. Each is whole, so a client that was away needs only the newest, whatever id it saw last.
pub(crate) fn events(state: &AdminState, caller: Caller) -> Result<HttpResponse, ApiError> {
    let permit = state.inner.event_clients.try_acquire();
    let permit =
        permit.ok_or_else(|| ApiError::busy("as many are watching as can be: ask for the overview instead"))?;
    let mut ticks = state.inner.ticks.clone();
    ticks.mark_changed();
    let listener = Listener {
        state: state.clone(),
        caller,
        ticks,
        ending: state.inner.ending.clone(),
        _permit: permit,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream::unfold(listener, Listener::next)))
}
