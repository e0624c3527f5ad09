//! Who is limited: by what the limiter knows them, and by which terms.
//!
//! Owns no counter.
//!
//! Invariants: what stands for a subject has the same size whatever its name, so that callers' names take no memory; no two subjects of
//! a tenant have the same.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;

use super::{
    TokenSubject,
    declared::Limits,
    rule::Scope,
    terms::{Terms, Word},
};
use crate::access::{Principal, TOKEN_PREFIX};

/// Who calls, as its credential says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// What it showed: [`Principal::credential`].
    pub credential: &'a str,
    /// Who it is: [`Principal::subject`].
    pub subject: &'a str,
}

impl<'a> From<&'a Principal> for Who<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            credential: &principal.credential,
            subject: &principal.subject,
        }
    }
}

/// By what the limiter knows a subject of a tenant: 128 bits that follow from its scope and its name. A request looks each up several
/// times, so they are made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubjectId([u64; 2]);

/// Two for the process, so that nobody can choose names that meet.
static HASHES: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

impl SubjectId {
    /// Of two names where one does not tell: an issuer's subject.
    pub(super) fn new(scope: Scope, name: (&str, &str)) -> Self {
        let named = (scope, name);
        let [first, second] = &*HASHES;
        Self([first.hash_one(named), second.hash_one(named)])
    }
}

impl Hash for SubjectId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self([first, _]) = self;
        state.write_u64(*first);
    }
}

impl TokenSubject {
    /// Who calls with a token.
    fn of(who: Who<'_>) -> Option<Self> {
        let issuer = who.credential.strip_prefix(TOKEN_PREFIX)?;
        Some(Self {
            issuer: issuer.into(),
            subject: who.subject.into(),
        })
    }

    /// By what the limiter knows it.
    pub(super) fn id(&self) -> SubjectId {
        let credential = format!("{TOKEN_PREFIX}{}", self.issuer);
        SubjectId::new(Scope::Token, (&credential, &self.subject))
    }
}

/// What a subject is called.
#[derive(Debug, Clone)]
enum Name {
    /// As it is declared.
    Declared(Box<str>),
    /// As a token says; only where what it has used is kept by its name.
    Token(Option<Box<TokenSubject>>),
}

/// Who is limited: a tenant, or a key, a token's subject, an endpoint or a model as one tenant uses it.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) id: SubjectId,
    name: Name,
    pub(super) terms: Arc<Terms>,
    word: Word,
}

impl Subject {
    /// A subject of this name with what it may use.
    pub(super) fn new(name: &str, terms: Arc<Terms>, word: Word) -> Self {
        Self {
            id: SubjectId::new(terms.scope, (name, "")),
            name: Name::Declared(name.into()),
            terms,
            word,
        }
    }

    /// The subject of this caller, if it has shown a token. The same subject of two issuers is two. It has no word for which quotas are
    /// one: they are as many as there are subjects.
    pub(super) fn of_token(who: Who<'_>, terms: &Arc<Terms>) -> Option<Arc<Self>> {
        // Nobody asks for the name of one without budgets.
        let named = || TokenSubject::of(who).filter(|_| !terms.budgets.is_empty());
        who.credential.starts_with(TOKEN_PREFIX).then(|| {
            Arc::new(Self {
                id: SubjectId::new(Scope::Token, (who.credential, who.subject)),
                name: Name::Token(named().map(Box::new)),
                terms: terms.clone(),
                word: Word::default(),
            })
        })
    }

    /// By which it is found among those of its scope.
    pub(super) fn name(&self) -> &str {
        match &self.name {
            Name::Declared(name) => name,
            Name::Token(_) => "",
        }
    }

    /// By which what it has used is kept, where it has budgets and a token.
    pub(super) fn token(&self) -> Option<&TokenSubject> {
        match &self.name {
            Name::Token(token) => token.as_deref(),
            Name::Declared(_) => None,
        }
    }

    pub(super) fn scope(&self) -> Scope {
        self.terms.scope
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.terms.limits
    }

    /// See [`Terms::policy`].
    pub(super) fn policy(&self) -> [Bytes; 2] {
        self.terms.policy(&self.word)
    }
}
