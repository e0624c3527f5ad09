//! Policies as routers ask them. What cannot be read lets nobody call anything, and is said in the log.

use std::{collections::BTreeMap, sync::Arc};

use mesh_authz::Policies;
use mesh_policies::authorization::{Authorization, Judge, Nobody};

use crate::records::Records;

/// Policies and the judge that was made of them, so that they are read anew only where they changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compiled {
    texts: BTreeMap<String, Arc<str>>,
    judge: Option<Arc<dyn Judge>>,
}

impl Compiled {
    pub(crate) fn new(records: &Records, authorization: &Authorization) -> Self {
        Self {
            texts: records.policies.clone(),
            judge: authorization.judge().cloned(),
        }
    }
}

/// Who may call what. Without a policy nobody is asked. The memory of decisions is a new one in any case: what they follow from,
/// such as a key's groups, is in the records too.
pub(crate) fn compile(records: &Records, before: &Compiled) -> Authorization {
    if records.policies.is_empty() {
        return Authorization::default();
    }
    if let Some(judge) = before.judge.as_ref().filter(|_| before.texts == records.policies) {
        return Authorization::by(judge.clone());
    }
    let texts = records.policies.iter().map(|(name, text)| (name.as_str(), &**text));
    match Policies::compile(texts) {
        Ok(policies) => Authorization::by(Arc::new(policies)),
        Err(error) => {
            tracing::error!(%error, "the policies cannot be read: nobody may call anything until they can");
            Authorization::by(Arc::new(Nobody))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(policies: &[(&str, &str)]) -> Records {
        let texts = policies
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Arc::from(*text)));
        let mut records = Records::default();
        records.policies.extend(texts);
        records
    }

    const ONE: &str = "forbid (principal, action == Mesh::Action::\"model:infer\", resource);";

    #[test]
    fn policies_are_read_once_while_they_stay_what_they_are() {
        let nothing = compile(&records(&[]), &Compiled::default());
        assert!(nothing.judge().is_none());
        let with = records(&[("one", ONE)]);
        let first = compile(&with, &Compiled::new(&records(&[]), &nothing));
        let before = Compiled::new(&with, &first);
        let again = compile(&with, &before);
        assert!(Arc::ptr_eq(first.judge().unwrap(), again.judge().unwrap()));
        let changed = compile(&records(&[("two", ONE)]), &before);
        assert!(!Arc::ptr_eq(first.judge().unwrap(), changed.judge().unwrap()));
        assert!(compile(&records(&[]), &before).judge().is_none());
    }

    #[test]
    fn policies_that_cannot_be_read_let_nobody_call() {
        let broken = compile(&records(&[("one", "permit")]), &Compiled::default());
        assert!(format!("{:?}", broken.judge()).contains("Nobody"));
    }
}
