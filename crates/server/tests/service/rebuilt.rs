//! A catalog that was lost is made anew from the repository.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use everpoint_repository::{
    InstanceName,
    policy_document::{DatabasePolicy, LongTermPeriods, PolicyDocument},
};
use everpoint_server::{
    access::{Role, Scope},
    catalog::SeenDatabase,
    http::Method,
    policy::RetentionDays,
    service::{Directory, Existing, Grant, RebuildError, RunError, SignIn, Wanted, rebuild, start},
};
use everpoint_testkit::Cluster;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::support::{Place, Somebody, VERSION, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn at(second: i64) -> Result<Timestamp> {
    Ok(Timestamp::from_second(1_700_000_000 + second)?)
}

fn policy(oid: u32, name: &str, days: u8, deleted: Option<Timestamp>) -> Result<DatabasePolicy> {
    Ok(DatabasePolicy {
        oid: everpoint_pgformat::Oid::new(oid),
        name: name.to_owned(),
        collation: "C".to_owned(),
        created_at: at(5)?,
        deleted_at: deleted,
        short_term_days: days,
        tags: BTreeMap::from([("env".to_owned(), format!("{name} 1"))]),
        long_term: None,
    })
}

/// Waits until the repository's copy has as many principals and assignments as the service.
async fn copied(place: &Place, principals: usize, assignments: usize) -> Result<()> {
    let repository = place.repository().await?;
    let begun = Instant::now();
    loop {
        if let Some((_, found)) = repository.access().await?
            && (found.principals.len(), found.assignments.len()) == (principals, assignments)
        {
            let text = format!("{found:?}");
            ensure!(text.contains("argon2id$"), "no hash in {text}");
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the copy did not come");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn a_lost_catalog_is_made_anew(
    first: &str,
    lose: impl AsyncFnOnce(&Place) -> Result<()>,
) -> Result<()> {
    let place = Place::new().await?;
    let config = || place.config("state", first, "");
    let running = place.start_as("state", first, "").await?;
    let service = running.service();
    let owner = running.owner().context("an owner")?;
    let directory = Directory::open(&config()?).await?;
    let reader = Role::by_name("Reader");
    directory
        .add_user(
            "ann",
            SignIn::Password("twelve and more"),
            reader.map(Grant::from),
        )
        .await?;
    let (program, secret) = directory
        .add_program("nightly", reader.map(Grant::from), None)
        .await?;
    // What the service would have written of an instance.
    let one: InstanceName = "one".parse()?;
    let gone = Some(at(500)?);
    let mut databases = vec![policy(5, "app", 21, None)?, policy(6, "old", 3, gone)?];
    databases[0].long_term = Some(LongTermPeriods {
        weekly: "P5W".to_owned(),
        monthly: "PT0S".to_owned(),
        yearly: "P1Y".to_owned(),
        week_of_year: Some(7),
    });
    let document = PolicyDocument {
        written_at: Timestamp::now(),
        databases,
    };
    place
        .repository()
        .await?
        .write_policies(&one, &document)
        .await?;
    copied(&place, 3, 3).await?;

    let group = Scope::subscription(service.subscription());
    let assignments = format!("{group}/providers/Microsoft.Authorization/roleAssignments");
    let places = (service.tenant(), service.subscription());
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope={}/.default",
        owner.client_id,
        owner.secret.text(),
        service.config().base_url()
    );
    let other = form
        .replace(&owner.client_id.to_string(), &program.client_id.to_string())
        .replace(owner.secret.text(), secret.text());
    let path = format!("/{}/oauth2/v2.0/token", service.tenant());
    let token =
        async |service: &everpoint_server::service::Service, form: &str| -> Result<String> {
            let wanted = Wanted {
                method: Some(Method::Post),
                path: &path,
                query: "",
                token: None,
                identity_header: None,
                body: form.as_bytes(),
            };
            let answer = json(&service.answer(&wanted).await);
            let text = answer["access_token"].as_str();
            Ok(text.with_context(|| answer.to_string())?.to_owned())
        };
    let list = async |service: &everpoint_server::service::Service, token: &str| -> Value {
        let wanted = Wanted {
            method: Some(Method::Get),
            path: &assignments,
            query: VERSION,
            token: Some(token),
            identity_header: None,
            body: b"",
        };
        json(&service.answer(&wanted).await)
    };
    let before = list(service, &token(service, &form).await?).await;
    ensure!(
        before["value"].as_array().map(Vec::len) == Some(3),
        "{before}"
    );
    let not_empty = rebuild(&config()?, Existing::Refuse).await;
    assert!(
        matches!(not_empty, Err(RebuildError::Run(_))),
        "while it runs"
    );
    running.stop().await;
    let not_empty = rebuild(&config()?, Existing::Refuse).await;
    assert!(matches!(not_empty, Err(RebuildError::NotEmpty { .. })));

    lose(&place).await?;
    let refused = start(config()?).await.map(drop);
    assert!(matches!(refused, Err(RunError::CatalogLost)));
    let rebuilt = rebuild(&config()?, Existing::Refuse).await?;
    let counts = (rebuilt.principals, rebuilt.assignments, rebuilt.databases);
    assert_eq!(counts, (3, 3, 2));
    assert_eq!(rebuilt.set_aside, None);
    check(&place, first, &before, places, async |service| {
        token(service, &other).await?;
        Ok(list(service, &token(service, &form).await?).await)
    })
    .await?;

    // With force, what is there is kept beside.
    let rebuilt = rebuild(&config()?, Existing::SetAside).await?;
    assert!(rebuilt.set_aside.is_some());
    check(&place, first, &before, places, async |service| {
        Ok(list(service, &token(service, &form).await?).await)
    })
    .await
}

/// That the service knows what it knew, and goes on from there.
async fn check(
    place: &Place,
    first: &str,
    before: &Value,
    places: (uuid::Uuid, uuid::Uuid),
    list: impl AsyncFnOnce(&everpoint_server::service::Service) -> Result<Value>,
) -> Result<()> {
    let running = place.start_as("state", first, "").await?;
    let service = running.service();
    assert!(running.owner().is_none(), "no new owner");
    assert_eq!((service.tenant(), service.subscription()), places);
    assert_eq!(&list(service).await?, before);
    let one: InstanceName = "one".parse()?;
    let rows = service.catalog().databases(&one).await?;
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.oid,
                row.name.as_str(),
                row.retention.get(),
                row.deleted_at,
                row.tags.to_string(),
            )
        })
        .collect();
    let tags = |text: &str| text.to_owned();
    let app = (5, "app", 21, None, tags("env=app 1"));
    let old = (6, "old", 3, Some(at(500)?), tags("env=old 1"));
    assert_eq!(found, [app, old]);
    let long_term = service.catalog().long_term_policies(&one).await?;
    assert_eq!(long_term.len(), 1);
    let policy = &long_term[0].policy;
    let (_, week) = policy.yearly().context("a yearly period")?;
    assert_eq!(
        (policy.weekly().to_string(), week.get()),
        ("P5W".to_owned(), 7)
    );
    assert!(long_term[0].considered > at(500)?, "what is past stays so");
    let written = place.repository().await?.policies(&one).await?;
    let revision = service.catalog().policy_revision(&one).await?;
    assert_eq!(revision, written.map(|(revision, _)| revision));
    // A database that is seen again is the one that is known.
    let seen = SeenDatabase {
        oid: 5,
        name: "app".to_owned(),
        collation: "C".to_owned(),
        created_at: at(5)?,
    };
    let now = Timestamp::now();
    let seen = [seen];
    let observed =
        service
            .catalog()
            .observe_databases(&one, &seen, RetentionDays::LONGEST, None, now);
    observed.await?;
    assert_eq!(service.catalog().databases(&one).await?, rows);
    // Later changes come behind what the repository knows.
    let number = place.repository().await?.access_number().await?;
    let somebody = Somebody::new(service).await?;
    let begun = Instant::now();
    while place.repository().await?.access_number().await? <= number {
        ensure!(begun.elapsed() < PATIENCE, "the change is not copied");
        sleep(Duration::from_millis(100)).await;
    }
    service.catalog().remove_principal(somebody.id).await?;
    service.reload_access().await?;
    copied(place, 3, 3).await?;
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_file_is_made_anew_and_the_same_secrets_open_the_same_doors() -> Result<()> {
    a_lost_catalog_is_made_anew("", async |place| {
        for entry in std::fs::read_dir(place.path().join("state"))? {
            let path = entry?.path();
            if path.to_string_lossy().contains("catalog.db") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_of_postgresql_is_made_anew_too() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    cluster.sql("postgres", "CREATE DATABASE catalog").await?;
    let first = format!("catalog = \"{}\"\n", cluster.url("catalog"));
    a_lost_catalog_is_made_anew(&first, async |_| {
        cluster
            .sql("postgres", "DROP DATABASE catalog WITH (FORCE)")
            .await?;
        cluster.sql("postgres", "CREATE DATABASE catalog").await?;
        Ok(())
    })
    .await
}
