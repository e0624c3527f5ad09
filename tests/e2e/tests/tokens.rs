//! Tokens and keys at both inference doors: each rule of RFC 8725, RFC 9068 and RFC 6750 that a caller can break, named after
//! its source, and what the answer then says. Every refusal is of a token that is right but for the one thing.

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey};
use mesh_harness::{Answer, Caller, GrpcCaller, Mesh, eventually};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use serde_json::{Value, json};
use tonic::Code;

mod identity {
    pub(crate) mod signer;
}
use self::identity::signer::{Signer, base64, claims, now, signed};

const ISSUER: &str = "https://login.acme.example/";
const REALM: &str = "Bearer realm=\"mesh\"";

/// What a refusal is on either wire.
struct Refusal {
    http: u16,
    code: Code,
    error: &'static str,
}

const INVALID: Refusal = Refusal {
    http: 401,
    code: Code::Unauthenticated,
    error: ", error=\"invalid_token\"",
};
const MALFORMED: Refusal = Refusal {
    http: 400,
    code: Code::Unauthenticated,
    error: ", error=\"invalid_request\"",
};
const NARROW: Refusal = Refusal {
    http: 403,
    code: Code::PermissionDenied,
    error: ", error=\"insufficient_scope\", scope=\"infer\"",
};

/// A mesh with a model of `acme`, and an issuer whose tokens stand for it.
struct Bed {
    mesh: Mesh,
    caller: Caller,
    signer: Signer,
}

fn issuer(name: &str, iss: &str, key: &Value, profile: &str) -> Value {
    json!({
        "apiVersion": "mesh/v1", "kind": "Issuer", "metadata": {"name": name},
        "spec": {"issuer": iss, "audiences": ["mesh"], "keys": [key], "tenants": {"tenant": "acme"}, "profile": profile},
    })
}

fn key_of(signer: &Signer) -> Value {
    json!({"key_id": signer.kid, "algorithm": format!("{:?}", signer.algorithm), "public_key_pem": signer.pem})
}

fn row() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]})
}

fn message() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    }
}

impl Bed {
    async fn start(algorithm: Algorithm) -> anyhow::Result<Self> {
        let (mesh, signer) = (Mesh::start().await?, Signer::new("k1", algorithm)?);
        let caller = mesh.tenant("acme").await?;
        let admin = mesh.admin()?;
        admin.publish("acme", "m", &mesh_harness::identity()).await?;
        let declared = issuer("sso", ISSUER, &key_of(&signer), "rfc9068");
        admin.apply(&[declared]).await?;
        let bed = Self { mesh, caller, signer };
        let token = bed.signer.token(&claims(ISSUER))?;
        eventually("the issuer's tokens are taken", || async {
            Ok((bed.http(&token).await?.status == 200).then_some(()))
        })
        .await?;
        Ok(bed)
    }

    async fn http(&self, token: &str) -> anyhow::Result<Answer> {
        self.caller.showing(token).infer("m", &row()).await
    }

    async fn grpc(&self, token: &str) -> anyhow::Result<Code> {
        let grpc = self.mesh.grpc(token).await?;
        Ok(grpc
            .infer(message())
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok))
    }

    async fn takes(&self, token: &str) -> anyhow::Result<()> {
        let answer = self.http(token).await?;
        ensure!(answer.status == 200, "{} with {:?}", answer.status, answer.error());
        let code = self.grpc(token).await?;
        ensure!(code == Code::Ok, "{code:?} over gRPC");
        Ok(())
    }

    /// Refused alike on both wires, with the right challenge and no word of what was wrong.
    async fn refuses_as(&self, refusal: &Refusal, what: &str, token: &str) -> anyhow::Result<()> {
        let answer = self.http(token).await?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        ensure!(
            answer.status == refusal.http && challenge == format!("{REALM}{}", refusal.error),
            "{what}: {} with {challenge}",
            answer.status
        );
        let code = self.grpc(token).await?;
        ensure!(code == refusal.code, "{what}: {code:?} over gRPC");
        Ok(())
    }

    async fn refuses(&self, what: &str, token: &str) -> anyhow::Result<()> {
        self.refuses_as(&INVALID, what, token).await
    }

    /// Refuses a right token in whose claims this is different; null removes.
    async fn refuses_claim(&self, name: &str, value: Value) -> anyhow::Result<()> {
        let what = format!("{name}: {value}");
        self.refuses(&what, &self.signer.token(&with(name, value))?).await
    }

    /// Refuses a right token in whose header this is different.
    async fn refuses_header(&self, name: &str, value: Value) -> anyhow::Result<()> {
        let what = format!("{name}: {value}");
        let mut header = self.signer.header();
        change(&mut header, name, value);
        let token = self.signer.raw(&header.to_string(), &claims(ISSUER).to_string())?;
        self.refuses(&what, &token).await
    }
}

