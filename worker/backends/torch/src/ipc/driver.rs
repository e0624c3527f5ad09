//! The calls of CUDA's driver by which memory of another process is opened and copied.
//!
//! Owns the library and its functions, and turns their answers into errors. Knows nothing of what the memory is for.
//!
//! Invariants: the library is never closed, so its functions stay where they are; each function has the signature that `cuda.h`
//! gives it by this name.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    path::{Path, PathBuf},
    ptr,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// `CUdeviceptr`.
pub(super) type Address = u64;
/// `CUcontext`.
pub(super) type Context = *mut c_void;
type Stream = *mut c_void;
type Answer = c_int;

/// `CUipcMemHandle`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Handle(pub(super) [u8; 64]);

/// Why memory on a device is not opened or copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaMemoryError {
    /// The library is not there, or not what it should be.
    #[error("the CUDA driver {} cannot be used: {why}", path.display())]
    Driver {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// There is no such device.
    #[error("there is no CUDA device {0}")]
    NoDevice(u16),
    /// The driver tells an allocation that the memory does not lie in.
    #[error("cuMemGetAddressRange answers another allocation")]
    Range,
    /// The driver refuses a call.
    #[error("{call} answers {name}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The driver's name for the error.
        name: String,
    },
}

macro_rules! driver {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*);)*) => {
        /// The functions that are used.
        pub(super) struct Driver {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> Answer,)*
        }

        impl Driver {
            /// Finds the functions.
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the signature is that of this function in `cuda.h`, since CUDA 11; the library stays.
                    $($name: *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}

driver! {
    init = "cuInit": fn(c_uint);
    device_count = "cuDeviceGetCount": fn(*mut c_int);
    device = "cuDeviceGet": fn(*mut c_int, c_int);
    retain = "cuDevicePrimaryCtxRetain": fn(*mut Context, c_int);
    release = "cuDevicePrimaryCtxRelease_v2": fn(c_int);
    push = "cuCtxPushCurrent_v2": fn(Context);
    pop = "cuCtxPopCurrent_v2": fn(*mut Context);
    open = "cuIpcOpenMemHandle_v2": fn(*mut Address, Handle, c_uint);
    close = "cuIpcCloseMemHandle": fn(Address);
    range = "cuMemGetAddressRange_v2": fn(*mut Address, *mut usize, Address);
    to_host = "cuMemcpyDtoH_v2": fn(*mut c_void, Address, usize);
    to_device = "cuMemcpyHtoD_v2": fn(Address, *const c_void, usize);
    wait = "cuStreamSynchronize": fn(Stream);
    error_name = "cuGetErrorName": fn(c_int, *mut *const c_char);
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

impl Driver {
    /// Opens the driver and starts it; an error where there is none, or no device.
    pub(super) fn start(path: &Path) -> Result<Self, CudaMemoryError> {
        let not = |why: String| CudaMemoryError::Driver {
            path: path.to_owned(),
            why,
        };
        // SAFETY: opening runs the library's initialisers: it is CUDA's driver, or what the operator has named as it.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|error| not(error.to_string()))?;
        let driver = Self::find(&library).map_err(|error| not(error.to_string()))?;
        // Never closed: threads of the driver's own run in it.
        let _ = library.into_raw();
        // SAFETY: 0 is the only value that the call knows.
        driver.check("cuInit", unsafe { (driver.init)(0) })?;
        let mut count = 0;
        // SAFETY: the pointer is to a number of this frame.
        driver.check("cuDeviceGetCount", unsafe { (driver.device_count)(&raw mut count) })?;
        if count < 1 {
            return Err(not("it knows no device".to_owned()));
        }
        Ok(driver)
    }

    /// The driver's number for the device with this index.
    pub(super) fn number(&self, index: u16) -> Result<c_int, CudaMemoryError> {
        let mut number = 0;
        // SAFETY: the pointer is to a number of this frame.
        let answer = unsafe { (self.device)(&raw mut number, c_int::from(index)) };
        (answer == 0).then_some(number).ok_or(CudaMemoryError::NoDevice(index))
    }

    /// What an answer means.
    pub(super) fn check(&self, call: &'static str, answer: Answer) -> Result<(), CudaMemoryError> {
        if answer == 0 {
            return Ok(());
        }
        Err(CudaMemoryError::Refused {
            call,
            name: self.name_of(answer),
        })
    }

    fn name_of(&self, answer: Answer) -> String {
        let mut name: *const c_char = ptr::null();
        // SAFETY: the pointer is to a pointer of this frame.
        let known = unsafe { (self.error_name)(answer, &raw mut name) } == 0;
        if !known || name.is_null() {
            return format!("error {answer}");
        }
        // SAFETY: what the call has written is a text of the library's own, which stays and ends with a NUL.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}
