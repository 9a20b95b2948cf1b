//! Keeping step with the servers that share the catalog: who of them schedules, who of them is gone, and what
//! they changed.
//!
//! One server has the lease of scheduling, for a term with a number. It renews it, and takes it for lost when it
//! could not for [`TERM`], counted from before it asked. Another server takes it over when the row has not changed
//! for [`PATIENCE`], counted from when it saw the last change. Both count by their own monotonic clocks, so clocks
//! that are set wrong do no harm, and the one's term is over before the other's begins. A server that stalled in
//! the very moment between looking at its term and using it is stopped by the term's number when it writes down the
//! operation, and after that by the writer's lock in the instance.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};

use everpoint_repository::InstanceName;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{Service, told};
use crate::{
    audit::{Entry, Outcome},
    catalog::{ACCESS, CatalogError, LeaseRow, ServerId, Sharing, Term},
};

/// How often a server shows that it lives, and looks at the others.
const STEP: Duration = Duration::from_secs(2);
/// How long the catalog may take for one step.
const STEP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a term holds after it was renewed.
const TERM: Duration = Duration::from_secs(10);
/// How far apart two looks at the others may be for what did not change in between to count.
const UNBROKEN: Duration = Duration::from_secs(6);
/// How long another server's row may stay the same before it counts as gone. Longer than [`TERM`].
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// A term of scheduling and until when it certainly holds. Behind that nothing is begun; what goes on, such as
/// receiving log, goes on until it is known that another server has the lease: while nobody reaches the catalog,
/// nobody takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    term: Term,
    until: Instant,
}

/// What was seen of the others, and since when it has not changed.
#[derive(Default)]
struct Seen {
    lease: Option<(LeaseRow, Instant)>,
    servers: HashMap<ServerId, (i64, Instant)>,
    changes: BTreeMap<String, i64>,
}

impl Seen {
    /// Nobody was looked at for a while: that others did not change meanwhile says nothing of them.
    fn forget(&mut self) {
        self.lease = None;
        self.servers.clear();
    }
}

/// Who schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// This server.
    Here,
    /// Another one.
    Elsewhere,
    /// Nobody at the moment.
    Nowhere,
}

impl Service {
    /// The present term, if this server has the lease of scheduling.
    pub(super) fn term(&self) -> Option<Term> {
        let held = self.lease.borrow();
        held.filter(|held| Instant::now() < held.until)
            .map(|held| held.term)
    }

