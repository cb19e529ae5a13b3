//! How long to wait before something that failed is tried again: one rule for every call of the agent.
//!
//! Pure but for [`Backoff::next_pause`], which draws its own random number; the control loop brings one of its own.

use std::time::Duration;

use groundcrew_client::Error;
use groundcrew_protocol::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, SLOW_RETRY_MS};

/// How long to wait between tries: twice as long each time up to a limit, and each time less by up to a half,
/// so that many agents do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    slow: Duration,
    tries: u32,
}

impl Default for Backoff {
    /// 2 s to 30 s, and 5 minutes for what only an operator can mend.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self::new(ms(BACKOFF_FIRST_MS), ms(BACKOFF_MAX_MS), ms(SLOW_RETRY_MS))
    }
}

impl Backoff {
    /// With limits of one's own.
    pub fn new(first: Duration, longest: Duration, slow: Duration) -> Backoff {
        Backoff { first, longest, slow, tries: 0 }
    }

    /// A call was answered: the next failure is a first one.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The pause after this error.
    pub fn after(&mut self, error: &Error) -> Duration {
        if error.is_retried_quickly() { self.next_pause() } else { self.slow }
    }

    /// What only an operator can mend is asked again this often.
    pub fn slow(&self) -> Duration {
        self.slow
    }

    /// The pause after another failure.
    pub fn next_pause(&mut self) -> Duration {
        // Without a random number the pause is a whole one, which harms nobody.
        self.pause(getrandom::u32().unwrap_or(u32::MAX))
    }

    /// The pause after another failure, for whoever has a random number.
    pub fn pause(&mut self, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.tries.min(20)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        let part = 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX);
        doubled.mul_f64(part).max(self.first)
    }

    /// The pause that the answer asks for (`retry_after_s`): never shorter than the first, never longer than the slow one.
    pub fn asked_for(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).clamp(self.first, self.slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_2_to_30_seconds_and_differ() {
        let mut longest = Backoff::default();
        let seconds: Vec<u64> = (0..6).map(|_| longest.pause(u32::MAX).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30]);
        let mut shortest = Backoff::default();
        let seconds: Vec<u64> = (0..6).map(|_| shortest.pause(0).as_secs()).collect();
        assert_eq!(seconds, [2, 2, 4, 8, 15, 15]);
        longest.reset();
        assert_eq!(longest.pause(u32::MAX).as_secs(), 2);
        for _ in 0..1_000 {
            assert!((2..=30).contains(&longest.next_pause().as_secs()));
        }
    }

    #[test]
    fn what_an_answer_asks_for_is_bounded() {
        let backoff = Backoff::default();
        let seconds = [0, 1, 17, 300, 301, u64::MAX].map(|asked| backoff.asked_for(asked).as_secs());
        assert_eq!(seconds, [2, 2, 17, 300, 300, 300]);
    }
}
