//! Watching instances: which there are, whether their servers answer, what databases they have, what can be
//! restored.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use everpoint_engine::{database::presence::there_since, instance_record::InstanceRecord};
use everpoint_instance::{ServerFacts, SqlClient, connect_sql};
use everpoint_pgformat::Oid;
use everpoint_repository::InstanceName;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Service,
    database::hurry,
    observe::{self, Observed, Restorable, ServerVersion},
    thread, told,
};
use crate::{
    catalog::{DatabaseRow, NewRetention, SeenDatabase, Sharing, There},
    policy::RetentionDays,
};

/// How often the repository is asked which instances there are.
const INSTANCES_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is asked whether what is known of them is still so.
const RECORDS_INTERVAL: Duration = Duration::from_secs(60);
/// How long after the start the long-term copies of instances that are gone are looked at first.
const ORPHANS_DELAY: Duration = Duration::from_secs(600);
/// How often they are.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(3600);
/// How often a server is asked for its databases, once the repository was looked at.
const SERVER_INTERVAL: Duration = Duration::from_secs(5);
/// How long a server may take to answer.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);
/// How often what can be restored is looked at when nothing is told: an idle server's marks move it on.
const REPOSITORY_INTERVAL: Duration = Duration::from_secs(60);
/// How far the clock may be ahead of a server's.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(1);
/// One part in so many of the time is spent on finding out since when databases are there.
const LEARNING_SHARE: u32 = 20;
/// How long after its drop the log of a database may still come.
const TOLD_AFTER_DROP: SignedDuration = SignedDuration::from_hours(24);
/// The least time between two looks at what can be restored.
const REPOSITORY_PAUSE: Duration = Duration::from_secs(1);

