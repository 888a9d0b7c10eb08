//! The venue's rate limits: buckets of credits that requests cost and time refills.

use std::time::Instant;

/// Which bucket a request is paid from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Default,
    Subscribe,
    Instruments,
}

/// The three buckets of one address or key, with the documented sizes times a factor.
#[derive(Debug)]
pub(super) struct Credits {
    default: Bucket,
    subscribe: Bucket,
    instruments: Bucket,
}

#[derive(Debug)]
struct Bucket {
    cost: f64,
    size: f64,
    refill_per_second: f64,
    left: f64,
    as_of: Instant,
}

impl Credits {
    pub(super) fn new(factor: f64, now: Instant) -> Self {
        let bucket = |cost, size, refill| Bucket {
            cost,
            size: size * factor,
            refill_per_second: refill * factor,
            left: size * factor,
            as_of: now,
        };
        Self {
            default: bucket(500.0, 50_000.0, 10_000.0),
            subscribe: bucket(3_000.0, 30_000.0, 10_000.0),
            instruments: bucket(10_000.0, 500_000.0, 10_000.0),
        }
    }

    /// Takes what a request costs, and returns false if it is not there.
    pub(super) fn pay(&mut self, pool: Pool, now: Instant) -> bool {
        match pool {
            Pool::Default => self.default.pay(now),
            Pool::Subscribe => self.subscribe.pay(now),
            Pool::Instruments => self.instruments.pay(now),
        }
    }
}

impl Bucket {
    fn pay(&mut self, now: Instant) -> bool {
        let refilled = now.saturating_duration_since(self.as_of).as_secs_f64() * self.refill_per_second;
        self.left = (self.left + refilled).min(self.size);
        self.as_of = now;
        let enough = self.left >= self.cost;
        if enough {
            self.left -= self.cost;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_empties_a_bucket_and_time_refills_it() {
        let start = Instant::now();
        let mut credits = Credits::new(1.0, start);
        assert_eq!((0..200).filter(|_| credits.pay(Pool::Default, start)).count(), 100);
        assert_eq!((0..200).filter(|_| credits.pay(Pool::Subscribe, start)).count(), 10, "buckets are apart");
        assert_eq!((0..200).filter(|_| credits.pay(Pool::Instruments, start)).count(), 50);

        let later = start + Duration::from_secs(1);
        assert_eq!((0..200).filter(|_| credits.pay(Pool::Default, later)).count(), 20);
    }
}
