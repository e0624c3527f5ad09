//! The assembly: every room is started in order, and ended in the opposite one.
//!
//! Each kind of task has a group of its own, because the order of the end is the point of it: not ready, no new requests,
//! those under way finished, control silent, devices joined, records flushed, telemetry pushed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mesh_actors::{Readiness, ReadinessGuard, Tasks};
use mesh_admin_api::{AdminDoor, AdminDoorConfig, AdminParts, SignIn};
use mesh_backend::Backend;
use mesh_control::{Controller, ControllerHandle, ControllerParts};
use mesh_jwks::{Keeper, KeeperError};
use mesh_policies::{KeyBook, MeshSnapshot, Pepper, access::Attempts};
use mesh_registry::{Files, Registry, RegistryError};
use mesh_router::{Homes, ModelControl, ResponseCache, RouterParts};
use mesh_router_grpc::{DoorError as GrpcDoorError, GrpcDoor};
use mesh_router_http::{DoorError, HttpDoor, MetricsDoor};
use mesh_telemetry::{DeviceSource, Telemetry, TelemetryConfig, TelemetryError, TritonSource};
use mesh_tls::TlsError;
use mesh_types::{Clock, Fault, SystemClock};
use mesh_worker::{Worker, WorkerError};

use crate::{
    admin::{DeviceProbe, Devices, Issuers, KeyUses, Remembered, WebApp},
    audit, compat,
    config::NodeConfig,
    control::{Repository, RepositoryParts},
    data::{DataError, DataFolder, first_admin_token},
    devices, doors,
    fleet::LocalFleet,
    issuer_keys::{self, IssuerKeys},
    login,
    observer::DeviceReadings,
    regions::{self, RegionsError},
    repository::{self, RepositoryError},
    signature::ConfinedFiles,
    tenants::{Keepers, Tenants},
    tls::DoorsTls,
    triton::TritonReadings,
    usage, uses,
};

/// How long the parts behind the doors may take to end, each.
const END_GRACE: Duration = Duration::from_secs(5);

/// Where the doors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Inference.
    pub http: SocketAddr,
    /// Inference over gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Admin.
    pub admin: SocketAddr,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what its source says")]
