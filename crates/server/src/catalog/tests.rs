use super::*;
use crate::policy::RetentionDays;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seen(oid: u32, name: &str, created: i64) -> SeenDatabase {
    SeenDatabase {
        oid,
        name: name.to_owned(),
        collation: "C".to_owned(),
        created_at: at(created),
    }
}

async fn catalog() -> (tempfile::TempDir, Catalog) {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&directory.path().join("catalog.db"))
        .await
        .unwrap();
    (directory, catalog)
}

#[tokio::test]
async fn a_database_keeps_its_policy_when_it_is_renamed_and_when_it_is_gone() {
    let (_directory, catalog) = catalog().await;
    let instance: everpoint_repository::InstanceName = "one".parse().unwrap();
    let look = async |seen: &[SeenDatabase], now| {
        catalog
            .observe_databases(&instance, seen, RetentionDays::DEFAULT, at(now))
            .await
            .unwrap();
        catalog.databases(&instance).await.unwrap()
    };
    let rows = look(&[seen(5, "app", 10)], 100).await;
    assert_eq!(rows[0].retention, RetentionDays::DEFAULT);
    let days = RetentionDays::of_living(30).unwrap();
    catalog
        .set_retention(&instance, &rows[0], days)
        .await
        .unwrap();
    let rows = look(&[seen(5, "renamed", 10)], 200).await;
    assert_eq!(
        (rows.len(), rows[0].name.as_str(), rows[0].retention),
        (1, "renamed", days)
    );
    let rows = look(&[seen(6, "renamed", 300)], 300).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].deleted_at, rows[0].retention),
        (Some(at(300)), days)
    );
    assert_eq!(
        (rows[1].deleted_at, rows[1].retention),
        (None, RetentionDays::DEFAULT)
    );
    let rows = look(&[seen(6, "renamed", 300)], 400).await;
    assert_eq!(rows[0].deleted_at, Some(at(300)), "it is deleted once");
}

#[tokio::test]
async fn operations_outlive_the_service_and_unfinished_ones_are_ended_when_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    let instance: everpoint_repository::InstanceName = "one".parse().unwrap();
    let mut row = OperationRow {
        id: uuid::Uuid::from_u128(1),
        kind: OperationKind::FullBackup,
        instance: "one".to_owned(),
        actor: "service".to_owned(),
        state: OperationState::InProgress,
        phase: "reading files".to_owned(),
        total_bytes: 0,
        done_bytes: 0,
        stored_bytes: 0,
        started_at: at(10),
        ended_at: None,
        error: None,
    };
    {
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.begin_operation(&row).await.unwrap();
        let event = EventRow {
            time: at(11),
            message: "begun".to_owned(),
        };
        catalog.note_event(row.id, &event).await.unwrap();
        let (found, events) = catalog.operation(row.id).await.unwrap().unwrap();
        assert_eq!((found, events), (row.clone(), vec![event]));
    }
    let catalog = Catalog::open(&path).await.unwrap();
    assert_eq!(catalog.end_interrupted(at(20)).await.unwrap(), 1);
    let (found, _) = catalog.operation(row.id).await.unwrap().unwrap();
    assert_eq!(found.state, OperationState::Failed);
    assert_eq!(found.error.unwrap().0, "OperationInterrupted");
    assert_eq!(
        catalog.failures(&instance).await.unwrap(),
        (1, Some(at(20)))
    );
    row.id = uuid::Uuid::from_u128(2);
    row.started_at = at(30);
    catalog.begin_operation(&row).await.unwrap();
    let done = OperationState::Succeeded;
    catalog
        .end_operation(row.id, done, None, at(31))
        .await
        .unwrap();
    assert_eq!(catalog.failures(&instance).await.unwrap(), (0, None));
}

#[tokio::test]
async fn nobody_else_may_read_the_catalog() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _catalog) = catalog().await;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_newer_catalog_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    let catalog = Catalog::open(&path).await.unwrap();
    sqlx::query("INSERT INTO migrations (number) VALUES (99)")
        .execute(&catalog.pool)
        .await
        .unwrap();
    let error = Catalog::open(&path).await.unwrap_err();
    assert!(matches!(error, CatalogError::Newer { found, known } if found == known + 1));
}

#[tokio::test]
async fn a_long_term_policy_reaches_back_to_when_it_was_switched_on() {
    use crate::policy::{EarlierCopy, LongTermPolicy, Period, WeekOfYear};
    use everpoint_repository::long_term::CopyReason;
    let (_directory, catalog) = catalog().await;
    let one: everpoint_repository::InstanceName = "one".parse().unwrap();
    let days = RetentionDays::DEFAULT;
    let seen = [seen(5, "app", 10)];
    let looked = catalog.observe_databases(&one, &seen, days, at(100));
    looked.await.unwrap();
    let app = catalog.databases(&one).await.unwrap().remove(0);
    let week = |number| WeekOfYear::new(number).unwrap();
    let years = Period::parse("P5Y").unwrap();
    let policy = |number| {
        let week = Some(week(number));
        LongTermPolicy::new(Period::NONE, Period::NONE, years, week).unwrap()
    };
    let set = async |policy: &LongTermPolicy, now| {
        let set = catalog.set_long_term(&one, &app, policy, at(now));
        set.await.unwrap();
        catalog.long_term_policies(&one).await.unwrap()
    };
    let rows = set(&policy(3), 200).await;
    assert_eq!((rows[0].policy, rows[0].considered), (policy(3), at(200)));
    assert!(rows[0].is_of(&app));
    // Another policy does not pass over what was not copied yet.
    let rows = set(&policy(4), 300).await;
    assert_eq!((rows[0].policy, rows[0].considered), (policy(4), at(200)));
    catalog
        .note_considered(&one, &rows[0], at(400), &[CopyReason::Yearly])
        .await
        .unwrap();
    let rows = set(&policy(5), 500).await;
    assert_eq!(rows[0].considered, at(400));
    let yearly = EarlierCopy {
        taken: at(400),
        reasons: vec![CopyReason::Yearly],
    };
    assert_eq!(rows[0].last, [yearly]);
    assert_eq!(set(&LongTermPolicy::default(), 600).await, []);
    assert_eq!(set(&policy(3), 700).await[0].considered, at(700));
}
