//! How often somebody may do something: buckets that fill by the second.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most keys that are remembered; then those whose buckets are full are forgotten, and when there are none,
/// all.
const MAX_KEYS: usize = 10_000;

/// The limit, for each key, such as an address.
#[derive(Debug)]
pub struct RateLimit<K>(Mutex<Buckets<K>>);

#[derive(Debug)]
struct Buckets<K> {
    per_second: f64,
    burst: f64,
    levels: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// So many a second on average, and so many at once.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self(Mutex::new(Buckets {
            per_second,
            burst: burst.max(1.0),
            levels: HashMap::new(),
        }))
    }

    /// From now on so many.
    pub fn set(&self, per_second: f64, burst: f64) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (buckets.per_second, buckets.burst) = (per_second, burst.max(1.0));
    }

    /// Takes one. False when the bucket is empty.
    pub fn take(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.levels.len() >= MAX_KEYS && !buckets.levels.contains_key(&key) {
            let refill = Duration::from_secs_f64(buckets.burst / buckets.per_second.max(0.001));
            let fills = |last: Instant| now.saturating_duration_since(last) < refill;
            buckets.levels.retain(|_, (_, last)| fills(*last));
            if buckets.levels.len() >= MAX_KEYS {
                buckets.levels.clear();
            }
        }
        let level = buckets.level(&key, now);
        let allowed = level >= 1.0;
        let left = if allowed { level - 1.0 } else { level };
        buckets.levels.insert(key, (left, now));
        allowed
    }

    /// Whether one could be taken.
    pub fn has(&self, key: &K, now: Instant) -> bool {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.level(key, now) >= 1.0
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn level(&self, key: &K, now: Instant) -> f64 {
        let Some((left, last)) = self.levels.get(key) else {
            return self.burst;
        };
        let gained = now.saturating_duration_since(*last).as_secs_f64() * self.per_second;
        (left + gained).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_bucket_empties_fills_again_and_is_each_addresss_own() {
        let limit = RateLimit::new(10.0, 5.0);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        assert_eq!((0..9).filter(|_| limit.take(one, now)).count(), 5);
        assert!(limit.take(two, now));
        let later = now + Duration::from_millis(300);
        assert_eq!((0..9).filter(|_| limit.take(one, later)).count(), 3);
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let limit = RateLimit::new(10.0, 5.0);
        let now = Instant::now();
        for number in 0..25_000_u32 {
            limit.take(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(limit.0.lock().unwrap().levels.len() <= MAX_KEYS);
    }
}