pub enum StartError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("cannot open the records: {0}")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("cannot follow the devices: {0}")]
    Devices(Fault),
    #[error(transparent)]
    Issuers(#[from] KeeperError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Regions(#[from] RegionsError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    GrpcDoor(#[from] GrpcDoorError),
    #[error("cannot listen on {address}: {source}")]
    AdminDoor {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// What is used beside or instead of a node's own parts: for whoever embeds one, and for tests of what parts may do wrong.
#[derive(Clone, Default)]
pub struct Given {
    /// Model runtimes, which are asked before the program's own.
    pub backends: Vec<Arc<dyn Backend>>,
    /// What the records are written through.
    pub files: Option<Arc<dyn Files>>,
}

/// A running node. Ends in order by [`Node::stop`] only.
pub struct Node {
    parts: Running,
    first_admin_token: Option<String>,
}

struct Running {
    addresses: Addresses,
    readiness: Readiness,
    telemetry: Telemetry,
    groups: Groups,
    store: Store,
    worker: Worker,
    // Metrics read it only as long as it is held here.
    _readings: (Arc<dyn DeviceSource>, Arc<dyn TritonSource>),
    doors: Doors,
    grace: Duration,
}

#[derive(Default)]
struct Groups {
    doors: Tasks,
    admin: Tasks,
    control: Tasks,
    devices: Tasks,
    records: Tasks,
    metrics: Tasks,
}

struct Store {
    registry: Registry,
    pepper: Pepper,
}

struct Doors {
    http: HttpDoor,
    grpc: GrpcDoor,
    metrics: MetricsDoor,
    admin: AdminDoor,
}

/// What the doors are opened with.
struct Behind<'a> {
    config: &'a NodeConfig,
    telemetry: &'a Telemetry,
    readiness: &'a Readiness,
    clock: Arc<dyn Clock>,
    store: &'a Store,
    fleet: LocalFleet,
    tls: DoorsTls,
    sign_in: Option<(SignIn, Arc<KeyBook>)>,
    cache: Arc<ResponseCache>,
    files: ConfinedFiles,
}

impl Node {
    /// Starts everything; the doors are open and models are being loaded when it returns. Must be called within an actix
    /// system, in which it then lives.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_with(config, Given::default()).await
    }

    /// The same with parts of somebody else's.
    #[expect(
        clippy::too_many_lines,
        reason = "the order of the parts is the point, and is read in one place"
    )]
    pub async fn start_with(config: NodeConfig, given: Given) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let groups = Groups::default();
        let telemetry = Telemetry::start(&TelemetryConfig {
            otlp: config.otlp.clone(),
        })?;
        let tls = DoorsTls::load(&config.tls, &clock)?;
        tls.watch(&telemetry, &groups.doors);
        let readiness = Readiness::default();
        let models = readiness.register("models");
        let store = open_store(&config, given.files, &groups.records)?;
        // A mesh that was killed has signed nothing when it ended.
        audit::sign(&store.registry.handle()).await;
        let (worker, files) = devices::start(&config, given.backends, &telemetry, &clock, &groups.devices)?;
        // Before control looks at the records, so that the node is not ready before these models are; and behind the worker,
        // because libtorch may be asked to read one.
        if let Some((folder, tenant)) = &config.model_repository {
            let on_demand = config.on_demand.as_deref();
            repository::import(
                store.registry.handle(),
                folder.clone(),
                tenant,
                on_demand,
                files.clone(),
            )
            .await?;
        }
        if let Some(tenant) = &config.local_tenant {
            compat::open(&store.registry.handle(), tenant).await?;
        }
        let fleet = LocalFleet::follow(worker.handle(), &telemetry, &groups.devices).map_err(StartError::Devices)?;
        let cache = Arc::new(ResponseCache::new(config.cache));
        let readings: Arc<dyn DeviceSource> = Arc::new(DeviceReadings(worker.handle()));
        telemetry.metrics().read_devices_from(&readings);
        let triton: Arc<dyn TritonSource> = Arc::new(TritonReadings::new(worker.handle(), cache.clone()));
        if let Some(tenant) = config.local_tenant.as_ref().filter(|_| config.as_triton) {
            telemetry.metrics().tell_as_triton(&triton, tenant.clone());
        }
        let sign_in = login::start(config.login.as_ref(), &clock)?;
        let behind = Behind {
            config: &config,
            telemetry: &telemetry,
            readiness: &readiness,
            clock,
            store: &store,
            fleet,
            tls,
            sign_in,
            cache,
            files,
        };
        let doors = behind.open(models, &groups)?;
        // Last, so that a token is never lost to a door that does not open.
        let first_admin_token = first_admin_token(
            &store.registry.handle(),
            &store.pepper,
            config.admin_token_file.as_deref(),
        )
        .await?;
        let parts = Running {
            addresses: doors.tell(),
            readiness,
            telemetry,
            groups,
            store,
            worker,
            _readings: (readings, triton),
            doors,
            grace: config.grace,
        };
        Ok(Self {
            parts,
            first_admin_token,
        })
    }

    /// Where its doors are.
    pub fn addresses(&self) -> Addresses {
        self.parts.addresses
    }

    /// The admin token, if this start made it: to be shown once.
    pub fn first_admin_token(&self) -> Option<&str> {
        self.first_admin_token.as_deref()
    }

    /// Ends it in order: nothing accepted is lost, nothing new is taken.
    pub async fn stop(self) {
        let Running {
            readiness,
            telemetry,
            groups,
            store,
            worker,
            doors,
            grace,
            ..
        } = self.parts;
        readiness.end();
        doors.take_no_more(grace).await;
        end(&groups.doors, "doors").await;
        end(&groups.admin, "admin").await;
        end(&groups.control, "control").await;
        end(&groups.devices, "devices").await;
        off_this_thread(move || worker.stop()).await;
        audit::sign(&store.registry.handle()).await;
        end(&groups.records, "records").await;
        off_this_thread(move || close(store)).await;
        doors.metrics.stop(END_GRACE).await;
        end(&groups.metrics, "metrics").await;
        off_this_thread(move || telemetry.flush()).await;
        tracing::info!("ended in order");
    }
}