impl Service {
    /// Watches all instances until told to end, and ends with all that it began.
    pub(super) async fn keep_watching(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut known = BTreeSet::new();
        let mut tasks = Vec::new();
        let mut settings = self.settings.subscribe();
        let mut asked = Instant::now();
        // What is stored tells of a clock that is wrong, so that is looked at first.
        let mut orphans_looked_at: Option<Instant> = None;
        let begun = Instant::now();
        loop {
            let is_told = settings.has_changed().is_ok_and(|changed| changed);
            if is_told || asked.elapsed() >= RECORDS_INTERVAL {
                asked = Instant::now();
                settings.borrow_and_update();
                for name in &known {
                    self.meet_again(name).await;
                }
            }
            let is_due = match orphans_looked_at {
                None => begun.elapsed() >= ORPHANS_DELAY,
                Some(then) => then.elapsed() >= ORPHANS_INTERVAL,
            };
            match self.repository.instances().await {
                Ok(names) => {
                    if is_due && self.term().is_some() {
                        orphans_looked_at = Some(Instant::now());
                        let (service, known) = (self.clone(), names.iter().cloned().collect());
                        let begun = thread::run("orphans".to_owned(), move || {
                            service.expire_orphans(known)
                        });
                        if let Err(error) = begun {
                            tracing::error!(%error, "cannot look at long-term copies");
                        }
                    }
                    for name in names {
                        if !known.contains(&name) && self.meet(&name).await {
                            let (service, stop) = (self.clone(), stop.clone());
                            let thread = format!("instance {name}");
                            match thread::run(thread, {
                                let name = name.clone();
                                move || service.watch(name, stop)
                            }) {
                                Ok(task) => {
                                    known.insert(name);
                                    tasks.push(task);
                                }
                                Err(error) => tracing::error!(%error, "cannot watch an instance"),
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "the repository failed");
                }
            }
            tokio::select! {
                () = sleep(INSTANCES_INTERVAL) => {}
                // Somebody reads the configuration again.
                _ = settings.changed() => settings.mark_changed(),
                () = told(&mut stop) => break,
            }
        }
        for ended in tasks {
            // A thread that ended by itself has ended, too.
            let _ = ended.await;
        }
    }

    /// Deletes the long-term copies whose time is over of instances that are not there any more.
    async fn expire_orphans(self: Arc<Self>, known: BTreeSet<InstanceName>) {
        let failed =
            |error: &str| tracing::warn!("long-term copies of instances that are gone: {error}");
        let all = match self.repository.instances_with_copies().await {
            Ok(all) => all,
            Err(error) => return failed(&crate::chain(&error)),
        };
        for instance in all.iter().filter(|name| !known.contains(*name)) {
            if known.is_empty() {
                // Nothing else tells of the time.
                match self.copies(instance).await {
                    Ok(copies) => {
                        let newest = copies.iter().map(|copy| copy.backup_time).max();
                        newest
                            .into_iter()
                            .for_each(|newest| self.clock.meet(newest));
                    }
                    Err(error) => return failed(&crate::chain(&error)),
                }
            }
            if !self.clock.is_believed() {
                return;
            }
            if let Err(failure) = self.expire_copies(instance, Timestamp::now()).await {
                failed(&failure.text);
            }
        }
    }

    /// All that goes on for one instance, on a thread of its own.
    async fn watch(self: Arc<Self>, name: InstanceName, stop: watch::Receiver<bool>) {
        let stored = self.stored(&name);
        tokio::join!(
            self.keep_receiving(&name, &stored, stop.clone()),
            self.watch_server(&name, stop.clone()),
            self.watch_copies(&name, stop.clone()),
            self.watch_repository(&name, &stored, stop),
        );
    }

    /// Takes up an instance.
    async fn meet(&self, name: &InstanceName) -> bool {
        let failed = |error: &dyn std::error::Error| {
            tracing::error!(instance = %name, error = %crate::chain(error), "cannot be watched");
            false
        };
        let described = self.repository.description::<InstanceRecord>(name).await;
        let record = match described {
            Ok((_, record)) => record,
            Err(error) => return failed(&error),
        };
        let connection = match record.connection.parse() {
            Ok(connection) => self.named(&connection),
            Err(error) => return failed(&error),
        };
        let schedule = match observe::schedule(&self.settings().backups, name) {
            Ok(schedule) => schedule,
            Err(error) => return failed(&error),
        };
        self.set_instance(Observed {
            name: name.clone(),
            record,
            connection,
            schedule,
            server: Err("it was not asked yet".to_owned()),
            restorable: None,
        });
        true
    }

    /// Takes up what was changed of an instance, such as where its server is reached.
    async fn meet_again(&self, name: &InstanceName) {
        let described = self.repository.description::<InstanceRecord>(name).await;
        let read = described.map_err(|error| crate::chain(&error));
        let read = read.and_then(|(_, record)| {
            let connection = record.connection.parse();
            let connection = connection.map_err(|error| crate::chain(&error))?;
            Ok((self.named(&connection), record))
        });
        let (connection, record) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(instance = %name, "what is known of it stays as it was: {error}");
                return;
            }
        };
        if self
            .instance(name)
            .is_some_and(|known| known.record != record)
        {
            tracing::info!(instance = %name, "its record has changed");
            self.change_instance(name, |observed| {
                observed.record = record;
                observed.connection = connection;
            });
            self.records.send_modify(|count| *count += 1);
        }
    }

