//! Regions against a folder of the test's own: whose they are, what a key may be, bounds, and objects that change under way.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use mesh_types::{
    DataType, Fault, FaultClass, InRegions, InferRequest, InferResponse, Parameters, RegionInput, RegionOutput,
    RegionSpan, Shape, TenantId, Tensor, Version,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    MAX_REGIONS, MAX_REGIONS_PER_TENANT, MemoryKind, RESERVED_KEY_PREFIX, RegionError, Regions, RegionsConfig,
    Registration,
};

struct Bed {
    folder: TempDir,
    regions: Regions,
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn of(key: &str, offset: u64, bytes: u64) -> Registration<'_> {
    Registration { key, offset, bytes }
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let regions = Regions::open(RegionsConfig {
            folder: folder.path().to_path_buf(),
            max_request_bytes: 1_000,
            max_buffered_bytes: 1_500,
            devices: None,
        });
        Self { folder, regions }
    }

    fn object(&self, name: &str, content: &[u8]) -> File {
        std::fs::write(self.folder.path().join(name), content).unwrap();
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.folder.path().join(name))
            .unwrap()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap()
    }

    fn register(&self, who: &str, name: &str, what: Registration<'_>) -> Result<(), RegionError> {
        self.regions.register(&tenant(who), name, &what)
    }

    fn read(&self, who: &str, what: InRegions) -> Result<InferRequest, RegionError> {
        let mut request = InferRequest {
            model: "m".into(),
            ..InferRequest::default()
        };
        self.regions.take_in(&tenant(who), what, &mut request)?;
        Ok(request)
    }

    fn write(&self, who: &str, outputs: Vec<RegionOutput>, response: &mut InferResponse) -> Result<(), RegionError> {
        let what = InRegions {
            inputs: Vec::new(),
            outputs,
        };
        let landing = self.regions.take_in(&tenant(who), what, &mut InferRequest::default())?;
        landing.put_out(response)
    }
}

fn span(region: &str, offset: u64, bytes: u64) -> RegionSpan {
    RegionSpan {
        region: region.into(),
        offset,
        bytes,
    }
}

fn input(at: usize, name: &str, datatype: DataType, extent: u64, span: RegionSpan) -> RegionInput {
    RegionInput {
        at,
        name: name.into(),
        datatype,
        shape: Shape::from_slice(&[extent]),
        span,
    }
}

fn one(input: RegionInput) -> InRegions {
    InRegions {
        inputs: vec![input],
        outputs: Vec::new(),
    }
}

fn bytes_of(region: &str, offset: u64, bytes: u64) -> InRegions {
    one(input(0, "x", DataType::Uint8, bytes, span(region, offset, bytes)))
}

fn response(outputs: &[(&str, &[u8])]) -> InferResponse {
    let tensor = |(name, data): &(&str, &[u8])| Tensor {
        name: (*name).into(),
        datatype: DataType::Uint8,
        shape: Shape::from_slice(&[data.len() as u64]),
        data: Bytes::copy_from_slice(data),
    };
    InferResponse {
        id: None,
        model: "m".into(),
        version: Version::FIRST,
        outputs: outputs.iter().map(tensor).collect(),
        parameters: Parameters::new(),
        regions: Vec::new(),
    }
}

#[test]
fn inputs_are_read_from_their_part_of_their_region_into_their_places() {
    let bed = Bed::new();
    bed.object("in", b"..01234567");
    bed.register("acme", "r", of("/in", 2, 8)).unwrap();
    let carried = Tensor::new(
        "b".into(),
        DataType::Uint8,
        Shape::from_slice(&[1]),
        Bytes::from_static(b"x"),
    );
    let mut request = InferRequest {
        inputs: vec![carried.unwrap()],
        ..InferRequest::default()
    };
    let what = InRegions {
        inputs: vec![
            input(0, "a", DataType::Int16, 2, span("r", 4, 4)),
            input(2, "c", DataType::Uint8, 3, span("r", 0, 3)),
        ],
        outputs: Vec::new(),
    };
    bed.regions.take_in(&tenant("acme"), what, &mut request).unwrap();
    let read: Vec<(&str, &[u8])> = request
        .inputs
        .iter()
        .map(|tensor| (&*tensor.name, &*tensor.data))
        .collect();
    assert_eq!(read, [("a", &b"4567"[..]), ("b", b"x"), ("c", b"012")]);
}