impl Doors {
    /// Says that all are open, and where.
    fn tell(&self) -> Addresses {
        let (http, grpc) = (self.http.addr(), self.grpc.addr());
        let (metrics, admin) = (self.metrics.addr(), self.admin.addr());
        tracing::info!(%http, %grpc, %metrics, %admin, "serving");
        Addresses {
            http,
            grpc,
            metrics,
            admin,
        }
    }

    /// Takes no more requests, and waits for those under way.
    async fn take_no_more(&self, grace: Duration) {
        let stopped = futures::join!(self.http.stop(grace), self.grpc.stop(grace), self.admin.stop(END_GRACE));
        if !(stopped.0 && stopped.1) {
            tracing::warn!(?grace, "some requests were still under way at the end of the grace");
        }
    }
}

async fn end(tasks: &Tasks, group: &'static str) {
    for late in tasks.end(END_GRACE).await {
        tracing::warn!(group, task = late, "a task did not end in time");
    }
}

/// Joining threads and pushing what is left block.
async fn off_this_thread(work: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(work).await.is_err() {
        tracing::error!("a part panicked while it ended");
    }
}

fn close(store: Store) {
    if let Err(error) = store.registry.close() {
        tracing::warn!(%error, "the records' index was not written out; the next start makes it anew");
    }
}

fn open_store(config: &NodeConfig, files: Option<Arc<dyn Files>>, tasks: &Tasks) -> Result<Store, StartError> {
    let data = DataFolder::open(&config.data)?;
    let pepper = data.pepper()?;
    let signers = config.code.required_signers.clone();
    let mut config = data.with_audit_key(data.registry_config(&pepper))?;
    config.required_signers = signers;
    if let Some(files) = files {
        config.files = files;
    }
    let registry = Registry::open(config, tasks)?;
    audit::keep_signed(registry.handle(), tasks);
    Ok(Store { registry, pepper })
}

