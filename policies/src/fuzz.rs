//! The bodies of this crate's fuzz targets, here so that ordinary tests run them too: any text, and what must then hold.
//!
//! Each returns what does not hold; the fuzzer and the tests panic on it. Not for use by the mesh: the secrets below are nobody's.

use std::sync::OnceLock;

use mesh_types::{KeyId, TenantId};

use crate::{
    ApiKeyEntry, Credentials, IssuerEntry, IssuerKey, IssuerKeys, KeyAlgorithm, KeyMaterial, KeySet, Pepper, Presented,
    Scope, Scopes, TenantBinding, TokenProfile, graph::condition::Condition,
};

const NOW: i64 = 1_800_000_000;
/// The bytes from 0 to 31, the issuer's secret.
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What a token under that secret says: header and claims.
const SIGNED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoibWVzaCIsInN\
                      1YiI6InNvbWVib2R5IiwiY2xpZW50X2lkIjoiYmF0Y2giLCJqdGkiOiIxZjNhIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDA\
                      wMDAwMDAsImV4cCI6MTkwMDAwMDAwMCwic2NvcGUiOiJpbmZlciJ9";
/// The one key that is known.
const KEY: &str = "mesh_live_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_de9c647c";

/// A condition of a graph: read or refused with a place in it; what is read evaluates, twice alike, and reads back.
pub fn condition(text: &str) -> Result<(), String> {
    match Condition::parse(text) {
        Ok(condition) => {
            let nothing = |_| None;
            let parameters = Default::default();
            let twice = [(); 2].map(|()| condition.holds(&nothing, &parameters));
            let again = Condition::parse(condition.text());
            let holds = twice[0] == twice[1] && again.as_ref() == Ok(&condition);
            holds
                .then_some(())
                .ok_or_else(|| "a condition is not what it says".to_owned())
        }
        Err(error) => {
            let inside = (1..=text.chars().count() + 1).contains(&error.at);
            inside.then_some(()).ok_or_else(|| format!("a place outside: {error}"))
        }
    }
}

fn known() -> Result<&'static Credentials, String> {
    static KNOWN: OnceLock<Result<Credentials, String>> = OnceLock::new();
    KNOWN.get_or_init(made).as_ref().map_err(String::clone)
}

fn made() -> Result<Credentials, String> {
    let pepper = Pepper::from_bytes(std::array::from_fn(|index| u8::try_from(index).unwrap_or_default()));
    let tenant = TenantId::parse("acme").map_err(|error| error.to_string())?;
    let key = ApiKeyEntry {
        groups: [].into(),
        id: KeyId::parse("0123456789ab").map_err(|error| error.to_string())?,
        tenant: tenant.clone(),
        hash: pepper.hash(&"A".repeat(43)),
        scopes: Scopes::from_iter([Scope::Infer]),
        expires: None,
        revoked: false,
    };
    let secret = IssuerKey::new(None, KeyAlgorithm::HS256, KeyMaterial::SecretBase64(SECRET));
    let issuer = IssuerEntry {
        issuer: "https://issuer.test".to_owned(),
        audiences: vec!["mesh".to_owned()],
        keys: IssuerKeys::Declared(vec![secret.map_err(|error| error.to_string())?]),
        tenants: TenantBinding::Tenant(tenant),
        profile: TokenProfile::default(),
        leeway: std::time::Duration::ZERO,
    };
    Ok(Credentials::new(pepper).with_key(key).with_issuer(issuer))
}

/// The value of an `Authorization` header: nobody is let in but by the one key and the one token that are known.
pub fn credential(text: &str) -> Result<(), String> {
    let presented = Presented::from_header(Some(text));
    let Ok(principal) = known()?.authenticate(presented, NOW) else {
        return Ok(());
    };
    let shown = text.trim().split_once(' ').map_or("", |(_, shown)| shown.trim_start());
    let is_token = shown.rsplit_once('.').is_some_and(|(signed, _)| signed == SIGNED);
    let is_theirs = principal.tenant.as_str() == "acme" && (shown == KEY || is_token);
    is_theirs.then_some(()).ok_or_else(|| format!("let in: {shown}"))
}

/// What an issuer publishes: refused, or read into keys without one twice; reading it again reads the same.
pub fn key_set(bytes: &[u8]) -> Result<(), String> {
    let all = [
        KeyAlgorithm::RS256,
        KeyAlgorithm::PS256,
        KeyAlgorithm::ES256,
        KeyAlgorithm::EdDSA,
    ];
    let Ok(set) = KeySet::read(bytes, &all) else {
        return Ok(());
    };
    let again = KeySet::read(bytes, &all).map(|again| format!("{again:?}"));
    let holds = set.is_sound() && again.as_deref() == Ok(&format!("{set:?}"));
    holds.then_some(()).ok_or_else(|| format!("not sound: {set:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_let_in_so_that_the_rest_means_something() {
        let token = format!("{SIGNED}.vF-Qx3mNKWlWkbg072XiyWV_2Npu1eJlnjctOvbGng8");
        for shown in [KEY, &token] {
            let presented = Presented::Bearer(shown);
            assert!(known().unwrap().authenticate(presented, NOW).is_ok(), "{shown}");
            assert_eq!(credential(&format!("Bearer {shown}")), Ok(()));
        }
        assert_eq!(credential("Bearer nobody"), Ok(()));
        let set = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert!(KeySet::read(set, &[KeyAlgorithm::EdDSA]).is_ok());
        assert_eq!(key_set(set), Ok(()));
    }
}
