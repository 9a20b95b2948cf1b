//! Single tables, moved into a database where others work.

use std::path::Path;

use anyhow::Result;
use everpoint_engine::transplant::{
    Control, Event, MissingRoles, MoveError, MoveState, OpenSessions, Repaired, Step,
    TablespaceUse,
    name::OperationId,
    repair,
    replicas::ReplicaPolicy,
    table::{ItemKind, Place, TablesPlan, TablesRequest, clear, execute, name::TableName, plan},
};
use everpoint_instance::{ConnectionSpec, PgBinaries};
use everpoint_testkit::{
    Cluster, Server,
    compare::{DatabaseContent, check_integrity, fingerprint_database, schema_text},
    run,
};

use crate::{
    copy::ROLES,
    interrupted::retry_while_locked,
    support::{Said, fills_up_at},
};

const TABLES: &str = include_str!("tables.sql");
const HIDDEN: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'everpoint%'";

/// A server with the database `shop`, and as many copies of it as are wanted: a source serves once.
struct Shop {
    cluster: Cluster,
    copies: std::cell::Cell<usize>,
}

impl Shop {
    async fn open(server: &Server) -> Result<Self> {
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", ROLES).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        cluster.sql("shop", TABLES).await?;
        Ok(Self {
            cluster,
            copies: std::cell::Cell::new(0),
        })
    }

    /// A database that holds what `shop` holds.
    async fn copy(&self) -> Result<String> {
        self.copies.set(self.copies.get() + 1);
        let name = format!("copy_{}", self.copies.get());
        let sql = format!("CREATE DATABASE {name} TEMPLATE shop STRATEGY file_copy");
        self.cluster.sql("postgres", &sql).await?;
        Ok(name)
    }

    /// A move of tables of a fresh copy into a database.
    async fn request(
        &self,
        target: &Cluster,
        place: Place,
        tables: &[&str],
        work: &Path,
    ) -> Result<TablesRequest> {
        let binaries =
            PgBinaries::find(Some(target.server().bin()), target.server().version()).await?;
        Ok(TablesRequest {
            operation: OperationId::new(),
            source: self.cluster.connection_string("postgres").parse()?,
            source_database: self.copy().await?,
            target: target.connection_string("postgres").parse()?,
            tables: tables
                .iter()
                .map(|name| name.parse())
                .collect::<Result<_, _>>()?,
            place,
            missing_roles: MissingRoles::Refuse,
            tablespaces: TablespaceUse::AsItWas,
            replicas: Vec::new(),
            replica_policy: ReplicaPolicy::Wait,
            binaries,
            jobs: 2,
            work_directory: work.to_owned(),
        })
    }
}

fn into(database: &str) -> Place {
    Place {
        database: database.to_owned(),
        new_name: None,
    }
}

fn named(database: &str, name: &str) -> Place {
    Place {
        database: database.to_owned(),
        new_name: Some(name.parse().unwrap()),
    }
}

async fn carry_out(request: TablesRequest) -> Result<(TablesPlan, Vec<String>, u64)> {
    let work = request.work_directory.clone();
    let plan = plan(request).await?;
    let moved = execute(&plan, &Said::default().control(|_, _| {})).await?;
    assert_eq!(std::fs::read_dir(work)?.count(), 0);
    Ok((plan, moved.not_taken, moved.rows))
}

async fn refusal(request: TablesRequest) -> Result<String> {
    match plan(request).await {
        Err(MoveError::Refused(refusals)) => Ok(refusals.to_string()),
        Err(error) => Err(error.into()),
        Ok(plan) => panic!("not refused: {plan}"),
    }
}

async fn content(cluster: &Cluster, database: &str) -> Result<DatabaseContent> {
    fingerprint_database(&cluster.connect(database).await?).await
}

fn assert_text(expected: &str, found: &str) {
    let lost: Vec<&str> = expected
        .lines()
        .filter(|line| !found.contains(line))
        .collect();
    let more: Vec<&str> = found
        .lines()
        .filter(|line| !expected.contains(line))
        .collect();
    assert!(
        expected == found,
        "definitions differ:\n- {lost:#?}\n+ {more:#?}"
    );
}

