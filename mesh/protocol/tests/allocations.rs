//! What decoding allocates: raw tensors stay where they are, whatever their size. A program of its own, because it counts
//! every allocation.
#![expect(
    unsafe_code,
    reason = "an allocator is made of unsafe functions; this one only counts"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::Bytes;
use mesh_protocol::{
    OutputOptions, decode_infer, encode_infer,
    grpc::{
        decode_message,
        messages::{ModelInferRequest, model_infer_request::InferInputTensor},
    },
};
use mesh_types::{InferResponse, Parameters, Version, VersionSelector};
use prost::Message as _;

/// The system's allocator, counting the bytes that this thread asks for.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // Where a thread is going there is nothing left to count in.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + bytes));
}

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as promised to this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.with(Cell::get);
    let done = work();
    (done, ALLOCATED.with(Cell::get) - before)
}

/// What a request of one tensor may take, whatever the tensor's size.
const MOST: usize = 2_048;
const SIZES: [usize; 3] = [4, 64 << 10, 16 << 20];

fn over_http(bytes: usize) -> (Bytes, usize) {
    let json = format!(
        "{{\"parameters\":{{\"binary_data_output\":true}},\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\
         \"shape\":[1,{}],\"parameters\":{{\"binary_data_size\":{bytes}}}}}]}}",
        bytes / 4
    );
    let length = json.len();
    (Bytes::from([json.into_bytes(), vec![7; bytes]].concat()), length)
}

fn over_grpc(bytes: usize) -> Bytes {
    let message = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, (bytes / 4) as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![7; bytes].into()],
        ..ModelInferRequest::default()
    };
    message.encode_to_vec().into()
}

#[test]
fn decoding_raw_tensors_copies_no_tensor() {
    for bytes in SIZES {
        let (body, json) = over_http(bytes);
        let (decoded, taken) = allocated(|| decode_infer("m", VersionSelector::Default, &body, Some(json)).unwrap());
        let data = &decoded.request.inputs[0].data;
        assert_eq!((data.len(), data.as_ptr()), (bytes, body[json..].as_ptr()));
        assert!(taken <= MOST, "{bytes} bytes over HTTP took {taken}");
        let message = over_grpc(bytes);
        let (request, taken) = allocated(|| decode_message(&message).unwrap());
        let data = &request.inputs[0].data;
        assert_eq!(data.len(), bytes);
        assert!(
            message.as_ptr_range().contains(&data.as_ptr()),
            "{bytes} bytes were copied"
        );
        assert!(taken <= MOST, "{bytes} bytes over gRPC took {taken}");
    }
}

#[test]
fn writing_a_large_answer_copies_no_tensor() {
    let bytes = 16 << 20;
    let request = decode_message(&over_grpc(bytes)).unwrap();
    let response = InferResponse {
        id: None,
        model: "m".into(),
        version: Version::FIRST,
        outputs: request.inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    let (encoded, taken) = allocated(|| encode_infer(&response, &OutputOptions::all(true)).unwrap());
    assert!(encoded.body_bytes() > bytes && taken <= MOST, "{taken}");
}

#[test]
fn the_counter_counts() {
    let (kept, taken) = allocated(|| vec![0_u8; 100_000]);
    assert!(kept.len() <= taken && taken < 200_000, "{taken}");
}
