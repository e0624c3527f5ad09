//! The worker: its devices, and the handle through which jobs and loads reach them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use actix::{Arbiter, Message};
use mesh_actors::{ActorState, Supervised, Tasks, supervise};
use mesh_backend::{Backend, LoadSpec};
use mesh_types::{Clock, DeviceId, Fault, FaultSource, InferJob, ModelVersionKey};
use tokio::sync::{oneshot, watch};

use crate::{
    WorkerConfig, affinity,
    crew::{MAX_ABANDONED, MAX_THREADS},
    device::{Answer, DeviceActor, DeviceParts, Load, Unload, WarmUp},
    observer::BatchObserver,
    ordering::Reply,
    report::{DeviceReport, ModelState, WorkerReport},
    shared::{JobReply, Queued, Shared, Sizes},
    statistics::{DeviceStatistics, ModelStatistics, WorkerStatistics},
    thread::{MAX_OUTSTANDING, ThreadParts},
};

/// Why a worker did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// Neither CPU devices nor any of a backend's.
    #[error("the worker has no devices: set cpu_devices to at least 1")]
    NoDevices,
    /// No thread that has models loaded for those that are confined.
    #[error("code of models cannot be confined: {0}")]
    Confinement(String),
}

struct Device {
    shared: Arc<Shared>,
    report: watch::Receiver<DeviceReport>,
    publisher: watch::Sender<DeviceReport>,
}

/// Reaches the worker's devices. Clones are the same worker.
#[derive(Clone)]
pub struct WorkerHandle {
    devices: Arc<BTreeMap<DeviceId, Device>>,
    clock: Arc<dyn Clock>,
}

/// Owns the devices' arbiters; dropping it ends them.
pub struct Worker {
    handle: WorkerHandle,
    arbiters: Vec<Arbiter>,
}

impl Worker {
    /// Starts an actor and its threads for each device: the configured CPU devices and those that backends find. Must be
    /// called within an actix system.
    pub fn start(
        config: &WorkerConfig,
        backends: Vec<Arc<dyn Backend>>,
        observer: &Arc<dyn BatchObserver>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, WorkerError> {
        let ids = devices(config, &backends);
        if ids.is_empty() {
            return Err(WorkerError::NoDevices);
        }
        let backends: Arc<[Arc<dyn Backend>]> = backends.into();
        let each = usize::from(config.threads_per_device.max(1));
        let pin = config.pin_threads && affinity::suits(ids.len() * each);
        let (mut devices, mut arbiters) = (BTreeMap::new(), Vec::new());
        for (index, (id, budget)) in ids.into_iter().enumerate() {
            let shared = Arc::new(Shared::new(id, sizes(config, each), clock.now()));
            let (report, observed) = watch::channel(DeviceReport {
                device: id,
                draining: false,
                routing: 0,
                budget,
                models: Vec::new(),
            });
            let thread = ThreadParts {
                shared: shared.clone(),
                backends: backends.clone(),
                observer: observer.clone(),
                clock: clock.clone(),
                execution_timeout: config.execution_timeout,
                cage: config.cage.clone(),
                pin: pin.then(|| index * each..(index + 1) * each),
            };
            let publisher = report.clone();
            let parts = DeviceParts {
                thread,
                threads: config.threads_per_device,
                queue: config.queue,
                memory: config.latency_folder.clone(),
                sequence_grace: config.sequence_grace,
                budget,
                parallel_loads: config.parallel_loads,
                report,
            };
            let arbiter = Arbiter::new();
            let make = move |lifeline| DeviceActor::new(parts.clone(), lifeline);
            let actor = supervise("device", config.restart, arbiter.handle(), tasks, make);
            close_after(&actor, shared.clone(), tasks);
            shared.attach(actor);
            arbiters.push(arbiter);
            devices.insert(
                id,
                Device {
                    shared,
                    report: observed,
                    publisher,
                },
            );
        }
        Ok(Self {
            handle: WorkerHandle {
                devices: Arc::new(devices),
                clock,
            },
            arbiters,
        })
    }

    /// Reaches the devices.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Ends the devices: their threads finish what they were given and are joined. Blocks.
    pub fn stop(mut self) {
        let arbiters = std::mem::take(&mut self.arbiters);
        for arbiter in &arbiters {
            arbiter.stop();
        }
        for arbiter in arbiters {
            if arbiter.join().is_err() {
                tracing::error!("a device's arbiter ended by a panic");
            }
        }
    }
}

/// Bounds of what a device with so many threads shares with its callers.
fn sizes(config: &WorkerConfig, threads: usize) -> Sizes {
    Sizes {
        arrivals: config.arrivals,
        done: threads.max(MAX_THREADS) * MAX_OUTSTANDING + MAX_ABANDONED,
        state_bytes: config.sequence_state_bytes,
    }
}

/// The configured CPU devices and those that backends find, each with the most memory that its models may take.
fn devices(config: &WorkerConfig, backends: &[Arc<dyn Backend>]) -> Vec<(DeviceId, Option<u64>)> {
    let cpus = (0..config.cpu_devices).map(|index| (DeviceId::cpu(index), config.cpu_memory));
    let others = backends.iter().flat_map(|backend| backend.devices());
    let share = |bytes: u64| bytes / 100 * u64::from(config.device_memory_percent);
    let others = others.map(|device| (device.id, device.memory_bytes.map(share)));
    cpus.chain(others).collect()
}

/// Once the actor is dead for good, or the group ends: nothing that arrives may wait for it.
fn close_after(actor: &Supervised<DeviceActor>, shared: Arc<Shared>, tasks: &Tasks) {
    let mut states = actor.watch();
    tasks.spawn("device-end", |_| async move {
        // An error means that the supervision has ended, as it does with its group.
        let _ = states.wait_for(|state| *state == ActorState::Failed).await;
        shared.close();
    });
}

impl Drop for Worker {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

impl WorkerHandle {
    /// The devices, in the order of their ids.
    pub fn devices(&self) -> Vec<DeviceId> {
        self.devices.keys().copied().collect()
    }

