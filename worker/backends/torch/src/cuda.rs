//! CUDA, if its library is there: opened by name, so that one program serves machines with and without a GPU.

use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use mesh_backend::DeviceInfo;
use mesh_types::DeviceId;

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
            memory_bytes: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_are_no_devices_and_asking_twice_is_the_same() {
        assert_eq!(devices(), devices());
        if !library_opened() {
            assert!(devices().is_empty());
        }
    }
}
