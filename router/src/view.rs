//! One snapshot, as a request sees it from its first look to its answer.
//!
//! A door that must know a model to read a body (raw bytes, V1, generate) takes a view, reads by it, and has the request answered by
//! it: what was read for one version of a configuration never meets another. A view is as old as the moment it was taken; it is
//! held for one request, never kept.

use std::sync::Arc;

use mesh_policies::MeshSnapshot;
use mesh_types::{Fault, FaultClass, Label, VersionSelector};

use crate::{
    Answer, Call, Credential, ModelDescription, RouterHandle, RouterParts,
    describe::{describe, request_bound},
};

/// What a request sees of the configuration: one snapshot of it.
#[derive(Clone)]
pub struct View {
    router: RouterHandle,
    snapshot: Arc<MeshSnapshot>,
}

/// Why there is no description of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undescribed {
    /// The caller has no model of that name, or it has no such version.
    Model,
    /// The caller's model has no such label.
    Label(Label),
    /// The caller is not let in.
    Refused(Fault),
}

impl RouterHandle {
    /// What holds now. To be taken once for a request, when its body is there.
    pub fn view(&self) -> View {
        View {
            snapshot: self.parts().snapshots.load_full(),
            router: self.clone(),
        }
    }

    /// Says how a model or endpoint is called, and whether it would take a call now. No hop, no limit.
    pub fn describe(
        &self,
        credential: &Credential,
        name: &str,
        selector: &VersionSelector,
    ) -> Result<ModelDescription, Fault> {
        let parts = self.parts();
        describe(&parts.snapshots.load(), parts, credential, name, selector)
    }
}

impl RouterHandle {
    /// The most bytes that a request of this name may have, before any of it is read; none: what its door takes. `declared` is how many
    /// it says to have.
    pub fn request_bound(
        &self,
        credential: impl FnOnce() -> Credential,
        name: &str,
        declared: Option<u64>,
    ) -> Option<u64> {
        let parts = self.parts();
        request_bound(&parts.snapshots.load(), parts, credential, name, declared)
    }
}

impl View {
    /// Says how a model or endpoint is called, and whether it would take a call.
    pub fn describe(
        &self,
        credential: &Credential,
        name: &str,
        selector: &VersionSelector,
    ) -> Result<ModelDescription, Fault> {
        describe(&self.snapshot, self.parts(), credential, name, selector)
    }

    /// The same, and why there is no such model where there is none: a label that a model does not have is told from a model that is
    /// not there.
    pub fn find(
        &self,
        credential: &Credential,
        name: &str,
        selector: &VersionSelector,
    ) -> Result<ModelDescription, Undescribed> {
        let there = || self.describe(credential, name, &VersionSelector::Default).is_ok();
        match (self.describe(credential, name, selector), selector) {
            (Ok(model), _) => Ok(model),
            (Err(fault), _) if fault.class != FaultClass::NotFound => Err(Undescribed::Refused(fault)),
            (Err(_), VersionSelector::Label(label)) if there() => Err(Undescribed::Label(label.clone())),
            (Err(_), _) => Err(Undescribed::Model),
        }
    }

    /// Answers a call by what is seen here, as [`RouterHandle::infer`] does by what holds when it looks.
    pub fn infer(self, call: Call) -> impl Future<Output = Answer> {
        let call = Box::new(call);
        async move { self.router.infer_boxed(call, Some(self.snapshot)).await }
    }

    pub(crate) fn snapshot(&self) -> &MeshSnapshot {
        &self.snapshot
    }

    pub(crate) fn parts(&self) -> &RouterParts {
        self.router.parts()
    }
}
