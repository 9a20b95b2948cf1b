use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::Ed25519KeyPair,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::config::{OidcAlgorithm, OidcKeys};

/// A key of the issuer, with its name.
struct Signing {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signing {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                // What is inside of PKCS #8, whose head is always the same for this size.
                EncodingKey::from_rsa_der(&der.as_ref()[26..])
            }
            Algorithm::EdDSA => {
                let der = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
                EncodingKey::from_ed_der(der.as_ref())
            }
            _ => {
                let text = crate::identity::Signer::new_key().unwrap();
                EncodingKey::from_ec_der(&BASE64.decode(text.as_bytes()).unwrap())
            }
        };
        Self { id, algorithm, key }
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn key_set(keys: &[&Signing]) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
    json!({ "keys": keys })
}

/// A server of an issuer, with a certificate of its own authority.
struct Server {
    issuer: String,
    authority: tempfile::NamedTempFile,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(keys: Value) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let authority = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority.path(), made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let server = Self {
            issuer: issuer.clone(),
            authority,
            keys: Arc::new(Mutex::new(keys)),
            asked: Arc::default(),
        };
        let (keys, asked) = (server.keys.clone(), server.asked.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let answer = service_fn(|request: Request<Incoming>| {
                    let body = match request.uri().path() {
                        "/.well-known/openid-configuration" => {
                            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
                        }
                        "/keys" => {
                            asked.fetch_add(1, Ordering::SeqCst);
                            keys.lock().unwrap().clone()
                        }
                        _ => Value::Null,
                    };
                    let body = Full::new(bytes::Bytes::from(body.to_string()));
                    async move { Ok::<_, std::convert::Infallible>(Response::new(body)) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            }
        });
        server
    }

    fn config(&self) -> OidcConfig {
        config(
            &self.issuer,
            OidcKeys::Discovery,
            Some(self.authority.path()),
        )
    }
}

fn config(issuer: &str, keys: OidcKeys, ca_file: Option<&Path>) -> OidcConfig {
    OidcConfig {
        issuer: issuer.to_owned(),
        audience: vec!["everpoint".to_owned()],
        keys,
        ca_file: ca_file.map(Path::to_owned),
        claim: Claim::Sub,
        algorithms: vec![
            OidcAlgorithm::RS256,
            OidcAlgorithm::ES256,
            OidcAlgorithm::EdDSA,
        ],
    }
}

fn claims(issuer: &str) -> Value {
    let now = jiff::Timestamp::now().as_second();
    json!({"iss": issuer, "aud": "everpoint", "sub": "ann", "nbf": now, "exp": now + 600})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[tokio::test]
async fn tokens_of_a_discovered_issuer_hold_and_the_keys_may_change() {
    let old = Signing::new("old", Algorithm::RS256);
    let server = Server::start(key_set(&[&old])).await;
    let issuer = Issuer::new(server.config());
    let claims = claims(&server.issuer);
    let ann = external(&server.issuer, "ann");
    assert_eq!(issuer.external(&old.sign(&claims)).await, Some(ann.clone()));
    assert_eq!(issuer.external(&old.sign(&claims)).await, Some(ann.clone()));
    let asked = || server.asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 1, "the keys are remembered");

    let new = Signing::new("new", Algorithm::ES256);
    *server.keys.lock().unwrap() = key_set(&[&new]);
    let token = new.sign(&claims);
    assert_eq!(issuer.external(&token).await, None, "asked a moment ago");
    assert_eq!(asked(), 1);
    let later = Issuer {
        pause: Duration::ZERO,
        ..issuer
    };
    let found = at_once((0..20).map(|_| later.external(&token))).await;
    assert!(found.iter().all(|found| found.as_ref() == Some(&ann)));
    assert_eq!(asked(), 2, "one request for all of them");
    let issuer = Issuer {
        pause: PAUSE,
        ..later
    };
    assert_eq!(issuer.external(&old.sign(&claims)).await, None, "withdrawn");
    for id in ["a", "b"] {
        let stranger = Signing::new(id, Algorithm::ES256);
        assert_eq!(issuer.external(&stranger.sign(&claims)).await, None);
    }
    assert_eq!(asked(), 2, "tokens of strangers do not make it ask");
}

/// The results of all, of which none waits for another one.
async fn at_once<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut found = Vec::new();
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                found.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    found
}

