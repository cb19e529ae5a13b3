//! A bound on how often one token may ask: a bucket that fills at a steady rate, in one atomic word.

use std::sync::atomic::{AtomicU64, Ordering};

/// As many seconds' worth of requests may come at once.
const BURST_SECONDS: u64 = 5;

/// How many requests per second a token may keep up.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_second_max: u64,
}

impl Rate {
    /// At least one.
    pub fn per_second(count: u32) -> Rate {
        Rate { per_second_max: u64::from(count.max(1)) }
    }
}

/// The bucket of one token. Holds the moment, in microseconds of the caller's clock, at which it is full again.
#[derive(Debug, Default)]
pub struct Bucket {
    full_at_us: AtomicU64,
}

impl Bucket {
    /// Takes one request out.
    ///
    /// # Errors
    /// Where none is left: after how many seconds there is one, at least 1.
    pub fn take(&self, rate: Rate, now_us: u64) -> Result<(), u64> {
        let cost_us = (1_000_000 / rate.per_second_max).max(1);
        let debt_us_max = BURST_SECONDS * 1_000_000;
        let mut wait_us = 0;
        let taken = self.full_at_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_us| {
            let after_us = full_at_us.max(now_us) + cost_us;
            let debt_us = after_us - now_us;
            if debt_us > debt_us_max {
                wait_us = debt_us - debt_us_max;
                return None;
            }
            Some(after_us)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(_) => Err(wait_us.div_ceil(1_000_000).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_rate_holds() {
        let (bucket, rate) = (Bucket::default(), Rate::per_second(10));
        let taken = (0..100).filter(|_| bucket.take(rate, 0).is_ok()).count();
        assert_eq!(taken, 50);
        assert_eq!(bucket.take(rate, 0), Err(1));
        let taken = (0..100).filter(|_| bucket.take(rate, 1_000_000).is_ok()).count();
        assert_eq!(taken, 10);
    }
}
