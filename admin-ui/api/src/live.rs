//! The overview once a second: one task counts, everyone who looks at the mesh gets the same bytes.
//!
//! Who is bound to a tenant gets that tenant's overview at the same routes, written when it is asked for out of the same counts; who
//! is not gets the mesh's. Which right each takes is asked here, again for each event of a stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header, web::Bytes};
use futures::stream;
use jiff::Timestamp;
use mesh_actors::{Permit, ShutdownSignal, Tasks};
use mesh_policies::{Limiter, authorization::Action};
use mesh_types::{DeviceId, TenantId};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    AdminParts, AdminState,
    auth::Caller,
    devices::BusyWindow,
    error::ApiError,
    overview::{Overview, Scene, Window},
};

/// Streams of events at once.
pub const MAX_EVENT_CLIENTS: usize = 64;
const TICK: Duration = Duration::from_secs(1);

/// One second's overview.
pub(crate) struct Tick {
    id: u64,
    /// The overview as JSON.
    json: Bytes,
    /// What overviews of tenants are written from.
    window: Window,
    scene: Scene,
    /// How long threads of each device were busy per second, over the last ticks.
    pub(crate) busy: BTreeMap<DeviceId, f64>,
}

impl Tick {
    fn new(id: u64, window: Window, scene: Scene, busy: &BusyWindow) -> Self {
        let rate = |device: DeviceId| Some((device, busy.rate(device)?));
        let devices = scene.devices.iter().map(|device| device.device);
        Self {
            id,
            busy: devices.filter_map(rate).collect(),
            json: written(&window.overview(scene.clone(), None)),
            window,
            scene,
        }
    }

    /// The overview as JSON: of the tenant, or of the mesh.
    fn json(&self, whose: Option<&TenantId>, limiter: &Limiter) -> Bytes {
        let Some(tenant) = whose else { return self.json.clone() };
        let scene = self.scene.of_tenant(tenant, limiter.in_flight(tenant));
        written(&self.window.overview(scene, whose))
    }

    fn frame(&self, whose: Option<&TenantId>, limiter: &Limiter) -> Bytes {
        let mut frame = format!("id: {}\nevent: overview\ndata: ", self.id).into_bytes();
        // JSON as written here holds no line break, which would end the data.
        frame.extend_from_slice(&self.json(whose, limiter));
        frame.extend_from_slice(b"\n\n");
        frame.into()
    }
}

fn written(overview: &Overview) -> Bytes {
    let json = serde_json::to_vec(overview).unwrap_or_else(|error| {
        tracing::error!(%error, "overview cannot be written");
        b"null".to_vec()
    });
    json.into()
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
        let scene = Scene {
            time: time.unwrap_or_default(),
            uptime_seconds: now.saturating_duration_since(started).as_secs_f64(),
            in_flight: live.in_flight,
            devices: parts.fleet.devices(),
        };
        Arc::new(Tick::new(id, window.clone(), scene, &busy))
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

/// Whether the caller may look at the overview that it would be shown: its tenant's, or the mesh's.
fn may_look(state: &AdminState, caller: &Caller) -> Result<(), ApiError> {
    let action = match caller.tenant() {
        Some(_) => Action::TenantRead,
        None => Action::MeshRead,
    };
    caller.may(state, action, &caller.home())
}

/// The newest overview.
pub(crate) fn overview(state: &AdminState, caller: &Caller) -> Result<HttpResponse, ApiError> {
    may_look(state, caller)?;
    let tick = state.inner.ticks.borrow().clone();
    let json = tick.json(caller.tenant(), &state.inner.parts.limiter);
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
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
        if !self.caller.is_still_valid(&self.state) || may_look(&self.state, &self.caller).is_err() {
            return None;
        }
        let tick = self.ticks.borrow_and_update().clone();
        let frame = tick.frame(self.caller.tenant(), &self.state.inner.parts.limiter);
        Some((Ok(frame), self))
    }
}

/// A stream of overviews. Each is whole, so a client that was away needs only the newest, whatever id it saw last.
pub(crate) fn events(state: &AdminState, caller: Caller) -> Result<HttpResponse, ApiError> {
    may_look(state, &caller)?;
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
