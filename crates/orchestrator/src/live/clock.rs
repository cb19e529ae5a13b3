//! The clock of listening: milliseconds for which this orchestrator has answered agents, over all its starts.
//!
//! It stands still while the orchestrator is down, and gains at most [`TICK_CREDIT_MS_MAX`] between two ticks of the
//! deadline task: a process that was stopped, a virtual machine that was paused or a machine that slept did not
//! listen, and time in which nobody listened counts against nobody (rule 10 of the design). After a tick that comes
//! too late, and after every start, listening begins anew.

use std::sync::Mutex;
use std::time::Instant;

use groundcrew_protocol::time::WallMs;

/// Greatest gain between two ticks. Ticks come each second; a machine under load may be a few late.
pub const TICK_CREDIT_MS_MAX: u64 = 5_000;

/// The clock. Monotonic within a process.
#[derive(Debug)]
pub struct ListenClock {
    at: Mutex<At>,
}

#[derive(Debug, Clone, Copy)]
struct At {
    /// Reading at the last tick.
    ticked_ms: u64,
    /// When that was.
    ticked: Instant,
    /// Reading when listening last began anew.
    anew_ms: u64,
    /// Time passes by [`ListenClock::step`] alone.
    stands: bool,
}

/// What a tick found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// In time.
    InTime,
    /// So late that nobody was listened to: every allowance of silence begins anew.
    Anew {
        /// Time since the tick before it.
        missed_ms: u64,
    },
}

impl ListenClock {
    /// A clock that goes on from what was kept of it.
    pub fn start(kept_ms: u64, now: Instant) -> ListenClock {
        Self::of(At { ticked_ms: kept_ms, ticked: now, anew_ms: kept_ms, stands: false })
    }

    /// A clock that goes on from what was kept of it, and only where it is told to: for tests, in which nothing may
    /// depend on how long something takes.
    pub fn standing(kept_ms: u64, now: Instant) -> ListenClock {
        Self::of(At { ticked_ms: kept_ms, ticked: now, anew_ms: kept_ms, stands: true })
    }

    fn of(at: At) -> ListenClock {
        ListenClock { at: Mutex::new(at) }
    }

    /// Lets time pass. The reading afterwards.
    pub fn step(&self, by_ms: u64) -> u64 {
        let mut at = self.lock();
        at.ticked_ms = at.ticked_ms.saturating_add(by_ms);
        at.ticked_ms
    }

    /// The reading.
    pub fn read_ms(&self, now: Instant) -> u64 {
        self.lock().read_ms(now)
    }

    /// The reading, and the one at which listening last began anew.
    pub fn read_both_ms(&self, now: Instant) -> (u64, u64) {
        let at = self.lock();
        (at.read_ms(now), at.anew_ms)
    }

    /// Notes that time was watched up to now. Called each second.
    pub fn tick(&self, now: Instant) -> Tick {
        let mut at = self.lock();
        let passed_ms = at.passed_ms(now);
        at.ticked_ms = at.read_ms(now);
        at.ticked = now;
        if passed_ms > TICK_CREDIT_MS_MAX {
            at.anew_ms = at.ticked_ms;
            return Tick::Anew { missed_ms: passed_ms };
        }
        Tick::InTime
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, At> {
        self.at.lock().expect("no holder of this lock panics")
    }
}

impl At {
    fn read_ms(&self, now: Instant) -> u64 {
        self.ticked_ms + self.passed_ms(now).min(TICK_CREDIT_MS_MAX)
    }

    /// Time since the last tick, as far as it passes by itself.
    fn passed_ms(&self, now: Instant) -> u64 {
        if self.stands {
            return 0;
        }
        u64::try_from(now.saturating_duration_since(self.ticked).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The wall clock, for people.
pub fn wall_now() -> WallMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallMs(since.map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_goes_on_from_what_was_kept() {
        let start = Instant::now();
        let clock = ListenClock::start(40_000, start);
        assert_eq!(clock.read_both_ms(start), (40_000, 40_000));
        assert_eq!(clock.read_ms(start + Duration::from_millis(700)), 40_700);
    }

    #[test]
    fn a_pause_counts_against_nobody() {
        let start = Instant::now();
        let clock = ListenClock::start(0, start);
        assert_eq!(clock.tick(start + Duration::from_secs(1)), Tick::InTime);
        let late = start + Duration::from_secs(3_601);
        // Even before the tick notices, no more than the credit is given.
        assert_eq!(clock.read_ms(late), 1_000 + TICK_CREDIT_MS_MAX);
        assert_eq!(clock.tick(late), Tick::Anew { missed_ms: 3_600_000 });
        assert_eq!(clock.read_both_ms(late), (6_000, 6_000));
        assert_eq!(clock.tick(late + Duration::from_secs(1)), Tick::InTime);
        assert_eq!(clock.read_both_ms(late + Duration::from_secs(1)), (7_000, 6_000));
    }

    #[test]
    fn one_that_stands_goes_on_where_it_is_told_to() {
        let start = Instant::now();
        let clock = ListenClock::standing(5_000, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(clock.tick(later), Tick::InTime);
        assert_eq!(clock.read_both_ms(later), (5_000, 5_000));
        assert_eq!(clock.step(30_000), 35_000);
        assert_eq!(clock.read_both_ms(later), (35_000, 5_000));
    }

    #[test]
    fn it_never_goes_back() {
        let start = Instant::now();
        let clock = ListenClock::start(0, start);
        let mut last = 0;
        for step_ms in [1, 999, 4_000, 9_000, 0, 100_000, 1] {
            let now = start + Duration::from_millis(step_ms * 3);
            let read = clock.read_ms(now);
            clock.tick(now);
            assert!(clock.read_ms(now) >= read && read >= last);
            last = clock.read_ms(now);
        }
    }
}
