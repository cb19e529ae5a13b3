//! What follows a try to tell a sink. Pure.

use super::send::SendError;

/// Pauses before the second and the later tries, in milliseconds. A sink that starts again is there within seconds; one that
/// is not after a minute waits for people, who do not want to hear of shutdowns long past.
pub const PAUSES_MS: [u64; 4] = [2_000, 6_000, 15_000, 40_000];
/// Tries where a sink's settings say nothing.
pub const TRIES_DEFAULT: u32 = 4;
/// Greatest number of tries that settings may ask for.
pub const TRIES_MAX: u32 = PAUSES_MS.len() as u32 + 1;
/// A notice that is older is given up, however often it was tried: a server that starts again begins to count anew.
pub const AGE_MS_MAX: u64 = 600_000;

/// What was tried of one notice for one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// How often.
    pub made: u32,
    /// When the next may be, on the clock of listening.
    pub next_ms: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another try.
    Again(Tries),
    /// None: it was told, or will not be, for that reason. What is left is to strike it off, as often as that fails.
    Settled(Result<(), String>),
}

impl Default for Next {
    fn default() -> Next {
        Next::Again(Tries::default())
    }
}

/// What a pass does with a notice for a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tries to tell it.
    Try(Tries),
    /// Leaves it for another time.
    Wait,
    /// Gives it up, for that reason.
    GiveUp(String),
    /// Strikes it off, because this became of it.
    StrikeOff(Result<(), String>),
}

/// What a pass does at `now_ms` with a notice that was made at `at_ms`, for a sink that the settings know or do not.
pub fn step(next: &Next, is_known: bool, at_ms: u64, now_ms: u64) -> Step {
    match next {
        Next::Settled(outcome) => Step::StrikeOff(outcome.clone()),
        Next::Again(_) if !is_known => Step::GiveUp("the settings name no such sink any more".to_owned()),
        Next::Again(tries) => match too_old(at_ms, now_ms) {
            Some(why) => Step::GiveUp(why),
            None if tries.next_ms > now_ms => Step::Wait,
            None => Step::Try(*tries),
        },
    }
}

/// What follows a try that came out so at `now_ms`.
pub fn after(before: Tries, outcome: Result<(), SendError>, tries_max: u32, now_ms: u64) -> Next {
    let made = before.made.saturating_add(1);
    match outcome {
        Ok(()) => Next::Settled(Ok(())),
        Err(error) if error.is_final() => Next::Settled(Err(error.to_string())),
        Err(error) if made >= tries_max.min(TRIES_MAX) => {
            Next::Settled(Err(format!("{made} tries, the last: {error}")))
        }
        Err(_) => {
            let pause_ms = PAUSES_MS[(made as usize - 1).min(PAUSES_MS.len() - 1)];
            Next::Again(Tries { made, next_ms: now_ms.saturating_add(pause_ms) })
        }
    }
}

/// Why a notice that was made at `at_ms` is given up untried, where it is.
fn too_old(at_ms: u64, now_ms: u64) -> Option<String> {
    let is_old = now_ms.saturating_sub(at_ms) > AGE_MS_MAX;
    is_old.then(|| format!("it was not told within {} minutes", AGE_MS_MAX / 60_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late() -> Result<(), SendError> {
        Err(SendError::Late { after_ms: 5_000 })
    }

    #[test]
    fn a_sink_that_fails_is_tried_again_and_given_up_in_the_end() {
        let mut tries = Tries::default();
        let mut at_ms = 1_000;
        for (made, pause_ms) in [(1, 2_000), (2, 6_000), (3, 15_000)] {
            let next = after(tries, late(), TRIES_DEFAULT, at_ms);
            tries = Tries { made, next_ms: at_ms + pause_ms };
            assert_eq!(next, Next::Again(tries));
            at_ms = tries.next_ms;
        }
        let Next::Settled(Err(why)) = after(tries, late(), TRIES_DEFAULT, at_ms) else { panic!("goes on") };
        assert!(why.starts_with("4 tries, the last: "), "{why}");
        assert_eq!(after(tries, Ok(()), TRIES_DEFAULT, at_ms), Next::Settled(Ok(())));
    }

    #[test]
    fn what_is_settled_is_struck_off_and_never_told_again() {
        let open = |next_ms| Next::Again(Tries { made: 1, next_ms });
        let told = Next::Settled(Ok(()));
        assert_eq!(step(&Next::default(), true, 0, 0), Step::Try(Tries::default()));
        assert_eq!(step(&open(7), true, 0, 6), Step::Wait);
        assert_eq!(step(&open(7), true, 0, 7), Step::Try(Tries { made: 1, next_ms: 7 }));
        assert!(matches!(step(&open(7), false, 0, 7), Step::GiveUp(_)));
        assert!(matches!(step(&open(7), true, 0, AGE_MS_MAX + 1), Step::GiveUp(_)));
        for (is_known, now_ms) in [(true, 7), (false, 7), (true, AGE_MS_MAX + 1)] {
            assert_eq!(step(&told, is_known, 0, now_ms), Step::StrikeOff(Ok(())));
        }
    }

    #[test]
    fn what_only_people_can_mend_is_tried_once_and_what_is_old_no_more() {
        let gone = SendError::Status { status: 404 };
        assert!(matches!(after(Tries::default(), Err(gone), 4, 0), Next::Settled(Err(_))));
        let busy = SendError::Status { status: 503 };
        assert!(matches!(after(Tries::default(), Err(busy), 4, 0), Next::Again(_)));
        assert!(matches!(after(Tries::default(), late(), 1, 0), Next::Settled(Err(_))));
        assert_eq!(too_old(5, 5 + AGE_MS_MAX), None);
        assert!(too_old(5, 6 + AGE_MS_MAX).is_some());
        assert_eq!(too_old(5, 0), None, "a clock that was restored stands before it");
    }
}
