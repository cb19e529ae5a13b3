//! Whether the machine is going down, as its systemd says.
//!
//! The agent's container has no systemctl and no way to systemd; the root mount has both. systemd counts the machine as
//! `stopping` from the moment that it has taken up a shutdown until the very end.

use std::path::PathBuf;
use std::time::Duration;

use crate::package::session::Session;
use crate::process::ControlData;

/// systemctl answers at once, or something is wrong with it: a few seconds, on a machine that is busy with its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// True where systemd says `stopping`, or the agent itself is asked to end, as everything is then. A machine without
/// systemd, or one that gives no answer, does not say so.
pub(crate) fn is(session: &mut Session) -> bool {
    let program = ControlData {
        argv: vec!["systemctl".into(), "is-system-running".into()],
        environment: std::env::vars_os().collect(),
        root: session.entered_root(),
        directory: PathBuf::from("/"),
        no_chmod: true,
    };
    match session.tee.ask(&program, PATIENCE) {
        Ok(answer) => answer.trim() == "stopping" || session.cancel.is_asked(),
        Err(_) if session.cancel.is_asked() => true,
        Err(error) => {
            session.warn(&format!("systemctl is-system-running: {error}; it is taken for no"));
            false
        }
    }
}
