//! How a step that is asked to end is ended: a pure decision over time.
//!
//! ```text
//! Running ──asked──▶ Grace ──until──▶ Terminated (SIGTERM sent) ──5 s──▶ Killed (SIGKILL sent) ──10 s──▶ Stuck
//! ```

use std::time::{Duration, Instant};

use rustix::process::Signal;

/// Time between the polite signal and the one that cannot be refused.
const TERM_PATIENCE: Duration = Duration::from_secs(5);
/// Time in which a killed step must be gone; past it, it hangs in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How far the ending of a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody has asked.
    Running,
    /// It may end by itself until then.
    Grace(Instant),
    /// Its group was sent SIGTERM, and has until then.
    Terminated(Instant),
    /// Its group was sent SIGKILL, and is gone by then.
    Killed(Instant),
    /// It hangs in the kernel.
    Stuck,
}

impl Life {
    /// What to do now, given whether somebody asked.
    pub(super) fn next(self, asked: bool, now: Instant, grace: Duration) -> (Life, Option<Signal>) {
        match self {
            Life::Running if asked => (Life::Grace(now + grace), None),
            Life::Grace(until) if now >= until => (Life::Terminated(now + TERM_PATIENCE), Some(Signal::TERM)),
            Life::Terminated(until) if now >= until => {
                (Life::Killed(now + KILL_PATIENCE), Some(Signal::KILL))
            }
            Life::Killed(until) if now >= until => (Life::Stuck, None),
            Life::Running | Life::Grace(_) | Life::Terminated(_) | Life::Killed(_) | Life::Stuck => {
                (self, None)
            }
        }
    }

    /// When it has to be asked again.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Life::Grace(until) | Life::Terminated(until) | Life::Killed(until) => Some(until),
            Life::Running | Life::Stuck => None,
        }
    }

    /// True once a signal was sent.
    pub(super) fn was_signalled(self) -> bool {
        match self {
            Life::Running | Life::Grace(_) => false,
            Life::Terminated(_) | Life::Killed(_) | Life::Stuck => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_gets_its_grace_then_sigterm_then_sigkill() {
        let (begin, grace) = (Instant::now(), Duration::from_secs(20));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut life = Life::Running;
        for (second, asked, expected, signal) in [
            (0, false, Life::Running, None),
            (1, true, Life::Grace(at(21)), None),
            (20, true, Life::Grace(at(21)), None),
            (21, true, Life::Terminated(at(26)), Some(Signal::TERM)),
            (25, true, Life::Terminated(at(26)), None),
            (26, true, Life::Killed(at(36)), Some(Signal::KILL)),
            (36, true, Life::Stuck, None),
            (99, true, Life::Stuck, None),
        ] {
            let (next, sent) = life.next(asked, at(second), grace);
            assert_eq!((next, sent), (expected, signal), "second {second}");
            assert_eq!(next.was_signalled(), second >= 21);
            life = next;
        }
    }
}
