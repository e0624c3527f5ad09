//! Memory that another process has on a CUDA device: opened by CUDA's handle for it, copied from and to, closed when it is dropped.
//!
//! Uses CUDA's driver and not its runtime, because the driver is there wherever a GPU is, and because it shares the device's primary
//! context with libtorch without choosing a device for the calling thread. Decides nothing about whose memory it is.
//!
//! Invariants: memory is closed once, and after its last copy; a copy beyond what was opened is refused; what is written is on the
//! device when the call returns. Freed by its owner while it is open here, its content is undefined (CUDA's rule, and the reason why
//! only an operator can allow this).

use std::{
    ffi::{c_int, c_uint},
    fmt, io,
    path::Path,
    ptr,
    sync::Arc,
};

mod driver;

#[cfg(test)]
mod tests;

pub use self::driver::CudaMemoryError;
use self::driver::{Address, Context, Driver, Handle};

/// Where systems have the driver's library.
pub const CUDA_DRIVER: &str = "libcuda.so.1";
/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`, the one flag that the call takes.
const LAZY_PEER_ACCESS: c_uint = 1;

/// Opens memory of other processes. Clones share the driver.
#[derive(Debug, Clone)]
pub struct CudaMemory {
    driver: Arc<Driver>,
}

impl CudaMemory {
    /// Starts the driver by the path of its library, or by its name ([`CUDA_DRIVER`]); an error where there is no CUDA device.
    pub fn start(library: &Path) -> Result<Self, CudaMemoryError> {
        Ok(Self {
            driver: Arc::new(Driver::start(library)?),
        })
    }

    /// Opens the memory of a handle on the device with this index. Opened again, it is the same memory.
    pub fn open(&self, device: u16, handle: [u8; 64]) -> Result<OpenMemory, CudaMemoryError> {
        let held = HeldContext::retain(self.driver.clone(), device)?;
        let (address, size) = held.within(|driver| {
            let mut address = 0;
            // SAFETY: the pointer is to a number of this frame, and the handle is a copy; what is no handle is refused.
            let answer = unsafe { (driver.open)(&raw mut address, Handle(handle), LAZY_PEER_ACCESS) };
            driver.check("cuIpcOpenMemHandle", answer)?;
            Ok((address, size_behind(driver, address)))
        })?;
        Ok(OpenMemory { held, address, size })
    }
}

/// How much of its allocation lies behind an address; none where the driver does not say.
fn size_behind(driver: &Driver, address: Address) -> Option<u64> {
    let (mut base, mut size) = (0, 0);
    // SAFETY: the pointers are to numbers of this frame.
    let answer = unsafe { (driver.range)(&raw mut base, &raw mut size, address) };
    driver.check("cuMemGetAddressRange", answer).ok()?;
    (size as u64).checked_sub(address.checked_sub(base)?)
}

/// A device's primary context, held for as long as this is.
struct HeldContext {
    driver: Arc<Driver>,
    device: c_int,
    context: Context,
}

// SAFETY: a context may be made current on any thread, on many at a time (CUDA driver API, context management), and its pointer is
// used for nothing else.
unsafe impl Send for HeldContext {}
// SAFETY: as above.
unsafe impl Sync for HeldContext {}

impl HeldContext {
    fn retain(driver: Arc<Driver>, index: u16) -> Result<Self, CudaMemoryError> {
        let device = driver.number(index)?;
        let mut context = ptr::null_mut();
        // SAFETY: the pointer is to a pointer of this frame, and the device's number is the driver's.
        let answer = unsafe { (driver.retain)(&raw mut context, device) };
        driver.check("cuDevicePrimaryCtxRetain", answer)?;
        Ok(Self {
            driver,
            device,
            context,
        })
    }

    /// Does something while the context is current on this thread, which has its former one again afterwards.
    fn within<T>(&self, act: impl FnOnce(&Driver) -> Result<T, CudaMemoryError>) -> Result<T, CudaMemoryError> {
        let driver = &*self.driver;
        // SAFETY: the context is held.
        driver.check("cuCtxPushCurrent", unsafe { (driver.push)(self.context) })?;
        let done = act(driver);
        let mut popped = ptr::null_mut();
        // SAFETY: the pointer is to a pointer of this frame, and this thread has pushed.
        let answer = unsafe { (driver.pop)(&raw mut popped) };
        driver.check("cuCtxPopCurrent", answer)?;
        done
    }
}

impl Drop for HeldContext {
    fn drop(&mut self) {
        // SAFETY: retained once, released once. There is nobody to tell of an error, and nothing to be done about it.
        let _ = unsafe { (self.driver.release)(self.device) };
    }
}

/// Memory of another process that is open.
pub struct OpenMemory {
    held: HeldContext,
    address: Address,
    size: Option<u64>,
}

impl fmt::Debug for OpenMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OpenMemory");
        shown
            .field("device", &self.held.device)
            .field("size", &self.size)
            .finish()
    }
}

impl OpenMemory {
    /// How long it is, in bytes; none where the driver does not say.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Fills the buffer from there. Waits for what the calling process has given the device's default stream.
    pub fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        let address = self.at(from, buffer.len())?;
        let (to, count) = (buffer.as_mut_ptr().cast(), buffer.len());
        let read = self.held.within(|driver| {
            // SAFETY: the buffer is borrowed mutably and has so many bytes; the address lies within open memory as far as its size
            // is known, and the driver refuses what does not.
            driver.check("cuMemcpyDtoH", unsafe { (driver.to_host)(to, address, count) })
        });
        read.map_err(io::Error::other)
    }

    /// Writes the bytes there, and waits until they have arrived.
    pub fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        let address = self.at(to, bytes.len())?;
        let written = self.held.within(|driver| {
            // SAFETY: the bytes are borrowed, and the address lies within open memory as far as its size is known.
            let answer = unsafe { (driver.to_device)(address, bytes.as_ptr().cast(), bytes.len()) };
            driver.check("cuMemcpyHtoD", answer)?;
            // A copy from memory that is not pinned may still be under way when the call returns.
            // SAFETY: no stream is the default stream.
            driver.check("cuStreamSynchronize", unsafe { (driver.wait)(ptr::null_mut()) })
        });
        written.map_err(io::Error::other)
    }

    /// The address of a part that lies within.
    fn at(&self, offset: u64, count: usize) -> io::Result<Address> {
        let end = offset.checked_add(count as u64);
        let within = end.is_some_and(|end| self.size.is_none_or(|size| end <= size));
        let address = self.address.checked_add(offset).filter(|_| within);
        address.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

impl Drop for OpenMemory {
    fn drop(&mut self) {
        let closed = self.held.within(|driver| {
            // SAFETY: opened once, closed once, and nobody copies any more: they would hold on to this.
            driver.check("cuIpcCloseMemHandle", unsafe { (driver.close)(self.address) })
        });
        // The process goes on without it; what stays mapped is bounded by how much may be registered.
        let _ = closed;
    }
}
