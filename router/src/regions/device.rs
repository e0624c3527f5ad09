//! Memory that a caller's process has on a CUDA device, as regions see it.
//!
//! Owns what a caller says of it and what is asked of whoever opens it. Opens nothing itself: CUDA is at home with libtorch, and a
//! node brings both together ([`DeviceMemory`]).
//!
//! Invariant: memory is opened by a handle of CUDA's own and by nothing else; what it is part of is the driver's to say.

use std::{fmt, io, sync::Arc};

/// The bytes of a handle: `CUipcMemHandle` of CUDA's driver, `cudaIpcMemHandle_t` of its runtime.
pub const HANDLE_BYTES: usize = 64;

/// A handle of another process's memory. It is what lets in, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeviceHandle(pub [u8; HANDLE_BYTES]);

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceHandle(..)")
    }
}

/// Who opens memory of other processes on devices.
pub trait DeviceMemory: fmt::Debug + Send + Sync + 'static {
    /// Opens the memory of a handle on the device with this index. Where it cannot be, the system's words for it, which are an
    /// operator's to read and no caller's.
    fn open(&self, device: u16, handle: &DeviceHandle) -> Result<Box<dyn DeviceObject>, String>;
}

/// Memory on a device that is open for as long as this is held.
pub trait DeviceObject: fmt::Debug + Send + Sync {
    /// How long it is, in bytes.
    fn size(&self) -> u64;

    /// Fills the buffer from there.
    fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()>;

    /// Writes the bytes there; they are there for the device when this returns.
    fn write(&self, bytes: &[u8], to: u64) -> io::Result<()>;
}

/// What a caller registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaRegistration<'a> {
    /// CUDA's handle, as it came: it must have [`HANDLE_BYTES`].
    pub handle: &'a [u8],
    /// The device's index, as it came.
    pub device: i64,
    /// How long the region is, in bytes; it begins where the memory begins.
    pub bytes: u64,
}

/// A region of CUDA memory as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaRegion {
    /// Its name.
    pub name: String,
    /// The device's index.
    pub device: u16,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// Memory that was opened, and by what.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) device: u16,
    pub(super) handle: DeviceHandle,
    pub(super) object: Box<dyn DeviceObject>,
}

/// Nobody opens anything, or somebody does.
pub(super) type Opener = Option<Arc<dyn DeviceMemory>>;
