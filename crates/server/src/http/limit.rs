//! How often one address may ask: a bucket that fills by the second.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most addresses that are remembered; then those whose buckets are full are forgotten, and when there are
/// none, all.
const MAX_ADDRESSES: usize = 10_000;

/// The limit.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl RateLimit {
    /// So many a second on average, and so many at once.
    pub fn new(per_second: u16, burst: u16) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst.max(1)),
            buckets: Mutex::default(),
        }
    }

    /// Takes one. False when the bucket is empty.
    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            let refill = Duration::from_secs_f64(self.burst / self.per_second.max(0.001));
            buckets.retain(|_, (_, last)| now.saturating_duration_since(*last) < refill);
            if buckets.len() >= MAX_ADDRESSES {
                buckets.clear();
            }
        }
        let (left, last) = buckets.entry(address).or_insert((self.burst, now));
        let gained = now.saturating_duration_since(*last).as_secs_f64() * self.per_second;
        *left = (*left + gained).min(self.burst);
        *last = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_fills_again_and_is_each_addresss_own() {
        let limit = RateLimit::new(10, 5);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        assert_eq!((0..9).filter(|_| limit.take(one, now)).count(), 5);
        assert!(limit.take(two, now));
        let later = now + Duration::from_millis(300);
        assert_eq!((0..9).filter(|_| limit.take(one, later)).count(), 3);
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let limit = RateLimit::new(10, 5);
        let now = Instant::now();
        for number in 0..25_000_u32 {
            limit.take(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(limit.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