#[test]
fn outputs_are_written_to_their_part_and_leave_the_answer() {
    let bed = Bed::new();
    bed.object("out", &[b'.'; 12]);
    bed.register("acme", "r", of("out", 2, 10)).unwrap();
    let mut answer = response(&[("y", b"abc"), ("z", b"d")]);
    let wanted = RegionOutput {
        name: "y".into(),
        span: span("r", 1, 9),
    };
    bed.write("acme", vec![wanted], &mut answer).unwrap();
    assert_eq!(bed.content("out"), b"...abc......");
    assert_eq!(answer.outputs[0].data.len(), 0);
    assert_eq!(&*answer.outputs[1].data, b"d");
    assert_eq!(answer.regions[0].span, span("r", 1, 3));
}

#[test]
fn an_output_that_does_not_fit_is_told_so_and_nothing_is_written() {
    let bed = Bed::new();
    bed.object("out", &[b'.'; 8]);
    bed.register("acme", "r", of("out", 0, 8)).unwrap();
    let to = |name: &str, offset, bytes| RegionOutput {
        name: name.into(),
        span: span("r", offset, bytes),
    };
    let mut answer = response(&[("y", b"abc"), ("z", b"def")]);
    let error = bed
        .write("acme", vec![to("y", 0, 3), to("z", 4, 2)], &mut answer)
        .unwrap_err();
    let fault = Fault::from(error);
    assert_eq!(fault.class, FaultClass::Internal);
    assert_eq!(
        fault.message,
        "shared memory size specified with the request for output 'z' (2 bytes) should be at least 3 bytes to hold the results"
    );
    assert_eq!(bed.content("out"), b"........");
    // Exactly as long as it needs is long enough.
    let mut answer = response(&[("y", b"abc")]);
    bed.write("acme", vec![to("y", 5, 3)], &mut answer).unwrap();
    assert_eq!(bed.content("out"), b".....abc");
}

#[test]
fn anothers_region_answers_as_an_unknown_one() {
    let bed = Bed::new();
    bed.object("a", b"12");
    bed.register("acme", "r", of("a", 0, 2)).unwrap();
    let unknown = RegionError::Unknown { name: "r".into() };
    assert_eq!(bed.read("globex", bytes_of("r", 0, 2)), Err(unknown.clone()));
    assert_eq!(bed.regions.status(&tenant("globex"), Some("r")), Err(unknown.clone()));
    assert_eq!(bed.regions.status(&tenant("globex"), None), Ok(Vec::new()));
    bed.regions
        .unregister(&tenant("globex"), Some("r"), MemoryKind::System)
        .unwrap();
    bed.regions
        .unregister(&tenant("globex"), None, MemoryKind::System)
        .unwrap();
    assert_eq!(bed.regions.status(&tenant("acme"), None).unwrap().len(), 1);
    // The same name is another region of another tenant.
    bed.object("b", b"34");
    bed.register("globex", "r", of("b", 0, 2)).unwrap();
    assert_eq!(&*bed.read("globex", bytes_of("r", 0, 2)).unwrap().inputs[0].data, b"34");
    assert_eq!(&*bed.read("acme", bytes_of("r", 0, 2)).unwrap().inputs[0].data, b"12");
    bed.regions
        .unregister(&tenant("acme"), Some("r"), MemoryKind::System)
        .unwrap();
    assert_eq!(bed.read("acme", bytes_of("r", 0, 2)), Err(unknown));
    bed.regions.retain(|_| false);
    assert!(bed.read("globex", bytes_of("r", 0, 2)).is_err());
}

