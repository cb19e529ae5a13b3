//! Sets this machine's clock from the answer to a hello, where the settings ask for it (rule 10 of the design): a live
//! image has no other source of time, and its lines would carry the date of a flat battery.
//!
//! Only the wall clock is touched. Deadlines, pauses and intervals count on the monotonic one, which a setting of the
//! wall clock does not move.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::LogLevel;

use crate::stamp::wall;

/// A clock that is off by less is left alone: a second in the stamp of a line harms nobody, and each setting is a jump.
const OFF_MS_MAX: i64 = 1_000;
/// 2025-01-01. What claims to be earlier is no clock: an orchestrator that does not say its time, or whose own
/// battery is flat.
const EARLIEST: WallMs = WallMs(1_735_689_600_000);

/// Where the wall clock comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockFrom {
    /// The machine's own affair: an installed one has a time service.
    #[default]
    Machine,
    /// The orchestrator's answers to hellos.
    Hello,
}

/// Sets the wall clock. A parameter, because a test must not set that of the machine it runs on.
pub type SetClock = fn(WallMs) -> std::io::Result<()>;

/// The machine's wall clock, as far as the agent sets it.
#[derive(Debug)]
pub struct WallClock {
    from: ClockFrom,
    set: SetClock,
    said_refused: AtomicBool,
}

impl WallClock {
    /// The machine's own.
    pub fn of_machine(from: ClockFrom) -> WallClock {
        WallClock::with(from, set_realtime)
    }

    fn with(from: ClockFrom, set: SetClock) -> WallClock {
        WallClock { from, set, said_refused: AtomicBool::new(false) }
    }

    /// Meets the orchestrator's time, which came after that round trip, and says what there is to say.
    pub fn meet(&self, server_time: WallMs, round_trip: Duration) -> Option<(LogLevel, String)> {
        self.meet_at(wall(), server_time, round_trip)
    }

    fn meet_at(&self, now: WallMs, told: WallMs, round_trip: Duration) -> Option<(LogLevel, String)> {
        let to = match self.from {
            ClockFrom::Machine => return None,
            ClockFrom::Hello => correction(now, told, round_trip)?,
        };
        let seconds = (now.0.saturating_sub(to.0)) as f64 / 1_000.0;
        match (self.set)(to) {
            Ok(()) => {
                self.said_refused.store(false, Ordering::Relaxed);
                let text =
                    format!("this machine's clock was {seconds:+.1} s off, and is set to the orchestrator's");
                Some((LogLevel::Warn, text))
            }
            Err(_) if self.said_refused.swap(true, Ordering::Relaxed) => None,
            Err(error) => {
                let text = format!(
                    "this machine's clock is {seconds:+.1} s off and stays so: setting it was refused ({error}); it needs \
                     CAP_SYS_TIME, or clock=machine in the settings"
                );
                Some((LogLevel::Error, text))
            }
        }
    }
}

/// What to set the clock to: the orchestrator's time when its answer left it, and half the round trip since. `None` where
/// the clock is right as far as anybody can tell: the answer may have taken all of the round trip on its way, or none.
fn correction(now: WallMs, told: WallMs, round_trip: Duration) -> Option<WallMs> {
    if told < EARLIEST {
        return None;
    }
    let half_ms = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
    let there = WallMs(told.0.saturating_add(half_ms));
    let off_ms = now.0.saturating_sub(there.0).saturating_abs();
    (off_ms > OFF_MS_MAX.saturating_add(half_ms)).then_some(there)
}

fn set_realtime(to: WallMs) -> std::io::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: to.0.div_euclid(1_000),
        tv_nsec: to.0.rem_euclid(1_000) * 1_000_000,
    };
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    // The setter of the machine itself is never called here: it would set the clock of whoever runs the tests.
    thread_local! {
        static SET: Cell<Option<WallMs>> = const { Cell::new(None) };
    }

    fn takes(to: WallMs) -> std::io::Result<()> {
        SET.set(Some(to));
        Ok(())
    }

    fn refuses(_to: WallMs) -> std::io::Result<()> {
        Err(rustix::io::Errno::PERM.into())
    }

    const NOON: i64 = 1_800_000_000_000;

    #[test]
    fn only_a_difference_that_the_round_trip_does_not_explain_is_corrected() {
        let after = |now: i64, told: i64, trip_ms: u64| {
            correction(WallMs(now), WallMs(told), Duration::from_millis(trip_ms)).map(|at| at.0)
        };
        for (now, told, trip_ms, expected) in [
            (NOON, NOON, 0, None),
            (NOON + 1_000, NOON, 0, None),
            (NOON + 1_001, NOON, 0, Some(NOON)),
            (NOON - 1_001, NOON, 0, Some(NOON)),
            // Half of the way is added, and as much again is not known.
            (NOON + 2_000, NOON, 2_000, None),
            (NOON - 1_000, NOON, 2_000, None),
            (NOON + 3_001, NOON, 2_000, Some(NOON + 1_000)),
            (NOON - 1_001, NOON, 2_000, Some(NOON + 1_000)),
            (0, NOON, 40, Some(NOON + 20)),
            // No time at all, and a time before there was such an agent.
            (NOON, 0, 0, None),
            (NOON, EARLIEST.0 - 1, 0, None),
            (i64::MIN, i64::MAX, u64::MAX, None),
        ] {
            assert_eq!(after(now, told, trip_ms), expected, "{now} {told} {trip_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_set_and_that_is_said() {
        let clock = WallClock::with(ClockFrom::Hello, takes);
        let (level, text) = clock.meet_at(WallMs(0), WallMs(NOON), Duration::from_millis(60)).unwrap();
        assert_eq!((SET.take(), level), (Some(WallMs(NOON + 30)), LogLevel::Warn));
        assert!(text.contains("set to the orchestrator's"), "{text}");
        assert_eq!(clock.meet_at(WallMs(NOON), WallMs(NOON), Duration::ZERO), None);
        assert_eq!(SET.take(), None);
    }

    #[test]
    fn a_refusal_is_one_line() {
        let clock = WallClock::with(ClockFrom::Hello, refuses);
        let (level, text) = clock.meet_at(WallMs(0), WallMs(NOON), Duration::ZERO).unwrap();
        assert_eq!(level, LogLevel::Error);
        assert!(text.contains("refused") && text.contains("CAP_SYS_TIME") && !text.contains('\n'), "{text}");
        assert_eq!(clock.meet_at(WallMs(0), WallMs(NOON), Duration::ZERO), None);
    }

    #[test]
    fn an_installed_machine_s_clock_is_its_own() {
        let clock = WallClock::with(ClockFrom::default(), takes);
        assert_eq!(clock.meet_at(WallMs(0), WallMs(NOON), Duration::ZERO), None);
        assert_eq!(SET.take(), None);
    }
}
