//! Memory of devices whose driver takes its time: only who asked for it waits, and the router's own thread goes on with others.
//!
//! All of a test is on one thread but the driver, which is held until the test lets it go on: one that was called on that thread would
//! never be.

use std::{
    io,
    sync::mpsc::{Receiver, Sender as Go, channel},
};

use mesh_types::{InRegions, RegionInput, RegionOutput, RegionSpan};
use tokio::sync::Notify;

use super::*;
use crate::{
    Regions, RegionsConfig,
    regions::{CudaRegistration, DeviceHandle, DeviceMemory, DeviceObject, HANDLE_BYTES},
};

/// How long a driver is held at most: a test that never lets it go fails.
const PATIENCE: Duration = Duration::from_secs(20);
const MEMORY: usize = 32;

/// Where the driver is held at each call.
#[derive(Debug)]
struct Gate {
    reached: Notify,
    go: Mutex<Receiver<()>>,
}

impl Gate {
    fn pass(&self) -> io::Result<()> {
        self.reached.notify_one();
        self.go.lock().recv_timeout(PATIENCE).map_err(io::Error::other)
    }
}

#[derive(Debug)]
struct Driver {
    gate: Arc<Gate>,
    memory: Arc<Mutex<Vec<u8>>>,
}

#[derive(Debug)]
struct Object(Arc<Gate>, Arc<Mutex<Vec<u8>>>);

impl DeviceMemory for Driver {
    fn open(&self, _: u16, _: &DeviceHandle) -> Result<Box<dyn DeviceObject>, String> {
        self.gate.pass().map_err(|error| error.to_string())?;
        Ok(Box::new(Object(self.gate.clone(), self.memory.clone())))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // What closes memory waits too; a test that has ended does not hold it.
        let _ = self.0.pass();
    }
}

impl DeviceObject for Object {
    fn size(&self) -> u64 {
        MEMORY as u64
    }

    fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        self.0.pass()?;
        let from = usize::try_from(from).map_err(io::Error::other)?;
        buffer.copy_from_slice(&self.1.lock()[from..from + buffer.len()]);
        Ok(())
    }

    fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        self.0.pass()?;
        let to = usize::try_from(to).map_err(io::Error::other)?;
        self.1.lock()[to..to + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A router, the gate of its driver, and what lets that go on.
struct Slow {
    bed: Bed,
    gate: Arc<Gate>,
    go: Go<()>,
    memory: Arc<Mutex<Vec<u8>>>,
}

impl Slow {
    fn new() -> Self {
        let (go, held) = channel();
        let gate = Arc::new(Gate {
            reached: Notify::new(),
            go: Mutex::new(held),
        });
        let memory = Arc::new(Mutex::new((0..MEMORY).map(|number| number as u8).collect()));
        let regions = Regions::open(RegionsConfig {
            folder: std::env::temp_dir(),
            max_request_bytes: 1_000,
            max_buffered_bytes: 1_000,
            devices: Some(Arc::new(Driver {
                gate: gate.clone(),
                memory: memory.clone(),
            })),
        });
        let bed = Bed::with_regions(TenantLimits::default(), 100, Arc::new(regions));
        Self { bed, gate, go, memory }
    }

    /// Waits until the driver is called, has somebody else answered meanwhile, and lets it go on.
    async fn once(&self) {
        self.gate.reached.notified().await;
        // One that is refused at once, and not at a time that is its own.
        let other = self.bed.call("acme", "loading");
        assert_eq!(self.bed.refusal(other).await.class, FaultClass::Unavailable);
        self.go.send(()).unwrap();
    }

    fn credential(&self) -> Credential {
        Credential::from_header(self.bed.keys.get("acme").map(String::as_str))
    }

    async fn register(&self) -> Result<(), Fault> {
        let (router, credential) = (&self.bed.router, self.credential());
        let what = CudaRegistration {
            handle: &[7; HANDLE_BYTES],
            device: 0,
            bytes: MEMORY as u64,
        };
        let (registered, ()) = tokio::join!(router.register_cuda_region(&credential, "r", &what), self.once());
        registered
    }
}

fn span(offset: u64, bytes: u64) -> RegionSpan {
    RegionSpan {
        region: "r".into(),
        offset,
        bytes,
    }
}

#[test]
fn memory_of_a_device_is_opened_and_closed_without_holding_up_others() {
    run(async {
        let slow = Slow::new();
        slow.register().await.unwrap();
        let (router, credential) = (&slow.bed.router, slow.credential());
        assert_eq!(router.cuda_regions(&credential, None).unwrap().len(), 1);
        let (gone, ()) = tokio::join!(router.unregister_cuda_regions(&credential, None), slow.once());
        gone.unwrap();
        assert!(router.cuda_regions(&credential, None).unwrap().is_empty());
    });
}

#[test]
fn inputs_and_outputs_on_a_device_are_copied_without_holding_up_others() {
    run(async {
        let slow = Slow::new();
        slow.register().await.unwrap();
        let mut call = slow.bed.call("acme", "digits");
        call.request.inputs.clear();
        call.request.outputs = vec!["y".into()];
        call.request.regions = InRegions {
            inputs: vec![RegionInput {
                at: 0,
                name: "x".into(),
                datatype: DataType::Int32,
                shape: Shape::from_slice(&[1, 2]),
                span: span(4, 8),
            }],
            outputs: vec![RegionOutput {
                name: "y".into(),
                span: span(16, 16),
            }],
        }
        .boxed();
        let (answer, ()) = tokio::join!(slow.bed.router.infer(call), async {
            slow.once().await;
            slow.bed.job().await;
            let read = slow.bed.workers.jobs.lock()[0].1.inputs[0].data.clone();
            assert_eq!(read, (4..12).collect::<Vec<u8>>());
            slow.bed.answer_all();
            slow.once().await;
        });
        let completed = answer.result.unwrap();
        answer.account.finish(Duration::ZERO);
        let (output, region) = (&completed.response.outputs[0], &completed.response.regions[0]);
        assert!(output.data.is_empty() && region.span.offset == 16 && region.span.bytes > 0);
        assert_ne!(slow.memory.lock()[16..], (16..32).collect::<Vec<u8>>());
        assert!(slow.bed.is_at_rest());
        // What closes it at the end is not held.
        slow.go.send(()).unwrap();
    });
}

#[test]
fn a_request_is_refused_at_its_deadline_though_a_driver_never_comes_back() {
    run(async {
        let slow = Slow::new();
        slow.register().await.unwrap();
        let region = |at| RegionInput {
            at,
            name: "x".into(),
            datatype: DataType::Int32,
            shape: Shape::from_slice(&[1, 2]),
            span: span(0, 8),
        };
        let output = RegionOutput {
            name: "y".into(),
            span: span(16, 16),
        };
        // Deadlines are of the clock that goes on, and what ends at them is of the one that is paused: the second is further off than
        // the first has let that go on.
        let calls = [
            (vec![region(0)], Vec::new(), Duration::from_secs(1)),
            (Vec::new(), vec![output], Duration::from_secs(60)),
        ];
        for (inputs, outputs, timeout) in calls {
            let mut call = slow.bed.call("acme", "digits");
            call.timeout = Some(timeout);
            if !inputs.is_empty() {
                call.request.inputs.clear();
            }
            let writes = !outputs.is_empty();
            call.request.regions = InRegions { inputs, outputs }.boxed();
            let device = async {
                if writes {
                    slow.bed.job().await;
                    slow.bed.answer_all();
                }
                slow.gate.reached.notified().await;
                // A thread that waits keeps paused time from going on by itself.
                tokio::time::advance(timeout * 10).await;
            };
            let (fault, ()) = tokio::join!(slow.bed.refusal(call), device);
            assert_eq!(fault.class, FaultClass::DeadlineExceeded, "{fault}");
            assert!(slow.bed.is_at_rest());
        }
        // Those that were held, and what closes the memory.
        for _ in 0..3 {
            slow.go.send(()).unwrap();
        }
    });
}

#[test]
fn a_caller_that_leaves_while_a_driver_copies_gives_back_all_that_it_has() {
    run(async {
        let slow = Slow::new();
        slow.register().await.unwrap();
        let mut call = slow.bed.call("acme", "digits");
        call.request.inputs.clear();
        let input = RegionInput {
            at: 0,
            name: "x".into(),
            datatype: DataType::Int32,
            shape: Shape::from_slice(&[1, 2]),
            span: span(0, 8),
        };
        call.request.regions = InRegions {
            inputs: vec![input],
            outputs: Vec::new(),
        }
        .boxed();
        {
            let asking = slow.bed.router.infer(call);
            tokio::select! {
                _ = asking => panic!("the driver is held"),
                () = slow.gate.reached.notified() => {}
            }
        }
        assert!(slow.bed.is_at_rest());
        for _ in 0..2 {
            slow.go.send(()).unwrap();
        }
    });
}

#[test]
fn a_caller_that_leaves_while_its_memory_is_opened_has_registered_nothing() {
    run(async {
        let slow = Slow::new();
        let (router, credential) = (&slow.bed.router, slow.credential());
        let what = CudaRegistration {
            handle: &[7; HANDLE_BYTES],
            device: 0,
            bytes: MEMORY as u64,
        };
        tokio::select! {
            _ = router.register_cuda_region(&credential, "r", &what) => panic!("the driver is held"),
            () = slow.gate.reached.notified() => {}
        }
        // It opens, and then closes, what nobody waits for; others are answered meanwhile.
        slow.go.send(()).unwrap();
        slow.once().await;
        assert!(router.cuda_regions(&credential, None).unwrap().is_empty());
        // Its name and its memory are there for whoever asks next.
        slow.register().await.unwrap();
        assert_eq!(router.cuda_regions(&credential, None).unwrap().len(), 1);
        slow.go.send(()).unwrap();
    });
}
