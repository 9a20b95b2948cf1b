use everpoint_pgformat::Oid;
use everpoint_testkit::Cluster;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    access::{Assignment, Role, Scope},
    policy::{EarlierCopy, LongTermPolicy, Period, RetentionDays, WeekOfYear},
};

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

/// What holds a catalog while a test runs.
enum Place {
    File(TempDir),
    Server(Box<Cluster>),
}

impl Place {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    async fn server() -> Self {
        let cluster = Cluster::builder(18).start().await.unwrap();
        cluster
            .sql("postgres", "CREATE DATABASE catalog")
            .await
            .unwrap();
        Self::Server(Box::new(cluster))
    }

    fn address(&self) -> CatalogAddress {
        match self {
            Self::File(directory) => CatalogAddress::File(directory.path().join("catalog.db")),
            Self::Server(cluster) => CatalogAddress::postgres(&cluster.url("catalog")).unwrap(),
        }
    }

    async fn open(&self) -> Catalog {
        Catalog::open(&self.address()).await.unwrap()
    }
}

/// Tests that hold for both: each becomes two.
macro_rules! on_both {
    ($(async fn $name:ident($place:ident: &Place) $body:block)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::$name(&Place::file()).await;
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::$name(&Place::server().await).await;
            })*
        }
        $(async fn $name($place: &Place) $body)*
    };
}

fn operation(number: u128, started: i64) -> OperationRow {
    OperationRow {
        id: Uuid::from_u128(number),
        kind: OperationKind::FullBackup,
        instance: "one".to_owned(),
        actor: "service".to_owned(),
        state: OperationState::InProgress,
        phase: "reading files".to_owned(),
        total_bytes: 0,
        done_bytes: 0,
        stored_bytes: 0,
        started_at: at(started),
        ended_at: None,
        error: None,
    }
}

fn principal(number: u128, name: &str, secret: Option<SecretRow>) -> PrincipalRow {
    let (id, client) = (Uuid::from_u128(number), Uuid::from_u128(number + 1000));
    PrincipalRow::service(id, client, name, secret, at(5))
}