    /// Who schedules, by the catalog.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn scheduling(&self) -> Result<Scheduling, CatalogError> {
        if self.term().is_some() {
            return Ok(Scheduling::Here);
        }
        Ok(match self.catalog.lease().await?.owner {
            Some(owner) if owner != self.id => Scheduling::Elsewhere,
            _ => Scheduling::Nowhere,
        })
    }

    /// What is told when more of an instance can be restored.
    pub(super) fn stored(&self, name: &InstanceName) -> Arc<Notify> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.entry(name.clone()).or_default().clone()
    }

    /// Takes part until told to end, and then leaves the lease to another server. `begun` is told after the first
    /// step.
    pub(super) async fn keep_step(
        self: Arc<Self>,
        begun: tokio::sync::oneshot::Sender<()>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut seen = Seen::default();
        let mut begun = Some(begun);
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= UNBROKEN {
                seen.forget();
            }
            let step = timeout(STEP_PATIENCE, self.step(&mut seen)).await;
            if !matches!(step, Ok(Ok(()))) {
                seen.forget();
            }
            looked = Instant::now();
            match step {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(error = %crate::chain(&error), "the catalog failed");
                }
                Err(_) => tracing::error!("the catalog does not answer in time"),
            }
            if let Some(begun) = begun.take() {
                // Who asked may have gone.
                let _ = begun.send(());
            }
            tokio::select! {
                () = sleep(STEP) => {}
                () = self.step_now.notified() => {}
                () = told(&mut stop) => break,
            }
        }
        self.lease.send_replace(None);
        let left = async {
            self.catalog.give_lease(self.id).await?;
            self.catalog.remove_server(self.id, None).await
        };
        if let Ok(Err(error)) = timeout(STEP_PATIENCE, left).await {
            tracing::warn!(error = %crate::chain(&error), "the catalog failed");
        }
    }

    async fn step(&self, seen: &mut Seen) -> Result<(), CatalogError> {
        if self.catalog.sharing() == Sharing::Shared && !self.catalog.beat(self.id).await? {
            // What ran here was ended in the catalog: it may not go on behind it.
            tracing::error!(
                "the other servers took this one for dead, for it did not reach the catalog; its operations are cancelled"
            );
            self.cancel_ended();
            self.catalog
                .add_server(
                    self.id,
                    self.databases.home(),
                    &self.address_text(),
                    Timestamp::now(),
                )
                .await?;
        }
        self.hold_lease(seen).await?;
        self.follow_changes(seen).await?;
        self.look_at_servers(seen).await?;
        if self.term().is_some() {
            self.end_interrupted().await?;
            self.write_queued_audit().await?;
        }
        Ok(())
    }

    async fn hold_lease(&self, seen: &mut Seen) -> Result<(), CatalogError> {
        let now = Instant::now();
        let held = *self.lease.borrow();
        if let Some(held) = held {
            let holds = match self.catalog.sharing() {
                // Nobody else can take it.
                Sharing::Alone => true,
                Sharing::Shared => self.catalog.renew_lease(self.id, held.term).await?,
            };
            let (term, until) = (held.term, now + TERM);
            self.lease
                .send_replace(holds.then_some(Held { term, until }));
            if !holds {
                tracing::warn!("another server schedules now");
            }
            return Ok(());
        }
        let lease = self.catalog.lease().await?;
        let since = match &seen.lease {
            Some((before, since)) if *before == lease => *since,
            _ => Instant::now(),
        };
        // One's own can only be from a term that was lost.
        let free = lease.owner.is_none_or(|owner| owner == self.id);
        if free || since.elapsed() >= PATIENCE {
            let now = Instant::now();
            if let Some(term) = self.catalog.take_lease(self.id, &lease).await? {
                let until = now + TERM;
                self.lease.send_replace(Some(Held { term, until }));
                tracing::info!(term, "this server schedules");
                self.wake_scheduler();
                self.access_changed.notify_one();
            }
            seen.lease = None;
        } else {
            seen.lease = Some((lease, since));
        }
        Ok(())
    }

    async fn follow_changes(&self, seen: &mut Seen) -> Result<(), CatalogError> {
        let changes = self.catalog.changes().await?;
        for (name, number) in &changes {
            if seen.changes.get(name) == Some(number) {
                continue;
            }
            match name.strip_prefix("instance ").map(str::parse) {
                Some(Ok(instance)) if self.term().is_none() => self.stored(&instance).notify_one(),
                None if name == ACCESS => self.reload_access().await?,
                _ => {}
            }
        }
        seen.changes = changes;
        Ok(())
    }

    /// Writes into the audit log what was done on the catalog directly.
    async fn write_queued_audit(&self) -> Result<(), CatalogError> {
        for (id, done) in self.catalog.queued_audit().await? {
            let entry = Entry {
                time: done.time,
                principal: done.principal,
                action: done.action,
                scope: done.scope,
                outcome: Outcome::Done,
                detail: Some(done.detail),
            };
            match self.audit.append(&entry).and_then(|()| self.audit.sync()) {
                Ok(()) => self.catalog.forget_audit(id).await?,
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "the audit log failed");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Notes which servers show that they live. The one that schedules strikes off those that are gone; the others look
    /// on, so that who takes the lease knows at once who is gone with the one that had it.
    async fn look_at_servers(&self, seen: &mut Seen) -> Result<(), CatalogError> {
        if self.catalog.sharing() == Sharing::Alone && !seen.servers.is_empty() {
            return Ok(());
        }
        let servers = self.catalog.servers().await?;
        let now = Instant::now();
        let before = std::mem::take(&mut seen.servers);
        for (id, beats) in servers {
            let since = match before.get(&id) {
                Some((counted, since)) if *counted == beats => *since,
                _ => now,
            };
            let is_gone = id != self.id && now.duration_since(since) >= PATIENCE;
            if is_gone && self.term().is_some() {
                tracing::warn!(server = %id, "a server is gone");
                self.catalog.remove_server(id, Some(beats)).await?;
            } else {
                seen.servers.insert(id, (beats, since));
            }
        }
        Ok(())
    }

    /// Ends the operations of servers that are gone.
    async fn end_interrupted(&self) -> Result<(), CatalogError> {
        let ended = self.catalog.end_interrupted(Timestamp::now()).await?;
        if ended > 0 {
            tracing::warn!("{ended} operations were interrupted when their server ended");
            self.wake_scheduler();
        }
        self.take_over().await
    }
}
