//! Who signs in: users, service principals, people of another issuer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use everpoint_server::{
    access::{Role, Scope},
    audit::AuditFile,
    catalog::PrincipalKind,
    http::Method,
    identity::Signer,
    service::{Directory, DirectoryError, Grant, Service, SignIn, Wanted},
};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json as body};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::support::{Place, VERSION, json};

const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "twelve and some more";

/// What the token endpoint answers to a form.
async fn sign_in(service: &Service, form: &str) -> (u16, Value) {
    let path = format!("/{}/oauth2/v2.0/token", service.tenant());
    let base = service.config().base_url();
    let form = format!("{form}&scope=openid%20{base}/.default");
    let wanted = Wanted {
        method: Some(Method::Post),
        path: &path,
        query: "",
        token: None,
        identity_header: None,
        body: form.as_bytes(),
    };
    let answer = service.answer(&wanted).await;
    (answer.status, json(&answer))
}

/// Signs in with what the catalog knows now. A failed attempt would count.
async fn signed_in(service: &Service, form: &str) -> Result<Value> {
    service.reload_access().await?;
    let (status, answer) = sign_in(service, form).await;
    anyhow::ensure!(status == 200, "{status}: {answer}");
    Ok(answer)
}

fn password(name: &str, password: &str) -> String {
    format!("grant_type=password&username={name}&password={password}")
}

async fn get(service: &Service, path: &str, token: &str) -> (u16, Value) {
    let wanted = Wanted {
        method: Some(Method::Get),
        path,
        query: VERSION,
        token: Some(token),
        identity_header: None,
        body: b"",
    };
    let answer = service.answer(&wanted).await;
    (answer.status, json(&answer))
}

