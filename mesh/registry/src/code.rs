//! Models are code: what must hold of a version's file before the version is taken.
//!
//! A version with a file needs its author's signature where its tenant or the mesh wants one, and a signature that is given must
//! hold, wanted or not. The file, where it is an archive, keeps within bounds. A version that is kept off the devices need not
//! be signed: it runs nowhere, and an older one must still be possible to put away.

use mesh_policies::{PublicKey, Signature};
use mesh_resources::{ModelVersionSpec, Problem, ResourceKey, Spec, model_manifest};
use mesh_types::TenantId;

use crate::{RegistryError, rules::Rules};

impl Rules<'_> {
    /// What is wrong with the signature of a version with a file.
    pub(crate) fn signature(
        &self,
        key: &ResourceKey,
        spec: &ModelVersionSpec,
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        let Some(version) = key.as_version().filter(|_| !spec.unloaded) else {
            return Ok(());
        };
        let Some(manifest) = model_manifest(&version.model, version.version, spec) else {
            return Ok(());
        };
        let mut say = |problem: String| problems.push(Problem::new("spec.signature", problem));
        let found = spec.signature.as_ref().map(|signed| {
            let (signer, signature) = (
                signed.signer.parse::<PublicKey>(),
                signed.signature.parse::<Signature>(),
            );
            signer.ok().zip(signature.ok())
        });
        let signer = match found {
            None => None,
            Some(Some((signer, signature))) if signer.holds(manifest.as_bytes(), &signature) => Some(signer),
            Some(_) => {
                say(format!(
                    "the signature is not one of this manifest, which is of version {} of '{}': sign that",
                    version.version, version.model
                ));
                return Ok(());
            }
        };
        let ours = self.wanted_by(&version.tenant)?;
        for (whose, wanted) in [("the mesh", self.signers.to_vec()), ("the tenant", ours)] {
            if wanted.is_empty() || signer.is_some_and(|signer| wanted.contains(&signer)) {
                continue;
            }
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let wanted = wanted.join(" or ");
            say(match signer {
                None => format!("{whose} takes signed models only: have it signed by {wanted} (mesh model sign)"),
                Some(signer) => format!("it is signed by {signer}, and {whose} wants {wanted}"),
            });
        }
        Ok(())
    }

    fn wanted_by(&self, tenant: &TenantId) -> Result<Vec<PublicKey>, RegistryError> {
        let found = self.draft.get(&ResourceKey::tenant(tenant))?;
        let Some(Spec::Tenant(spec)) = found.map(|resource| resource.spec) else {
            return Ok(Vec::new());
        };
        // What is no key was refused when the tenant was written.
        Ok(spec
            .required_signers
            .iter()
            .filter_map(|key| key.parse().ok())
            .collect())
    }
}