everpoint_testkit::on_every_version! {
    async fn dropped_tables_come_back_with_all_that_came_with_them(server: Server) -> Result<()> {
        let shop = Shop::open(&server).await?;
        let target = &shop.cluster;
        // What comes from without does not come back: it is taken away before.
        let sql = "ALTER TABLE sales.lines DROP CONSTRAINT lines_order_id_fkey; DROP VIEW sales.seen";
        target.sql("shop", sql).await?;
        let (before, text) = (content(target, "shop").await?, schema_text(target, "shop").await?);
        let mut living = before.clone();
        for (tables, dropped) in [
            (&["sales.orders"][..], "sales.orders"),
            (&["sales.events"][..], "sales.events"),
            (&["\"My Schema\".\"a.b\"", "Sales.Customers", "sales.lines"][..],
             "\"My Schema\".\"a.b\", sales.customers, sales.lines CASCADE"),
            (&["sales.parent", "sales.child", "sales.fleeting"][..], "sales.parent, sales.child, sales.fleeting"),
        ] {
            let work = tempfile::tempdir()?;
            let request = shop.request(target, into("shop"), tables, work.path()).await?;
            // Event triggers of the database do not see what is done.
            target.sql("shop", &format!("DROP TABLE {dropped}")).await?;
            let (plan, lost, _) = carry_out(request).await?;
            assert!(lost.is_empty(), "{lost:?}");
            assert!(plan.renamed().next().is_none(), "{plan}");
            // Keys that pointed to customers are named, and are made again here.
            if tables.contains(&"Sales.Customers") {
                let said = plan.remarks.join("\n");
                for key in ["orders_customer_fkey", "events_customer_fkey"] {
                    assert!(said.contains(key), "{key} in {said}");
                }
                target.sql("shop", "ALTER TABLE sales.orders ADD CONSTRAINT orders_customer_fkey
                        FOREIGN KEY (customer) REFERENCES sales.customers ON DELETE CASCADE;
                    ALTER TABLE sales.events ADD FOREIGN KEY (customer) REFERENCES sales.customers").await?;
            }
            living = content(target, "shop").await?;
            assert_eq!(living.tables, before.tables, "{tables:?}");
            assert_eq!(living.sequences, before.sequences, "{tables:?}");
        }
        assert_eq!(living, before);
        assert_text(&text, &schema_text(target, "shop").await?);
        assert_eq!(target.value("shop", HIDDEN).await?, "0");
        // Nothing fired while they were filled, and triggers do now.
        let next = "INSERT INTO sales.orders (customer) VALUES (1) RETURNING concat_ws(',', note, id > 400, number)";
        assert_eq!(target.value("shop", next).await?, "none+,t,151");
        let stale = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated";
        assert_eq!(target.value("shop", stale).await?, "0");
        check_integrity(target).await
    }
}

#[test]
fn a_table_comes_back_beside_the_living_one_under_names_of_its_own() -> Result<()> {
    run(beside(Server::find(15)?))
}

#[test]
fn a_table_comes_back_beside_the_living_one_on_the_newest_server() -> Result<()> {
    run(beside(Server::find(18)?))
}

async fn beside(server: Server) -> Result<()> {
    let shop = Shop::open(&server).await?;
    let target = &shop.cluster;
    let before = content(target, "shop").await?;
    // The living database has changed since: a customer is gone whose orders come back, and names are taken.
    target
        .sql(
            "shop",
            "DELETE FROM sales.lines WHERE order_id = 22; SET session_replication_role = replica;
        DELETE FROM sales.customers WHERE id = 6; RESET session_replication_role;
        CREATE TABLE sales.orders_old_id_seq (a int)",
        )
        .await?;
    // Rights that this server would give of itself are not the table's.
    target
        .sql(
            "shop",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO second_reader;
        ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO second_reader",
        )
        .await?;
    let work = tempfile::tempdir()?;
    let place = named("shop", "sales.orders_old");
    let request = shop
        .request(target, place, &["sales.orders"], work.path())
        .await?;
    let (plan, lost, rows) = carry_out(request).await?;
    assert_eq!(rows, 150);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(
        lost[0].contains("(customer)=(6) is not present"),
        "{lost:?}"
    );
    let renamed: Vec<String> = plan
        .renamed()
        .map(|placed| format!("{} {} {}", placed.kind, placed.from.table, placed.to.table))
        .collect();
    for wanted in [
        "index orders_pkey orders_old_pkey",
        "index by_mood by_mood1",
        "index orders_number_note_key orders_old_number_note_key",
        "sequence orders_id_seq orders_old_id_seq1",
        "sequence orders_number_seq orders_old_number_seq",
        "statistics orders_stat orders_old_stat",
    ] {
        assert!(
            renamed.iter().any(|name| name == wanted),
            "{wanted} in {renamed:?}"
        );
    }
    let said = plan.remarks.join("\n");
    assert!(
        said.contains("lines_order_id_fkey") && said.contains("sales.shared"),
        "{said}"
    );
    let found = content(target, "shop").await?;
    assert_eq!(
        found.tables["sales.orders_old"],
        before.tables["sales.orders"]
    );
    assert_eq!(found.tables["sales.orders"], before.tables["sales.orders"]);
    assert_eq!(
        found.sequences["sales.orders_old_id_seq1"],
        before.sequences["sales.orders_id_seq"]
    );
    let own = "SELECT concat_ws(',', c.relowner::regrole, has_table_privilege('second_reader', c.oid, 'SELECT'),
            has_column_privilege('reader_of_things', c.oid, 'customer', 'SELECT'), c.relrowsecurity, c.reloptions,
            pg_get_serial_sequence(c.oid::regclass::text, 'id'), pg_get_serial_sequence(c.oid::regclass::text, 'number'),
            (SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('f', 'p')))
        FROM pg_class c WHERE oid = 'sales.orders_old'::regclass";
    assert_eq!(
        target.value("shop", own).await?,
        "owner_of_things,f,t,t,{fillfactor=90,autovacuum_enabled=false},sales.orders_old_id_seq1,\
         sales.orders_old_number_seq,orders_earlier_fkey orders_old_pkey"
    );
    // Partitions are named after their table, wherever they were.
    let work = tempfile::tempdir()?;
    let place = named("shop", "sales.\"Old Events\"");
    let request = shop
        .request(target, place, &["sales.events"], work.path())
        .await?;
    let (_, lost, _) = carry_out(request).await?;
    assert_eq!(lost.len(), 1, "customer 6 has events: {lost:?}");
    let tree = "SELECT string_agg(relid::text, ',' ORDER BY relid::text COLLATE \"C\") FROM pg_partition_tree('sales.\"Old Events\"')";
    assert_eq!(
        target.value("shop", tree).await?,
        "sales.\"Old Events\",sales.\"Old Events_2024\",sales.\"Old Events_2024_a\",sales.\"Old Events_late\",\
         sales.\"odd events\""
    );
    // A partition alone is a table, and can be made a partition again by what is said.
    let work = tempfile::tempdir()?;
    let request = shop
        .request(target, into("shop"), &["sales.events_late"], work.path())
        .await?;
    target.sql("shop", "DROP TABLE sales.events_late").await?;
    let (plan, lost, _) = carry_out(request).await?;
    assert!(lost.is_empty(), "{lost:?}");
    let said = plan.remarks.join("\n");
    let attach = said
        .split("again: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(attach.ends_with("events_late DEFAULT"), "{attach}");
    target
        .sql(
            "shop",
            &format!("INSERT INTO sales.customers VALUES (6, 'again'); {attach}"),
        )
        .await?;
    let found = content(target, "shop").await?;
    assert_eq!(
        found.tables["sales.events_late"],
        before.tables["sales.events_late"]
    );
    assert_eq!(target.value("shop", HIDDEN).await?, "0");
    check_integrity(target).await
}

#[test]
fn tables_go_into_another_server_of_a_later_version() -> Result<()> {
    run(async {
        let shop = Shop::open(&Server::find(15)?).await?;
        let target = Cluster::builder(18)
            .setting("wal_level = logical")
            .start()
            .await?;
        target
            .sql(
                "postgres",
                "CREATE DATABASE archive TEMPLATE template0 ENCODING 'UTF8'",
            )
            .await?;
        target
            .sql(
                "archive",
                "CREATE TABLE other (a int); CREATE PUBLICATION everything FOR ALL TABLES",
            )
            .await?;
        let slot = "SELECT pg_create_logical_replication_slot('watcher', 'pgoutput')";
        target.sql("archive", slot).await?;
        let work = tempfile::tempdir()?;
        let tables = ["sales.orders", "sales.events", "\"My Schema\".\"a.b\""];
        let mut request = shop
            .request(&target, into("archive"), &tables, work.path())
            .await?;
        let before = (
            content(&target, "archive").await?,
            schema_text(&target, "archive").await?,
        );
        // What the tables are made of is named, all at once, and the roles with it.
        let said = refusal(request.clone()).await?;
        for missing in [
            "type sales.mood",
            "type sales.mood[]",
            "type sales.place",
            "type sales.amount",
            "extension hstore",
            "function sales.twice(integer)",
            "owner_of_things",
            "reader_of_things",
            "--create-roles",
        ] {
            assert!(said.contains(missing), "{missing} in {said}");
        }
        assert!(!said.contains("sales.shared"), "it comes along: {said}");
        let after = (
            content(&target, "archive").await?,
            schema_text(&target, "archive").await?,
        );
        assert_eq!(before, after);
        // Types that are other ones are not taken for the same.
        target.sql("archive", "CREATE EXTENSION hstore; CREATE SCHEMA sales; CREATE TYPE sales.mood AS ENUM ('calm');
            CREATE TYPE sales.place AS (street text, number int); CREATE DOMAIN sales.amount AS numeric(12, 2);
            CREATE FUNCTION sales.twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2").await?;
        request.missing_roles = MissingRoles::Create;
        request.source_database = shop.copy().await?;
        let said = refusal(request.clone()).await?;
        assert!(said.contains("other ones now: type sales.mood"), "{said}");
        target
            .sql("archive", "ALTER TYPE sales.mood ADD VALUE 'keen'")
            .await?;
        request.source_database = shop.copy().await?;
        let (plan, lost, _) = carry_out(request).await?;
        assert!(lost.is_empty(), "{lost:?}");
        let said = plan.remarks.join("\n");
        for left_out in [
            "trigger noted of sales.orders",
            "orders_customer_fkey",
            "events_customer_fkey",
            "publish",
        ] {
            assert!(said.contains(left_out), "{left_out} in {said}");
        }
        assert_eq!(plan.new_roles, ["owner_of_things", "reader_of_things"]);
        assert_eq!(plan.new_schemas, ["My Schema"]);
        assert!(
            plan.placed
                .iter()
                .any(|placed| placed.kind == ItemKind::Sequence && placed.to.table == "shared")
        );
        let (expected, found) = (
            content(&shop.cluster, "shop").await?,
            content(&target, "archive").await?,
        );
        for name in [
            "sales.orders",
            "sales.events_2024_a",
            "\"My Schema\".\"odd events\"",
            "\"My Schema\".\"a.b\"",
        ] {
            assert_eq!(found.tables[name], expected.tables[name], "{name}");
        }
        assert_eq!(
            found.sequences["sales.shared"],
            expected.sequences["sales.shared"]
        );
        // Nobody was sent rows of tables under names that nobody else has.
        let sent = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('watcher', NULL, NULL,
            'proto_version', '1', 'publication_names', 'everything') WHERE get_byte(data, 0) IN (73, 82)";
        assert_eq!(target.value("archive", sent).await?, "0");
        let unlogged = "SELECT count(*) FROM pg_class WHERE relpersistence = 'u'";
        assert_eq!(target.value("archive", unlogged).await?, "0");
        check_integrity(&target).await
    })
}

#[test]
fn what_speaks_against_tables_is_said_and_nothing_is_changed() -> Result<()> {
    run(async {
        let shop = Shop::open(&Server::find(18)?).await?;
        let target = &shop.cluster;
        let before = (
            content(target, "shop").await?,
            schema_text(target, "shop").await?,
        );
        let work = tempfile::tempdir()?;
        for (place, tables, said) in [
            (
                into("shop"),
                &["sales.orders", "sales.lines"][..],
                &["sales.orders exists", "sales.lines exists", "--as"][..],
            ),
            (
                into("nowhere"),
                &["sales.orders"],
                &["no database `nowhere`"],
            ),
            (
                named("shop", "sales.customers"),
                &["sales.orders"],
                &["sales.customers exists"],
            ),
            (
                named("shop", "sales.mood"),
                &["sales.orders"],
                &["sales.mood exists"],
            ),
            (
                named("shop", "sale.orders"),
                &["sales.orders"],
                &["no schema `sale`"],
            ),
            (
                named("shop", "pg_catalog.orders"),
                &["sales.orders"],
                &["pg_catalog"],
            ),
            (
                named("shop", "sales.x"),
                &["sales.orders", "sales.lines"],
                &["2 tables", "--into"],
            ),
            (
                named("shop", "sales.x"),
                &["sales.order"],
                &["no table sales.order at", "but sales.orders"],
            ),
            (
                named("shop", "sales.x"),
                &["public.orders"],
                &["but sales.orders"],
            ),
            (named("shop", "sales.x"), &["sales.seen"], &["is a view"]),
            (
                named("shop", "sales.x"),
                &["sales.shared"],
                &["is a sequence"],
            ),
            (
                named("shop", "sales.x"),
                &["pg_catalog.pg_class"],
                &["belongs to the system"],
            ),
        ] {
            let request = shop.request(target, place, tables, work.path()).await?;
            let found = refusal(request).await?;
            for said in said {
                assert!(found.contains(said), "{said} in {found}");
            }
        }
        let mut request = shop
            .request(
                target,
                named("shop", "sales.x"),
                &["sales.orders"],
                work.path(),
            )
            .await?;
        target
            .sql(
                "postgres",
                "CREATE ROLE weak LOGIN; GRANT pg_read_all_settings TO weak",
            )
            .await?;
        request.target = request.target.with_user("weak");
        assert!(refusal(request).await?.contains("--admin-connection"));
        assert_eq!(
            (
                content(target, "shop").await?,
                schema_text(target, "shop").await?
            ),
            before
        );
        Ok(())
    })
}

const STEPS: [Step; 7] = [
    Step::Journalled,
    Step::Created,
    Step::PreData,
    Step::Rows,
    Step::PostData,
    Step::ReadyToRegister,
    Step::Registered,
];

#[test]
fn nothing_is_left_of_tables_whose_move_was_cancelled_or_died_at_any_step() -> Result<()> {
    run(async {
        let shop = Shop::open(&Server::find(15)?).await?;
        let target = Cluster::builder(15).start().await?;
        target.sql("postgres", "CREATE DATABASE archive").await?;
        target
            .sql(
                "archive",
                "CREATE SCHEMA sales; CREATE TABLE sales.customers (id int PRIMARY KEY);
            INSERT INTO sales.customers SELECT generate_series(1, 200)",
            )
            .await?;
        let work = tempfile::tempdir()?;
        let tables = ["sales.events", "\"My Schema\".\"a.b\"", "sales.lines"];
        let wanted = async || {
            // Its roles are not there, so that making and unmaking them is tried at every step too.
            let mut request = shop
                .request(&target, into("archive"), &tables, work.path())
                .await?;
            let sql = "ALTER TABLE sales.lines OWNER TO owner_of_things; DROP TRIGGER noted ON sales.events";
            shop.cluster.sql(&request.source_database, sql).await?;
            request.missing_roles = MissingRoles::Create;
            anyhow::Ok(plan(request).await?)
        };
        let state = async || {
            let roles =
                "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles ORDER BY 1";
            anyhow::Ok((
                content(&target, "archive").await?,
                schema_text(&target, "archive").await?,
                target.rows("postgres", roles).await?,
            ))
        };
        let before = state().await?;
        for at in STEPS.into_iter().take(6) {
            let plan = wanted().await?;
            let control = Said::default().control(move |control, event| {
                if *event == Event::Step(at) {
                    control.progress.cancel();
                }
            });
            let error = execute(&plan, &control)
                .await
                .expect_err("it was cancelled");
            assert!(matches!(error, MoveError::Cancelled), "{at:?}: {error}");
            assert_eq!(state().await?, before, "cancelled after {at:?}");
            assert_eq!(
                std::fs::read_dir(work.path())?.count(),
                0,
                "cancelled after {at:?}"
            );
        }
        // The disk fills up.
        let error = execute(&wanted().await?, &fills_up_at(Step::Created))
            .await
            .expect_err("nothing has so much room");
        assert!(matches!(error, MoveError::NoRoomLeft { .. }), "{error}");
        assert_eq!(state().await?, before);
        let spec: ConnectionSpec = target.connection_string("postgres").parse()?;
        for at in STEPS {
            let plan = wanted().await?;
            let control = Control::new(Default::default(), move |event| {
                assert!(event != Event::Step(at), "as if killed");
            });
            let died = tokio::spawn(async move { execute(&plan, &control).await }).await;
            assert!(died.is_err(), "{at:?}: {died:?}");
            let quiet = Said::default().control(|_, _| {});
            let repaired = retry_while_locked(async || {
                repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await
            })
            .await?;
            if matches!(at, Step::ReadyToRegister | Step::Registered) {
                let names = "sales.events, \"My Schema\".\"a.b\", sales.lines".to_owned();
                assert_eq!(repaired, Repaired::Finished(names), "{at:?}");
                let valid = "SELECT string_agg(convalidated::text, ',') FROM pg_constraint
                    WHERE conrelid = 'sales.events'::regclass AND contype = 'f'";
                assert_eq!(target.value("archive", valid).await?, "true");
                assert_eq!(
                    target
                        .value("archive", "SELECT count(*) FROM sales.events")
                        .await?,
                    "401"
                );
                target
                    .sql(
                        "archive",
                        "DROP TABLE sales.events, \"My Schema\".\"a.b\", sales.lines;
                    DROP SCHEMA \"My Schema\"; DROP ROLE owner_of_things",
                    )
                    .await?;
            } else {
                assert_eq!(repaired, Repaired::Undone, "{at:?}");
            }
            assert_eq!(state().await?, before, "died after {at:?}");
            let again = repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await?;
            assert_eq!(again, Repaired::Nothing);
        }
        // Without its journal it is found as well, by its schemas, once it does not run any more.
        let plan = wanted().await?;
        let control = Control::new(Default::default(), |event| {
            assert!(event != Event::State(MoveState::Checking), "as if killed");
        });
        let died = tokio::spawn(async move { execute(&plan, &control).await }).await;
        assert!(died.is_err());
        std::fs::remove_file(work.path().join("move.json"))?;
        let mut removed = Vec::new();
        for _ in 0..100 {
            removed = clear(&spec, "archive").await?;
            if !removed.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert_eq!(state().await?, before);
        Ok(())
    })
}

#[test]
fn a_name_that_is_taken_meanwhile_is_not_overwritten() -> Result<()> {
    run(async {
        let shop = Shop::open(&Server::find(18)?).await?;
        let target = &shop.cluster;
        let work = tempfile::tempdir()?;
        let place = named("shop", "sales.late");
        let request = shop
            .request(target, place, &["sales.lines"], work.path())
            .await?;
        let plan = plan(request).await?;
        target
            .sql("shop", "CREATE TABLE sales.late AS SELECT 1 AS a")
            .await?;
        let before = (
            content(target, "shop").await?,
            schema_text(target, "shop").await?,
        );
        let error = execute(&plan, &Said::default().control(|_, _| {}))
            .await
            .expect_err("taken");
        assert!(matches!(error, MoveError::NameTaken { .. }), "{error}");
        assert_eq!(
            (
                content(target, "shop").await?,
                schema_text(target, "shop").await?
            ),
            before
        );
        let name: TableName = "sales.late".parse()?;
        assert!(error.to_string().contains(&name.to_string()));
        Ok(())
    })
}