/// Asks until the answer has this status: the service follows its catalog with a delay.
async fn until<F: Future<Output = (u16, Value)>>(
    status: u16,
    ask: impl Fn() -> F,
) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let (found, answer) = ask().await;
        if found == status {
            return Ok(answer);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{status} did not come, but {found}: {answer}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn token(answer: &Value) -> Result<String> {
    let text = answer["access_token"].as_str();
    Ok(text.context("no token")?.to_owned())
}

fn subscription(service: &Service) -> String {
    Scope::subscription(service.subscription()).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_signs_in_until_disabled_and_guessing_is_slowed_down() -> Result<()> {
    let place = Place::new().await?;
    let config = place.config("state", "", "")?;
    let empty = Directory::open(&config).await;
    assert!(empty.is_err(), "before there is a state directory");
    let running = place.start("").await?;
    let service = running.service();
    let directory = Directory::open(&config).await?;
    let add = async |name, password| {
        let role = Role::by_name("Reader");
        directory
            .add_user(name, SignIn::Password(password), role.map(Grant::from))
            .await
    };
    let short = add("Ann", "elevenchars").await;
    assert!(matches!(short, Err(DirectoryError::Password)));
    add("Ann", PASSWORD).await?;
    let taken = add("ann", PASSWORD).await;
    assert!(matches!(taken, Err(DirectoryError::Taken { .. })));

    let form = password("ANN", PASSWORD);
    let answer = signed_in(service, &form).await?;
    let access = token(&answer)?;
    let place_of = subscription(service);
    assert_eq!(get(service, &place_of, &access).await.0, 200);
    let (status, answer) = sign_in(service, &password("ann", "something else")).await;
    assert_eq!((status, &answer["error"]), (400, &body!("invalid_grant")));
    let (_, unknown) = sign_in(service, &password("bob", PASSWORD)).await;
    assert_eq!(unknown, answer, "an unknown name looks the same");
    let client = format!("grant_type=client_credentials&client_id=ann&client_secret={PASSWORD}");
    assert_eq!(sign_in(service, &client).await.0, 401);

    directory
        .set_password("ann", "another long password")
        .await?;
    let new = password("ann", "another long password");
    signed_in(service, &new).await?;
    assert_eq!(sign_in(service, &form).await.0, 400, "the earlier password");
    directory.disable(PrincipalKind::User, "ann").await?;
    until(401, || get(service, &place_of, &access)).await?;
    assert_eq!(sign_in(service, &new).await.0, 400);
    let last = directory.disable(PrincipalKind::ServicePrincipal, "owner");
    assert!(matches!(last.await, Err(DirectoryError::LastOwner { .. })));

    for _ in 0..20 {
        sign_in(service, &password("carl", "guess")).await;
    }
    assert_eq!(sign_in(service, &password("carl", "guess")).await.0, 429);
    assert_eq!(sign_in(service, &password("dora", "guess")).await.0, 400);

    let log = place.path().join("state/audit.jsonl");
    let begun = Instant::now();
    while !std::fs::read_to_string(&log)?.contains("\"disable\"") {
        assert!(
            begun.elapsed() < PATIENCE,
            "what was done is not in the audit log"
        );
        sleep(Duration::from_millis(200)).await;
    }
    let text = std::fs::read_to_string(&log)?;
    assert!(text.contains("add user") && text.contains("operating system user"));
    assert!(!text.contains(PASSWORD));
    running.stop().await;
    AuditFile::check(&log, None)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_without_a_break_and_an_expired_one_is_of_no_use() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let directory = Directory::open(&place.config("state", "", "")?).await?;
    let form = |client: Uuid, secret: &str| {
        format!("grant_type=client_credentials&client_id={client}&client_secret={secret}")
    };
    let (row, first) = directory.add_program("nightly", None, None).await?;
    let first = form(row.client_id, first.text());
    signed_in(service, &first).await?;
    let (_, second) = directory.add_secret("nightly", None).await?;
    let second = form(row.client_id, second.text());
    signed_in(service, &second).await?;
    assert_eq!(sign_in(service, &first).await.0, 200);
    directory
        .remove_secret("nightly", row.secrets[0].id)
        .await?;
    until(401, || sign_in(service, &first)).await?;
    assert_eq!(sign_in(service, &second).await.0, 200);
    for _ in 0..4 {
        directory.add_secret("nightly", None).await?;
    }
    let enough = directory.add_secret("nightly", None).await;
    assert!(matches!(enough, Err(DirectoryError::Secrets { .. })));

    let ago = Timestamp::now() - SignedDuration::from_secs(1);
    let (row, old) = directory.add_program("old", None, Some(ago)).await?;
    directory.add_program("later", None, None).await?;
    let old = form(row.client_id, old.text());
    // Known by now, for it came before one that is.
    let known = |row: &everpoint_server::catalog::PrincipalRow| row.name == "later";
    let begun = Instant::now();
    while !service.principals().iter().any(known) {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sign_in(service, &old).await.0, 401);
    let removed = directory.remove(PrincipalKind::ServicePrincipal, "nightly");
    removed.await?;
    until(401, || sign_in(service, &second)).await?;
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_another_issuer_have_the_rights_they_are_given_and_nobody_elses() -> Result<()> {
    let text = Signer::new_key().context("randomness")?;
    let der = data_encoding::BASE64.decode(text.as_bytes())?;
    let key = EncodingKey::from_ec_der(&der);
    let keys = body!({"keys": [Jwk::from_encoding_key(&key, Algorithm::ES256)?]});
    let place = Place::new().await?;
    let file = place.path().join("keys.json");
    std::fs::write(&file, keys.to_string())?;
    let oidc = format!(
        "[identity.oidc]\nissuer = \"https://issuer.example\"\naudience = [\"everpoint\"]\n\
         claim = \"oid\"\nkeys = \"{}\"\n",
        file.display()
    );
    let running = place.start(&oidc).await?;
    let service = running.service();
    let sign = |oid: &str| {
        let now = Timestamp::now().as_second();
        let claims = body!({
            "iss": "https://issuer.example", "aud": "everpoint", "oid": oid, "exp": now + 600,
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key)
    };
    let place_of = subscription(service);
    let ann = Uuid::new_v4().to_string();
    let (status, answer) = get(service, &place_of, &sign(&ann)?).await;
    assert_eq!(status, 403, "nobody knows her yet");
    assert!(answer.to_string().contains(&ann), "{answer}");

    let directory = Directory::open(&place.config("state", "", &oidc)?).await?;
    let role = Role::by_name("Reader");
    directory
        .add_user("ann", SignIn::External(&ann), role.map(Grant::from))
        .await?;
    let token = sign(&ann)?;
    until(200, || get(service, &place_of, &token)).await?;
    let no_password = directory.set_password("ann", PASSWORD).await;
    assert!(matches!(no_password, Err(DirectoryError::External { .. })));
    assert_eq!(sign_in(service, &password("ann", "")).await.0, 400);

    // The issuer cannot make anybody of one who signs in here.
    let principals = service.principals();
    let owner = principals.iter().find(|row| row.name == "owner");
    let owner = owner.context("no owner")?;
    assert_eq!(
        get(service, &place_of, &sign(&owner.id.to_string())?)
            .await
            .0,
        401
    );

    let without = place.config("state", "", "")?;
    let reloaded = service.reload(without)?;
    assert_eq!(reloaded.changed, ["identity"]);
    assert_eq!(get(service, &place_of, &token).await.0, 401);
    running.stop().await;
    Ok(())
}
