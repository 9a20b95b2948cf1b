//! Receiving write-ahead log: from a replication slot into log backups.
//!
//! What is reported to the server as flushed is stored in the repository, nothing else; so the slot
//! keeps everything that could still be lost. Breaks of the connection and restarts of the server are
//! waited out. Log that the server no longer has is recorded as a gap with both its ends.

use std::{sync::Arc, time::Duration};

use everpoint_instance::{
    ConnectionSpec, ReplicationClient, ReplicationError, StreamEvent, WalStream,
    replication::{
        DropActive, ReceiverStatus, ReplyWanted, SlotLifetime, SlotName, StreamStart,
        SystemIdentity,
    },
};
use everpoint_pgformat::{Lsn, SystemIdentifier, TimelineId, timeline::TimelineHistory};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    log::{GapDocument, LogIndex, MarkDocument, TimelineDocument},
};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    calls::Calls,
    cut::{LogContext, LogCut, StoredLog},
    reach::{Asking, Prober},
};
use crate::{
    instance_record::InstanceRecord,
    summary::{self, FollowError, Follower, SummaryContext},
    window::complete_at_end,
};

/// A log backup is cut when it holds this much, unless asked otherwise.
pub const DEFAULT_CUT_BYTES: u64 = 64 << 20;
/// The shortest interval between log backups.
pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between log backups, unless asked otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// How often the server is told how far the repository is.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// So many statuses without any answer, and the server is gone.
const UNANSWERED_STATUSES: u32 = 6;
/// How long a cut waits for the answer, and for the log that it tells of.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// The pauses between attempts to connect again grow from the first to the second.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// What a process sends to ask a running receiver for a log backup now.
pub const CUT_REQUEST: &str = "cut";

/// What to receive and how.
#[derive(Clone, Debug)]
pub struct ReceivePlan {
    /// The instance.
    pub instance: InstanceName,
    /// What is known of it.
    pub record: InstanceRecord,
    /// How its server is reached.
    pub connection: ConnectionSpec,
    /// The slot.
    pub slot: SlotName,
    /// The longest that received log waits before it is stored.
    pub interval: Duration,
    /// Log of this size is stored without waiting.
    pub cut_bytes: u64,
    /// When to end.
    pub until: Until,
}

/// When receiving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Told,
    /// When log up to this position is stored.
    Stored(Lsn),
}

/// What happened while receiving.
#[derive(Debug)]
pub enum ReceiveEvent {
    /// Streaming began.
    Streaming {
        /// From here.
        from: Lsn,
        /// On this timeline.
        timeline: TimelineId,
    },
    /// A log backup was stored.
    Stored(StoredLog),
    /// It was recorded that the server wrote nothing more until this moment of its clock.
    Marked(Timestamp),
    /// Log is stored without a summary.
    NotSummarised(FollowError),
    /// Log is lost.
    Gap(GapDocument),
    /// The slot was not there, or of no more use, and was made anew.
    SlotMade {
        /// Its name.
        slot: String,
    },
    /// The connection is gone and will be tried again.
    Waiting {
        /// Why.
        error: ReceiveError,
        /// How long.
        pause: Duration,
    },
    /// The server went on to another timeline.
    NewTimeline {
        /// It.
        timeline: TimelineId,
        /// Where it begins.
        switch_at: Lsn,
    },
}

/// Receiving failed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The server.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Another server answers.
    #[error(
        "the server at this address is another cluster (system identifier {found}) than `{instance}` ({expected}). Nothing was received"
    )]
    OtherCluster {
        /// The instance.
        instance: InstanceName,
        /// As recorded.
        expected: SystemIdentifier,
        /// As found.
        found: SystemIdentifier,
    },
    /// The server went back behind what is stored.
    #[error(
        "the repository holds log of `{instance}` up to {stored}, and the server is only at {server}: it was set back to an earlier state without a new timeline, so what follows is another history. Add it under a new name (everpoint instance add) and take a full backup there"
    )]
    Diverged {
        /// The instance.
        instance: InstanceName,
        /// The end of what is stored.
        stored: Lsn,
        /// Where the server is.
        server: Lsn,
    },
    /// The server left out bytes.
    #[error("the server sent log at {found} where {expected} was due")]
    OutOfOrder {
        /// The next position.
        expected: Lsn,
        /// As sent.
        found: Lsn,
    },
    /// Storing was ended by force.
    #[error("storing a log backup was interrupted")]
    Interrupted,
}

