//! Which backups begin now.

use everpoint_repository::InstanceName;
use jiff::{SignedDuration, Timestamp};

use super::{
    CLOCK_SLACK, DIFFERENTIAL_SHARE_PERCENT, History, Kind, RETRY_PAUSES, Running, Schedule,
};

/// How much may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Backups of all instances together.
    pub backups_at_once: usize,
}

/// A backup that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of this instance.
    pub instance: InstanceName,
    /// What to take.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
}

/// Why a backup is due. Those that leave an instance without protection come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There is none yet.
    First,
    /// Log is missing behind the last one.
    Gap,
    /// The last full backup is dated later than now: the clock was wrong then, or is.
    DatedAhead,
    /// The week's moment has come.
    Weekly,
    /// The last differential was nearly as large as a full backup.
    LargeDifferential,
    /// The rhythm's moment has come.
    Rhythm,
}

/// So often an instance without protection may fail and still go before all others.
const PATIENT_FAILURES: u32 = 3;

/// The backups that begin at `now`: at most as many as the limits leave room for, the most urgent first. An
/// instance has at most one, and none while one of its backups runs or a failed one's pause lasts.
pub fn due<'a>(
    instances: impl IntoIterator<Item = (&'a Schedule, &'a History)>,
    limits: Limits,
    now: Timestamp,
) -> Vec<Due> {
    let mut found = Vec::new();
    let mut running = 0;
    for (schedule, history) in instances {
        if history.running == Running::Yes {
            running += 1;
        } else if retry_at(history, now).is_none_or(|at| at <= now)
            && let Some((kind, reason, since)) = wanted(schedule, history, now)
        {
            let rank = match reason {
                // What failed often may take long to fail again, and others are not to wait for that.
                Reason::First | Reason::Gap if history.failures >= PATIENT_FAILURES => 2,
                Reason::First | Reason::Gap => 0,
                _ => 1,
            };
            found.push((rank, since, schedule, kind, reason));
        }
    }
    found.sort_by(
        |(rank, since, schedule, ..), (other_rank, other_since, other, ..)| {
            (rank, since, &schedule.instance).cmp(&(other_rank, other_since, &other.instance))
        },
    );
    found
        .into_iter()
        .take(limits.backups_at_once.saturating_sub(running))
        .map(|(_, since, schedule, kind, reason)| Due {
            instance: schedule.instance.clone(),
            kind,
            reason,
            since,
        })
        .collect()
}

/// What an instance wants at `now`, whatever runs.
fn wanted(
    schedule: &Schedule,
    history: &History,
    now: Timestamp,
) -> Option<(Kind, Reason, Timestamp)> {
    let Some(full) = history.full else {
        return Some((Kind::Full, Reason::First, Timestamp::MIN));
    };
    // A full backup that began behind the gap has closed it.
    if let Some(gap) = history.gap.filter(|gap| *gap >= full.started_at) {
        return Some((Kind::Full, Reason::Gap, gap));
    }
    if is_ahead(full.started_at, now) {
        return Some((Kind::Full, Reason::DatedAhead, now));
    }
    let weekly = schedule.full.latest(now);
    if full.started_at < weekly {
        return Some((Kind::Full, Reason::Weekly, weekly));
    }
    let differential = history.differential.filter(|differential| {
        differential.started_at > full.started_at && !is_ahead(differential.started_at, now)
    });
    let last = differential.map_or(full.started_at, |differential| differential.started_at);
    let moment = schedule.differential.latest(now);
    if last >= moment {
        return None;
    }
    let is_large = |size: u64| {
        u128::from(size) * 100
            > u128::from(full.size_bytes) * u128::from(DIFFERENTIAL_SHARE_PERCENT)
    };
    match differential {
        Some(last) if is_large(last.size_bytes) => {
            Some((Kind::Full, Reason::LargeDifferential, moment))
        }
        _ => Some((Kind::Differential, Reason::Rhythm, moment)),
    }
}

/// Whether a time lies so far ahead that waiting for it would be wrong: a clock was set back since.
fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > CLOCK_SLACK
}

/// When an instance whose last attempt failed is tried again.
fn retry_at(history: &History, now: Timestamp) -> Option<Timestamp> {
    let failed_at = history
        .failed_at
        .filter(|at| history.failures > 0 && !is_ahead(*at, now))?;
    let doublings = (history.failures - 1).min(16);
    let pause = RETRY_PAUSES
        .0
        .saturating_mul(1 << doublings)
        .min(RETRY_PAUSES.1);
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    Some(failed_at.checked_add(pause).unwrap_or(Timestamp::MAX))
}

/// The next moment behind `now` at which something new may be due; a backup that ends may come before it.
pub fn next_look<'a>(
    instances: impl IntoIterator<Item = (&'a Schedule, &'a History)>,
    now: Timestamp,
) -> Option<Timestamp> {
    instances
        .into_iter()
        .filter(|(_, history)| history.running == Running::No)
        .map(|(schedule, history)| {
            let moment = schedule.full.next(now).min(schedule.differential.next(now));
            let retry = retry_at(history, now).filter(|retry| *retry > now);
            retry.map_or(moment, |retry| retry.min(moment))
        })
        .min()
}

#[cfg(test)]
mod tests;