fn change(object: &mut Value, name: &str, value: Value) {
    if let (Value::Null, Some(object)) = (&value, object.as_object_mut()) {
        object.remove(name);
    } else {
        object[name] = value;
    }
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims(ISSUER);
    change(&mut claims, name, value);
    claims
}

#[tokio::test]
async fn rfc8725_3_1_the_algorithm_is_the_keys_and_never_none_or_a_secret() -> anyhow::Result<()> {
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256, Algorithm::PS256] {
        let bed = Bed::start(algorithm).await?;
        bed.takes(&bed.signer.token(&claims(ISSUER))?).await?;
        for none in ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "ES384", "RS512"] {
            bed.refuses_header("alg", json!(none)).await?;
        }
        bed.refuses_header("alg", Value::Null).await?;
        let (header, body) = (bed.signer.header(), claims(ISSUER).to_string());
        let mut unsigned = header.clone();
        change(&mut unsigned, "alg", json!("none"));
        let unsigned = format!(
            "{}.{}.",
            base64(unsigned.to_string().as_bytes()),
            base64(body.as_bytes())
        );
        bed.refuses("unsigned", &unsigned).await?;
        // The public key as the secret of HS256 (RFC 8725, section 2.1).
        let mut header = header;
        change(&mut header, "alg", json!("HS256"));
        for secret in [bed.signer.pem.as_bytes(), bed.signer.pem.trim_end().as_bytes()] {
            let forged = signed(
                &header.to_string(),
                &body,
                &EncodingKey::from_secret(secret),
                Algorithm::HS256,
            )?;
            bed.refuses("the public key as a secret", &forged).await?;
        }
        let stranger = Signer::new("k1", algorithm)?;
        bed.refuses("another's signature", &stranger.token(&claims(ISSUER))?)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn rfc8725_3_8_3_9_issuer_and_audience_are_exact() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for wrong in [
        json!("https://login.acme.example"),
        json!("HTTPS://login.acme.example/"),
        json!([ISSUER]),
        json!(""),
        Value::Null,
    ] {
        bed.refuses_claim("iss", wrong).await?;
    }
    bed.takes(&bed.signer.token(&with("aud", json!(["else", "mesh"])))?)
        .await?;
    for wrong in [
        json!("Mesh"),
        json!("mesh "),
        json!(["else"]),
        json!([]),
        json!(7),
        Value::Null,
    ] {
        bed.refuses_claim("aud", wrong).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rfc9068_2_an_access_token_is_typed_and_complete() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        bed.refuses_claim(name, Value::Null).await?;
    }
    for name in ["sub", "client_id", "jti"] {
        for wrong in [json!(""), json!(7), json!(["a"])] {
            bed.refuses_claim(name, wrong).await?;
        }
    }
    for wrong in [
        json!("JWT"),
        json!("id+jwt"),
        json!("dpop+jwt"),
        json!(""),
        json!(1),
        Value::Null,
    ] {
        bed.refuses_header("typ", wrong).await?;
    }
    for right in ["AT+JWT", "application/at+jwt"] {
        let mut header = bed.signer.header();
        change(&mut header, "typ", json!(right));
        bed.takes(&bed.signer.raw(&header.to_string(), &claims(ISSUER).to_string())?)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_cannot_type_its_tokens_is_declared_so() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let (other, iss) = (Signer::new("p1", Algorithm::ES256)?, "https://plain.example");
    bed.mesh
        .admin()?
        .apply(&[issuer("plain", iss, &key_of(&other), "rfc7519")])
        .await?;
    let mut body = claims(iss);
    for name in ["client_id", "jti", "iat", "nbf"] {
        change(&mut body, name, Value::Null);
    }
    for typ in [json!("JWT"), json!("at+jwt"), Value::Null] {
        let mut header = other.header();
        change(&mut header, "typ", typ);
        let token = other.raw(&header.to_string(), &body.to_string())?;
        eventually("the issuer's tokens are taken", || async {
            Ok((bed.http(&token).await?.status == 200).then_some(()))
        })
        .await?;
        bed.takes(&token).await?;
    }
    // The rest holds for it as for all.
    for name in ["iss", "exp", "aud", "sub"] {
        let mut body = body.clone();
        change(&mut body, name, Value::Null);
        bed.refuses(name, &other.token(&body)?).await?;
    }
    let mut header = other.header();
    change(&mut header, "typ", json!("logout+jwt"));
    bed.refuses("a logout token", &other.raw(&header.to_string(), &body.to_string())?)
        .await
}

