//! What the bindings lack of libtorch: the C++ in `shim/`, in safe words.

use std::{marker::PhantomData, ptr::NonNull};

use tch::Tensor;

/// c10::InferenceMode, of which only the address is known here.
#[repr(C)]
struct RawGuard {
    _private: [u8; 0],
}

// SAFETY: the signatures are those of shim/shim.cpp, which is compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_owns_alone(tensor: *const torch_sys::C_tensor) -> bool;
    fn mesh_torch_inference_begin() -> *mut RawGuard;
    fn mesh_torch_inference_end(guard: *mut RawGuard);
}

/// Whether nobody but this reference can reach the tensor's bytes, and these lie one behind the other on the CPU.
pub(crate) fn owns_alone(tensor: &Tensor) -> bool {
    // SAFETY: the pointer is to a live tensor of libtorch, which is only looked at.
    unsafe { mesh_torch_owns_alone(tensor.as_ptr()) }
}

/// Inference mode on this thread, until it is dropped; guards end in the opposite order of their beginning.
#[derive(Debug)]
pub(crate) struct InferenceMode {
    guard: Option<NonNull<RawGuard>>,
    /// It is the thread's.
    _stays_here: PhantomData<*const ()>,
}

impl InferenceMode {
    /// Begins it.
    pub(crate) fn begin() -> Self {
        // SAFETY: takes nothing and gives a new guard of this thread, or null.
        let guard = NonNull::new(unsafe { mesh_torch_inference_begin() });
        Self {
            guard,
            _stays_here: PhantomData,
        }
    }
}

impl Drop for InferenceMode {
    fn drop(&mut self) {
        if let Some(guard) = self.guard {
            // SAFETY: made by `begin` on this same thread (the type is not Send) and ended once.
            unsafe { mesh_torch_inference_end(guard.as_ptr()) }
        }
    }
}

#[cfg(test)]
#[path = "shim_tests.rs"]
mod tests;