#[test]
fn an_object_is_one_tenants_at_a_time_and_its_name_is_not_told() {
    let bed = Bed::new();
    bed.object("a", b"12");
    std::fs::hard_link(bed.folder.path().join("a"), bed.folder.path().join("same")).unwrap();
    bed.register("acme", "r", of("a", 0, 2)).unwrap();
    bed.register("acme", "again", of("/a", 1, 1)).unwrap();
    for key in ["a", "/a", "same"] {
        for (offset, bytes) in [(0, 2), (0, 3)] {
            let foreign = bed
                .register("globex", "r", of(key, offset, bytes))
                .unwrap_err()
                .to_string();
            let absent = bed
                .register("globex", "r", of("none", offset, bytes))
                .unwrap_err()
                .to_string();
            assert_eq!(foreign.replace(&format!("'{key}'"), "'none'"), absent);
        }
    }
    bed.regions
        .unregister(&tenant("acme"), None, MemoryKind::System)
        .unwrap();
    bed.register("globex", "r", of("a", 0, 2)).unwrap();
}

#[test]
fn a_key_leads_to_a_plain_file_of_the_folder_and_nowhere_else() {
    let bed = Bed::new();
    bed.object("a", b"12");
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), b"secret").unwrap();
    symlink(outside.path(), bed.folder.path().join("link")).unwrap();
    symlink(bed.folder.path().join("a"), bed.folder.path().join("inner")).unwrap();
    std::fs::create_dir(bed.folder.path().join("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bed.folder.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    bed.object("sem.x", b"12");
    let long = "k".repeat(256);
    for key in [
        "", "/", "//a", ".", "..", "/..", "../a", "a/../a", "folder/a", "a\0", "sem.x", &*long,
    ] {
        let error = bed.register("acme", "r", of(key, 0, 1)).unwrap_err();
        assert!(matches!(error, RegionError::Key { .. }), "{key}: {error}");
    }
    for key in ["link", "inner", "folder", "pipe", "none", &"k".repeat(255)] {
        let error = bed.register("acme", "r", of(key, 0, 1)).unwrap_err();
        assert!(matches!(error, RegionError::NotOpened { .. }), "{key}: {error}");
    }
    let own = format!("{RESERVED_KEY_PREFIX}x");
    bed.object(&own, b"12");
    for key in [own.clone(), format!("/{own}")] {
        let error = bed.register("acme", "r", of(&key, 0, 1)).unwrap_err();
        assert!(error.to_string().contains("reserved prefix"), "{error}");
    }
    assert!(bed.regions.status(&tenant("acme"), None).unwrap().is_empty());
    bed.register("acme", "r", of("/a", 0, 2)).unwrap();
}

#[test]
fn a_region_lies_within_its_object_and_a_tensor_within_its_region() {
    let bed = Bed::new();
    bed.object("a", b"0123456789");
    for (offset, bytes) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        let text = bed
            .register("acme", "r", of("a", offset, bytes))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("failed to register shared memory region 'r': invalid args"),
            "{text}"
        );
    }
    bed.register("acme", "r", of("a", 1, 8)).unwrap();
    let text = bed.register("acme", "r", of("a", 1, 8)).unwrap_err().to_string();
    assert!(text.contains("already in manager"), "{text}");
    let refused = |offset, bytes| bed.read("acme", bytes_of("r", offset, bytes)).unwrap_err().to_string();
    assert!(refused(9, 0).contains("Invalid offset for shared memory region: 'r'"));
    assert!(refused(u64::MAX, 1).contains("Invalid offset for shared memory region: 'r'"));
    assert!(refused(8, 1).contains("Invalid offset + byte size for shared memory region: 'r'"));
    assert!(refused(1, u64::MAX).contains("Invalid offset + byte size for shared memory region: 'r'"));
    assert_eq!(&*bed.read("acme", bytes_of("r", 7, 1)).unwrap().inputs[0].data, b"8");
    for name in [String::new(), "n".repeat(256)] {
        assert!(bed.register("acme", &name, of("a", 0, 1)).is_err());
    }
    bed.register("acme", &"n".repeat(255), of("a", 0, 1)).unwrap();
}

