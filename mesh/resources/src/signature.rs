//! What the author of a model signs: a manifest that says which file is which version of which model, and how it is called.
//!
//! Owns the manifest's text, to the byte, and how signers and signatures are written. Checks no signature: whoever keeps
//! resources does. The tenant is not part of it: which signers a tenant wants is the tenant's, and a model may be published for
//! several.

use mesh_types::{ArtifactFormat, ModelConfig, ModelId, TensorSpec, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ModelVersionSpec, Problem};

/// The most signers that a tenant or a mesh names.
pub const MAX_SIGNERS: usize = 16;
const FORM: &str = "mesh-model/1";
const SCHEME: &str = "ed25519:";
const KEY_DIGITS: usize = 64;
const SIGNATURE_DIGITS: usize = 128;

/// The signature of a version's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSignature {
    /// Whose it is: `ed25519:` and the public key, 64 lowercase hexadecimal digits.
    pub signer: String,
    /// The ed25519 signature, 128 lowercase hexadecimal digits.
    pub signature: String,
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a signer's public key.
pub(crate) fn is_signer(text: &str) -> bool {
    text.strip_prefix(SCHEME).is_some_and(|key| digits(key, KEY_DIGITS))
}

/// What is wrong with a list of signers in itself.
pub(crate) fn check_signers(field: &str, signers: &[String], problems: &mut Vec<Problem>) {
    if signers.len() > MAX_SIGNERS {
        let text = format!("{} signers, at most {MAX_SIGNERS} are allowed", signers.len());
        problems.push(Problem::new(field, text));
    }
    for (index, signer) in signers.iter().enumerate().filter(|(_, signer)| !is_signer(signer)) {
        let shown: String = signer.chars().take(80).collect();
        let text = format!("'{shown}' is no public key: ed25519: and 64 lowercase hexadecimal digits");
        problems.push(Problem::new(format!("{field}[{index}]"), text));
    }
}

impl ModelSignature {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        if !is_signer(&self.signer) {
            let text = "a signer is ed25519: and 64 lowercase hexadecimal digits";
            problems.push(Problem::new("spec.signature.signer", text));
        }
        if !digits(&self.signature, SIGNATURE_DIGITS) {
            let text = "a signature is 128 lowercase hexadecimal digits";
            problems.push(Problem::new("spec.signature.signature", text));
        }
    }
}

#[derive(Serialize)]
struct Manifest<'a> {
    manifest: &'static str,
    model: &'a ModelId,
    version: Version,
    format: ArtifactFormat,
    sha256: &'a str,
    max_batch_size: u32,
    input: &'a [TensorSpec],
    output: &'a [TensorSpec],
}

/// The text that a version's signature is of; none where the version has no file.
pub fn model_manifest(model: &ModelId, version: Version, spec: &ModelVersionSpec) -> Option<String> {
    let artifact = spec.artifact.as_ref()?;
    let ModelConfig {
        max_batch_size,
        input,
        output,
        ..
    } = &spec.config;
    let manifest = Manifest {
        manifest: FORM,
        model,
        version,
        format: spec.format,
        sha256: &artifact.sha256,
        max_batch_size: *max_batch_size,
        input,
        output,
    };
    serde_json::to_string(&manifest).ok()
}

#[cfg(test)]
mod tests {
    use mesh_types::DataType;

    use super::*;
    use crate::ArtifactRef;

    #[test]
    fn the_manifest_says_name_version_file_and_what_goes_in_and_out_and_nothing_else() {
        let mut spec: ModelVersionSpec = serde_json::from_value(serde_json::json!({
            "format": "torchscript",
            "artifact": {"sha256": "ab".repeat(32), "bytes": 7},
            "config": {"max_batch_size": 8,
                "input": [{"name": "x", "datatype": "FP32", "dims": [2]}],
                "output": [{"name": "y", "datatype": "FP32", "dims": [-1]}]},
        }))
        .unwrap();
        let model = ModelId::parse("digits").unwrap();
        let text =
            |spec: &ModelVersionSpec, version| model_manifest(&model, Version::new(version).unwrap(), spec).unwrap();
        let first = text(&spec, 3);
        let json: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!((&json["model"], &json["version"]), (&"digits".into(), &3.into()));
        assert_eq!(json["sha256"], "ab".repeat(32));
        assert_eq!(json["input"][0]["name"], "x");
        assert!(
            first.starts_with(r#"{"manifest":"mesh-model/1","model":"digits","version":3,"#),
            "{first}"
        );
        assert_ne!(text(&spec, 4), first);
        spec.description = Some("for people".to_owned());
        spec.unloaded = true;
        assert_eq!(text(&spec, 3), first);
        spec.config.input[0].datatype = DataType::Fp64;
        assert_ne!(text(&spec, 3), first);
        spec.artifact = Some(ArtifactRef {
            sha256: "cd".repeat(32),
            bytes: 7,
        });
        assert!(text(&spec, 3).contains("cdcd"));
        spec.artifact = None;
        assert_eq!(model_manifest(&model, Version::FIRST, &spec), None);
    }

    #[test]
    fn so_many_signers_are_named_and_each_is_a_key() {
        let key = format!("ed25519:{}", "0a".repeat(32));
        let found = |signers: &[String]| {
            let mut problems = Vec::new();
            check_signers("spec.required_signers", signers, &mut problems);
            problems.len()
        };
        assert_eq!(found(&vec![key.clone(); MAX_SIGNERS]), 0);
        assert_eq!(found(&vec![key.clone(); MAX_SIGNERS + 1]), 1);
        assert_eq!(found(&[key, "ed25519:0A".to_owned(), String::new()]), 2);
    }
}
