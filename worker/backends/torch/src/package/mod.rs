//! Compiled packages (`.pt2` with AOTInductor's code): checked, unpacked, opened, called.
//!
//! A package is a shared library in a zip file, so everything that can be wrong with it is found before it is opened: another
//! device, processor or libtorch, a library that is cut short, inputs that it was not compiled for (it does not look at them
//! again: they are memory to it), weights that are missing. What is unpacked is removed once the library is open, and whatever
//! fails before.

mod archive;
mod code;
mod elf;
mod extents;
mod features;
mod plan;
mod source;
mod symbols;
mod treespec;

use std::{
    ffi::{CString, c_char, c_int},
    path::Path,
    ptr::{self, NonNull},
};

use mesh_backend::{BackendError, Signature};
use mesh_types::ModelConfig;
use tch::{Device, Tensor};

use self::{
    archive::{Archive, Unpacked},
    plan::Plan,
    source::Contract,
};
use crate::{
    TorchOptions, fault,
    module::{Failure, device_number, path_text},
};

#[repr(C)]
struct RawPackage {
    _private: [u8; 0],
}

// SAFETY: the signatures are those of shim/package.cpp, which is compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_package_load(
        library: *const c_char,
        folder: *const c_char,
        weights: *const c_char,
        cuda: c_int,
    ) -> *mut RawPackage;
    fn mesh_torch_package_free(package: *mut RawPackage);
    fn mesh_torch_package_call(
        package: *const RawPackage,
        inputs: *const *const torch_sys::C_tensor,
        input_count: usize,
        outputs: *mut *mut torch_sys::C_tensor,
        output_count: usize,
    ) -> i64;
}

/// An open package. It is used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Package {
    package: NonNull<RawPackage>,
    plan: Plan,
    remark: String,
    bytes: u64,
    _unpacked: Option<Unpacked>,
}

/// What a package takes and gives, without running any of its code.
pub(crate) fn signature(path: &Path) -> Result<Signature, BackendError> {
    Archive::open(path)?.contract().map(|contract| contract.signature)
}

// SAFETY: the object behind the pointer is a runner with its container, tied to no thread. Calls need a reference, and the type
// is not Sync (a pointer is not), so there is never more than one at a time: the container is told not to lock for itself.
unsafe impl Send for Package {}

impl Package {
    /// Opens a package on a device.
    pub(crate) fn load(
        path: &Path,
        device: Device,
        options: &TorchOptions,
        config: &ModelConfig,
    ) -> Result<Self, BackendError> {
        let mut archive = Archive::open(path)?;
        archive.made_for.check(device)?;
        options.made_by.check_package(archive.made_for.torch())?;
        let remark = archive.code()?.remark();
        let contract = archive.contract()?;
        let plan = Plan::of(&contract, config)?;
        let unpacked = archive.unpack(options.scratch.as_deref())?;
        check_weights(&contract, &unpacked)?;
        elf::check(&unpacked.library)?;
        Ok(Self {
            package: open(&unpacked, device)?,
            plan,
            remark,
            bytes: unpacked.bytes,
            // The library stays mapped without its name. A GPU's kernels are read from the folder when they are first used.
            _unpacked: (device != Device::Cpu).then_some(unpacked),
        })
    }

    /// What its code and constants take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is to be said of its code; empty where nothing is.
    pub(crate) fn remark(&self) -> &str {
        &self.remark
    }

    /// Calls it with the configuration's inputs.
    pub(crate) fn call(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Failure> {
        let arguments = self.plan.arguments(inputs)?;
        let pointers: Vec<*const torch_sys::C_tensor> = arguments.iter().map(|tensor| tensor.as_ptr()).collect();
        let mut outputs = vec![ptr::null_mut(); self.plan.gives];
        // SAFETY: the package is alive; `pointers` holds as many live tensors as is said, of the types and extents that the
        // code was compiled for (the binding and the limits), and `outputs` has as many places as is said.
        let count = unsafe {
            mesh_torch_package_call(
                self.package.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                outputs.as_mut_ptr(),
                outputs.len(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(Failure::last());
        };
        // SAFETY: a call that succeeded has written that many new tensors, which the wrappers then own.
        let given = outputs
            .into_iter()
            .take(count)
            .map(|output| Some(unsafe { Tensor::from_ptr(output) }))
            .collect();
        self.plan.results(given)
    }
}

/// Refuses a package whose constants are neither in its library nor beside it: its code would read them through null.
fn check_weights(contract: &Contract, unpacked: &Unpacked) -> Result<(), BackendError> {
    let wanted = contract.weights_outside;
    let text = match &unpacked.weights {
        _ if wanted == 0 => return Ok(()),
        Some((_, found)) if *found >= wanted => return Ok(()),
        Some(_) => "the package's weights are cut short: compile and publish it again",
        None => {
            "the package was compiled without its weights: compile it with aot_inductor.package_constants_in_so, which is the \
             default, or with aot_inductor.package_constants_on_disk_format=\"binary_blob\""
        }
    };
    Err(BackendError::Load(text.to_owned()))
}

/// Opens what was unpacked and checked.
fn open(unpacked: &Unpacked, device: Device) -> Result<NonNull<RawPackage>, BackendError> {
    let failed = |failure: Failure| fault::load(&failure);
    let library = path_text(&unpacked.library).map_err(failed)?;
    let folder = path_text(unpacked.folder.path()).map_err(failed)?;
    let weights = match &unpacked.weights {
        Some((weights, _)) => path_text(weights).map_err(failed)?,
        None => CString::default(),
    };
    // SAFETY: the paths end in a zero byte; the answer is null or a new object.
    let package = unsafe {
        mesh_torch_package_load(
            library.as_ptr(),
            folder.as_ptr(),
            weights.as_ptr(),
            device_number(device),
        )
    };
    NonNull::new(package).ok_or_else(|| fault::load(&Failure::last()))
}

impl Drop for Package {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mesh_torch_package_free(self.package.as_ptr()) }
    }
}
