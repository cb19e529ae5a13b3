//! Whether the machine is going down, as its systemd says.
//!
//! The agent's container has no systemctl and no way to systemd; the root mount has both. systemd counts the machine as
//! `stopping` from the moment that it has taken up a shutdown until the very end.

use std::path::PathBuf;
use std::time::Duration;

use crate::package::session::Session;
use crate::process::ControlData;
use crate::process::tee::{AskError, WhenAsked};

/// systemctl answers at once, or something is wrong with it: a few seconds, on a machine that is busy with its end. A
/// shutdown that an agent holds up for so long still has most of the 90 s that systemd gives to it.
const PATIENCE: Duration = Duration::from_secs(10);
/// From the moment that systemd has taken up a shutdown until the very end.
const STOPPING: &str = "stopping";

/// True where systemd says `stopping`, or the agent itself is asked to end, as everything is then. A machine without
/// systemd, or one that gives no answer, does not say so.
pub(crate) fn is(session: &mut Session) -> bool {
    match ask(session, WhenAsked::GiveUp) {
        Ok(answer) => understood(&answer) == Word::GoesDown || session.cancel.is_asked(),
        Err(_) if session.cancel.is_asked() => true,
        Err(error) => {
            session.warn(&format!("systemctl is-system-running: {error}; it is taken for no"));
            false
        }
    }
}

/// What is known of the machine's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// systemd says `stopping`.
    GoesDown,
    /// systemd says anything else of a machine that it runs.
    StaysUp,
    /// There is no systemd to ask, or it does not run the machine.
    NoSystemd,
    /// It gave no answer.
    Silent,
}

/// What systemd says, whoever asks the agent to end meanwhile: a SIGTERM may be meant for it alone. That there is no systemd
/// to ask is nothing to say: this follows the end of every command that failed.
pub(crate) fn word(session: &mut Session) -> Word {
    match ask(session, WhenAsked::GoOn) {
        Ok(answer) => understood(&answer),
        Err(AskError::NotStarted(_)) => Word::NoSystemd,
        Err(error @ (AskError::TooLate(_) | AskError::Cancelled)) => {
            session.warn(&format!("systemctl is-system-running: {error}"));
            Word::Silent
        }
    }
}

/// The words of systemctl(1), is-system-running.
fn understood(answer: &str) -> Word {
    match answer.trim() {
        STOPPING => Word::GoesDown,
        "initializing" | "starting" | "running" | "degraded" | "maintenance" => Word::StaysUp,
        // `offline`, `unknown`, or another program of that name.
        _ => Word::NoSystemd,
    }
}

fn ask(session: &Session, when_asked: WhenAsked) -> Result<String, AskError> {
    let program = ControlData {
        argv: vec!["systemctl".into(), "is-system-running".into()],
        environment: std::env::vars_os().collect(),
        root: session.entered_root(),
        directory: PathBuf::from("/"),
        no_chmod: true,
    };
    session.tee.ask(&program, PATIENCE, when_asked)
}
