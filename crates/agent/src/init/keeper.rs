//! Which process runs, and what follows its end. Pure.
//!
//! ```text
//!   preparing ── it ended, or took too long ──▶ the agent runs ◀──────────── time
//!       │                                        │      └── it ended ──▶ pausing
//!       └── asked to go down ──▶ power           └── asked ──▶ leaving ── it ended, or took too long ──▶ power
//! ```

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::backoff::Backoff;
use crate::power::Power;

/// Drivers and network of a large machine take less.
const PREPARED_WITHIN: Duration = Duration::from_secs(180);
/// An agent that lived for this long was no failing start.
const STEADY: Duration = Duration::from_secs(60);
/// Pauses between starts of the agent: at first hardly any, for a run may be under way.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An agent leaves a stage in order in less.
const LEFT_WITHIN: Duration = Duration::from_secs(30);
/// Nothing is waited for. (A timer needs an end.)
const NEVER: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Preparing {
        pid: Option<Pid>,
    },
    Running {
        pid: Pid,
        since: Instant,
    },
    Pausing,
    Leaving {
        power: Power,
        pid: Pid,
    },
    /// The kernel was asked and has refused.
    Stranded,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A process ended.
    Ended(Pid),
    /// Somebody asks to go down.
    Asked(Power),
    /// What [`Keeper::until`] named is there.
    Time,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    /// Nothing.
    Nothing,
    /// Start the agent and tell [`Keeper::started`]; first kill what it has waited for.
    Start { instead_of: Option<Pid> },
    /// The agent has ended; it starts again after this.
    Pause(Duration),
    /// Ask the agent to end.
    Stop(Pid),
    /// End everything, and go down.
    Go(Power),
}

/// What is kept running.
#[derive(Debug)]
pub(super) struct Keeper {
    life: Life,
    until: Instant,
    pauses: Backoff,
}

impl Keeper {
    /// The image's program was started, or not.
    pub(super) fn preparing(pid: Option<Pid>, now: Instant) -> Keeper {
        let wait = pid.map_or(Duration::ZERO, |_| PREPARED_WITHIN);
        let pauses = Backoff::new(PAUSE_FIRST, PAUSE_MAX, PAUSE_MAX);
        Keeper { life: Life::Preparing { pid }, until: now + wait, pauses }
    }

    /// When [`Event::Time`] comes.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// True for the process that it keeps or waits for.
    pub(super) fn knows(&self, ended: Pid) -> bool {
        match self.life {
            Life::Preparing { pid } => pid == Some(ended),
            Life::Running { pid, .. } | Life::Leaving { pid, .. } => pid == ended,
            Life::Pausing | Life::Stranded => false,
        }
    }

