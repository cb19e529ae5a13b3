//! What every part of one call shares: what was asked for, the root mount, and the streams.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;

use super::arguments::Call;
use super::copying::{self, Resolv};
use super::places::Places;
use super::resource_id::ResourceId;
use super::rooted::Root;
use super::settings::Settings;
use crate::process::Cancel;
use crate::process::tee::{Note, Tee};

/// How often something is looked at that cannot be waited for: another call's turn, another agent's step.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// The root mount that stands for none: the agent's own root is the host's, and a step runs in it as the agent does.
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

    /// A line on standard error, as it stands.
    pub fn say_on_stderr(&mut self, line: &str) {
        write_line(self.tee.stderr(), line);
    }

    /// A warning on standard error, as the reference's logging writes it.
    pub fn warn(&mut self, text: &str) {
        self.say_on_stderr(&format!("WARNING:root:{text}"));
    }

    /// Tells what went wrong beside a step.
    pub fn tell(&mut self, notes: &[Note]) {
        for note in notes {
            self.warn(&note.to_string());
        }
    }

    /// The root that a step enters; none where it stays in the agent's own.
    pub fn entered_root(&self) -> Option<PathBuf> {
        (!is_local(&self.call.root_mount)).then(|| self.call.root_mount.clone())
    }

    /// The package's folder, inside the root mount.
    ///
    /// # Errors
    /// Where it is no absolute path.
    pub fn copy_dir(&self) -> anyhow::Result<PathBuf> {
        let copy_dir = &self.call.copy_dir;
        ensure!(
            copy_dir.is_absolute(),
            "COPY_DIR: found {:?}, expected a path inside the root mount, which begins with /",
            copy_dir.display()
        );
        Ok(copy_dir.clone())
    }

    /// Where a package's flags, history and logs lie.
    ///
    /// # Errors
    /// Where its name or version is none of a folder.
    pub fn places(&self, package: &str, version: &str) -> super::rooted::Result<Places> {
        let (root_dir, log_dir) = (Path::new(&self.settings.root_dir), Path::new(&self.settings.log_dir));
        Places::new(root_dir, log_dir, package, version)
    }

    /// Waits for SIGTERM; true where it has come within `time`.
    pub fn wait(&self, time: Duration) -> bool {
        self.cancel.wait(time)
    }

    /// Tries until it has its turn, which `other` has now. `None` where SIGTERM came first.
    ///
    /// # Errors
    /// Those of a try.
    pub fn take_turn<T>(
        &mut self,
        other: &str,
        mut try_take: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let mut said = false;
        loop {
            if let Some(turn) = try_take()? {
                return Ok(Some(turn));
            }
            if !said {
                self.warn(&format!("waiting for another {other} to end"));
                said = true;
            }
            if self.wait(LOOK) {
                self.warn("SIGTERM came while waiting for the turn: nothing was run");
                return Ok(None);
            }
        }
    }

    /// Reads the container's own resolv.conf, where it is to be copied into the root mount.
    ///
    /// # Errors
    /// Where it cannot be read, or has no place there.
    pub fn read_resolv(&self, root: &Root) -> super::rooted::Result<Option<Resolv>> {
        let read = || Resolv::read(root, Path::new(copying::RESOLV_CONF));
        self.settings.copy_resolv.then(read).transpose()
    }

    /// Opens the root mount.
    ///
    /// # Errors
    /// Where it is no folder, or cannot be opened.
    pub fn open_root(&self) -> super::rooted::Result<Root> {
        open_root(&self.call.root_mount)
    }
}

fn is_local(root_mount: &Path) -> bool {
    root_mount.as_os_str() == LOCAL
}

/// Opens a root mount, as a call or a profile names it.
///
/// # Errors
/// Where it is no folder, or cannot be opened.
pub(crate) fn open_root(root_mount: &Path) -> super::rooted::Result<Root> {
    if is_local(root_mount) { Root::own() } else { Root::open(root_mount) }
}

/// The folder that is a root mount's root, as this process sees it.
pub(crate) fn folder_of_root(root_mount: &Path) -> &Path {
    if is_local(root_mount) { Path::new("/") } else { root_mount }
}

/// One write for a line, so that two processes on one stream do not mix theirs.
fn write_line(stream: &mut impl Write, line: &str) {
    let bytes = [line.as_bytes(), b"\n"].concat();
    stream
        .write_all(&bytes)
        .expect("the agent's own streams count what they cannot take, and take everything");
}
