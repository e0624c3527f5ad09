//! A TorchScript module behind the shim: loading, its signature, its calls and its other forms.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    ptr::{self, NonNull},
};

use mesh_backend::{Binding, Signature, Source, Step};
use mesh_types::{ModelParameters, Variant};
use tch::{Device, Tensor};

use crate::schema;

#[repr(C)]
struct RawModule {
    _private: [u8; 0],
}

#[repr(C)]
struct RawText {
    _private: [u8; 0],
}

/// Bytes that somebody else holds.
#[repr(C)]
struct RawBytes {
    data: *const c_char,
    size: usize,
}

impl RawBytes {
    fn of(text: &str) -> Self {
        Self {
            data: text.as_ptr().cast(),
            size: text.len(),
        }
    }
}

// SAFETY: the signatures are those of shim/*.cpp, which are compiled with this crate; none of the functions throws.
unsafe extern "C" {
    fn mesh_torch_error() -> *const c_char;
    fn mesh_torch_error_about() -> c_int;
    fn mesh_torch_module_load(path: *const c_char, cuda: c_int) -> *mut RawModule;
    fn mesh_torch_module_free(module: *mut RawModule);
    fn mesh_torch_module_signature(module: *const RawModule) -> *mut RawText;
    fn mesh_torch_text(text: *const RawText) -> *const c_char;
    fn mesh_torch_text_free(text: *mut RawText);
    fn mesh_torch_module_plan(
        module: *mut RawModule,
        numbers: *const i64,
        number_count: usize,
        keys: *const *const c_char,
        key_count: usize,
    ) -> bool;
    fn mesh_torch_module_call(
        module: *const RawModule,
        inputs: *const *const torch_sys::C_tensor,
        texts: *const RawBytes,
        text_count: usize,
        outputs: *mut *mut torch_sys::C_tensor,
    ) -> bool;
    fn mesh_torch_module_turn(module: *mut RawModule, form: c_int) -> bool;
    fn mesh_torch_module_bytes(module: *const RawModule) -> u64;
    fn mesh_torch_module_nodes(module: *const RawModule) -> u64;
}

/// What the smallest module takes beyond its tensors, and what each node of its code adds to that. libtorch makes several copies of the
/// code as it runs, optimised for the shapes that come; measured on perceptrons, convolutions, an encoder and control flow, as written and in
/// other forms, a node was 4 to 15 KiB.
pub(crate) const CODE_BYTES: u64 = 64 * 1024;
const NODE_BYTES: u64 = 8 * 1024;

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// The load or the call as a whole.
    All,
    /// The memory that there is.
    Memory,
    /// What the caller gave.
    Input,
    /// This output, where the model ran.
    Output(usize),
}

/// What libtorch said when a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its words, uncut.
    pub(crate) text: String,
    pub(crate) about: About,
}

/// The shim's number for a failure for want of memory; outputs are from 0 on.
const NO_MEMORY: c_int = -2;

impl Failure {
    /// What the thread's last call had to say.
    pub(crate) fn last() -> Self {
        // SAFETY: the text is the thread's own and stays until its next call that fails.
        let text = unsafe { CStr::from_ptr(mesh_torch_error()) };
        // SAFETY: only reads a number of this thread.
        let about = unsafe { mesh_torch_error_about() };
        Self {
            text: text.to_string_lossy().into_owned(),
            about: match usize::try_from(about) {
                Ok(output) => About::Output(output),
                Err(_) if about == NO_MEMORY => About::Memory,
                Err(_) => About::All,
            },
        }
    }

    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            about: About::All,
        }
    }

    pub(crate) fn of_input(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            about: About::Input,
        }
    }

    pub(crate) fn of_output(output: usize, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            about: About::Output(output),
        }
    }
}

/// The shim's number for a device: -1 is the host.
pub(crate) fn device_number(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => c_int::try_from(index).unwrap_or(c_int::MAX),
        _ => -1,
    }
}

pub(crate) fn path_text(path: &Path) -> Result<CString, Failure> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Failure::of("the path holds a zero byte"))
}

/// A loaded module. It is used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Module {
    module: NonNull<RawModule>,
    outputs: usize,
}

// SAFETY: the object behind the pointer is a module and its plan, whose parts are counted atomically and tied to no thread. Calls
// need a reference, and the type is not Sync (a pointer is not), so only one thread at a time uses it; and nobody else has a part
// of it: every module, whatever its form, is a load of its own, with code and tensors of its own.
unsafe impl Send for Module {}

impl Module {
    /// Loads a file onto a device.
    pub(crate) fn load(path: &Path, device: Device) -> Result<Self, Failure> {
        let path = path_text(path)?;
        // SAFETY: the path ends in a zero byte; the answer is null or a new object.
        let module = unsafe { mesh_torch_module_load(path.as_ptr(), device_number(device)) };
        let module = NonNull::new(module).ok_or_else(Failure::last)?;
        Ok(Self { module, outputs: 0 })
    }

    /// What it takes and gives.
    pub(crate) fn signature(&self) -> Result<Signature, Failure> {
        // SAFETY: the module is alive; the answer is null or a new text.
        let text =
            NonNull::new(unsafe { mesh_torch_module_signature(self.module.as_ptr()) }).ok_or_else(Failure::last)?;
        // SAFETY: the text is alive and ends in a zero byte.
        let json = unsafe { CStr::from_ptr(mesh_torch_text(text.as_ptr())) };
        let signature = schema::read(&json.to_string_lossy());
        // SAFETY: made above and freed once; nothing borrows it any more.
        unsafe { mesh_torch_text_free(text.as_ptr()) };
        signature.map_err(|error| Failure::of(format!("the module's signature cannot be read: {error}")))
    }