    /// What that process is, for a line.
    pub(super) fn what(&self) -> &'static str {
        match self.life {
            Life::Preparing { .. } => super::PREPARE,
            Life::Running { .. } | Life::Leaving { .. } | Life::Pausing | Life::Stranded => "the agent",
        }
    }

    /// The agent was started. One that could not be is asked for again by and by.
    pub(super) fn started(&mut self, pid: Option<Pid>, now: Instant) {
        match pid {
            Some(pid) => self.enter(Life::Running { pid, since: now }, now, NEVER),
            None => self.enter(Life::Pausing, now, PAUSE_MAX),
        }
    }

    /// What follows an event.
    pub(super) fn next(&mut self, event: Event, now: Instant, random: u32) -> Do {
        let stale = matches!(event, Event::Ended(pid) if !self.knows(pid));
        if stale || (event == Event::Time && now < self.until) {
            return Do::Nothing;
        }
        match (self.life, event) {
            (Life::Preparing { .. }, Event::Ended(_)) | (Life::Pausing, Event::Time) => {
                Do::Start { instead_of: None }
            }
            (Life::Preparing { pid }, Event::Time) => Do::Start { instead_of: pid },
            (Life::Running { since, .. }, Event::Ended(_)) => {
                if now.saturating_duration_since(since) >= STEADY {
                    self.pauses.reset();
                }
                let pause = self.pauses.pause(random);
                self.enter(Life::Pausing, now, pause);
                Do::Pause(pause)
            }
            (Life::Running { pid, .. }, Event::Asked(power)) => {
                self.enter(Life::Leaving { power, pid }, now, LEFT_WITHIN);
                Do::Stop(pid)
            }
            (Life::Leaving { power, .. }, Event::Ended(_) | Event::Time)
            | (Life::Preparing { .. } | Life::Pausing | Life::Stranded, Event::Asked(power)) => {
                self.enter(Life::Stranded, now, NEVER);
                Do::Go(power)
            }
            (Life::Pausing | Life::Stranded, Event::Ended(_))
            | (Life::Running { .. } | Life::Stranded, Event::Time)
            | (Life::Leaving { .. }, Event::Asked(_)) => Do::Nothing,
        }
    }

    fn enter(&mut self, life: Life, now: Instant, wait: Duration) {
        (self.life, self.until) = (life, now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn running(now: Instant) -> Keeper {
        let mut keeper = Keeper::preparing(Some(pid(2)), now);
        keeper.started(Some(pid(7)), now);
        keeper
    }

    #[test]
    fn the_agent_starts_once_the_machine_is_prepared_or_that_takes_too_long() {
        let now = Instant::now();
        let mut keeper = Keeper::preparing(Some(pid(2)), now);
        assert_eq!(keeper.next(Event::Ended(pid(3)), now, 0), Do::Nothing, "an orphan");
        assert_eq!(keeper.next(Event::Time, now, 0), Do::Nothing, "too early");
        assert_eq!(keeper.next(Event::Ended(pid(2)), now, 0), Do::Start { instead_of: None });
        let mut slow = Keeper::preparing(Some(pid(2)), now);
        let late = slow.until();
        assert_eq!(late, now + PREPARED_WITHIN);
        assert_eq!(slow.next(Event::Time, late, 0), Do::Start { instead_of: Some(pid(2)) });
        slow.started(Some(pid(7)), late);
        assert_eq!(slow.next(Event::Ended(pid(2)), late, 0), Do::Nothing, "the agent runs on");
        let mut absent = Keeper::preparing(None, now);
        assert_eq!(absent.until(), now);
        assert_eq!(absent.next(Event::Time, now, 0), Do::Start { instead_of: None });
    }

    #[test]
    fn an_agent_that_ends_starts_again_after_pauses_that_grow_until_it_is_steady() {
        let mut now = Instant::now();
        let mut keeper = running(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Do::Pause(pause) = keeper.next(Event::Ended(pid(7)), now, u32::MAX) else {
                panic!("{keeper:?}")
            };
            pauses.push(pause.as_secs());
            assert_eq!(keeper.next(Event::Ended(pid(7)), now, 0), Do::Nothing, "it has no agent");
            assert_eq!((keeper.until(), keeper.next(Event::Time, now, 0)), (now + pause, Do::Nothing));
            now += pause;
            assert_eq!(keeper.next(Event::Time, now, 0), Do::Start { instead_of: None });
            keeper.started(Some(pid(7)), now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += STEADY;
        assert_eq!(keeper.next(Event::Ended(pid(7)), now, 0), Do::Pause(PAUSE_FIRST));
    }

    #[test]
    fn an_agent_that_cannot_be_started_is_tried_again() {
        let now = Instant::now();
        let mut keeper = Keeper::preparing(None, now);
        assert_eq!(keeper.next(Event::Time, now, 0), Do::Start { instead_of: None });
        keeper.started(None, now);
        assert_eq!(keeper.until(), now + PAUSE_MAX);
        assert_eq!(keeper.next(Event::Time, now + PAUSE_MAX, 0), Do::Start { instead_of: None });
    }

    #[test]
    fn going_down_lets_the_agent_end_first_but_not_for_ever() {
        let now = Instant::now();
        for (event, at) in [(Event::Ended(pid(7)), now), (Event::Time, now + LEFT_WITHIN)] {
            let mut keeper = running(now);
            assert_eq!(keeper.next(Event::Time, now, 0), Do::Nothing);
            assert_eq!(keeper.next(Event::Asked(Power::Reboot), now, 0), Do::Stop(pid(7)));
            assert_eq!(keeper.next(Event::Asked(Power::Off), now, 0), Do::Nothing, "the first counts");
            assert_eq!(keeper.next(Event::Ended(pid(9)), now, 0), Do::Nothing);
            assert_eq!(keeper.next(event, at, 0), Do::Go(Power::Reboot));
            // The kernel refused: nothing starts again, and it may be asked again.
            assert_eq!(keeper.next(Event::Time, at + NEVER, 0), Do::Nothing);
            assert_eq!(keeper.next(Event::Asked(Power::Off), at, 0), Do::Go(Power::Off));
        }
    }

    #[test]
    fn without_an_agent_it_goes_down_at_once() {
        let now = Instant::now();
        let mut early = Keeper::preparing(Some(pid(2)), now);
        assert_eq!(early.next(Event::Asked(Power::Off), now, 0), Do::Go(Power::Off));
        let mut pausing = running(now);
        pausing.next(Event::Ended(pid(7)), now, 0);
        assert_eq!(pausing.next(Event::Asked(Power::Reboot), now, 0), Do::Go(Power::Reboot));
    }
}
