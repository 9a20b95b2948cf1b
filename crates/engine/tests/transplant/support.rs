//! A source, a target, and a request between them.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::Result;
use everpoint_engine::{
    progress::Progress,
    transplant::{
        Control, Event, Existing, Method, MissingRoles, MoveRequest, Moved, OpenSessions, Step,
        TablespaceUse, execute, name::OperationId, plan, replicas::ReplicaPolicy,
    },
};
use everpoint_instance::PgBinaries;
use everpoint_pgformat::ByteCount;
use everpoint_testkit::Cluster;

/// Objects of every kind, beside what the testkit's mixed contents have.
pub const EVERYTHING: &str = include_str!("everything.sql");
/// What belongs to the database `shop` and lies outside of it.
pub const PROPERTIES: &str = include_str!("properties.sql");

/// A move of `shop` to `name`, two streams at a time.
pub async fn request(
    source: &Cluster,
    target: &Cluster,
    name: &str,
    work: &Path,
) -> Result<MoveRequest> {
    Ok(MoveRequest {
        operation: OperationId::new(),
        source: source.connection_string("postgres").parse()?,
        source_database: "shop".to_owned(),
        target: target.connection_string("postgres").parse()?,
        new_name: name.parse()?,
        existing: Existing::Refuse,
        sessions: OpenSessions::Refuse,
        missing_roles: MissingRoles::Refuse,
        tablespaces: TablespaceUse::AsItWas,
        method: Method::Copy,
        replicas: Vec::new(),
        replica_policy: ReplicaPolicy::Wait,
        binaries: PgBinaries::find(Some(target.server().bin()), target.server().version()).await?,
        jobs: 2,
        work_directory: work.to_owned(),
    })
}

/// Everything that was said.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<Event>>>);

impl Said {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// A control that remembers what is said, and then does `more`.
    pub fn control(&self, more: impl Fn(&Control, &Event) + Send + Sync + 'static) -> Control {
        let said = self.clone();
        let inner = Arc::new(Mutex::new(None::<Control>));
        let cell = Arc::clone(&inner);
        let control = Control::new(Progress::default(), move |event| {
            said.0.lock().unwrap().push(event.clone());
            let control = cell.lock().unwrap().clone();
            if let Some(control) = control {
                more(&control, &event);
            }
        });
        *inner.lock().unwrap() = Some(control.clone());
        control
    }
}

/// A control of a move whose target has no room left once `step` is done.
pub fn fills_up_at(step: Step) -> Control {
    Said::default().control(move |control, event| {
        if *event == Event::Step(step) {
            control.leave_room(ByteCount::new(u64::MAX));
            // Room is looked at every 100 ms, and a small move may end before.
            thread::sleep(Duration::from_millis(200));
        }
    })
}

pub async fn carry_out(request: MoveRequest) -> Result<Moved> {
    let plan = plan(request).await?;
    Ok(execute(&plan, &Said::default().control(|_, _| {})).await?)
}

/// What a server holds beside the contents of databases. Equal before and after a move that came to nothing.
pub async fn shared(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    let query = "SELECT 'database', datname, datdba::regrole::text, datacl::text, datconnlimit::text, \
            shobj_description(oid, 'pg_database') FROM pg_database \
        UNION ALL SELECT 'role', rolname, shobj_description(oid, 'pg_authid'), NULL, NULL, NULL FROM pg_roles \
        UNION ALL SELECT 'setting', setdatabase::text, setrole::text, setconfig::text, NULL, NULL FROM pg_db_role_setting \
        ORDER BY 1, 2, 3";
    cluster.rows("postgres", query).await
}

/// The properties of a database that a move carries.
pub async fn properties(cluster: &Cluster, database: &str) -> Result<Vec<Vec<String>>> {
    let query = format!(
        "SELECT 'database', datdba::regrole::text, encoding::text, datcollate, datctype, datlocprovider::text, \
            datconnlimit::text, datistemplate::text, shobj_description(d.oid, 'pg_database') \
            FROM pg_database d WHERE datname = '{database}' \
        UNION ALL SELECT * FROM (SELECT 'right', grantor::regrole::text, grantee::regrole::text, privilege_type, \
            is_grantable::text, NULL, NULL, NULL, NULL FROM pg_database d, \
            aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = '{database}' ORDER BY 2, 3, 4) r \
        UNION ALL SELECT * FROM (SELECT 'setting', setrole::regrole::text, unnest(setconfig), NULL, NULL, NULL, NULL, NULL, NULL \
            FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '{database}') \
            ORDER BY 2, 3) s"
    );
    cluster.rows("postgres", &query).await
}
