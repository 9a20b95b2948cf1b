//! The ways to a token, and what a directory tells whom.

use anyhow::{Context, Result};
use everpoint_server::{
    access::{Assignment, Role, Scope},
    catalog::PrincipalRow,
    http::Method,
    identity::{ClientSecret, SecretHash},
    service::{Service, Wanted},
};
use jiff::Timestamp;
use serde_json::{Value, json as body};
use uuid::Uuid;

use super::support::{Place, json};

struct Program {
    row: PrincipalRow,
    secret: ClientSecret,
}

async fn program(service: &Service, name: &str) -> Result<Program> {
    let secret = ClientSecret::random().context("randomness")?;
    let hash = SecretHash::of(secret.text()).context("a hash")?;
    let row = PrincipalRow {
        id: Uuid::new_v4(),
        client_id: Uuid::new_v4(),
        name: name.to_owned(),
        secret: hash.text().to_owned(),
    };
    service
        .catalog()
        .add_principal(&row, Timestamp::now())
        .await?;
    service.reload_access().await?;
    Ok(Program { row, secret })
}

async fn ask(service: &Service, wanted: Wanted<'_>) -> (u16, Value) {
    let answer = service.answer(&wanted).await;
    (answer.status, json(&answer))
}

fn get(path: &str) -> Wanted<'_> {
    Wanted {
        method: Some(Method::Get),
        path,
        query: "",
        token: None,
        identity_header: None,
        body: b"",
    }
}

#[tokio::test]
async fn a_program_gets_a_token_in_each_of_the_three_forms_and_with_a_wrong_secret_in_none()
-> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let program = program(service, "reports").await?;
    let (base, id) = (place.base(), program.row.client_id);
    let form = |secret: &str, what: &str| {
        format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&{what}")
    };
    let scope = format!("scope={base}/.default");
    let resource = format!("resource={base}");
    let tenant = format!("/{}/oauth2/v2.0/token", service.tenant());
    let query = format!("{resource}&client_id={id}&api-version=2019-08-01");
    let short = format!("{resource}&api-version=2019-08-01");
    for (secret, status) in [(program.secret.text(), 200), ("wrong", 401)] {
        for (path, what) in [
            (tenant.as_str(), scope.as_str()),
            ("/adfs/oauth2/token", &scope),
            ("/adfs/oauth2/token", &resource),
        ] {
            let form = form(secret, what);
            let wanted = Wanted {
                method: Some(Method::Post),
                body: form.as_bytes(),
                ..get(path)
            };
            let (found, answer) = ask(service, wanted).await;
            assert_eq!(found, status, "{path} {what}: {answer}");
        }
        let both = format!("{id}:{secret}");
        for (query, header) in [(&query, secret), (&short, both.as_str())] {
            let wanted = Wanted {
                query,
                identity_header: Some(header),
                ..get("/msi/token")
            };
            let (found, answer) = ask(service, wanted).await;
            assert_eq!(found, status, "{query}: {answer}");
            if status == 200 {
                let token = answer["access_token"].as_str().context("no token")?;
                assert_eq!(service.signer().principal(token), Some(program.row.id));
                let until: i64 = answer["expires_on"].as_str().context("no time")?.parse()?;
                assert!(until > Timestamp::now().as_second());
            }
        }
    }
    // A token is for the service alone.
    let elsewhere = Wanted {
        query: "resource=https://elsewhere.example",
        identity_header: Some(program.secret.text()),
        ..get("/msi/token")
    };
    assert_eq!(ask(service, elsewhere).await.0, 400);
    let (_, configuration) = ask(service, get("/adfs/.well-known/openid-configuration")).await;
    assert_eq!(
        configuration["token_endpoint"].as_str(),
        Some(format!("{base}/adfs/oauth2/token").as_str())
    );
    running.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_directory_shows_others_only_to_those_who_may_read_assignments() -> Result<()> {
    let place = Place::new().await?;
    let running = place.start("").await?;
    let service = running.service();
    let (one, other) = (
        program(service, "one").await?,
        program(service, "other").await?,
    );
    let base = service.config().base_url();
    let token = service
        .signer()
        .sign(one.row.id, one.row.client_id, base, Timestamp::now())?;
    let ids = body!({"ids": [one.row.id, other.row.id], "types": ["user"]}).to_string();
    let filter = format!(
        "$filter=servicePrincipalNames/any(c:c%20eq%20'{}')",
        other.row.client_id
    );
    let names = |answer: &Value| -> Vec<String> {
        let all = answer["value"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<_> = all
            .iter()
            .filter_map(|one| one["displayName"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    for (sees, found) in [(false, vec!["one"]), (true, vec!["one", "other"])] {
        if sees {
            let reader = Assignment {
                id: Uuid::new_v4(),
                principal: one.row.id,
                role: Role::by_name("Reader").context("a role")?.id,
                scope: Scope::subscription(service.subscription()),
            };
            service
                .catalog()
                .add_assignment(&reader, Timestamp::now())
                .await?;
            service.reload_access().await?;
        }
        let by_ids = Wanted {
            method: Some(Method::Post),
            token: Some(&token),
            body: ids.as_bytes(),
            ..get("/v1.0/directoryObjects/getByIds")
        };
        let (status, answer) = ask(service, by_ids).await;
        assert_eq!(
            (status, names(&answer)),
            (200, found.iter().map(|name| (*name).to_owned()).collect())
        );
        let by_filter = Wanted {
            query: &filter,
            token: Some(&token),
            ..get("/v1.0/servicePrincipals")
        };
        let (_, answer) = ask(service, by_filter).await;
        assert_eq!(names(&answer).len(), usize::from(sees), "{answer}");
    }
    let unnamed = ask(service, get("/v1.0/servicePrincipals")).await;
    assert_eq!(unnamed.0, 401);
    running.stop().await;
    Ok(())
}