#[test]
fn an_input_has_the_bytes_that_its_shape_needs() {
    let bed = Bed::new();
    bed.object("a", b"\x02\0\0\0hi\x01\0\0\0!....");
    bed.register("acme", "r", of("a", 0, 15)).unwrap();
    let read = |datatype, extent, bytes| bed.read("acme", one(input(0, "x", datatype, extent, span("r", 0, bytes))));
    let text = read(DataType::Fp32, 2, 12).unwrap_err().to_string();
    assert_eq!(
        text,
        "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 12"
    );
    assert!(read(DataType::Fp64, u64::MAX, 8).is_err());
    let texts = read(DataType::Bytes, 2, 11).unwrap();
    assert_eq!(texts.inputs[0].data.len(), 11);
    for (extent, bytes) in [(2, 12), (2, 10), (1, 11), (3, 11)] {
        let text = read(DataType::Bytes, extent, bytes).unwrap_err().to_string();
        assert!(text.starts_with("input 'x' of datatype BYTES"), "{text}");
    }
}

#[test]
fn what_one_request_and_all_together_may_read_has_bounds() {
    let bed = Bed::new();
    bed.object("a", &[7; 2_000]);
    bed.register("acme", "r", of("a", 0, 2_000)).unwrap();
    let take = |bytes| {
        let mut request = InferRequest::default();
        bed.regions
            .take_in(&tenant("acme"), bytes_of("r", 0, bytes), &mut request)
    };
    assert_eq!(
        take(1_001).unwrap_err(),
        RegionError::TooLarge {
            got: 1_001,
            most: 1_000
        }
    );
    let first = take(1_000).unwrap();
    assert_eq!(take(501).unwrap_err(), RegionError::NoRoom);
    let second = take(500).unwrap();
    drop(first);
    take(1_000).unwrap();
    drop(second);
}

#[test]
fn a_tenant_and_all_together_have_so_many_regions_and_not_one_more() {
    let bed = Bed::new();
    let mut tenants = 0;
    let mut fill = |regions: usize| {
        tenants += 1;
        let who = format!("t{tenants}");
        bed.object(&who, b"1");
        for at in 0..regions {
            bed.register(&who, &at.to_string(), of(&who, 0, 1)).unwrap();
        }
        who
    };
    let first = fill(MAX_REGIONS_PER_TENANT);
    let one_more = || bed.register(&first, "more", of(&first, 0, 1));
    assert_eq!(one_more(), Err(RegionError::TooManyOfTenant));
    for _ in 1..MAX_REGIONS / MAX_REGIONS_PER_TENANT {
        fill(MAX_REGIONS_PER_TENANT);
    }
    bed.object("last", b"1");
    let last = || bed.register("last", "r", of("last", 0, 1));
    assert_eq!(last(), Err(RegionError::TooMany));
    bed.regions
        .unregister(&tenant(&first), Some("0"), MemoryKind::System)
        .unwrap();
    last().unwrap();
    assert_eq!(one_more(), Err(RegionError::TooMany));
    bed.regions
        .unregister(&tenant("last"), None, MemoryKind::System)
        .unwrap();
    one_more().unwrap();
}