on_both! {
    async fn a_database_keeps_its_policy_when_it_is_renamed_and_when_it_is_gone(place: &Place) {
        let catalog = place.open().await;
        let instance: everpoint_repository::InstanceName = "one".parse().unwrap();
        let look = async |seen: &[SeenDatabase], now| {
            catalog
                .observe_databases(&instance, seen, RetentionDays::DEFAULT, None, at(now))
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
        let named = async |name| {
            let rows = catalog.databases_named(&instance, name).await.unwrap();
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(named("RENAMED").await, ["renamed"]);
        assert_eq!(named("app").await, [""; 0]);
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
        let rows = look(&[seen(5, "renamed", 490)], 450).await;
        assert_eq!((rows[0].created_at, rows[0].retention), (at(10), days), "its files are newer");
        look(&[], 460).await;
        let rows = look(&[seen(5, "back", 10)], 500).await;
        let found = |row: &DatabaseRow| (row.name.clone(), row.retention, row.deleted_at);
        assert_eq!(found(&rows[0]), ("back".to_owned(), days, None));
        assert_eq!(rows.len(), 2);
        look(&[], 600).await;
        let purged = RetentionDays::of_deleted(0, days).unwrap();
        catalog.set_retention(&instance, &rows[0], purged).await.unwrap();
        let rows = look(&[seen(5, "back", 10)], 700).await;
        assert_eq!(found(&rows[0]), ("back".to_owned(), RetentionDays::DEFAULT, None));
    }

    async fn operations_of_servers_that_are_gone_are_ended_and_those_of_living_ones_are_not(place: &Place) {
        let instance: everpoint_repository::InstanceName = "one".parse().unwrap();
        let (gone, lives) = (Uuid::from_u128(91), Uuid::from_u128(92));
        let row = operation(1, 10);
        {
            let catalog = place.open().await;
            catalog.add_server(gone, "a", "gone", at(1)).await.unwrap();
            assert!(catalog.begin_operation(&row, gone, None).await.unwrap());
            let event = EventRow {
                time: at(11),
                message: "begun".to_owned(),
            };
            catalog.note_event(row.id, &event).await.unwrap();
            let (found, events) = catalog.operation(row.id).await.unwrap().unwrap();
            assert_eq!((found, events), (row.clone(), vec![event]));
        }
        let catalog = place.open().await;
        catalog.add_server(lives, "b", "lives", at(12)).await.unwrap();
        let other = operation(2, 12);
        assert!(catalog.begin_operation(&other, lives, None).await.unwrap());
        assert_eq!(catalog.end_interrupted(at(13)).await.unwrap(), 0);
        assert!(catalog.beat(gone).await.unwrap());
        catalog.remove_server(gone, Some(0)).await.unwrap();
        assert!(catalog.beat(gone).await.unwrap(), "it has counted on since");
        catalog.remove_server(gone, Some(2)).await.unwrap();
        assert!(!catalog.beat(gone).await.unwrap());
        assert_eq!(catalog.end_interrupted(at(20)).await.unwrap(), 1);
        let (found, _) = catalog.operation(row.id).await.unwrap().unwrap();
        assert_eq!(found.state, OperationState::Failed);
        assert_eq!(found.error.unwrap().0, "OperationInterrupted");
        assert_eq!(
            catalog.failures(&instance).await.unwrap(),
            (1, Some(at(20)))
        );
        // What a clock that was ahead dated is not the last.
        let ahead = OperationRow {
            started_at: Timestamp::now() + jiff::SignedDuration::from_hours(48),
            ..operation(3, 0)
        };
        assert!(catalog.begin_operation(&ahead, lives, None).await.unwrap());
        let done = OperationState::Succeeded;
        catalog.end_operation(ahead.id, done, None, ahead.started_at).await.unwrap();
        assert_eq!(
            catalog.failures(&instance).await.unwrap(),
            (1, Some(at(20)))
        );
        catalog
            .end_operation(other.id, done, None, at(31))
            .await
            .unwrap();
        assert_eq!(catalog.failures(&instance).await.unwrap(), (0, None));
    }

    async fn whoever_runs_an_operation_sees_that_another_one_cancelled_it(place: &Place) {
        let (runner, other) = (place.open().await, place.open().await);
        let row = operation(1, 10);
        assert!(runner.begin_operation(&row, Uuid::nil(), None).await.unwrap());
        let reading = everpoint_engine::progress::Progress::default().read();
        let note = async || runner.note_progress(row.id, &reading).await.unwrap();
        assert_eq!(note().await, Some(OperationState::InProgress));
        assert!(other.note_cancel(row.id).await.unwrap());
        assert_eq!(note().await, Some(OperationState::CancelInProgress));
        assert!(other.busy_instances().await.unwrap().contains("one"));
        let ended = OperationState::Cancelled;
        runner
            .end_operation(row.id, ended, Some(("OperationCancelled", "asked")), at(11))
            .await
            .unwrap();
        assert_eq!(note().await, None);
        assert!(!other.note_cancel(row.id).await.unwrap(), "it is over");
        assert!(other.busy_instances().await.unwrap().is_empty());
    }

    async fn one_server_schedules_and_one_that_lost_its_term_begins_nothing(place: &Place) {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let catalog = place.open().await;
        let free = catalog.lease().await.unwrap();
        assert_eq!(free.owner, None);
        let first = catalog.take_lease(one, &free).await.unwrap().unwrap();
        assert_eq!(catalog.take_lease(two, &free).await.unwrap(), None);
        let lease = catalog.lease().await.unwrap();
        assert!(catalog.renew_lease(one, first).await.unwrap());
        let too_late = catalog.take_lease(two, &lease).await.unwrap();
        assert_eq!(too_late, None, "it was renewed after the other looked");
        let begin = async |number, who, term| {
            let row = operation(number, 10);
            catalog.begin_operation(&row, who, Some(term)).await.unwrap()
        };
        assert!(begin(1, one, first).await);
        let lease = catalog.lease().await.unwrap();
        let second = catalog.take_lease(two, &lease).await.unwrap().unwrap();
        assert!(second > first);
        assert!(!catalog.renew_lease(one, first).await.unwrap());
        assert!(!begin(2, one, first).await);
        assert!(begin(3, two, second).await);
        // Nor is an older list of databases written down behind a newer one.
        let instance: everpoint_repository::InstanceName = "one".parse().unwrap();
        let look = async |name, by| {
            let (seen, days) = ([seen(5, name, 10)], RetentionDays::DEFAULT);
            let looked = catalog.observe_databases(&instance, &seen, days, Some(by), at(20));
            looked.await.unwrap()
        };
        let differences = Some(Differences { new: 1, gone: 0 });
        assert_eq!(look("new", (two, second)).await, differences);
        assert_eq!(look("old", (one, first)).await, None);
        assert_eq!(catalog.databases(&instance).await.unwrap()[0].name, "new");
        catalog.give_lease(one).await.unwrap();
        assert_eq!(catalog.lease().await.unwrap().owner, Some(two));
        catalog.give_lease(two).await.unwrap();
        assert!(!begin(4, two, second).await);
    }

    async fn servers_that_start_at_once_make_the_catalog_once(place: &Place) {
        let address = place.address();
        let open = || async {
            let catalog = Catalog::open(&address).await.unwrap();
            catalog.kept("tenant", || Uuid::new_v4().to_string()).await.unwrap()
        };
        let (a, b, c, d) = tokio::join!(open(), open(), open(), open());
        assert!(a == b && b == c && c == d, "{a} {b} {c} {d}");
        let catalog = place.open().await;
        let subscription = Scope::subscription(Uuid::nil());
        let owner = async |number| {
            let row = principal(number, "owner", None);
            let assignment = Assignment {
                id: row.id,
                principal: row.id,
                role: Role::by_name("Owner").unwrap().id,
                scope: subscription.clone(),
            };
            catalog.add_first_owner(&row, &assignment, at(1)).await.unwrap()
        };
        let (a, b, c) = tokio::join!(owner(1), owner(2), owner(3));
        assert_eq!([a, b, c].into_iter().filter(|made| *made).count(), 1);
        assert_eq!(catalog.assignments().await.unwrap().len(), 1);
    }

    async fn a_catalog_of_the_first_version_keeps_its_secrets(place: &Place) {
        let pool = place.address().connect().await.unwrap();
        sqlx::raw_sql(MIGRATIONS[0]).execute(&pool).await.unwrap();
        let id = Uuid::from_u128(1).to_string();
        sqlx::query("INSERT INTO principals (id, client_id, name, secret, created_us) VALUES ($1, $1, 'owner', 'argon2id$a$b', 5000000)")
            .bind(&id)
            .execute(&pool)
            .await
            .unwrap();
        sqlx::raw_sql("CREATE TABLE migrations (number BIGINT PRIMARY KEY); INSERT INTO migrations VALUES (1)")
            .execute(&pool)
            .await
            .unwrap();
        let found = place.open().await.principals().await.unwrap();
        assert_eq!(found[0].secrets[0].hash, "argon2id$a$b");
        assert_eq!((found[0].kind, found[0].created_at), (PrincipalKind::ServicePrincipal, at(5)));
    }

    async fn principals_come_and_go_with_their_secrets_and_each_change_counts(place: &Place) {
        let catalog = place.open().await;
        let number = async || catalog.changes().await.unwrap()[ACCESS];
        let mut last = number().await;
        let mut grew = async || {
            let now = number().await;
            assert!(now > last);
            last = now;
        };
        let secret = SecretRow::new("one", at(5), Some(at(100)));
        assert!(secret.is_valid(at(99)) && !secret.is_valid(at(100)));
        let program = principal(1, "program", Some(secret.clone()));
        catalog.add_principal(&program).await.unwrap();
        grew().await;
        let user = PrincipalRow::user(Uuid::from_u128(2), "Ann", None, None, at(6));
        catalog.add_principal(&user).await.unwrap();
        let same = PrincipalRow::user(Uuid::from_u128(3), "ANN", None, None, at(6));
        catalog.add_principal(&same).await.unwrap_err();
        assert_eq!(catalog.principals().await.unwrap(), [user.clone(), program.clone()]);
        grew().await;
        let (one, two) = (SecretRow::new("1", at(7), None), SecretRow::new("2", at(8), None));
        catalog.add_secret(program.id, &one).await.unwrap();
        grew().await;
        catalog.remove_secret(program.id, secret.id).await.unwrap();
        grew().await;
        let other = SecretRow::new("3", at(7), None);
        catalog.set_password(user.id, &other).await.unwrap();
        catalog.set_password(user.id, &two).await.unwrap();
        catalog.set_disabled(user.id, Some(at(9))).await.unwrap();
        grew().await;
        let found = catalog.principals().await.unwrap();
        assert_eq!((&found[0].secrets, found[0].disabled_at), (&vec![two], Some(at(9))));
        assert_eq!(found[1].secrets, [one]);
        let assignment = Assignment {
            id: Uuid::from_u128(9),
            principal: program.id,
            role: Role::by_name("Reader").unwrap().id,
            scope: Scope::subscription(Uuid::nil()),
        };
        catalog.add_assignment(&assignment, at(10)).await.unwrap();
        grew().await;
        assert!(catalog.remove_principal(program.id).await.unwrap());
        assert!(!catalog.remove_principal(program.id).await.unwrap());
        grew().await;
        assert_eq!(catalog.assignments().await.unwrap(), []);
    }

    async fn a_long_term_policy_reaches_back_to_when_it_was_switched_on(place: &Place) {
        use everpoint_repository::long_term::CopyReason;
        let catalog = place.open().await;
        let one: everpoint_repository::InstanceName = "one".parse().unwrap();
        let days = RetentionDays::DEFAULT;
        let seen = [seen(5, "app", 10)];
        let looked = catalog.observe_databases(&one, &seen, days, None, at(100));
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

    async fn what_is_asked_for_on_a_database_waits_for_its_turn_and_outlives_its_server(place: &Place) {
        let catalog = place.open().await;
        let asked = |number, request, holds| {
            let row = OperationRow {
                kind: OperationKind::Create,
                state: OperationState::Pending,
                ..operation(number, 10 + i64::try_from(number).unwrap())
            };
            let (name, server) = ("app".to_owned(), String::new());
            let pairs = [("env".to_owned(), number.to_string())];
            let tags = Tags::new(pairs.into()).unwrap();
            DatabaseOperation { row, name, request, tags, attempts: 0, server, made: None, holds }
        };
        let create = || DatabaseRequest::Create { collation: None };
        let one = asked(1, create(), true);
        assert!(catalog.queue_database_operation(&one).await.unwrap());
        assert!(!catalog.queue_database_operation(&asked(2, create(), true)).await.unwrap());
        let instead_of = Some(one.row.id);
        let three = asked(3, DatabaseRequest::Delete { instead_of, oid: None }, false);
        assert!(catalog.queue_database_operation(&three).await.unwrap());
        assert_eq!(catalog.open_database_operations().await.unwrap(), [one.clone(), three.clone()]);
        assert!(!catalog.hold_name(three.row.id).await.unwrap());
        let claim = async |server| catalog.claim_database_operation(one.row.id, server).await.unwrap();
        assert_eq!(claim("a").await, Some(1));
        assert_eq!(claim("b").await, None);
        assert_eq!(catalog.end_interrupted(at(20)).await.unwrap(), 0);
        let found = async |id| catalog.database_operation(id).await.unwrap().unwrap();
        let first = found(one.row.id).await;
        assert_eq!((first.server.as_str(), first.attempts), ("a", 1));
        // While its server is there it is that one's, whichever run of it.
        let run = Uuid::from_u128(77);
        catalog.add_server(run, "a", "a's address", at(20)).await.unwrap();
        assert_eq!(catalog.abandoned_database_operations().await.unwrap(), []);
        catalog.remove_server(run, None).await.unwrap();
        assert_eq!(catalog.abandoned_database_operations().await.unwrap(), std::slice::from_ref(&first));
        assert!(catalog.set_made(&first, Oid::new(4_000_000_000)).await.unwrap());
        let others = DatabaseOperation { server: "b".to_owned(), ..first.clone() };
        catalog.requeue_database_operation(&others).await.unwrap();
        assert_eq!(found(one.row.id).await.server, "a", "only who has it gives it back");
        catalog.requeue_database_operation(&first).await.unwrap();
        // The same server begins it anew: what the first attempt says counts no more.
        assert_eq!(claim("a").await, Some(2));
        let second = found(one.row.id).await;
        assert_eq!(second.made, Some(Oid::new(4_000_000_000)), "it may have been registered");
        let reading = everpoint_engine::progress::Progress::default().read();
        let note = async |attempt| catalog.note_database_progress(attempt, "creating", &reading).await;
        assert_eq!(note(&second).await.unwrap(), Some(OperationState::InProgress));
        assert_eq!(note(&first).await.unwrap(), None, "it was taken over");
        assert!(!catalog.set_made(&first, Oid::new(1)).await.unwrap());
        catalog.requeue_database_operation(&first).await.unwrap();
        assert_eq!(found(one.row.id).await.row.state, OperationState::InProgress);
        catalog.set_details(one.row.id, "{}").await.unwrap();
        let done = OperationState::Succeeded;
        let end = async |attempt| catalog.end_database_operation(attempt, done, None, at(21)).await;
        assert!(!end(&first).await.unwrap());
        assert!(end(&second).await.unwrap());
        assert!(!catalog.set_made(&second, Oid::new(1)).await.unwrap(), "it is over");
        assert!(catalog.hold_name(three.row.id).await.unwrap());
        let cancelled = catalog.cancel_queued(three.row.id, ("OperationCancelled", "asked"), at(22));
        assert!(cancelled.await.unwrap());
        assert_eq!(found(three.row.id).await.row.state, OperationState::Cancelled);
        assert_eq!(catalog.open_database_operations().await.unwrap(), []);
    }

    async fn only_deleted_databases_are_forgotten_and_their_policies_with_them(place: &Place) {
        let catalog = place.open().await;
        let one: everpoint_repository::InstanceName = "one".parse().unwrap();
        let look = async |seen: &[SeenDatabase], now| {
            let looked = catalog.observe_databases(&one, seen, RetentionDays::DEFAULT, None, at(now));
            looked.await.unwrap();
            catalog.databases(&one).await.unwrap()
        };
        let rows = look(&[seen(5, "app", 10), seen(6, "other", 10)], 100).await;
        let weekly = Period::parse("P4W").unwrap();
        let policy = LongTermPolicy::new(weekly, Period::NONE, Period::NONE, None).unwrap();
        for row in &rows {
            catalog.set_long_term(&one, row, &policy, at(100)).await.unwrap();
        }
        look(&[seen(6, "other", 10)], 200).await;
        catalog.forget_databases(&one, &rows).await.unwrap();
        let left = catalog.databases(&one).await.unwrap();
        assert_eq!(left, rows[1..], "it lives");
        let policies = catalog.long_term_policies(&one).await.unwrap();
        let oids: Vec<u32> = policies.iter().map(|policy| policy.oid).collect();
        assert_eq!(oids, [6]);
    }

    async fn a_newer_catalog_is_refused(place: &Place) {
        let catalog = place.open().await;
        sqlx::query("INSERT INTO migrations (number) VALUES (99)")
            .execute(&catalog.pool)
            .await
            .unwrap();
        let error = Catalog::open(&place.address()).await.unwrap_err();
        let known = MIGRATIONS.len();
        assert!(
            matches!(error, CatalogError::Newer { found, known: k } if found == known + 1 && k == known)
        );
    }
}

#[tokio::test]
async fn nobody_else_may_read_the_catalog() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::file();
    let _catalog = place.open().await;
    let Place::File(directory) = &place else {
        panic!()
    };
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
}
