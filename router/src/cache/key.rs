//! What stands for a request in the cache: one hash over all that its answer follows from.
//!
//! Every part is written with its length or count before it, so that no two different requests are written alike. Parameters are
//! written by name, since their order means nothing. Numbers are compared by their bytes: 0 and -0 are two requests.
//!
//! Classes are not part of it: they are computed from the outputs, for each caller anew.

use mesh_policies::traffic::unit_text;
use mesh_types::{InferJob, ParameterValue, Parameters};
use sha2::{Digest as _, Sha256};

/// SHA-256 over tenant, endpoint, its serial, arm, version, file, parameters, outputs wanted and inputs.
pub(crate) type Key = [u8; 32];

/// What a key is made from.
pub(crate) struct Asked<'a> {
    pub(crate) endpoint: &'a str,
    /// Of the endpoint's rule: another configuration of it, or another version behind it, is another serial.
    pub(crate) serial: u64,
    pub(crate) arm: &'a str,
    /// Of the version's file.
    pub(crate) digest: Option<&'a str>,
    /// Decides within ensembles, where there are some.
    pub(crate) unit: Option<&'a str>,
    pub(crate) parameters: &'a Parameters,
    pub(crate) job: &'a InferJob,
}

struct Writer(Sha256);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn optional(&mut self, text: Option<&str>) {
        self.count(usize::from(text.is_some()));
        self.bytes(text.unwrap_or_default().as_bytes());
    }
}

/// The kind of a value, since 1 and "1" may mean different things.
const fn kind(value: &ParameterValue) -> u64 {
    match value {
        ParameterValue::Bool(_) => 0,
        ParameterValue::Int(_) => 1,
        ParameterValue::Uint(_) => 2,
        ParameterValue::Double(_) => 3,
        ParameterValue::String(_) => 4,
    }
}

impl Asked<'_> {
    pub(crate) fn key(&self) -> Key {
        let mut writer = Writer(Sha256::new());
        let (job, version) = (self.job, &self.job.version);
        for part in [
            job.tenant.as_str(),
            self.endpoint,
            self.arm,
            version.tenant.as_str(),
            version.model.as_str(),
        ] {
            writer.bytes(part.as_bytes());
        }
        writer.number(self.serial);
        writer.number(version.version.get().into());
        writer.optional(self.digest);
        writer.optional(self.unit);
        let mut parameters: Vec<_> = self.parameters.iter().collect();
        parameters.sort_unstable_by_key(|(name, _)| *name);
        writer.count(parameters.len());
        for (name, value) in parameters {
            writer.bytes(name.as_bytes());
            writer.number(kind(value));
            writer.bytes(unit_text(value).as_bytes());
        }
        writer.count(job.outputs.len());
        for output in &job.outputs {
            writer.bytes(output.as_bytes());
        }
        writer.count(job.inputs.len());
        for input in &job.inputs {
            writer.bytes(input.name.as_bytes());
            writer.bytes(input.datatype.as_str().as_bytes());
            writer.count(input.shape.len());
            for extent in &input.shape {
                writer.number(*extent);
            }
            writer.bytes(&input.data);
        }
        writer.0.finalize().into()
    }
}
