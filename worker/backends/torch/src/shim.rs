//! What the bindings lack of libtorch: the C++ in `shim/`, in safe words.

use std::{ffi::c_int, marker::PhantomData, ptr::NonNull, sync::Once};

use tch::{Device, Tensor};

/// A C++ object of which only the address is known here.
macro_rules! opaque {
    ($($name:ident),*) => { $(
        #[repr(C)]
        struct $name {
            _private: [u8; 0],
        }
    )* };
}

opaque!(RawGuard, RawStream, RawStreamGuard, RawMeter);

// SAFETY: the signatures are those of shim/*.cpp, which are compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_owns_alone(tensor: *const torch_sys::C_tensor) -> bool;
    fn mesh_torch_inference_begin() -> *mut RawGuard;
    fn mesh_torch_inference_end(guard: *mut RawGuard);
    fn mesh_torch_empty_pinned_like(tensor: *const torch_sys::C_tensor) -> *mut torch_sys::C_tensor;
    fn mesh_torch_stream_new(device: c_int) -> *mut RawStream;
    fn mesh_torch_stream_free(stream: *mut RawStream);
    fn mesh_torch_stream_begin(stream: *const RawStream) -> *mut RawStreamGuard;
    fn mesh_torch_stream_end(guard: *mut RawStreamGuard);
    fn mesh_torch_meter_begin(cuda: bool) -> *mut RawMeter;
    fn mesh_torch_meter_held(meter: *const RawMeter) -> i64;
    fn mesh_torch_meter_peak(meter: *const RawMeter) -> i64;
    fn mesh_torch_meter_end(meter: *mut RawMeter);
    fn mesh_torch_clear_memory();
    fn mesh_torch_watch_devices() -> bool;
    fn mesh_torch_clear_devices(cuda: bool, clear: bool);
    fn mesh_torch_give_way() -> bool;
    fn mesh_torch_watch_workspace();
    fn mesh_torch_release_workspace(all: bool);
}

/// Has the workspace that libtorch's mathematics library takes counted by meters; to be called before any operation runs.
pub(crate) fn watch_workspace() {
    static ONCE: Once = Once::new();
    // SAFETY: takes nothing; it sets pointers that the library reads when it first allocates, and is done once. Where operations have run
    // before, what they took is freed by what frees it now: ours hands on to what it took it from.
    ONCE.call_once(|| unsafe { mesh_torch_watch_workspace() });
}

/// Whose workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The calling thread's.
    Own,
    /// Every thread's.
    All,
}

/// Frees the workspace that libtorch's mathematics library keeps for later calls of a thread and does not use now.
pub(crate) fn release_workspace(whose: Whose) {
    // SAFETY: takes a flag; the library locks what its threads share, and leaves what is in use.
    unsafe { mesh_torch_release_workspace(whose == Whose::All) }
}

/// The calling thread runs only where a processor would idle, for good; false where the system cannot.
pub(crate) fn give_way() -> bool {
    // SAFETY: takes nothing, and asks the system for the calling thread alone.
    unsafe { mesh_torch_give_way() }
}

/// Has libtorch ask before it gives memory of devices that may have been another model's; to be called before models run. It costs
/// nothing worth counting until [`clear_devices`] is called.
pub(crate) fn watch_devices() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: takes nothing; it changes libtorch's tables, which nobody else reads yet, and is done once.
        if !unsafe { mesh_torch_watch_devices() } {
            tracing::error!("libtorch does not let its operations be wrapped: memory of devices is not cleared");
        }
    });
}

/// From now on memory of CUDA devices, or of the host by the same way, is zeros when it is given, or no more; for the whole process.
pub(crate) fn clear_devices(cuda: bool, clear: bool) {
    // SAFETY: takes two numbers and changes one flag, atomically.
    unsafe { mesh_torch_clear_devices(cuda, clear) }
}

/// From now on the memory that libtorch gives is zeros, for the whole process and for good.
pub(crate) fn clear_memory() {
    clear_devices(true, true);
    clear_host();
}