impl ReceiveError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Replication(error) => error.is_transient(),
            Self::OutOfOrder { .. } => true,
            Self::Repository(_)
            | Self::OtherCluster { .. }
            | Self::Diverged { .. }
            | Self::Interrupted => false,
        }
    }
}

/// Hears what happens.
pub type Listener = Arc<dyn Fn(ReceiveEvent) + Send + Sync>;

/// Receives until told to end by `stop` turning true, or until the plan's end.
///
/// # Errors
/// When waiting does not help; what was received by then and not stored is sent again next time.
pub async fn receive(
    repository: &Repository,
    plan: &ReceivePlan,
    stop: watch::Receiver<bool>,
    listener: Listener,
) -> Result<(), ReceiveError> {
    let receiver = Receiver {
        repository,
        plan,
        stop,
        listener,
    };
    let mut pause = RETRY_PAUSES.0;
    loop {
        let before = Instant::now();
        match receiver.clone().session().await {
            Ok(SessionEnd::Done) => return Ok(()),
            Ok(SessionEnd::ServerStopped) => {}
            Err(error) if error.is_transient() => {
                if before.elapsed() > RETRY_PAUSES.1 {
                    pause = RETRY_PAUSES.0;
                }
                (receiver.listener)(ReceiveEvent::Waiting { error, pause });
            }
            Err(error) => return Err(error),
        }
        let mut stop = receiver.stop.clone();
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

#[derive(Clone)]
struct Receiver<'a> {
    repository: &'a Repository,
    plan: &'a ReceivePlan,
    stop: watch::Receiver<bool>,
    listener: Listener,
}

enum SessionEnd {
    Done,
    ServerStopped,
}

enum StreamEnd {
    Done,
    ServerStopped,
    NextTimeline(TimelineId, Lsn),
}

impl Receiver<'_> {
    /// One connection, over as many timelines as it lives to see.
    async fn session(self) -> Result<SessionEnd, ReceiveError> {
        let mut client = ReplicationClient::connect(&self.plan.connection).await?;
        let identity = client.identify_system().await?;
        let expected = self.plan.record.system_identifier;
        if identity.system_identifier != expected {
            let (instance, found) = (self.plan.instance.clone(), identity.system_identifier);
            return Err(ReceiveError::OtherCluster {
                instance,
                expected,
                found,
            });
        }
        let history = self.store_history(&mut client, identity.timeline).await?;
        self.make_slot(&mut client).await?;
        let index = self.repository.log_index(&self.plan.instance).await?;
        let from = self.resume_at(&index, &history).await?;
        if let Some(stored) = from.filter(|from| *from > identity.flushed) {
            let (instance, server) = (self.plan.instance.clone(), identity.flushed);
            return Err(ReceiveError::Diverged {
                instance,
                stored,
                server,
            });
        }
        let started = self.start(client, &identity, &history, from).await;
        let (mut stream, mut at, mut timeline) = match (started, from) {
            (Err(error), Some(from)) if is_lost(&error) => {
                self.start_behind_gap(from, &history, &error).await?
            }
            (started, _) => started?,
        };
        let mut history = history;
        loop {
            (self.listener)(ReceiveEvent::Streaming { from: at, timeline });
            match self.stream(&mut stream, timeline, at).await {
                Ok(StreamEnd::Done) => return Ok(SessionEnd::Done),
                Ok(StreamEnd::ServerStopped) => return Ok(SessionEnd::ServerStopped),
                Ok(StreamEnd::NextTimeline(next, switch_at)) => {
                    (self.listener)(ReceiveEvent::NewTimeline {
                        timeline: next,
                        switch_at,
                    });
                    let mut client = stream.into_client().ok_or(ReplicationError::Closed)?;
                    history = self.store_history(&mut client, next).await?;
                    (at, timeline) = (switch_at, next);
                    stream = client.start(&self.stream_start(at, timeline)).await?;
                }
                // That the server has thrown log away may show only when it is to send it.
                Err(ReceiveError::Replication(error)) if is_lost(&error) => {
                    drop(stream);
                    let index = self.repository.log_index(&self.plan.instance).await?;
                    let from = self.resume_at(&index, &history).await?;
                    let from = from.unwrap_or(at).max(at);
                    (stream, at, timeline) = self.start_behind_gap(from, &history, &error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn stream_start(&self, from: Lsn, timeline: TimelineId) -> StreamStart {
        StreamStart {
            slot: Some(self.plan.slot.clone()),
            from,
            timeline,
        }
    }

    async fn store_history(
        &self,
        client: &mut ReplicationClient,
        timeline: TimelineId,
    ) -> Result<TimelineHistory, ReceiveError> {
        match client.timeline_history(timeline).await? {
            None => Ok(TimelineHistory::root(timeline)),
            Some(file) => {
                let text = String::from_utf8_lossy(&file.contents).into_owned();
                let document = TimelineDocument { timeline, text };
                self.repository
                    .write_timeline(&self.plan.instance, &document)
                    .await?;
                Ok(file.history)
            }
        }
    }

    /// Makes the slot where there is none, or one that has lost what it was to keep.
    async fn make_slot(&self, client: &mut ReplicationClient) -> Result<(), ReceiveError> {
        if let SlotMade::Anew = ensure_slot(client, &self.plan.slot).await? {
            let slot = self.plan.slot.to_string();
            (self.listener)(ReceiveEvent::SlotMade { slot });
        }
        Ok(())
    }

    /// Begins where the repository ends, or, when it holds nothing, at the first log the slot keeps.
    async fn start(
        &self,
        mut client: ReplicationClient,
        identity: &SystemIdentity,
        history: &TimelineHistory,
        from: Option<Lsn>,
    ) -> Result<(WalStream, Lsn, TimelineId), ReplicationError> {
        let from = match from {
            Some(from) => from,
            None => {
                let slot = client.read_slot(&self.plan.slot).await?;
                let kept = slot
                    .and_then(|slot| slot.restart_lsn)
                    .unwrap_or(identity.flushed);
                self.plan.record.segment_size.floor(kept)
            }
        };
        let timeline = history.timeline_at(from);
        let stream = client.start(&self.stream_start(from, timeline)).await?;
        Ok((stream, from, timeline))
    }

    /// Where to go on: the end of what is stored, or behind a gap that was recorded there already.
    async fn resume_at(
        &self,
        index: &LogIndex,
        history: &TimelineHistory,
    ) -> Result<Option<Lsn>, ReceiveError> {
        let Some(stored) = stored_until(index, history) else {
            return Ok(None);
        };
        let gaps = self.repository.gaps(&self.plan.instance).await?;
        let on_it = gaps
            .iter()
            .filter(|gap| gap.timeline == history.timeline_at(gap.from));
        let behind = on_it.filter(|gap| gap.from <= stored).map(|gap| gap.to);
        Ok(behind.chain([stored]).max())
    }

    /// Begins at the first log that the slot keeps; what lies between is lost and recorded. A slot that
    /// keeps nothing of use is made anew.
    async fn start_behind_gap(
        &self,
        lost_from: Lsn,
        history: &TimelineHistory,
        error: &ReplicationError,
    ) -> Result<(WalStream, Lsn, TimelineId), ReceiveError> {
        let mut client = ReplicationClient::connect(&self.plan.connection).await?;
        let segment_size = self.plan.record.segment_size;
        let slot = client.read_slot(&self.plan.slot).await?;
        let keeps = slot
            .and_then(|slot| slot.restart_lsn)
            .map(|kept| segment_size.floor(kept))
            .filter(|kept| *kept > lost_from)
            .filter(|_| matches!(error, ReplicationError::WalRemoved { .. }));
        let to = match keeps {
            Some(kept) => kept,
            None => {
                if slot.is_some() {
                    client.drop_slot(&self.plan.slot, DropActive::Wait).await?;
                }
                let made = client
                    .create_slot(&self.plan.slot, SlotLifetime::Persistent)
                    .await?;
                (self.listener)(ReceiveEvent::SlotMade {
                    slot: self.plan.slot.to_string(),
                });
                let identity = client.identify_system().await?;
                segment_size.floor(made.restart_lsn.unwrap_or(identity.flushed))
            }
        };
        let gap = GapDocument {
            timeline: history.timeline_at(lost_from),
            from: lost_from,
            to,
            reason: error.to_string(),
            noticed_at: Timestamp::now(),
        };
        let next = history.timeline_at(to);
        let stream = client.start(&self.stream_start(to, next)).await?;
        if to > lost_from {
            self.repository.write_gap(&self.plan.instance, &gap).await?;
            (self.listener)(ReceiveEvent::Gap(gap));
        }
        Ok((stream, to, next))
    }

    /// How often it is recorded that nothing came.
    fn mark_interval(&self) -> Duration {
        self.plan.interval.max(STATUS_INTERVAL)
    }

    /// One timeline's stream.
    async fn stream(
        &self,
        stream: &mut WalStream,
        timeline: TimelineId,
        from: Lsn,
    ) -> Result<StreamEnd, ReceiveError> {
        let context = LogContext {
            repository: self.repository.clone(),
            instance: self.plan.instance.clone(),
            system_identifier: self.plan.record.system_identifier,
            segment_size: self.plan.record.segment_size,
        };
        let plan = self.plan;
        let summaries = SummaryContext::new(self.repository, &plan.instance, &plan.record);
        let index = self.repository.log_index(&plan.instance).await?;
        let known =
            complete_at_end(self.repository, &plan.instance, &index, timeline, from).await?;
        let cut = LogCut::new(context.clone(), timeline, from, known)?;
        let (follower, amiss) = Follower::resume(summaries.clone(), &index, timeline, from).await;
        if let Some(error) = amiss {
            (self.listener)(ReceiveEvent::NotSummarised(error));
        }
        // Where nobody can call, asking waits for the interval.
        let mut calls = Calls::listen(plan.connection.clone()).await;
        let prober = Prober::new(plan.connection.clone(), &plan.record, timeline);
        let mut streaming = Streaming {
            receiver: self,
            context,
            summaries,
            follower,
            cut,
            stored: from,
            storing: None,
            failed: false,
            cut_due: None,
            mark_due: Instant::now() + self.mark_interval(),
            wanted: None,
            end_due: None,
            asking: Asking::begin(prober),
            recorded: known,
        };
        let ended = streaming.run(stream, &mut calls).await;
        // Whatever ended the stream: what was received is stored.
        let finished = streaming.finish().await;
        let end = ended?;
        finished?;
        Ok(end)
    }
}

/// The state of one timeline's stream.
struct Streaming<'a> {
    receiver: &'a Receiver<'a>,
    context: LogContext,
    summaries: SummaryContext,
    follower: Follower,
    cut: LogCut,
    /// Everything before this is in the repository.
    stored: Lsn,
    storing: Option<JoinHandle<Result<StoredLog, RepositoryError>>>,
    /// A log backup could not be stored: none may be behind it, for receiving goes on at the end of what is stored.
    failed: bool,
    cut_due: Option<Instant>,
    /// When to record that nothing came, if nothing comes.
    mark_due: Instant,
    /// What the server has by now is to be stored, as the answer of this number will tell.
    wanted: Option<u64>,
    /// Until when that is waited for.
    end_due: Option<Instant>,
    /// How far the server's log goes.
    asking: Asking,
    /// Up to when log is complete by what is stored.
    recorded: Option<Timestamp>,
}

impl Streaming<'_> {
    async fn run(
        &mut self,
        stream: &mut WalStream,
        calls: &mut Calls,
    ) -> Result<StreamEnd, ReceiveError> {
        let mut stop = self.receiver.stop.clone();
        let mut status_due = Instant::now();
        let mut unanswered = 0;
        loop {
            if self.is_done() {
                return Ok(StreamEnd::Done);
            }
            let never = Instant::now() + STATUS_INTERVAL;
            let cut_due = self.cut_due.unwrap_or(never);
            let end_due = self.end_due.unwrap_or(never);
            tokio::select! {
                event = stream.next() => {
                    let event = event?;
                    unanswered = 0;
                    if let Some(end) = self.take(stream, event).await? {
                        return Ok(end);
                    }
                }
                stored = wait_for(&mut self.storing) => {
                    self.took(stored)?;
                    self.mark().await?;
                    self.report(stream, ReplyWanted::No).await?;
                }
                () = sleep_until(cut_due), if self.cut_due.is_some() => self.want_end(),
                () = sleep_until(end_due), if self.end_due.is_some() => {
                    self.begin_storing().await?;
                }
                answered = self.asking.next() => {
                    answered.map_err(|_| ReceiveError::Interrupted)?;
                    self.reached().await?;
                }
                () = sleep_until(status_due) => {
                    status_due = Instant::now() + STATUS_INTERVAL;
                    if unanswered == UNANSWERED_STATUSES {
                        return Err(ReplicationError::Closed.into());
                    }
                    unanswered += 1;
                    self.mark().await?;
                    // The answer says that the server is still there. Without one the connection would last until the
                    // system gives it up: what is sent and not acknowledged keeps it from probing.
                    self.report(stream, ReplyWanted::Yes).await?;
                }
                () = calls.next() => self.want_end(),
                () = told(&mut stop) => return Ok(StreamEnd::Done),
            }
        }
    }

    /// Has stored what the server has by now, as soon as that has come, or what has come after a while.
    fn want_end(&mut self) {
        self.cut_due = None;
        let now = Instant::now();
        self.end_due.get_or_insert(now + END_PATIENCE);
        self.wanted = Some(self.asking.anew());
    }

    /// Takes note of what the server was found to have, once it was received.
    async fn reached(&mut self) -> Result<(), ReceiveError> {
        let Some(reach) = self.asking.reached(self.cut.end()) else {
            return Ok(());
        };
        self.cut.complete_at(reach.at);
        if self.wanted.is_none_or(|wanted| reach.number < wanted) {
            return Ok(());
        }
        self.wanted = None;
        self.end_due = None;
        if !self.cut.is_empty() {
            return self.begin_storing().await;
        }
        // Whoever wanted it wants to restore up to now, and no later log tells of an idle server.
        self.mark_due = Instant::now();
        self.mark().await
    }

    /// Records up to when an idle server is known to have written nothing.
    async fn mark(&mut self) -> Result<(), ReceiveError> {
        let idle = self.cut.is_empty() && self.storing.is_none();
        let due = idle && Instant::now() >= self.mark_due;
        let later = self.cut.known_complete_at();
        let Some(complete_at) = later.filter(|_| due && later != self.recorded) else {
            return Ok(());
        };
        self.recorded = later;
        self.mark_due = Instant::now() + self.receiver.mark_interval();
        let (timeline, lsn) = (self.cut.timeline(), self.cut.end());
        let mark = MarkDocument {
            timeline,
            lsn,
            complete_at,
        };
        self.context
            .repository
            .write_mark(&self.context.instance, &mark)
            .await?;
        (self.receiver.listener)(ReceiveEvent::Marked(complete_at));
        Ok(())
    }

    fn is_done(&self) -> bool {
        matches!(self.receiver.plan.until, Until::Stored(lsn) if self.stored >= lsn)
    }

    async fn take(
        &mut self,
        stream: &mut WalStream,
        event: StreamEvent,
    ) -> Result<Option<StreamEnd>, ReceiveError> {
        match event {
            StreamEvent::Data {
                start,
                sent_at,
                bytes,
                ..
            } => {
                if start != self.cut.end() {
                    let (expected, found) = (self.cut.end(), start);
                    return Err(ReceiveError::OutOfOrder { expected, found });
                }
                self.cut.sent_at(sent_at);
                self.cut.push(&bytes)?;
                if let Err(error) = self.follower.feed(start, &bytes) {
                    (self.receiver.listener)(ReceiveEvent::NotSummarised(error));
                }
                self.asking.log_comes();
                self.reached().await?;
                let wait = self.receiver.plan.interval;
                if !self.cut.is_empty() && self.end_due.is_none() {
                    self.cut_due.get_or_insert_with(|| Instant::now() + wait);
                }
                let wanted = matches!(
                    self.receiver.plan.until,
                    Until::Stored(lsn) if self.cut.end() >= lsn
                );
                if self.cut.len() >= self.receiver.plan.cut_bytes || self.follower.is_full() {
                    self.begin_storing().await?;
                } else if wanted && self.end_due.is_none() {
                    self.want_end();
                }
                Ok(None)
            }
            StreamEvent::KeepAlive {
                reply_requested, ..
            } => {
                if reply_requested {
                    // A server that is stopping waits until all it sent is flushed.
                    self.begin_storing().await?;
                    self.report(stream, ReplyWanted::No).await?;
                }
                Ok(None)
            }
            StreamEvent::TimelineEnd {
                next_timeline,
                switch_at,
            } => Ok(Some(StreamEnd::NextTimeline(next_timeline, switch_at))),
            StreamEvent::ServerStopped => Ok(Some(StreamEnd::ServerStopped)),
        }
    }

    /// Cuts what has been received and stores it beside receiving more. One log backup at a time is
    /// under way; a second waits for the first, which holds up the stream and so the server's sending.
    async fn begin_storing(&mut self) -> Result<(), ReceiveError> {
        self.cut_due = None;
        self.end_due = None;
        if self.cut.is_empty() || self.failed {
            return Ok(());
        }
        self.end_storing().await?;
        self.recorded = self.cut.known_complete_at();
        let next = LogCut::new(
            self.context.clone(),
            self.cut.timeline(),
            self.cut.end(),
            self.cut.known_complete_at(),
        )?;
        let cut = std::mem::replace(&mut self.cut, next);
        let (summary, summaries) = (self.follower.cut(), self.summaries.clone());
        let listener = self.receiver.listener.clone();
        self.storing = Some(tokio::spawn(async move {
            let stored = cut.store().await?;
            // Of no consequence for the log: it can be made anew from what was just stored.
            if let Some(summary) = summary
                && let Err(error) = summary::store(&summaries, &summary).await
            {
                listener(ReceiveEvent::NotSummarised(error.into()));
            }
            Ok(stored)
        }));
        Ok(())
    }

    /// Waits for the log backup that is under way.
    async fn end_storing(&mut self) -> Result<(), ReceiveError> {
        if self.storing.is_none() {
            return Ok(());
        }
        let stored = wait_for(&mut self.storing).await;
        self.took(stored)
    }

    fn took(&mut self, stored: Result<StoredLog, ReceiveError>) -> Result<(), ReceiveError> {
        self.failed = stored.is_err();
        let stored = stored?;
        self.stored = stored.end;
        (self.receiver.listener)(ReceiveEvent::Stored(stored));
        Ok(())
    }

    async fn report(&self, stream: &mut WalStream, reply: ReplyWanted) -> Result<(), ReceiveError> {
        let status = ReceiverStatus {
            written: self.cut.end(),
            flushed: self.stored,
            applied: self.stored,
        };
        Ok(stream.send_status(status, reply).await?)
    }

    async fn finish(&mut self) -> Result<(), ReceiveError> {
        self.begin_storing().await?;
        self.end_storing().await
    }
}

/// Waits until told to end, and holds nothing of the channel afterwards, so that receiving may go from one
/// thread to another.
async fn told(stop: &mut watch::Receiver<bool>) {
    // A channel that nobody holds any more tells to end, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The result of the log backup under way; waits for ever when there is none.
async fn wait_for(
    storing: &mut Option<JoinHandle<Result<StoredLog, RepositoryError>>>,
) -> Result<StoredLog, ReceiveError> {
    match storing {
        None => std::future::pending().await,
        Some(task) => {
            let result = task.await;
            *storing = None;
            Ok(result.map_err(|_| ReceiveError::Interrupted)??)
        }
    }
}

/// Whether the server no longer has the log that is needed.
fn is_lost(error: &ReplicationError) -> bool {
    matches!(
        error,
        ReplicationError::WalRemoved { .. } | ReplicationError::SlotUnusable { .. }
    )
}

/// What [`ensure_slot`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMade {
    /// It was there and of use.
    Before,
    /// It was made now.
    Anew,
}

/// Makes a slot where there is none, or one that has lost what it was to keep: from then on the server
/// keeps log from its last checkpoint on.
///
/// # Errors
/// When the server refuses.
pub async fn ensure_slot(
    client: &mut ReplicationClient,
    slot: &SlotName,
) -> Result<SlotMade, ReplicationError> {
    match client.read_slot(slot).await? {
        Some(position) if position.restart_lsn.is_some() => return Ok(SlotMade::Before),
        Some(_) => client.drop_slot(slot, DropActive::Refuse).await?,
        None => {}
    }
    client.create_slot(slot, SlotLifetime::Persistent).await?;
    Ok(SlotMade::Anew)
}

/// The end of what is stored in a history: the furthest position that lies on it.
fn stored_until(index: &LogIndex, history: &TimelineHistory) -> Option<Lsn> {
    let parts = history.parts();
    index
        .stretches()
        .filter_map(|stretch| {
            let part = parts
                .iter()
                .find(|part| part.timeline == stretch.timeline)?;
            (stretch.start < part.to).then_some(stretch.end.min(part.to))
        })
        .max()
}
