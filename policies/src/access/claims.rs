//! The JSON of tokens, read strictly: no name twice, and every claim of its own type.
//!
//! Owns the reading of a header and of claims into types. A number written as text is not a number: a library that took
//! `"exp": "never"` for no `exp` at all let tokens live for ever (CVE-2026-25537). Does not know keys, issuers or the time.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{AuthError, Scope, Scopes};

/// The longest `sub`: it travels into logs.
const MAX_SUBJECT_BYTES: usize = 255;
/// Beyond this, a second is no date but a mistake, and floating point no longer counts in ones.
const LATEST: f64 = 9_007_199_254_740_992.0;

/// The types of an access token (RFC 9068, section 2.1); others must not be taken for one (RFC 8725, section 3.11).
const ACCESS_TYPES: [&str; 2] = ["at+jwt", "application/at+jwt"];
/// What says no more than that it is a token at all (RFC 7519, section 5.1).
const PLAIN_TYPES: [&str; 2] = ["jwt", "application/jwt"];

/// What an issuer's tokens look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenProfile {
    /// Access tokens of RFC 9068: typed `at+jwt`, with `iss`, `sub`, `aud`, `exp`, `iat`, `jti` and `client_id`.
    #[default]
    Rfc9068,
    /// Any signed token of RFC 7519, typed as an access token, as a plain one or not at all, with `iss`, `sub`, `aud` and `exp`:
    /// for issuers that cannot do better. Their identity tokens are then taken as well, if made for the audience.
    Rfc7519,
}

/// What a token's header says. Pointers to keys (`jku`, `jwk`, `x5u`, `x5c`) are not even read.
pub(super) struct TokenHeader {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    typ: Option<String>,
}

/// What a token claims.
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: Vec<String>,
    pub(super) expires: i64,
    /// When it was made, if it says so.
    pub(super) issued: Option<i64>,
    /// From when on: its `nbf`, else its `iat`; none means always.
    pub(super) begins: Option<i64>,
    pub(super) scopes: Scopes,
    /// The certificate that it is bound to, by its SHA-256.
    pub(super) bound: Option<[u8; 32]>,
    pub(super) all: Map<String, Value>,
}

/// JSON in which no object holds a name twice.
struct Strict(Value);

struct StrictVisitor;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without a name twice")
    }

    fn visit_unit<E: Error>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Strict, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Strict(array.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name twice"));
            }
        }
        Ok(Strict(object.into()))
    }
}

/// A JSON object in which no name comes twice, however deep.
pub(super) fn strict_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// One base64url part of a token as a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Invalid)?;
    strict_object(&bytes).ok_or(AuthError::Invalid)
}

fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, AuthError> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(AuthError::Invalid),
    }
}

/// A NumericDate (RFC 7519, section 2): a number of seconds, of which a fraction is cut off.
fn date(object: &Map<String, Value>, name: &str) -> Result<i64, AuthError> {
    let Some(Value::Number(number)) = object.get(name) else {
        return Err(AuthError::Invalid);
    };
    if let Some(seconds) = number.as_i64() {
        return Ok(seconds);
    }
    let seconds = number.as_f64().filter(|seconds| seconds.abs() < LATEST);
    // Within the range where the conversion is exact.
    #[expect(clippy::cast_possible_truncation, reason = "floored and bounded just before")]
    seconds.map(|seconds| seconds.floor() as i64).ok_or(AuthError::Invalid)
}

/// The same, if it is there at all. There and null is no date.
fn date_if_any(object: &Map<String, Value>, name: &str) -> Result<Option<i64>, AuthError> {
    object.contains_key(name).then(|| date(object, name)).transpose()
}

fn audience(object: &Map<String, Value>) -> Result<Vec<String>, AuthError> {
    let one = |value: &Value| value.as_str().map(str::to_owned).ok_or(AuthError::Invalid);
    match object.get("aud") {
        Some(Value::Array(values)) => values.iter().map(one).collect(),
        Some(value) => one(value).map(|value| vec![value]),
        None => Err(AuthError::Invalid),
    }
}

