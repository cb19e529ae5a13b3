//! What every part of one call shares: what was asked for, the root mount, and the streams.

use std::io::Write;
use std::path::PathBuf;

use super::arguments::Call;
use super::resource_id::ResourceId;
use super::rooted::Root;
use super::settings::Settings;
use crate::process::Cancel;
use crate::process::tee::{Note, Tee};

/// The root mount that stands for none: a step runs where the agent runs.
const LOCAL: &str = "local";

/// How a call ended that could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All was done.
    Done,
    /// Something failed, or was left undone. It has been said.
    Failed,
}

/// One call of the package agent.
pub(crate) struct Session {
    /// What was asked for.
    pub call: Call,
    /// What the environment says.
    pub settings: Settings,
    /// The resource id, taken apart.
    pub id: ResourceId,
    /// Runs steps and commands, and has the agent's own streams.
    pub tee: Tee,
    /// Asked by SIGTERM.
    pub cancel: Cancel,
}

impl Session {
    /// A line on standard output. What cannot be written there is said once by [`Session::tell`], at the next step.
    pub fn say(&mut self, line: &str) {
        write_line(self.tee.stdout(), line);
    }

    /// A warning on standard error, as the reference's logging writes it.
    pub fn warn(&mut self, text: &str) {
        write_line(self.tee.stderr(), &format!("WARNING:root:{text}"));
    }

    /// Tells what went wrong beside a step.
    pub fn tell(&mut self, notes: &[Note]) {
        for note in notes {
            self.warn(&note.to_string());
        }
    }

    /// The root that a step enters; none where it stays in the agent's own.
    pub fn entered_root(&self) -> Option<PathBuf> {
        (self.call.root_mount.as_os_str() != LOCAL).then(|| self.call.root_mount.clone())
    }

    /// Opens the root mount.
    ///
    /// # Errors
    /// Where it is no folder, or cannot be opened.
    pub fn open_root(&self) -> super::rooted::Result<Root> {
        Root::open(&self.call.root_mount)
    }
}

/// One write for a line, so that two processes on one stream do not mix theirs.
fn write_line(stream: &mut impl Write, line: &str) {
    let bytes = [line.as_bytes(), b"\n"].concat();
    stream
        .write_all(&bytes)
        .expect("the agent's own streams count what they cannot take, and take everything");
}
