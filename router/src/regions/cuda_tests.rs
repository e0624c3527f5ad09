//! Regions of CUDA memory against devices whose memory is a list of bytes.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};

use mesh_types::{
    DataType, InRegions, InferRequest, InferResponse, Parameters, RegionInput, RegionOutput, RegionSpan, Shape,
    TenantId, Tensor, Version,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    CudaRegion, CudaRegistration, DeviceHandle, DeviceMemory, DeviceObject, HANDLE_BYTES, MAX_DRIVER_WAITS,
    MAX_REGIONS_PER_TENANT, MemoryKind, RegionError, Regions, RegionsConfig, Registration, may_wait_among,
};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Memory by device and the first byte of its handle.
#[derive(Debug, Default)]
struct Fake {
    memory: Mutex<HashMap<(u16, u8), Bytes>>,
    open: Arc<AtomicUsize>,
    ever: AtomicUsize,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    open: Arc<AtomicUsize>,
}

impl DeviceMemory for Fake {
    fn open(&self, device: u16, handle: &DeviceHandle) -> Result<Box<dyn DeviceObject>, String> {
        let memory = self.memory.lock();
        let bytes = memory.get(&(device, handle.0[0])).ok_or("no such handle")?.clone();
        self.open.fetch_add(1, Ordering::SeqCst);
        self.ever.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Object {
            bytes,
            open: self.open.clone(),
        }))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl DeviceObject for Object {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let from = usize::try_from(from).unwrap();
        let part = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::Other)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        let to = usize::try_from(to).unwrap();
        let mut memory = self.bytes.lock();
        let part = memory.get_mut(to..to + bytes.len()).ok_or(io::ErrorKind::Other)?;
        part.copy_from_slice(bytes);
        Ok(())
    }
}

struct Bed {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    regions: Regions,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let regions = Regions::open(RegionsConfig {
        folder: folder.path().to_path_buf(),
        max_request_bytes: 1_000,
        max_buffered_bytes: 1_500,
        devices: Some(fake.clone()),
    });
    Bed { folder, fake, regions }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

impl Bed {
    fn memory(&self, device: u16, which: u8, content: &[u8]) -> Bytes {
        let bytes = Arc::new(Mutex::new(content.to_vec()));
        self.fake.memory.lock().insert((device, which), bytes.clone());
        bytes
    }

    fn register(&self, who: &str, name: &str, (device, which): (i64, u8), bytes: u64) -> Result<(), RegionError> {
        let what = CudaRegistration {
            handle: &[which; HANDLE_BYTES],
            device,
            bytes,
        };
        self.regions.register_cuda(&tenant(who), name, &what)
    }

