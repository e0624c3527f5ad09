//! CUDA, if its library is there: opened by name, so that one program serves machines with and without a GPU.

use std::{ffi::c_int, sync::OnceLock};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use mesh_backend::DeviceInfo;
use mesh_types::DeviceId;

use crate::release;

/// libtorch's CUDA half; its loader finds the rest.
const LIBRARY: &str = "libtorch_cuda.so";

/// Opens libtorch's CUDA library once per process; whether it was there.
fn library_opened() -> bool {
    static OPENED: OnceLock<bool> = OnceLock::new();
    *OPENED.get_or_init(|| {
        // SAFETY: opening runs the library's initialisers; it is libtorch's own other half, of the version beside the
        // libtorch already linked, and its initialisers only register kernels.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) };
        // Never closed: libtorch keeps pointers into it.
        library.map(Library::into_raw).is_ok()
    })
}

/// The CUDA devices of this machine; none without the library or a driver.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    if !library_opened() {
        return Vec::new();
    }
    let count = u16::try_from(tch::Cuda::device_count()).unwrap_or(0);
    (0..count)
        .map(|index| DeviceInfo {
            id: DeviceId::cuda(index),
            name: format!("CUDA device {index}"),
            memory_bytes: release::memory_of(index),
        })
        .collect()
}

/// CUDA's runtime, which libtorch's CUDA half has opened.
const RUNTIME: &str = "libcudart.so.13";
/// CUDA's numbers for the two parts of a device's compute capability.
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// A device's compute capability as AOTInductor writes it, such as `90`; none where CUDA does not say.
pub(crate) fn compute_capability(index: usize) -> Option<String> {
    type Attribute = unsafe extern "C" fn(value: *mut c_int, attribute: c_int, device: c_int) -> c_int;
    if !library_opened() {
        return None;
    }
    let device = c_int::try_from(index).ok()?;
    // SAFETY: the library is there already (libtorch's CUDA half wants it), so nothing is run by opening it again.
    let runtime = unsafe { Library::open(Some(RUNTIME), RTLD_NOW) }.ok()?;
    // SAFETY: the function has had this signature in all versions of CUDA.
    let attribute = unsafe { runtime.get::<Attribute>(b"cudaDeviceGetAttribute") }.ok()?;
    let of = |number: c_int| {
        let mut value = 0;
        // SAFETY: the pointer is to a number of this frame; the answer is 0 where it was written.
        (unsafe { attribute(&raw mut value, number, device) } == 0).then_some(value)
    };
    Some(format!("{}{}", of(CAPABILITY_MAJOR)?, of(CAPABILITY_MINOR)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_are_no_devices_and_asking_twice_is_the_same() {
        assert_eq!(devices(), devices());
        if !library_opened() {
            assert!(devices().is_empty());
            assert_eq!(compute_capability(0), None);
        }
    }
}
