//! Memory of models that are gone: libtorch and the C library keep it for later, and the system should have it.

use std::ffi::c_int;

use mesh_types::DeviceKind;

// SAFETY: the signatures are those of shim/release.cpp, which is compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_trim();
    fn mesh_torch_empty_cache();
    fn mesh_torch_device_memory(device: c_int) -> u64;
}

/// Gives memory that no model uses back to the system. A model on a GPU had some of the host's as well.
pub(crate) fn memory(kind: DeviceKind) {
    if kind == DeviceKind::Cuda {
        // SAFETY: takes nothing; libtorch's allocator locks itself.
        unsafe { mesh_torch_empty_cache() }
    }
    // SAFETY: takes nothing; the C library's allocator locks itself.
    unsafe { mesh_torch_trim() }
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