    /// Says how it is called from now on.
    pub(crate) fn plan(&mut self, binding: &Binding) -> Result<(), Failure> {
        let plan = Plan::of(binding)?;
        let keys: Vec<*const c_char> = plan.keys.iter().map(|key| key.as_ptr()).collect();
        // SAFETY: the module is alive, the arrays are as long as is said and only read during the call.
        let planned = unsafe {
            mesh_torch_module_plan(
                self.module.as_ptr(),
                plan.numbers.as_ptr(),
                plan.numbers.len(),
                keys.as_ptr(),
                keys.len(),
            )
        };
        self.outputs = binding.results.len();
        planned.then_some(()).ok_or_else(Failure::last)
    }

    /// Calls it as planned, with an input for each of the configuration (one that is none is left out) and the request's parameters.
    pub(crate) fn call(&self, inputs: &[Option<Tensor>], parameters: &ModelParameters) -> Result<Vec<Tensor>, Failure> {
        let inputs: Vec<*const torch_sys::C_tensor> = inputs
            .iter()
            .map(|input| input.as_ref().map_or(ptr::null(), |tensor| tensor.as_ptr()))
            .collect();
        let texts = parameters.iter().flat_map(|(name, text)| [name, text]);
        let texts: Vec<RawBytes> = texts.map(RawBytes::of).collect();
        let mut outputs = vec![ptr::null_mut(); self.outputs];
        // SAFETY: the module is alive; the plan speaks of the configuration's inputs only, each of which has a place in
        // `inputs` with a live tensor or null, and of as many outputs as `outputs` has places for; the texts are alive, as many as
        // is said, and only read during the call.
        let called = unsafe {
            mesh_torch_module_call(
                self.module.as_ptr(),
                inputs.as_ptr(),
                texts.as_ptr(),
                texts.len(),
                outputs.as_mut_ptr(),
            )
        };
        if !called {
            return Err(Failure::last());
        }
        // SAFETY: a call that succeeded has written a new tensor into each place, which the wrapper then owns.
        Ok(outputs
            .into_iter()
            .map(|output| unsafe { Tensor::from_ptr(output) })
            .collect())
    }

    /// The same in another form, called in the same way.
    pub(crate) fn turned(self, variant: Variant) -> Result<Self, Failure> {
        let form = match variant {
            Variant::Original => return Ok(self),
            Variant::Frozen => 1,
            Variant::Optimized => 2,
            Variant::Bf16 => 3,
            Variant::Fp16 => 4,
        };
        // SAFETY: the module is alive and this thread's alone. Where it fails it is dropped, not called.
        let turned = unsafe { mesh_torch_module_turn(self.module.as_ptr(), form) };
        turned.then_some(self).ok_or_else(Failure::last)
    }

    /// Bytes of its parameters, buffers, other attributes and constants.
    pub(crate) fn bytes(&self) -> u64 {
        // SAFETY: the module is alive and only looked at.
        unsafe { mesh_torch_module_bytes(self.module.as_ptr()) }
    }

    /// What it takes of the host's memory beyond its tensors, about: for its code, and for what libtorch makes of that as it runs.
    pub(crate) fn code_bytes(&self) -> u64 {
        // SAFETY: the module is alive and only looked at.
        let nodes = unsafe { mesh_torch_module_nodes(self.module.as_ptr()) };
        CODE_BYTES.saturating_add(nodes.saturating_mul(NODE_BYTES))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mesh_torch_module_free(self.module.as_ptr()) }
    }
}

/// A binding in the shim's numbers.
#[derive(Debug, Default)]
struct Plan {
    numbers: Vec<i64>,
    keys: Vec<CString>,
}

impl Plan {
    fn of(binding: &Binding) -> Result<Self, Failure> {
        let mut plan = Self::default();
        for source in &binding.arguments {
            plan.source(source)?;
        }
        plan.count(binding.results.len());
        for way in &binding.results {
            plan.count(way.len());
            for step in way {
                match step {
                    Step::Index(index) => plan.count(*index),
                    Step::Key(key) => {
                        plan.numbers.push(-1);
                        plan.key(key)?;
                    }
                }
            }
        }
        Ok(plan)
    }

    fn count(&mut self, count: usize) {
        self.numbers.push(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn key(&mut self, key: &str) -> Result<(), Failure> {
        let key = CString::new(key).map_err(|_| Failure::of("a name holds a zero byte"))?;
        self.keys.push(key);
        Ok(())
    }

    fn source(&mut self, source: &Source) -> Result<(), Failure> {
        match source {
            Source::Input(input) => {
                self.numbers.push(0);
                self.count(*input);
            }
            Source::Absent => self.numbers.push(1),
            Source::Parameters => self.numbers.push(5),
            Source::List(members) | Source::Tuple(members) => {
                self.numbers.push(if matches!(source, Source::List(_)) { 2 } else { 3 });
                self.count(members.len());
                members.iter().try_for_each(|member| self.source(member))?;
            }
            Source::Dict(members) => {
                self.numbers.push(4);
                self.count(members.len());
                for (key, member) in members {
                    self.key(key)?;
                    self.source(member)?;
                }
            }
        }
        Ok(())
    }
}