#[test]
fn an_object_that_is_cut_short_costs_its_requests_an_error() {
    let bed = Bed::new();
    let file = bed.object("a", &[1; 900]);
    bed.register("acme", "r", of("a", 0, 900)).unwrap();
    file.set_len(899).unwrap();
    assert_eq!(
        bed.read("acme", bytes_of("r", 0, 900)),
        Err(RegionError::Shrunk { name: "r".into() })
    );
    bed.read("acme", bytes_of("r", 0, 899)).unwrap();
    let mut answer = response(&[("y", &[2; 10])]);
    let to = RegionOutput {
        name: "y".into(),
        span: span("r", 890, 10),
    };
    let error = bed.write("acme", vec![to], &mut answer).unwrap_err();
    assert_eq!(error, RegionError::Shrunk { name: "r".into() });
    assert_eq!(file.metadata().unwrap().len(), 899, "what was cut is not made anew");
    // Its name may go, or lead to something else: the region is what was opened.
    file.set_len(900).unwrap();
    std::fs::remove_file(bed.folder.path().join("a")).unwrap();
    bed.object("a", b"other");
    assert_eq!(bed.read("acme", bytes_of("r", 0, 900)).unwrap().inputs[0].data[0], 1);
}

#[test]
fn an_object_that_is_cut_short_again_and_again_while_it_is_copied_harms_nobody() {
    let bed = Bed::new();
    let file = bed.object("a", &[1; 1_000]);
    bed.register("acme", "r", of("a", 0, 1_000)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ending = over.clone();
    let cutter = std::thread::spawn(move || {
        while !ending.load(Ordering::Acquire) {
            file.set_len(0).unwrap();
            file.set_len(1_000).unwrap();
        }
    });
    let (mut whole, mut cut) = (0, 0);
    for _ in 0..20_000 {
        match bed.read("acme", bytes_of("r", 0, 1_000)) {
            Ok(request) => {
                assert_eq!(request.inputs[0].data.len(), 1_000);
                whole += 1;
            }
            Err(RegionError::Shrunk { .. }) => cut += 1,
            Err(error) => panic!("{error}"),
        }
    }
    over.store(true, Ordering::Release);
    cutter.join().unwrap();
    assert_eq!(whole + cut, 20_000);
}

#[test]
fn where_it_is_off_nothing_is_told() {
    let off = Regions::default();
    let acme = tenant("acme");
    assert!(!off.is_on());
    assert_eq!(off.register(&acme, "r", &of("a", 0, 1)), Err(RegionError::Off));
    assert_eq!(off.status(&acme, None), Err(RegionError::Off));
    assert_eq!(off.unregister(&acme, None, MemoryKind::System), Err(RegionError::Off));
    let taken = off.take_in(&acme, bytes_of("r", 0, 1), &mut InferRequest::default());
    assert_eq!(Fault::from(taken.unwrap_err()).class, FaultClass::Unsupported);
}

proptest! {
    #[test]
    fn whatever_is_read_is_what_lies_there(
        (region_offset, region_bytes) in (0_u64..120, 0_u64..120),
        (offset, bytes) in (0_u64..120, 0_u64..120),
    ) {
        let bed = Bed::new();
        let content: Vec<u8> = (0..100).collect();
        bed.object("a", &content);
        let registered = bed.register("acme", "r", of("a", region_offset, region_bytes));
        let fits = region_bytes > 0 && region_offset + region_bytes <= 100;
        prop_assert_eq!(registered.is_ok(), fits);
        if fits {
            let read = bed.read("acme", bytes_of("r", offset, bytes));
            prop_assert_eq!(read.is_ok(), offset + bytes <= region_bytes);
            if let Ok(request) = read {
                let from = usize::try_from(region_offset + offset).unwrap();
                let to = from + usize::try_from(bytes).unwrap();
                prop_assert_eq!(&*request.inputs[0].data, &content[from..to]);
            }
        }
    }

    #[test]
    fn no_key_and_no_number_ends_in_a_panic(key in ".{0,40}", offset in any::<u64>(), bytes in any::<u64>()) {
        let bed = Bed::new();
        prop_assert!(bed.register("acme", "r", of(&key, offset, bytes)).is_err());
    }
}
