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

/// True where systemd says `stopping`, or the agent itself is asked to end, as everything is then. A machine without
/// systemd, or one that gives no answer, does not say so.
pub(crate) fn is(session: &mut Session) -> bool {
    match ask(session, WhenAsked::GiveUp) {
        Ok(says_so) => says_so || session.cancel.is_asked(),
        Err(_) if session.cancel.is_asked() => true,
        Err(error) => {
            say_unanswered(session, &error);
            false
        }
    }
}

/// True where systemd says `stopping`, whoever asks the agent to end meanwhile: a SIGTERM may be meant for it alone. That
/// there is no systemd to ask is nothing to say: this follows the end of every command that failed.
pub(crate) fn is_said(session: &mut Session) -> bool {
    match ask(session, WhenAsked::GoOn) {
        Ok(says_so) => says_so,
        Err(AskError::NotStarted(_)) => false,
        Err(error @ (AskError::TooLate(_) | AskError::Cancelled)) => {
            say_unanswered(session, &error);
            false
        }
    }
}

fn say_unanswered(session: &mut Session, error: &AskError) {
    session.warn(&format!("systemctl is-system-running: {error}; it is taken for no"));
}

fn ask(session: &Session, when_asked: WhenAsked) -> Result<bool, AskError> {
    let program = ControlData {
        argv: vec!["systemctl".into(), "is-system-running".into()],
        environment: std::env::vars_os().collect(),
        root: session.entered_root(),
        directory: PathBuf::from("/"),
        no_chmod: true,
    };
    session.tee.ask(&program, PATIENCE, when_asked).map(|answer| answer.trim() == "stopping")
}