fn clear_host() {
    static ONCE: Once = Once::new();
    // SAFETY: takes nothing and sets one flag of libtorch's, once; a thread that allocates at this moment may still miss it, and sees
    // nothing but the former value or the new one.
    ONCE.call_once(|| unsafe { mesh_torch_clear_memory() });
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

/// A tensor like this one in page-locked memory; none without CUDA.
pub(crate) fn empty_pinned_like(tensor: &Tensor) -> Option<Tensor> {
    // SAFETY: the pointer is to a live tensor; the answer is null or a new tensor, which the wrapper then owns.
    unsafe {
        let pinned = mesh_torch_empty_pinned_like(tensor.as_ptr());
        (!pinned.is_null()).then(|| Tensor::from_ptr(pinned))
    }
}

/// A CUDA stream out of libtorch's pool, whose streams live as long as the process.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: NonNull<RawStream>,
}

// SAFETY: the object behind the pointer is a plain value (a device and the number of a stream of the process), tied to no
// thread; only its guards are, and these are not Send.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream on a device; none without CUDA.
    pub(crate) fn on(device: usize) -> Option<Self> {
        let device = c_int::try_from(device).ok()?;
        // SAFETY: takes a number; the answer is null or a new object.
        let stream = NonNull::new(unsafe { mesh_torch_stream_new(device) })?;
        Some(Self { stream })
    }

    /// What the thread does on the device from now on goes through this stream, until the guard is dropped.
    pub(crate) fn enter(&self) -> Option<InStream<'_>> {
        // SAFETY: the stream is alive.
        let guard = NonNull::new(unsafe { mesh_torch_stream_begin(self.stream.as_ptr()) })?;
        Some(InStream {
            guard,
            _stream: PhantomData,
            _stays_here: PhantomData,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `on`, freed once; guards borrow it, so none is left.
        unsafe { mesh_torch_stream_free(self.stream.as_ptr()) }
    }
}

/// The thread is in a stream.
#[derive(Debug)]
pub(crate) struct InStream<'a> {
    guard: NonNull<RawStreamGuard>,
    _stream: PhantomData<&'a Stream>,
    /// It is the thread's.
    _stays_here: PhantomData<*const ()>,
}

impl Drop for InStream<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `enter` on this same thread (the type is not Send) and ended once.
        unsafe { mesh_torch_stream_end(self.guard.as_ptr()) }
    }
}

/// Counts what this thread allocates through libtorch, on the host or on CUDA devices, until it is dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    meter: Option<NonNull<RawMeter>>,
    /// It is the thread's.
    _stays_here: PhantomData<*const ()>,
}

impl Meter {
    /// Begins to count.
    pub(crate) fn begin(device: Device) -> Self {
        // SAFETY: takes a flag and gives a new guard of this thread, or null.
        let meter = NonNull::new(unsafe { mesh_torch_meter_begin(device != Device::Cpu) });
        Self {
            meter,
            _stays_here: PhantomData,
        }
    }

    /// Bytes allocated since the beginning and not freed; none if nothing is counted.
    pub(crate) fn held(&self) -> Option<u64> {
        // SAFETY: the meter is alive.
        let held = self
            .meter
            .map(|meter| unsafe { mesh_torch_meter_held(meter.as_ptr()) })?;
        u64::try_from(held).ok()
    }

    /// The most bytes that were held at once since the beginning; none if nothing is counted.
    pub(crate) fn peak(&self) -> Option<u64> {
        // SAFETY: the meter is alive.
        let peak = self
            .meter
            .map(|meter| unsafe { mesh_torch_meter_peak(meter.as_ptr()) })?;
        u64::try_from(peak).ok()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(meter) = self.meter {
            // SAFETY: made by `begin` on this same thread (the type is not Send) and ended once.
            unsafe { mesh_torch_meter_end(meter.as_ptr()) }
        }
    }
}

#[cfg(test)]
#[path = "shim_tests.rs"]
mod tests;