/// An issuer whose keys lie in a file.
fn on_file(
    keys: &Value,
    change: impl FnOnce(&mut OidcConfig),
) -> (tempfile::NamedTempFile, Issuer) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), keys.to_string()).unwrap();
    let place = OidcKeys::File(file.path().to_owned());
    let mut config = config("https://issuer.example", place, None);
    change(&mut config);
    (file, Issuer::new(config))
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused() {
    let name = "https://issuer.example";
    let rsa = Signing::new("rsa", Algorithm::RS256);
    let curve = Signing::new("ec", Algorithm::ES256);
    let edwards = Signing::new("ed", Algorithm::EdDSA);
    let mut set = key_set(&[&rsa, &curve, &edwards]);
    // A secret in the set is nobody's key.
    let secret = b"a secret of some length, which is known";
    let entry = json!({"kty": "oct", "kid": "hmac", "k": BASE64URL_NOPAD.encode(secret)});
    set["keys"].as_array_mut().unwrap().push(entry);
    let (_file, issuer) = on_file(&set, |_| {});
    let good = claims(name);
    for key in [&rsa, &curve, &edwards] {
        let found = issuer.external(&key.sign(&good)).await;
        assert_eq!(found, Some(external(name, "ann")), "{}", key.id);
    }
    let now = jiff::Timestamp::now().as_second();
    for (what, claims) in [
        (
            "another issuer",
            with(good.clone(), "iss", json!("https://other.example")),
        ),
        (
            "another audience",
            with(good.clone(), "aud", json!("other")),
        ),
        ("too old", with(good.clone(), "exp", json!(now - 61))),
        ("not yet", with(good.clone(), "nbf", json!(now + 120))),
        ("without an end", with(good.clone(), "exp", Value::Null)),
        ("without a subject", with(good.clone(), "sub", Value::Null)),
        (
            "with a subject that is none",
            with(good.clone(), "sub", json!(7)),
        ),
    ] {
        assert_eq!(issuer.external(&curve.sign(&claims)).await, None, "{what}");
    }
    let late = with(good.clone(), "exp", json!(now - 30));
    assert!(
        issuer.external(&curve.sign(&late)).await.is_some(),
        "clocks differ"
    );

    let stranger = Signing::new("ec", Algorithm::ES256);
    assert_eq!(
        issuer.external(&stranger.sign(&good)).await,
        None,
        "another key"
    );
    let token = curve.sign(&good);
    let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!()
    };
    let unsigned = |header: Value| BASE64URL_NOPAD.encode(header.to_string().as_bytes());
    let none = unsigned(json!({"alg": "none", "kid": "ec"}));
    let changed = with(good.clone(), "sub", json!("root"));
    let changed = BASE64URL_NOPAD.encode(changed.to_string().as_bytes());
    let crit = unsigned(json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]}));
    for forged in [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{head}.{changed}.{signature}"),
        format!("{crit}.{body}.{signature}"),
        String::new(),
        "a.b.c".to_owned(),
        "x".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert_eq!(issuer.external(&forged).await, None, "{forged}");
    }
    // Public keys and known secrets as secrets.
    let public = rsa.public();
    let modulus = BASE64URL_NOPAD.decode(public["n"].as_str().unwrap().as_bytes());
    for (id, bytes) in [("rsa", modulus.unwrap()), ("hmac", secret.to_vec())] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.to_owned());
        let key = EncodingKey::from_secret(&bytes);
        let token = jsonwebtoken::encode(&header, &good, &key).unwrap();
        assert_eq!(issuer.external(&token).await, None, "{id}");
    }
    // One key's name with another's algorithm.
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("rsa".to_owned());
    let token = jsonwebtoken::encode(&header, &good, &curve.key).unwrap();
    assert_eq!(issuer.external(&token).await, None);
}

#[tokio::test]
async fn only_algorithms_that_are_allowed_count_and_a_uuid_is_an_object_id() {
    let rsa = Signing::new("rsa", Algorithm::RS256);
    let curve = Signing::new("ec", Algorithm::ES256);
    let (_file, issuer) = on_file(&key_set(&[&rsa, &curve]), |config| {
        config.algorithms = vec![OidcAlgorithm::RS256];
        config.claim = Claim::Oid;
    });
    let id = Uuid::from_u128(77);
    let good = with(claims("https://issuer.example"), "oid", json!(id));
    assert_eq!(issuer.external(&curve.sign(&good)).await, None);
    let found = issuer.external(&rsa.sign(&good)).await.unwrap();
    assert_eq!((found.id, found.value), (id, id.to_string()));
    let (one, other) = (
        external("https://a.example", "ann"),
        external("https://b.example", "ann"),
    );
    assert_ne!(one.id, other.id, "the same name elsewhere is somebody else");
    // Without a key's name there must be one key alone.
    let nameless =
        |key: &Signing| jsonwebtoken::encode(&Header::new(key.algorithm), &good, &key.key).unwrap();
    assert!(issuer.external(&nameless(&rsa)).await.is_some());
    let second = Signing::new("second", Algorithm::RS256);
    let (_file, issuer) = on_file(&key_set(&[&rsa, &second]), |config| {
        config.claim = Claim::Oid
    });
    assert_eq!(issuer.external(&nameless(&rsa)).await, None);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_an_unknown_authority_is_not_believed() {
    let key = Signing::new("key", Algorithm::ES256);
    let server = Server::start(key_set(&[&key])).await;
    let other = Server::start(key_set(&[&key])).await;
    let config = OidcConfig {
        ca_file: Some(other.authority.path().to_owned()),
        ..server.config()
    };
    let issuer = Issuer::new(config);
    assert!(matches!(
        issuer.ask().await,
        Err(FetchError::Connect { .. })
    ));
    // Nor one that says to be another issuer.
    let config = OidcConfig {
        issuer: format!("{}/", server.issuer),
        ..server.config()
    };
    let found = Issuer::new(config).ask().await;
    assert!(
        matches!(found, Err(FetchError::Content { .. })),
        "{found:?}"
    );
    assert_eq!(Issuer::new(server.config()).ask().await.unwrap(), 1);
}