impl Behind<'_> {
    /// Starts control and opens the doors.
    fn open(self, models: ReadinessGuard, groups: &Groups) -> Result<Doors, StartError> {
        let data = DataFolder::open(&self.config.data)?;
        let registry = self.store.registry.handle();
        let kept = issuer_keys::kept(&data, &self.store.pepper, &registry, self.clock.unix_seconds())?;
        let snapshots = uses::start(&data, kept, &groups.control);
        let limiter = usage::limiter(&self.config.data, self.clock.clone(), &groups.records)?;
        let regions = Arc::new(regions::open(self.config)?);
        let sequences = Arc::new(Homes::default());
        let keepers = Keepers {
            limiter: limiter.clone(),
            regions: regions.clone(),
            cache: self.cache.clone(),
            sequences: sequences.clone(),
            telemetry: self.telemetry.clone(),
        };
        let control = self.start_control(models, &snapshots, keepers, &groups.control)?;
        let repository = self.repository(&control, &snapshots)?;
        let metrics = MetricsDoor::start(
            self.config.metrics,
            self.tls.metrics.clone(),
            self.telemetry.clone(),
            self.readiness.clone(),
            &groups.metrics,
        )?;
        let router = RouterParts {
            attempts: Arc::new(Attempts::new(self.clock.clone())),
            cache: self.cache.clone(),
            sequences,
            regions,
            client_settings: self.config.allow_client_settings,
            snapshots,
            limiter,
            workers: Arc::new(self.fleet.clone()),
            gates: Arc::default(),
            telemetry: self.telemetry.clone(),
            clock: self.clock.clone(),
            default_timeout: self.config.request_timeout,
            max_in_flight: self.config.max_in_flight,
        };
        let http = HttpDoor::start(
            doors::http(self.config, &self.tls, repository.clone()),
            router.clone(),
            self.readiness.clone(),
            &groups.doors,
        )?;
        let grpc = GrpcDoor::start(
            &doors::grpc(self.config, &self.tls, repository),
            &router,
            self.readiness.clone(),
            &groups.doors,
        )?;
        let admin = self.open_admin(control, router, &groups.admin)?;
        Ok(Doors {
            http,
            grpc,
            metrics,
            admin,
        })
    }

    fn start_control(
        &self,
        models: ReadinessGuard,
        snapshots: &Arc<ArcSwap<MeshSnapshot>>,
        keepers: Keepers,
        tasks: &Tasks,
    ) -> Result<ControllerHandle, StartError> {
        let tenants = Tenants::new(keepers, snapshots.clone(), self.clock.clone());
        let login = self.sign_in.as_ref().map(|(_, book)| book.clone());
        let shelf = IssuerKeys::open(&DataFolder::open(&self.config.data)?, &self.store.pepper)?;
        let keeper = Keeper::start(self.clock.clone(), self.telemetry.clone(), Some(Arc::new(shelf)), tasks)?;
        let parts = ControllerParts {
            registry: self.store.registry.handle(),
            fleet: Arc::new(self.fleet.clone()),
            snapshots: snapshots.clone(),
            pepper: self.store.pepper.clone(),
            published: Arc::new(move |snapshot| {
                tenants.changed();
                keeper.follow(snapshot.credentials.books().chain(login.iter()));
            }),
            ready: models,
        };
        Ok(Controller::start(parts, tasks))
    }

    /// The repository whose models are loaded on demand, if there is one.
    fn repository(
        &self,
        control: &ControllerHandle,
        snapshots: &Arc<ArcSwap<MeshSnapshot>>,
    ) -> Result<Option<Arc<dyn ModelControl>>, StartError> {
        let Some((root, tenant)) = self
            .config
            .model_repository
            .clone()
            .filter(|_| self.config.on_demand.is_some())
        else {
            return Ok(None);
        };
        let parts = RepositoryParts {
            registry: self.store.registry.handle(),
            root,
            tenant,
            sent: DataFolder::open(&self.config.data)?.sent()?,
            files: self.files.clone(),
            control: control.clone(),
            snapshots: snapshots.clone(),
        };
        Ok(Some(Arc::new(Repository::new(parts))))
    }

    fn open_admin(
        &self,
        control: ControllerHandle,
        router: RouterParts,
        tasks: &Tasks,
    ) -> Result<AdminDoor, StartError> {
        let limiter = router.limiter.clone();
        let parts = AdminParts {
            registry: self.store.registry.handle(),
            telemetry: self.telemetry.clone(),
            fleet: Arc::new(Devices {
                control,
                fleet: self.fleet.clone(),
                telemetry: self.telemetry.clone(),
                snapshots: router.snapshots.clone(),
            }),
            doors: Arc::new(self.tls.view()),
            issuers: Arc::new(Issuers(router.snapshots.clone())),
            cache: Arc::new(Remembered(router.cache.clone(), self.telemetry.clone())),
            key_uses: Arc::new(KeyUses(router.snapshots.clone())),
            sign_in: self.sign_in.as_ref().map(|(sign_in, _)| sign_in.clone()),
            probe: Arc::new(DeviceProbe {
                fleet: self.fleet.clone(),
                router,
            }),
            pepper: self.store.pepper.clone(),
            clock: self.clock.clone(),
            limiter,
        };
        let (address, tls) = (self.config.admin, self.tls.admin.clone());
        let config = AdminDoorConfig { listen: address, tls };
        AdminDoor::start(config, parts, Arc::new(WebApp), tasks)
            .map_err(|source| StartError::AdminDoor { address, source })
    }
}