    /// Hands a job to a device; refused at once if the device is full. Dropping the reply cancels the job.
    pub fn submit(&self, device: DeviceId, job: InferJob) -> Result<JobReply, Fault> {
        let shared = &self.device(device)?.shared;
        let (reply, receiver) = Reply::channel();
        let queued = Queued {
            job: Box::new(job),
            arrived: self.clock.now(),
            reply,
        };
        shared.arrive(queued)?;
        Ok(JobReply { receiver })
    }

    /// Lets a device have a model; returns once it is warm there or stands by (it is loaded on demand, or there was no room for
    /// it), or why it does neither. For one that the device has: its configuration is taken over, and another artifact takes
    /// its place once it is warm; if that fails, what was there stays.
    pub async fn load(&self, device: DeviceId, spec: LoadSpec) -> Result<(), Fault> {
        let shared = &self.device(device)?.shared;
        let key = spec.key.clone();
        let former = shared.wanted.lock().insert(key.clone(), spec.clone());
        let loaded = self.ask(shared, |answer| Load(spec, answer)).await;
        // A quarantined model is there, though it refuses jobs and therefore loads.
        if loaded.is_err() && !self.is_quarantined(device, &key)? {
            let mut wanted = shared.wanted.lock();
            let _ = match former {
                Some(former) => wanted.insert(key, former),
                None => wanted.remove(&key),
            };
        }
        loaded
    }

    /// Says that requests for a model will come: returns once it is in the device's memory and warm, or why it is not.
    pub async fn warm_up(&self, device: DeviceId, key: &ModelVersionKey) -> Result<(), Fault> {
        let shared = &self.device(device)?.shared;
        self.ask(shared, |answer| WarmUp(key.clone(), answer)).await
    }

    /// Unloads a model; returns once everything that it had accepted is answered.
    pub async fn unload(&self, device: DeviceId, key: &ModelVersionKey) -> Result<(), Fault> {
        let shared = &self.device(device)?.shared;
        shared.wanted.lock().remove(key);
        self.ask(shared, |answer| Unload(key.clone(), answer)).await
    }

