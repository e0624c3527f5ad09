//! Which tensors are owned alone, and what inference mode changes.

use tch::Kind;

use super::*;

fn ones() -> Tensor {
    Tensor::ones([4, 4], (Kind::Float, Device::Cpu))
}

#[test]
fn a_new_tensor_is_owned_alone_and_a_shared_one_is_not() {
    let tensor = ones();
    assert!(owns_alone(&tensor));
    let same = tensor.shallow_clone();
    assert!(!owns_alone(&tensor) && !owns_alone(&same));
    drop(same);
    assert!(owns_alone(&tensor));
}

#[test]
fn views_of_one_storage_are_never_owned_alone_while_the_other_is_there() {
    let tensor = ones();
    let view = tensor.narrow(0, 0, 2);
    assert!(!owns_alone(&tensor) && !owns_alone(&view));
    let halves = ones().split(2, 0);
    assert!(halves.iter().all(|half| !owns_alone(half)));
    let lazy = tensor.internal_lazy_clone();
    assert!(!owns_alone(&lazy), "a lazy copy shares the bytes until somebody writes");
}

#[test]
fn bytes_that_do_not_lie_one_behind_the_other_are_not_handed_out() {
    assert!(!owns_alone(&ones().narrow(1, 0, 2)));
    assert!(!owns_alone(&ones().to_sparse(None, None::<&[i64]>, None)));
}

#[test]
fn inference_mode_lasts_as_long_as_its_guard() {
    let outer = InferenceMode::begin();
    let inner = InferenceMode::begin();
    assert!(ones().is_inference());
    drop(inner);
    assert!(ones().is_inference());
    drop(outer);
    assert!(!ones().is_inference());
}

#[test]
fn without_cuda_there_are_neither_streams_nor_pinned_memory_and_asking_is_no_error() {
    if crate::cuda::devices().is_empty() {
        assert!(Stream::on(0).is_none());
        assert!(empty_pinned_like(&ones()).is_none());
    } else {
        let stream = Stream::on(0).unwrap();
        assert!(stream.enter().is_some());
        assert_eq!(empty_pinned_like(&ones()).unwrap().size(), [4, 4]);
    }
}

#[test]
fn a_meter_counts_what_is_held_and_the_most_that_was() {
    let before = ones();
    let meter = Meter::begin(Device::Cpu);
    assert_eq!((meter.held(), meter.peak()), (Some(0), Some(0)));
    let kept = Tensor::ones([1_000], (Kind::Float, Device::Cpu));
    drop(Tensor::ones([10_000], (Kind::Float, Device::Cpu)));
    drop(before);
    assert_eq!(
        meter.held(),
        Some(4_000),
        "what was there before does not count, freed or not"
    );
    assert_eq!(meter.peak(), Some(44_000));
    drop(kept);
    assert_eq!(meter.held(), Some(0));
    drop(meter);
    let again = Meter::begin(Device::Cpu);
    assert_eq!(again.held(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn only_the_thread_that_gives_way_does() {
    // The class is the 41st field; what stands before it in brackets is a name.
    let class = || {
        let told = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = told.rsplit(')').next().unwrap().to_owned();
        fields.split_whitespace().nth(41 - 3).unwrap().to_owned()
    };
    let before = class();
    let given_way = std::thread::spawn(move || (give_way(), class())).join().unwrap();
    assert_eq!(given_way, (true, "5".to_owned()));
    assert_eq!(class(), before);
}
