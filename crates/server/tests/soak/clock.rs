//! Two clocks: the server's, which goes on by itself, and that of the schedules, which is told to.

use jiff::{SignedDuration, Timestamp};

/// Pairs of moments, both ascending.
pub struct Clock {
    pairs: Vec<(Timestamp, Timestamp)>,
}

impl Clock {
    /// The simulated time is `simulated` now.
    pub fn new(simulated: Timestamp) -> Self {
        Self {
            pairs: vec![(Timestamp::now(), simulated)],
        }
    }

    /// Goes on; returns the simulated time.
    pub fn step(&mut self, by: SignedDuration) -> Timestamp {
        let (_, last) = self.pairs[self.pairs.len() - 1];
        let simulated = last + by;
        self.pairs.push((Timestamp::now(), simulated));
        simulated
    }

    /// The simulated time of a real moment: that of the step that it lies in, and so much of it.
    pub fn simulated(&self, real: Timestamp) -> Timestamp {
        convert(&self.pairs, real)
    }

    /// The real moment of a simulated time; before the first, the first.
    pub fn real(&self, simulated: Timestamp) -> Timestamp {
        let turned: Vec<_> = self
            .pairs
            .iter()
            .map(|(real, simulated)| (*simulated, *real))
            .collect();
        convert(&turned, simulated)
    }
}

fn convert(pairs: &[(Timestamp, Timestamp)], from: Timestamp) -> Timestamp {
    let next = pairs.partition_point(|(start, _)| *start <= from);
    let Some(before) = next.checked_sub(1) else {
        return pairs[0].1;
    };
    let (start, to) = pairs[before];
    let Some((end, until)) = pairs.get(next) else {
        // Within the step that lasts, no simulated time passes.
        return to;
    };
    let share = (from - start).total(jiff::Unit::Second).unwrap_or(0.0)
        / (*end - start).total(jiff::Unit::Second).unwrap_or(1.0);
    let length = (*until - to).total(jiff::Unit::Second).unwrap_or(0.0);
    to + SignedDuration::from_secs_f64(length * share)
}