/// The scopes of a token: those it names, or the right to infer where it has no `scope` at all. The issuer and the audience
/// were declared for this mesh, so a token without `scope` is meant to be used; one with it has been narrowed.
fn scopes(object: &Map<String, Value>) -> Result<Scopes, AuthError> {
    let Some(named) = text(object, "scope")? else {
        return Ok(Scopes::from_iter([Scope::Infer]));
    };
    let is_named = |scope: &Scope| named.split(' ').any(|name| name == scope.as_str());
    Ok(Scope::ALL.into_iter().filter(is_named).collect())
}

/// The certificate that a token is bound to (RFC 8705, section 3.1). A token that is bound in another way only is refused, and
/// not taken for one that anybody may carry: nobody here could check it.
fn bound(object: &Map<String, Value>) -> Result<Option<[u8; 32]>, AuthError> {
    let Some(confirmation) = object.get("cnf") else {
        return Ok(None);
    };
    let thumbprint = confirmation.get("x5t#S256").and_then(Value::as_str);
    let digest = URL_SAFE_NO_PAD.decode(thumbprint.ok_or(AuthError::Invalid)?);
    let digest = digest.ok().and_then(|digest| digest.try_into().ok());
    digest.map(Some).ok_or(AuthError::Invalid)
}

impl TokenHeader {
    pub(super) fn read(part: &str) -> Result<Self, AuthError> {
        let header = object(part)?;
        // Extensions that must be understood, compression and encryption: we know none.
        if ["crit", "zip", "enc", "b64"]
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(AuthError::Invalid);
        }
        Ok(Self {
            algorithm: text(&header, "alg")?.ok_or(AuthError::Invalid)?,
            key_id: text(&header, "kid")?,
            typ: text(&header, "typ")?,
        })
    }

    /// Whether its type says no more than that it is a token, as that of an identity token does, or nothing.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |typ: &str| PLAIN_TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known));
        self.typ.as_deref().is_none_or(plain)
    }

    /// Whether it is of a type that the profile takes. Media types are compared without regard to case (RFC 2045, 5.1).
    pub(super) fn fits(&self, profile: TokenProfile) -> bool {
        let is = |known: &[&str], typ: &str| known.iter().any(|known| typ.eq_ignore_ascii_case(known));
        match (profile, self.typ.as_deref()) {
            (TokenProfile::Rfc9068, typ) => typ.is_some_and(|typ| is(&ACCESS_TYPES, typ)),
            (TokenProfile::Rfc7519, typ) => typ.is_none_or(|typ| is(&ACCESS_TYPES, typ) || is(&PLAIN_TYPES, typ)),
        }
    }
}

impl Claims {
    pub(super) fn read(part: &str) -> Result<Self, AuthError> {
        let all = object(part)?;
        let subject = text(&all, "sub")?.ok_or(AuthError::Invalid)?;
        let printable = !subject.is_empty() && !subject.chars().any(char::is_control);
        if !printable || subject.len() > MAX_SUBJECT_BYTES {
            return Err(AuthError::Invalid);
        }
        let issued = date_if_any(&all, "iat")?;
        Ok(Self {
            issuer: text(&all, "iss")?.ok_or(AuthError::Invalid)?,
            subject,
            audience: audience(&all)?,
            expires: date(&all, "exp")?,
            issued,
            begins: date_if_any(&all, "nbf")?.or(issued),
            scopes: scopes(&all)?,
            bound: bound(&all)?,
            all,
        })
    }

    /// Whether everything is there that the profile requires beside what every token must have.
    pub(super) fn fits(&self, profile: TokenProfile) -> bool {
        let said = |name: &str| self.text(name).is_some_and(|text| !text.is_empty());
        match profile {
            TokenProfile::Rfc7519 => true,
            TokenProfile::Rfc9068 => self.all.contains_key("iat") && said("jti") && said("client_id"),
        }
    }

    /// The groups that it names (RFC 9068, section 2.2.3.1); what is no text among them names none. The token's size bounds them.
    pub(super) fn groups(&self) -> Arc<[Arc<str>]> {
        match self.all.get("groups") {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).map(Arc::from).collect(),
            Some(Value::String(group)) => Arc::from([Arc::from(group.as_str())]),
            _ => Arc::from([]),
        }
    }

    /// A claim of any name, if it is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str)
    }
}
