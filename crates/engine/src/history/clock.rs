//! Steps back of the server's clock.

use everpoint_pgformat::{
    PgTimestamp,
    wal_summary::time_index::{StepBack, TransactionMark},
};

/// Smaller steps are usual: times are taken before records get their places.
pub const REPORTED_STEP_MICROSECONDS: i64 = 1_000_000;

/// Looks at the times of transactions' ends in the order of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockWatch {
    latest: Option<PgTimestamp>,
}

impl ClockWatch {
    /// The step back that shows at this end, if it is large enough to be told.
    pub fn see(&mut self, mark: &TransactionMark) -> Option<StepBack> {
        let latest = self.latest.unwrap_or(mark.time);
        let step = StepBack {
            at: mark.start,
            from: latest,
            to: mark.time,
        };
        if step.microseconds() > REPORTED_STEP_MICROSECONDS {
            // From here on the clock goes on from the earlier time.
            self.latest = Some(mark.time);
            return Some(step);
        }
        self.latest = Some(latest.max(mark.time));
        None
    }
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{Lsn, TransactionId, wal::transaction::EndKind};

    use super::*;

    #[test]
    fn steps_of_more_than_a_second_are_told_once() {
        const SECOND: i64 = 1_000_000;
        let mut watch = ClockWatch::default();
        let mut steps = Vec::new();
        let times = [
            (1, 100 * SECOND),
            (2, 101 * SECOND),
            // Usual.
            (3, 101 * SECOND - 2_000),
            (4, 100 * SECOND),
            // An hour back, and on from there.
            (5, 101 * SECOND - 3600 * SECOND),
            (6, 102 * SECOND - 3600 * SECOND),
            (7, 200 * SECOND),
            (8, 198 * SECOND),
        ];
        for (at, time) in times {
            let mark = TransactionMark {
                time: PgTimestamp::from_raw(time),
                before: Lsn::new(at),
                start: Lsn::new(at),
                end: Lsn::new(at + 1),
                transaction: TransactionId::new(1),
                kind: EndKind::Commit,
            };
            steps.extend(watch.see(&mark));
        }
        let told: Vec<_> = steps
            .iter()
            .map(|step| (step.at.get(), step.microseconds() / SECOND))
            .collect();
        assert_eq!(told, [(5, 3600), (8, 2)]);
    }
}