    fn ever(&self) -> usize {
        self.fake.ever.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.fake.open.load(Ordering::SeqCst)
    }
}

fn span(region: &str, offset: u64, bytes: u64) -> RegionSpan {
    RegionSpan {
        region: region.into(),
        offset,
        bytes,
    }
}

fn input(span: RegionSpan) -> RegionInput {
    RegionInput {
        at: 0,
        name: "x".into(),
        datatype: DataType::Uint8,
        shape: Shape::from_slice(&[span.bytes]),
        span,
    }
}

#[test]
fn inputs_are_read_from_a_device_and_outputs_written_there() {
    let bed = bed();
    let memory = bed.memory(1, 7, b"0123456789");
    bed.register("acme", "r", (1, 7), 8).unwrap();
    let what = InRegions {
        inputs: vec![input(span("r", 2, 3))],
        outputs: vec![RegionOutput {
            name: "y".into(),
            span: span("r", 6, 2),
        }],
    };
    let mut request = InferRequest::default();
    let landing = bed.regions.take_in(&tenant("acme"), what, &mut request).unwrap();
    assert_eq!(request.inputs[0].data, &b"234"[..]);
    let data = bytes::Bytes::from_static(b"ab");
    let mut response = InferResponse {
        id: None,
        model: "m".into(),
        version: Version::new(1).unwrap(),
        outputs: vec![Tensor::new("y".into(), DataType::Uint8, Shape::from_slice(&[2]), data).unwrap()],
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    // Unregistered meanwhile: those under way keep what they have.
    bed.regions.unregister(&tenant("acme"), None, MemoryKind::Cuda).unwrap();
    assert_eq!(bed.open(), 1);
    landing.put_out(&mut response).unwrap();
    assert_eq!(memory.lock().as_slice(), b"012345ab89");
    assert_eq!(response.regions[0].span, span("r", 6, 2));
    assert_eq!(bed.open(), 0, "and then it is closed");
}

#[test]
fn names_are_one_space_and_each_kind_is_shown_and_forgotten_by_itself() {
    let bed = bed();
    bed.memory(0, 1, b"0123");
    std::fs::write(bed.folder.path().join("o"), b"0123").unwrap();
    let system = Registration {
        key: "/o",
        offset: 0,
        bytes: 4,
    };
    let acme = tenant("acme");
    bed.register("acme", "c", (0, 1), 4).unwrap();
    bed.regions.register(&acme, "s", &system).unwrap();
    let taken = RegionError::Taken { name: "c".into() };
    assert_eq!(bed.regions.register(&acme, "c", &system), Err(taken));
    let cuda = CudaRegion {
        name: "c".into(),
        device: 0,
        bytes: 4,
    };
    assert_eq!(bed.regions.cuda_status(&acme, None), Ok(vec![cuda.clone()]));
    assert_eq!(bed.regions.cuda_status(&acme, Some("c")), Ok(vec![cuda]));
    assert_eq!(bed.regions.status(&acme, None).unwrap().len(), 1);
    let other = bed.regions.cuda_status(&acme, Some("s")).unwrap_err().to_string();
    assert_eq!(
        other,
        "the shared memory region 's' is system shared memory, not CUDA shared memory"
    );
    assert!(
        bed.regions
            .status(&acme, Some("c"))
            .unwrap_err()
            .to_string()
            .contains("is CUDA")
    );
    // What is of the other kind is none to forget.
    bed.regions.unregister(&acme, Some("c"), MemoryKind::System).unwrap();
    bed.regions.unregister(&acme, None, MemoryKind::System).unwrap();
    assert_eq!(bed.regions.status(&acme, None), Ok(Vec::new()));
    assert_eq!(bed.regions.cuda_status(&acme, None).unwrap().len(), 1);
    bed.regions.unregister(&acme, Some("c"), MemoryKind::Cuda).unwrap();
    assert_eq!(bed.open(), 0);
}

#[test]
fn memory_is_registered_by_one_tenant_at_a_time_and_another_learns_nothing() {
    let bed = bed();
    bed.memory(0, 1, b"0123");
    bed.register("acme", "r", (0, 1), 4).unwrap();
    bed.register("acme", "again", (0, 1), 2).unwrap();
    let foreign = bed.register("globex", "r", (0, 1), 4).unwrap_err();
    let unknown = bed.register("globex", "r", (0, 2), 4).unwrap_err();
    assert_eq!(foreign, unknown);
    // Nor through another device, which may reach it.
    bed.memory(1, 1, b"0123");
    let through = bed.register("globex", "r", (1, 1), 4).unwrap_err();
    assert_eq!(through.to_string(), foreign.to_string().replace("device 0", "device 1"));
    // Too long a region of it tells no more.
    assert_eq!(bed.register("globex", "r", (0, 1), 400).unwrap_err(), foreign);
    assert_eq!(bed.open(), 2, "what was refused is closed");
    assert!(bed.regions.cuda_status(&tenant("globex"), Some("r")).is_err());
    bed.regions.retain(|tenant| tenant.as_str() != "acme");
    assert_eq!(bed.open(), 0);
    bed.register("globex", "r", (0, 1), 4).unwrap();
}

#[test]
fn what_is_wrong_with_a_registration_is_said() {
    let bed = bed();
    bed.memory(0, 1, b"0123");
    let said = |handle: &[u8], device, bytes| {
        let what = CudaRegistration { handle, device, bytes };
        let wrong = bed.regions.register_cuda(&tenant("acme"), "r", &what);
        wrong.unwrap_err().to_string()
    };
    for length in [0, HANDLE_BYTES - 1, HANDLE_BYTES + 1] {
        assert!(
            said(&vec![1; length], 0, 4).contains("must be the 64 bytes"),
            "{length}"
        );
    }
    let good = [1; HANDLE_BYTES];
    assert!(said(&good, 0, 0).contains("at least 1"));
    assert!(said(&good, 0, 5).contains("which has 4 bytes"));
    for device in [-1, 9, 65_536, i64::MIN] {
        assert!(
            said(&good, device, 4).contains("cannot be opened on device"),
            "{device}"
        );
    }
    assert_eq!(bed.open(), 0);
    assert!(format!("{:?}", DeviceHandle(good)).contains(".."), "it is what lets in");
    let without = Regions::open(RegionsConfig {
        folder: bed.folder.path().to_path_buf(),
        max_request_bytes: 1,
        max_buffered_bytes: 1,
        devices: None,
    });
    let what = CudaRegistration {
        handle: &good,
        device: 0,
        bytes: 4,
    };
    assert_eq!(
        without.register_cuda(&tenant("acme"), "r", &what),
        Err(RegionError::NoCuda)
    );
    assert_eq!(without.cuda_status(&tenant("acme"), None), Ok(Vec::new()));
}

#[test]
fn a_tenant_has_so_many_regions_of_both_kinds_together_and_not_one_more() {
    let bed = bed();
    bed.memory(0, 1, b"0123");
    for number in 0..MAX_REGIONS_PER_TENANT {
        bed.register("acme", &number.to_string(), (0, 1), 1).unwrap();
    }
    assert_eq!(
        bed.register("acme", "more", (0, 1), 1),
        Err(RegionError::TooManyOfTenant)
    );
    assert_eq!(bed.ever(), MAX_REGIONS_PER_TENANT, "one too many is not even opened");
    assert_eq!(bed.open(), MAX_REGIONS_PER_TENANT);
}

#[tokio::test]
async fn so_many_wait_for_drivers_at_a_time_and_one_more_when_one_is_done() {
    let places = Arc::new(Semaphore::new(MAX_DRIVER_WAITS));
    let (begun, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (go, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let wait = || {
        let (begun, held) = (begun.clone(), held.clone());
        may_wait_among(places.clone(), move || {
            begun.send(()).unwrap();
            held.lock().recv().unwrap();
            Ok(())
        })
    };
    let mut running: Vec<_> = (0..MAX_DRIVER_WAITS).map(|_| Box::pin(wait())).collect();
    for wait in &mut running {
        assert!(futures::poll!(wait.as_mut()).is_pending());
        heard.recv().await.unwrap();
    }
    let mut more = Box::pin(wait());
    assert!(futures::poll!(more.as_mut()).is_pending());
    assert_eq!(places.available_permits(), 0);
    // Who leaves before it begins has no thread; who leaves after that keeps it.
    drop(wait());
    drop(running.pop());
    assert!(heard.try_recv().is_err());
    go.send(()).unwrap();
    let begun = async {
        heard.recv().await.unwrap();
        for _ in 0..MAX_DRIVER_WAITS {
            go.send(()).unwrap();
        }
    };
    let (done, ()) = tokio::join!(more, begun);
    done.unwrap();
}
