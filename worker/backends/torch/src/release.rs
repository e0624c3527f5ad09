//! Memory of models that are gone: libtorch and the C library keep it for later, and the system should have it.
//!
//! The C library's allocator gives threads that find its arenas taken another one, up to eight for each processor, and trimming gives
//! back only pages of which nothing is in use. Each load is a thread of its own: with as many arenas as there may be, each load
//! left pages of another one in use, and what was resident grew by a hundredth in fifty loads though nothing leaked. So there are as
//! many as processors ([`most_arenas`]); what is small comes from each thread's own cache anyway.

use std::{ffi::c_int, num::NonZeroUsize};

use mesh_types::DeviceKind;

use crate::shim::{self, Whose};

// SAFETY: the signatures are those of shim/release.cpp, which is compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_trim();
    fn mesh_torch_empty_cache();
    fn mesh_torch_limit_arenas(most: c_int);
    fn mesh_torch_heap_in_use() -> u64;
    fn mesh_torch_arenas() -> u64;
    fn mesh_torch_device_memory(device: c_int) -> u64;
}

/// Gives memory that no model uses back to the system. A model on a GPU had some of the host's as well.
pub(crate) fn memory(kind: DeviceKind) {
    if kind == DeviceKind::Cuda {
        // SAFETY: takes nothing; libtorch's allocator locks itself.
        unsafe { mesh_torch_empty_cache() }
    }
    shim::release_workspace(Whose::All);
    // SAFETY: takes nothing; the C library's allocator locks itself.
    unsafe { mesh_torch_trim() }
}

/// With few processors there are so many arenas all the same: loads and device threads are more than processors.
const FEWEST_ARENAS: usize = 4;
/// With ever so many processors there are no more.
const MAX_ARENAS: usize = 128;

/// The most arenas of the C library's allocator, where there are so many processors.
const fn most_arenas(processors: usize) -> usize {
    match processors {
        ..FEWEST_ARENAS => FEWEST_ARENAS,
        FEWEST_ARENAS..=MAX_ARENAS => processors,
        _ => MAX_ARENAS,
    }
}

/// Keeps the C library's allocator to as many arenas as there are processors, as far as it has not made more already.
pub(crate) fn limit_arenas() {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = c_int::try_from(most_arenas(processors)).unwrap_or(c_int::MAX);
    // SAFETY: takes a number; the C library's allocator locks itself.
    unsafe { mesh_torch_limit_arenas(most) }
}

/// What the C library's allocator has, from which libtorch takes the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostHeap {
    /// Bytes that were handed out and have not come back.
    pub in_use: u64,
    /// How many arenas it has: each keeps what threads gave back to it, until it is trimmed.
    pub arenas: u64,
}

/// What the C library's allocator has now; none where that cannot be told.
pub fn host_heap() -> Option<HostHeap> {
    // SAFETY: both take nothing; the C library's allocator locks itself.
    let (in_use, arenas) = unsafe { (mesh_torch_heap_in_use(), mesh_torch_arenas()) };
    (in_use > 0 && arenas > 0).then_some(HostHeap { in_use, arenas })
}

/// All memory of a CUDA device in bytes, where that can be told.
pub(crate) fn memory_of(device: u16) -> Option<u64> {
    // SAFETY: takes a number, and answers 0 where there is no such device.
    let bytes = unsafe { mesh_torch_device_memory(c_int::from(device)) };
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_told_and_told_no_more_once_it_is_given_back() {
        const BYTES: i64 = 64 << 20;
        let Some(before) = host_heap() else { return };
        let tensor = tch::Tensor::zeros([BYTES], (tch::Kind::Uint8, tch::Device::Cpu));
        let with = host_heap().unwrap();
        drop(tensor);
        let after = host_heap().unwrap();
        let (size, slack) = (u64::try_from(BYTES).unwrap(), 8 << 20);
        assert!(with.in_use + slack > before.in_use + size, "{before:?} {with:?}");
        assert!(after.in_use + size < with.in_use + slack, "{with:?} {after:?}");
        assert!(with.arenas > 0);
    }

    #[test]
    fn however_many_threads_allocate_at_once_there_are_so_many_arenas_and_no_more() {
        const THREADS: usize = 32;
        let Some(before) = host_heap() else { return };
        let _backend = crate::TorchBackend::new(crate::TorchOptions::default());
        let all = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..100 {
                        all.wait();
                        drop(tch::Tensor::zeros([5_000], (tch::Kind::Float, tch::Device::Cpu)));
                    }
                });
            }
        });
        let after = host_heap().unwrap();
        let most = most_arenas(std::thread::available_parallelism().unwrap().get());
        assert!(after.arenas <= before.arenas.max(most as u64), "{before:?} {after:?}");
    }

    #[test]
    fn there_are_as_many_arenas_as_processors_within_bounds() {
        let arenas = [1, 3, 4, 5, 128, 129, 4_096].map(most_arenas);
        assert_eq!(arenas, [4, 4, 4, 5, 128, 128, 128]);
    }

    #[test]
    fn releasing_changes_nothing_that_is_in_use_and_no_gpu_has_no_memory() {
        let tensor = tch::Tensor::from_slice(&[1.0f32; 100_000]);
        memory(DeviceKind::Cpu);
        memory(DeviceKind::Cuda);
        assert_eq!(tensor.sum(tch::Kind::Float).double_value(&[]), 100_000.0);
        if crate::cuda::devices().is_empty() {
            assert_eq!(memory_of(0), None);
        }
    }
}