#[tokio::test]
async fn rfc7519_4_1_4_4_1_5_times_hold_within_the_leeway() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for (name, right, wrong) in [("exp", now() - 5, now() - 60), ("nbf", now() + 20, now() + 120)] {
        bed.takes(&bed.signer.token(&with(name, json!(right)))?).await?;
        bed.refuses_claim(name, json!(wrong)).await?;
    }
    let mut future = with("nbf", Value::Null);
    change(&mut future, "iat", json!(now() + 120));
    bed.refuses("issued in the future", &bed.signer.token(&future)?).await
}

#[tokio::test]
async fn cve_2026_25537_a_time_that_is_no_number_is_not_an_absent_one() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for name in ["exp", "nbf", "iat"] {
        for wrong in [
            json!("never"),
            json!("9999999999"),
            json!(true),
            json!([9_999_999_999_u64]),
            json!(1e300),
        ] {
            bed.refuses_claim(name, wrong).await?;
        }
        let null = claims(ISSUER)
            .to_string()
            .replacen(&format!("\"{name}\":"), &format!("\"{name}\":null,\"x\":"), 1);
        bed.refuses(name, &bed.signer.raw(&bed.signer.header().to_string(), &null)?)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn rfc8725_3_10_keys_that_a_token_brings_or_points_to_are_not_looked_at() -> anyhow::Result<()> {
    let (bed, mallory) = (
        Bed::start(Algorithm::ES256).await?,
        Signer::new("k1", Algorithm::ES256)?,
    );
    // Nothing listens there; were it asked, the answer would not come at once.
    let pointing = |header: &mut Value| {
        change(header, "jku", json!("http://127.0.0.1:9/keys"));
        change(header, "x5u", json!("http://127.0.0.1:9/chain"));
        change(header, "jwk", mallory.jwk());
        change(header, "x5c", json!([mallory.pem]));
    };
    let mut header = mallory.header();
    pointing(&mut header);
    bed.refuses(
        "its own key",
        &mallory.raw(&header.to_string(), &claims(ISSUER).to_string())?,
    )
    .await?;
    let mut header = bed.signer.header();
    pointing(&mut header);
    bed.takes(&bed.signer.raw(&header.to_string(), &claims(ISSUER).to_string())?)
        .await?;
    for wrong in [json!("k2"), json!("../k1"), json!("K1"), json!(1), json!(["k1"])] {
        bed.refuses_header("kid", wrong).await?;
    }
    // A name selects within the issuer that the token names, and nowhere else.
    let other = Signer::new("o1", Algorithm::ES256)?;
    bed.mesh
        .admin()?
        .apply(&[issuer("other", "https://other.example", &key_of(&other), "rfc9068")])
        .await?;
    let theirs = other.token(&claims("https://other.example"))?;
    eventually("the other issuer is known", || async {
        Ok((bed.http(&theirs).await?.status == 200).then_some(()))
    })
    .await?;
    bed.refuses("another issuer's key", &other.token(&claims(ISSUER))?)
        .await
}

#[tokio::test]
async fn rfc7515_4_1_11_crit_compression_encryption_and_nesting_are_refused() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
    ] {
        bed.refuses_header(name, value).await?;
    }
    let token = bed.signer.token(&claims(ISSUER))?;
    let (message, signature) = token.rsplit_once('.').context("no token")?;
    for (what, wrong) in [
        ("unsigned", message.to_owned()),
        ("encrypted", format!("{token}.{signature}.{signature}")),
        ("nested", bed.signer.raw(&bed.signer.header().to_string(), &token)?),
        ("padded", format!("{token}=")),
        ("nothing", "..".to_owned()),
    ] {
        bed.refuses(what, &wrong).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rfc8725_2_4_a_name_twice_is_refused() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let (header, body) = (bed.signer.header().to_string(), claims(ISSUER).to_string());
    let inside = body.trim_end_matches('}');
    for twice in [
        format!(r#"{inside},"sub":"mallory"}}"#),
        format!(r#"{inside},"exp":9999999999}}"#),
        format!(r#"{inside},"x":{{"a":1,"a":1}}}}"#),
        format!(r#"{inside},"su\u0062":"mallory"}}"#),
    ] {
        bed.refuses(&twice, &bed.signer.raw(&header, &twice)?).await?;
    }
    let twice = header.replacen('{', r#"{"alg":"EdDSA","#, 1);
    bed.refuses("alg twice", &bed.signer.raw(&twice, &body)?).await
}

#[tokio::test]
async fn a_token_of_8_kib_is_read_and_a_longer_one_is_not() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    // Base64 writes three bytes as four: near the bound on either side.
    let of = |padding: usize| bed.signer.token(&with("pad", json!("p".repeat(padding))));
    let room = 8_192 - of(0)?.len();
    let (fits, over) = (of(room * 3 / 4 - 2)?, of(room * 3 / 4 + 2)?);
    ensure!(
        (8_184..=8_192).contains(&fits.len()) && (8_193..=8_200).contains(&over.len()),
        "{} and {}",
        fits.len(),
        over.len()
    );
    bed.takes(&fits).await?;
    bed.refuses("8 KiB and a little", &over).await
}

#[tokio::test]
async fn rfc6750_3_challenges_say_what_is_wrong_and_no_more() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let good = bed.signer.token(&claims(ISSUER))?;
    let sent = |values: Vec<String>| {
        let mut request = bed.mesh.stranger().post("/v2/models/m/infer").json(&row());
        for value in values {
            request = request.header("authorization", value);
        }
        Answer::of(request)
    };
    // Section 3.1: without authentication of the right kind there is no error code.
    for none in [vec![], vec!["Basic dTpw".to_owned()], vec![String::new()]] {
        let answer = sent(none).await?;
        ensure!(
            answer.status == 401 && answer.header("www-authenticate") == Some(REALM),
            "{answer:?}"
        );
    }
    let stranger = GrpcCaller::connect(bed.mesh.addresses().grpc, None).await?;
    let code = stranger
        .infer(message())
        .await
        .map_or_else(|status| status.code(), |_| Code::Ok);
    ensure!(code == Code::Unauthenticated, "{code:?}");
    for malformed in ["", "two words", "a b c"] {
        bed.refuses_as(&MALFORMED, malformed, malformed).await?;
    }
    let twice = sent(vec![format!("Bearer {good}"), format!("Bearer {good}")]).await?;
    let challenge = twice.header("www-authenticate").unwrap_or_default();
    ensure!(twice.status == 400 && challenge.ends_with(MALFORMED.error), "{twice:?}");
    bed.refuses("unknown", "x").await?;
    bed.refuses("an unknown key", "mesh_live_0123456789ab_AAAA_00000000")
        .await?;
    let narrow = bed.signer.token(&with("scope", json!("openid profile")))?;
    bed.refuses_as(&NARROW, "another scope", &narrow).await?;
    bed.takes(&bed.signer.token(&with("scope", json!("openid infer")))?)
        .await?;
    // Who is suspended needs no other token.
    bed.mesh.admin()?.tenant("acme", json!({"suspended": true})).await?;
    let suspended = eventually("the tenant is suspended", || async {
        let answer = bed.http(&good).await?;
        Ok((answer.status == 403).then_some(answer))
    })
    .await?;
    ensure!(suspended.header("www-authenticate").is_none(), "{suspended:?}");
    Ok(())
}

#[tokio::test]
async fn rfc6750_2_3_a_credential_in_the_url_or_the_body_is_none() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let token = bed.signer.token(&claims(ISSUER))?;
    for credential in [token.as_str(), bed.caller.key()] {
        let path = format!("/v2/models/m/infer?access_token={credential}");
        let asked = bed.mesh.stranger().post(&path).json(&row());
        let answer = Answer::of(asked).await?;
        ensure!(
            answer.status == 401 && answer.header("www-authenticate") == Some(REALM),
            "{answer:?}"
        );
        let mut body = row();
        body["access_token"] = json!(credential);
        let answer = bed.mesh.stranger().infer("m", &body).await?;
        ensure!(answer.status == 401, "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn two_keys_of_a_tenant_work_at_once_and_a_revoked_one_ends_within_a_second() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let admin = bed.mesh.admin()?;
    let (old, new) = (bed.caller.key().to_owned(), admin.key("acme").await?);
    eventually("the new key is known", || async {
        Ok((bed.http(&new).await?.status == 200).then_some(()))
    })
    .await?;
    bed.takes(&old).await?;
    bed.takes(&new).await?;
    let id = old.split('_').nth(2).context("no identifier")?;
    admin.revoke("acme", id).await?;
    let revoked = std::time::Instant::now();
    while bed.http(&old).await?.status == 200 {
        ensure!(revoked.elapsed() < std::time::Duration::from_secs(1), "it still works");
    }
    bed.refuses("revoked", &old).await?;
    bed.takes(&new).await
}

/// More than may be wrong even if 200 more a second are given back meanwhile.
#[tokio::test]
async fn a_gateway_with_a_new_right_token_for_each_request_is_never_refused() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    for hundred in 0..30 {
        let tokens = (0..100).map(|number| {
            let jti = json!((hundred * 100 + number).to_string());
            bed.signer.token(&with("jti", jti))
        });
        let tokens = tokens.collect::<anyhow::Result<Vec<_>>>()?;
        for answer in futures::future::try_join_all(tokens.iter().map(|token| bed.http(token))).await? {
            ensure!(answer.status == 200, "{} in hundred {hundred}", answer.status);
        }
    }
    Ok(())
}

/// The first refusal of forged tokens that are asked with in this way, once more were sent than the bound, even if 200 more a second
/// come meanwhile.
async fn refused_at_last(bed: &Bed, ask: impl AsyncFn(Caller) -> anyhow::Result<Answer>) -> anyhow::Result<Answer> {
    let forged = |number: u32| -> anyhow::Result<String> {
        let token = bed.signer.token(&with("jti", json!(number.to_string())))?;
        let (rest, _) = token.rsplit_once('.').context("no signature")?;
        Ok(format!("{rest}.{}", base64(&[0; 64])))
    };
    for hundred in 0..100 {
        let tokens = (0..100).map(|number| forged(hundred * 100 + number));
        let tokens = tokens.collect::<anyhow::Result<Vec<_>>>()?;
        let asked = tokens.iter().map(|token| ask(bed.caller.showing(token)));
        for answer in futures::future::try_join_all(asked).await? {
            match answer.status.as_u16() {
                401 => {}
                429 => return Ok(answer),
                other => anyhow::bail!("{other} to a forged token"),
            }
        }
    }
    anyhow::bail!("10,000 forged tokens were checked")
}

#[tokio::test]
async fn forged_tokens_of_an_address_are_checked_up_to_a_bound_and_cost_others_nothing() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let right = bed.signer.token(&claims(ISSUER))?;
    bed.takes(&right).await?;
    let refused = refused_at_last(&bed, async |caller| caller.infer("m", &row()).await).await?;
    assert_eq!(refused.header("retry-after"), Some("1"));
    let said = refused.error()?;
    assert!(said.contains("too many wrong tokens of this address"), "{said}");
    // What is remembered, and keys, are not concerned.
    bed.takes(&right).await?;
    bed.takes(bed.caller.key()).await
}

#[tokio::test]
async fn forged_tokens_are_bounded_whatever_is_asked_with_them() -> anyhow::Result<()> {
    for path in ["/v2/models/m", "/v2/models/m/stats", "/v1/models/m"] {
        let bed = Bed::start(Algorithm::EdDSA).await?;
        let refused = refused_at_last(&bed, async |caller| Answer::of(caller.get(path)).await).await;
        refused.with_context(|| format!("GET {path}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn each_subject_of_an_issuers_tokens_has_limits_of_its_own() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let two = json!({"requests": {"per_second": 1, "burst": 2}});
    bed.mesh.admin()?.tenant("acme", json!({"per_subject": two})).await?;
    let token = |subject: &str| bed.signer.token(&with("sub", json!(subject)));
    let (ann, bob) = (token("ann")?, token("bob")?);
    let refused = eventually("the limit is known", || async {
        let answer = bed.http(&ann).await?;
        Ok((answer.status == 429).then_some(answer))
    })
    .await?;
    let said = refused.error()?;
    assert!(said.contains("'subject-requests' of 1 a second"), "{said}");
    assert!(refused.header("retry-after").is_some());
    // Another subject has both of its own, also by another token, and is told of them; nobody's quota is named as another's.
    let answer = bed.http(&bob).await?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("ratelimit-policy"), Some("\"subject-requests\";q=2;w=2"));
    assert_eq!(answer.header("ratelimit"), Some("\"subject-requests\";r=1;t=1"));
    let mut another = with("sub", json!("bob"));
    another["jti"] = json!("another");
    let another = bed.signer.token(&another)?;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(bed.grpc(&another).await?);
    }
    assert!(answers.contains(&Code::ResourceExhausted), "{answers:?}");
    // Keys of the tenant do not meet it.
    for _ in 0..6 {
        let answer = bed.caller.infer("m", &row()).await?;
        assert_eq!(answer.status, 200);
    }
    let metrics = bed.mesh.metrics().await?;
    let line = r#"mesh_limit_effects_total{tenant="acme",rule="subject-requests",effect="refused"}"#;
    ensure!(metrics.contains(line), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn each_subject_of_an_issuers_tokens_has_budgets_of_its_own_and_is_shown_with_its_use() -> anyhow::Result<()> {
    let bed = Bed::start(Algorithm::EdDSA).await?;
    let budgets = json!({"daily": {"requests": {"soft": 1, "hard": 2}}});
    let admin = bed.mesh.admin()?;
    admin.tenant("acme", json!({"per_subject_budgets": budgets})).await?;
    let token = |subject: &str| bed.signer.token(&with("sub", json!(subject)));
    let (ann, bob) = (token("ann")?, token("bob")?);
    let refused = eventually("the budget is known", || async {
        let answer = bed.http(&ann).await?;
        Ok((answer.status == 429).then_some(answer))
    })
    .await?;
    let said = refused.error()?;
    assert!(said.contains("'subject-daily-requests' of 2 a day"), "{said}");
    let wait: u64 = refused.header("retry-after").context("no Retry-After")?.parse()?;
    assert!(wait <= 86_400, "{wait}");
    let answer = bed.http(&bob).await?;
    assert_eq!(answer.status, 200);
    let warned = Some("\"subject-daily-requests\";used=1;soft=1");
    assert_eq!(answer.header("x-mesh-budget-warning"), warned);
    let used = admin.get("/tenants/acme/usage/subjects").await?;
    let of = |place: usize| {
        (
            &used["items"][place]["subject"],
            &used["items"][place]["daily"]["requests"],
        )
    };
    assert_eq!(of(0), (&json!("ann"), &json!(2)), "{used}");
    assert_eq!(of(1), (&json!("bob"), &json!(1)), "{used}");
    assert_eq!((&used["total"], &used["budgets"]), (&json!(2), &budgets));
    Ok(())
}