    /// What the devices say now.
    pub fn report(&self) -> WorkerReport {
        WorkerReport {
            devices: self
                .devices
                .values()
                .map(|device| device.report.borrow().clone())
                .collect(),
        }
    }

    /// Lets a device take no new jobs, or take them again. What it has is finished, and its models stay.
    pub fn drain(&self, device: DeviceId, draining: bool) -> Result<(), Fault> {
        let device = self.device(device)?;
        device.shared.drain(draining);
        device.shared.wake();
        device.publisher.send_modify(|report| report.draining = draining);
        Ok(())
    }

    /// What the devices have done so far.
    pub fn statistics(&self) -> WorkerStatistics {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now();
        let device = |(id, device): (&DeviceId, &Device)| {
            let books = device.shared.books.lock();
            let (up, busy, models) = books.read(now, unix_ms);
            let (tenants, other_tenants) = books.by_tenant();
            drop(books);
            DeviceStatistics {
                device: *id,
                threads: device.shared.threads(),
                up,
                busy,
                sequence_state_bytes: device.shared.ledger.bytes(),
                abandoned: device.shared.abandoned(),
                models,
                tenants,
                other_tenants,
            }
        };
        WorkerStatistics {
            devices: self.devices.iter().map(device).collect(),
        }
    }

    /// What the devices have done so far with one model.
    pub fn statistics_of(&self, key: &ModelVersionKey) -> ModelStatistics {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now();
        let mut all = ModelStatistics::default();
        for device in self.devices.values() {
            if let Some(numbers) = device.shared.books.lock().read_one(key, now, unix_ms) {
                all.merge(&numbers);
            }
        }
        all
    }

    /// What a model takes of each device's memory, in bytes; those where it is not are left out.
    pub fn memory_of(&self, key: &ModelVersionKey) -> Vec<(DeviceId, u64)> {
        let on = |(id, device): (&DeviceId, &Device)| {
            let report = device.report.borrow();
            let model = report.models.iter().find(|model| model.key == *key)?;
            (model.memory_bytes > 0).then_some((*id, model.memory_bytes))
        };
        self.devices.iter().filter_map(on).collect()
    }

    fn is_quarantined(&self, device: DeviceId, key: &ModelVersionKey) -> Result<bool, Fault> {
        let report = self.device(device)?.report.borrow();
        let model = report.models.iter().find(|model| model.key == *key);
        Ok(model.is_some_and(|model| model.state == ModelState::Quarantined))
    }

    /// Told of each change of a device's models.
    pub fn watch(&self, device: DeviceId) -> Result<watch::Receiver<DeviceReport>, Fault> {
        Ok(self.device(device)?.report.clone())
    }

    fn device(&self, device: DeviceId) -> Result<&Device, Fault> {
        self.devices
            .get(&device)
            .ok_or_else(|| Fault::unavailable(FaultSource::Mesh, format!("there is no device {device}")))
    }

    async fn ask<M>(&self, shared: &Shared, message: impl FnOnce(Answer) -> M) -> Result<(), Fault>
    where
        M: Message<Result = ()> + Send + 'static,
        DeviceActor: actix::Handler<M>,
    {
        let gone = || Fault::unavailable(FaultSource::Device, "the device is being restarted");
        let (answer, answered) = oneshot::channel();
        let sent = self.running(shared).await.ok_or_else(gone)?;
        let address = sent.address();
        address
            .as_deref()
            .ok_or_else(gone)?
            .try_send(message(answer))
            .map_err(|_| gone())?;
        drop(address);
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The device's actor, once it is there; none if it has failed for good.
    async fn running<'a>(&self, shared: &'a Shared) -> Option<&'a Supervised<DeviceActor>> {
        let actor = shared.actor()?;
        loop {
            // An address outlives its actor until the supervisor has its turn.
            if actor.address().as_deref().is_some_and(|address| address.connected()) {
                return Some(actor);
            }
            if actor.state() == ActorState::Failed {
                return None;
            }
            // Its arbiter is about to start it: a few turns of the scheduler, no more than its backoff.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}