    async fn watch_server(&self, name: &InstanceName, mut stop: watch::Receiver<bool>) {
        let mut session: Option<SqlClient> = None;
        let mut records = self.records.subscribe();
        loop {
            if records.has_changed().is_ok_and(|changed| changed) {
                records.borrow_and_update();
                session = None;
            }
            let asked = timeout(SERVER_PATIENCE, self.ask_server(name, &mut session)).await;
            let server = asked.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
            if server.is_err() {
                session = None;
            }
            if self
                .instance(name)
                .is_some_and(|observed| observed.server != server)
            {
                match &server {
                    Ok(version) => {
                        tracing::info!(instance = %name, "PostgreSQL {} answers", version.0)
                    }
                    Err(error) => tracing::warn!(instance = %name, "not reachable: {error}"),
                }
                self.change_instance(name, |observed| observed.server = server);
                self.wake_scheduler();
            }
            let known = self
                .instance(name)
                .is_some_and(|found| found.restorable.is_some());
            let pause = match known {
                true => SERVER_INTERVAL,
                false => REPOSITORY_PAUSE,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    /// Writes down at once what databases a server has. Where another server schedules, waits until that one did:
    /// two of them could write down an older list behind a newer one.
    pub(super) async fn look_at_server(&self, name: &InstanceName) {
        let looking = async {
            match self.term() {
                Some(_) => self.ask_server(name, &mut None).await.map(drop),
                None => self.wait_for_look(name).await,
            }
        };
        let failed = match timeout(SERVER_PATIENCE, looking).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => "it does not answer in time".to_owned(),
        };
        tracing::warn!(instance = %name, "its databases are not known yet: {failed}");
    }

    async fn wait_for_look(&self, name: &InstanceName) -> Result<(), String> {
        let observed = self.instance(name).ok_or("it is gone")?;
        let session = connect_sql(&observed.connection, observed.connection.database())
            .await
            .map_err(|error| crate::chain(&error))?;
        loop {
            let seen =
                observe::databases(&session, &observed.record.data_directory, Timestamp::now())
                    .await?;
            let known = self.catalog.databases(name).await;
            let known = known.map_err(|error| crate::chain(&error))?;
            if is_written_down(&seen, &known) {
                return Ok(());
            }
            sleep(REPOSITORY_PAUSE).await;
        }
    }

    async fn ask_server(
        &self,
        name: &InstanceName,
        session: &mut Option<SqlClient>,
    ) -> Result<ServerVersion, String> {
        let observed = self.instance(name).ok_or("it is gone")?;
        let open = match session.take().filter(|session| !session.is_closed()) {
            Some(open) => open,
            None => connect_sql(&observed.connection, observed.connection.database())
                .await
                .map_err(|error| crate::chain(&error))?,
        };
        let facts = ServerFacts::read(&open)
            .await
            .map_err(|error| crate::chain(&error))?;
        if facts.system_identifier != observed.record.system_identifier {
            return Err(format!(
                "the server at this address is another cluster (system identifier {})",
                facts.system_identifier
            ));
        }
        self.clock
            .compare(facts.server_time, "a PostgreSQL server's", CLOCK_DIFFERENCE);
        // What there is, is written down by the server that schedules.
        let writer = observed.restorable.as_ref().zip(self.term());
        if let Some((restorable, term)) = writer {
            let usual = self.settings().backups.retention();
            let policy = NewRetention {
                first_look: match restorable.first_look {
                    // What may stand for a lost catalog.
                    RetentionDays::LONGEST => RetentionDays::LONGEST,
                    _ => usual,
                },
                later: usual,
            };
            // A list that was read before another one must not be written down behind it.
            let _turn = self.databases.look(name).await;
            let now = Timestamp::now();
            let seen = observe::databases(&open, &observed.record.data_directory, now).await?;
            let differences = self
                .catalog
                .observe_databases(name, &seen, policy, Some((self.id, term)), now)
                .await
                .map_err(|error| crate::chain(&error))?;
            if differences.is_some_and(|found| found.new > 0) {
                // The repository tells since when they are there.
                self.stored(name).notify_one();
            }
            if differences.is_some_and(|found| found.gone > 0)
                && let Err(error) = hurry(&open, &observed).await
            {
                tracing::warn!(instance = %name, "the log of a drop is not stored at once: {error}");
            }
            self.store_policies(name).await;
        }
        *session = Some(open);
        let number = facts.version_num;
        Ok(ServerVersion(format!(
            "{}.{}",
            number / 10_000,
            number % 10_000
        )))
    }

    async fn watch_repository(
        &self,
        name: &InstanceName,
        stored: &Notify,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let begun = Instant::now();
            self.look_at_repository(name).await;
            tokio::select! {
                () = stored.notified() => {}
                () = sleep(REPOSITORY_INTERVAL) => {}
                () = told(&mut stop) => return,
            }
            sleep(REPOSITORY_PAUSE.saturating_sub(begun.elapsed())).await;
        }
    }

    /// Finds out what can be restored now.
    pub(super) async fn look_at_repository(&self, name: &InstanceName) {
        match observe::restorable(&self.repository, name).await {
            Ok(restorable) => {
                let changed = self.instance(name).is_none_or(|known| {
                    let before = known.restorable.as_ref().map(|known| &known.window);
                    before.is_none_or(|before| {
                        before.ranges != restorable.window.ranges
                            || before.backups != restorable.window.backups
                    })
                });
                let is_first = self
                    .instance(name)
                    .is_none_or(|known| known.restorable.is_none());
                let ranges = &restorable.window.ranges;
                let newest = ranges.iter().filter_map(|range| range.latest).max();
                if let Some(newest) = newest.filter(|_| is_first) {
                    self.clock.meet(newest);
                }
                self.change_instance(name, |observed| {
                    let first_look = observed.restorable.as_ref().map(|known| known.first_look);
                    observed.restorable = Some(Restorable {
                        first_look: first_look.unwrap_or(restorable.first_look),
                        ..restorable
                    });
                });
                self.wake_scheduler();
                if changed {
                    self.tell_others(name).await;
                }
                let begun = Instant::now();
                if self.may_learn(name, begun) {
                    if let Err(error) = self.learn_since_when(name).await {
                        tracing::warn!(instance = %name, "since when databases are there is not known yet: {error}");
                    }
                    self.learn_again(name, begun + begun.elapsed() * LEARNING_SHARE);
                }
            }
            Err(error) => {
                tracing::error!(instance = %name, error = %crate::chain(&error), "the repository failed");
            }
        }
    }

    fn may_learn(&self, name: &InstanceName, now: Instant) -> bool {
        let next = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        next.get(name).is_none_or(|next| *next <= now)
    }

    fn learn_again(&self, name: &InstanceName, at: Instant) {
        let mut next = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        next.insert(name.clone(), at);
    }

    /// Finds out since when databases are there that were met not long ago: each of their points can be restored then,
    /// and no other one.
    async fn learn_since_when(&self, name: &InstanceName) -> Result<(), String> {
        if self.term().is_none() {
            return Ok(());
        }
        let known = self.catalog.databases(name).await;
        let mut rows = known.map_err(|error| crate::chain(&error))?;
        rows.retain(|row| matches!(row.there, There::By(_)));
        if rows.is_empty() {
            return Ok(());
        }
        let oids: Vec<Oid> = rows.iter().map(|row| Oid::new(row.oid)).collect();
        let found = there_since(&self.repository, name, &oids).await;
        let found = found.map_err(|error| crate::chain(&error))?;
        let now = Timestamp::now();
        let mut known = Vec::new();
        for row in &rows {
            let since = found.get(&Oid::new(row.oid)).copied();
            // Of what is gone for so long, no more will be stored.
            let is_over = |gone: &Timestamp| now.duration_since(*gone) > TOLD_AFTER_DROP;
            let given_up = || row.deleted_at.filter(is_over).map(|_| row.there.time());
            if let Some(since) = since.or_else(given_up) {
                known.push((row, since));
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let written = self.catalog.set_there(name, &known).await;
        written.map_err(|error| crate::chain(&error))
    }

    /// Tells servers that only look on to look again.
    async fn tell_others(&self, name: &InstanceName) {
        if self.catalog.sharing() == Sharing::Alone || self.term().is_none() {
            return;
        }
        if let Err(error) = self.catalog.note_instance_change(name).await {
            tracing::warn!(error = %crate::chain(&error), "the catalog failed");
        }
    }
}

/// Whether a server's databases are those that the catalog has.
fn is_written_down(seen: &[SeenDatabase], known: &[DatabaseRow]) -> bool {
    let seen: BTreeSet<_> = seen.iter().map(|one| (one.oid, &one.name)).collect();
    let living = known.iter().filter(|row| row.deleted_at.is_none());
    seen == living.map(|row| (row.oid, &row.name)).collect()
}
