//! Memory that another process has on a CUDA device: opened by CUDA's handle for it, copied from and to, closed when it is dropped.
//!
//! Uses CUDA's driver and not its runtime, because the driver is there wherever a GPU is, and because it shares the device's primary
//! context with libtorch without choosing a device for the calling thread. Decides nothing about whose memory it is.
//!
//! Invariants: memory is closed once, and after its last copy; a copy beyond what was opened is refused; what is written is on the
//! device when the call returns. Freed by its owner while it is open here, its content is undefined (CUDA's rule, and the reason why
//! only an operator can allow this).

use std::{
    collections::HashMap,
    ffi::{c_int, c_uint},
    fmt, io,
    path::Path,
    ptr,
    sync::{Arc, Mutex, PoisonError},
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

/// Opens memory of other processes.
pub struct CudaMemory {
    driver: Arc<Driver>,
    /// Those of devices that were asked for, by index: to make one and to end it costs more than all copies, so they stay.
    contexts: Mutex<HashMap<u16, Arc<HeldContext>>>,
}

impl fmt::Debug for CudaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaMemory").finish_non_exhaustive()
    }
}

impl CudaMemory {
    /// Starts the driver by the path of its library, or by its name ([`CUDA_DRIVER`]); an error where there is no CUDA device.
    pub fn start(library: &Path) -> Result<Self, CudaMemoryError> {
        Ok(Self {
            driver: Arc::new(Driver::start(library)?),
            contexts: Mutex::default(),
        })
    }

    /// The context of the device with this index; there are as many as devices.
    fn context(&self, device: u16) -> Result<Arc<HeldContext>, CudaMemoryError> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = contexts.get(&device) {
            return Ok(held.clone());
        }
        let held = Arc::new(HeldContext::retain(self.driver.clone(), device)?);
        contexts.insert(device, held.clone());
        Ok(held)
    }

    /// Opens the memory of a handle on the device with this index. Opened again, it is the same memory. What has a size that the driver
    /// does not tell is not opened: nothing else would keep copies within it.
    pub fn open(&self, device: u16, handle: [u8; 64]) -> Result<OpenMemory, CudaMemoryError> {
        let held = self.context(device)?;
        let address = held.within(|driver| {
            let mut address = 0;
            // SAFETY: the pointer is to a number of this frame, and the handle is a copy; what is no handle is refused.
            let answer = unsafe { (driver.open)(&raw mut address, Handle(handle), LAZY_PEER_ACCESS) };
            driver.check("cuIpcOpenMemHandle", answer).map(|()| address)
        })?;
        // Closed when it is dropped, also where its size is not told.
        let mut open = OpenMemory { held, address, size: 0 };
        open.size = open.held.within(|driver| size_behind(driver, address))?;
        Ok(open)
    }
}

/// How much of its allocation lies behind an address.
fn size_behind(driver: &Driver, address: Address) -> Result<u64, CudaMemoryError> {
    let (mut base, mut size) = (0, 0);
    // SAFETY: the pointers are to numbers of this frame.
    let answer = unsafe { (driver.range)(&raw mut base, &raw mut size, address) };
    driver.check("cuMemGetAddressRange", answer)?;
    let behind = address
        .checked_sub(base)
        .and_then(|before| (size as u64).checked_sub(before));
    behind.ok_or(CudaMemoryError::Range)
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
    held: Arc<HeldContext>,
    address: Address,
    size: u64,
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
    /// How long it is, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer from there. Waits for what the calling process has given the device's default stream.
    pub fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        let address = self.at(from, buffer.len())?;
        let (to, count) = (buffer.as_mut_ptr().cast(), buffer.len());
        let read = self.held.within(|driver| {
            // SAFETY: the buffer is borrowed mutably and has so many bytes, and so many of open memory lie behind the address.
            driver.check("cuMemcpyDtoH", unsafe { (driver.to_host)(to, address, count) })
        });
        read.map_err(io::Error::other)
    }

    /// Writes the bytes there, and waits until they have arrived.
    pub fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        let address = self.at(to, bytes.len())?;
        let written = self.held.within(|driver| {
            // SAFETY: the bytes are borrowed, and so many of open memory lie behind the address.
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
        let within = end.is_some_and(|end| end <= self.size);
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
