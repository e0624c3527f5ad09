//! Compiled packages (`.pt2` with AOTInductor's code): checked, unpacked, opened, called.
//!
//! A package is a shared library in a zip file, so everything that can be wrong with it is found before it is opened: another
//! device, processor or libtorch, a library that is cut short, inputs that it was not compiled for (it does not look at them
//! again: they are memory to it). What is unpacked is removed once the library is open, and whatever fails before.

mod archive;
mod elf;
mod features;
mod source;
mod treespec;

use std::{
    ffi::{CString, c_char, c_int},
    path::Path,
    ptr::{self, NonNull},
};

use mesh_backend::{BackendError, Binding, Signature, Source, Step, ValueType};
use mesh_types::ModelConfig;
use tch::{Device, Tensor};

use self::{
    archive::{Archive, Unpacked},
    source::Bounds,
};
use crate::{
    fault,
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
    /// For each tensor that the code takes, the input of the configuration.
    inputs: Vec<usize>,
    /// What the extents of each must lie between.
    bounds: Vec<Bounds>,
    /// For each output of the configuration, which of the tensors it is that the code gives.
    results: Vec<usize>,
    /// How many it gives.
    gives: usize,
    bytes: u64,
    _unpacked: Option<Unpacked>,
}

/// What a package takes and gives, without running any of its code.
pub(crate) fn signature(path: &Path) -> Result<Signature, BackendError> {
    Archive::open(path)?.contract().map(|contract| contract.signature)
}

// SAFETY: the object behind the pointer is a loader with its compiled model, tied to no thread; it is neither copied nor shared
// here, so only one thread at a time uses it.
unsafe impl Send for Package {}

impl Package {
    /// Opens a package on a device.
    pub(crate) fn load(path: &Path, device: Device, config: &ModelConfig) -> Result<Self, BackendError> {
        let mut archive = Archive::open(path)?;
        archive.made_for.check(device)?;
        let contract = archive.contract()?;
        let binding = Binding::of(&contract.signature, config)?;
        let mut inputs = Vec::new();
        binding.arguments.iter().for_each(|source| flatten(source, &mut inputs));
        let leaves = ways(&contract.signature.result);
        let place = |way: &Vec<Step>| leaves.iter().position(|leaf| leaf == way);
        let results: Option<Vec<usize>> = binding.results.iter().map(place).collect();
        let (Some(results), true) = (results, inputs.len() == contract.bounds.len()) else {
            return Err(BackendError::Load(
                "the package's inputs and outputs cannot be told".to_owned(),
            ));
        };
        let unpacked = archive.unpack()?;
        elf::check(&unpacked.library)?;
        let failed = |failure: Failure| fault::load(&failure);
        let library = path_text(&unpacked.library).map_err(failed)?;
        let folder = path_text(unpacked.folder.path()).map_err(failed)?;
        let weights = match &unpacked.weights {
            Some(weights) => path_text(weights).map_err(failed)?,
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
        let package = NonNull::new(package).ok_or_else(|| fault::load(&Failure::last()))?;
        Ok(Self {
            package,
            inputs,
            bounds: contract.bounds,
            results,
            gives: leaves.len(),
            bytes: unpacked.bytes,
            // The library stays mapped without its name. A GPU's kernels are read from the folder when they are first used.
            _unpacked: (device != Device::Cpu).then_some(unpacked),
        })
    }

    /// What its code and constants take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Calls it with the configuration's inputs.
    pub(crate) fn call(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Failure> {
        let mut arguments: Vec<*const torch_sys::C_tensor> = Vec::with_capacity(self.inputs.len());
        for (input, bounds) in self.inputs.iter().zip(&self.bounds) {
            let Some(tensor) = inputs.get(*input).and_then(Option::as_ref) else {
                return Err(Failure::of("an input is missing"));
            };
            bounds.check(&tensor.size()).map_err(Failure::of)?;
            arguments.push(tensor.as_ptr());
        }
        let mut outputs = vec![ptr::null_mut(); self.gives];
        // SAFETY: the package is alive; `arguments` holds as many live tensors as is said, of the types and extents that the
        // code was compiled for (the binding and the bounds), and `outputs` has as many places as is said.
        let count = unsafe {
            mesh_torch_package_call(
                self.package.as_ptr(),
                arguments.as_ptr(),
                arguments.len(),
                outputs.as_mut_ptr(),
                outputs.len(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(Failure::last());
        };
        // SAFETY: a call that succeeded has written that many new tensors, which the wrappers then own.
        let mut given: Vec<Option<Tensor>> = outputs
            .into_iter()
            .take(count)
            .map(|output| Some(unsafe { Tensor::from_ptr(output) }))
            .collect();
        let wanted = self.results.iter().enumerate();
        let take = |(output, place): (usize, &usize)| {
            let tensor = given.get_mut(*place).and_then(Option::take);
            tensor.ok_or_else(|| Failure {
                text: format!("the package returned {count} tensors, and this is number {place}"),
                output: Some(output),
            })
        };
        wanted.map(take).collect()
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mesh_torch_package_free(self.package.as_ptr()) }
    }
}

fn flatten(source: &Source, inputs: &mut Vec<usize>) {
    match source {
        Source::Input(input) => inputs.push(*input),
        Source::Absent => {}
        Source::List(members) | Source::Tuple(members) => members.iter().for_each(|member| flatten(member, inputs)),
        Source::Dict(members) => members.iter().for_each(|(_, member)| flatten(member, inputs)),
    }
}

/// The ways to all tensors of a result, in its order.
fn ways(value: &ValueType) -> Vec<Vec<Step>> {
    let behind = |step: Step, value: &ValueType| {
        let ways = ways(value).into_iter();
        ways.map(move |way| std::iter::once(step.clone()).chain(way).collect())
            .collect::<Vec<Vec<Step>>>()
    };
    match value {
        ValueType::Tuple(items) => {
            let items = items.iter().enumerate();
            items
                .flat_map(|(index, item)| behind(Step::Index(index), item))
                .collect()
        }
        ValueType::Record(fields) => {
            let fields = fields.iter();
            fields
                .flat_map(|(key, field)| behind(Step::Key(key.clone()), field))
                .collect()
        }
        _ => vec![Vec::new()],
    }
}
