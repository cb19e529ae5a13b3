//! Flags: what has been done on this node, as empty or short files that outlive the agent.
//!
//! A step's flag is `{path}_{base64 of "{arguments}_{returncodes}"}` beneath its package and version, whatever the
//! mode: a node that the reference agent has flagged is not run again. A slash in the base64 makes a folder. A name
//! that fits no file name is shortened by a hash; the reference could never have written it.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::places::{NAME_BYTES_MAX, Places, below, require_step_path, shortened};
use super::rooted::{Error, Result, Root};

/// The mode of a flag that is made.
const FLAG_MODE: u32 = 0o644;

/// The modes that flag their steps. The check modes run every step each time and flag none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlaggedMode {
    /// `apply`
    Apply,
    /// `config`
    Config,
    /// `upgrade`
    Upgrade,
    /// `uninstall`
    Uninstall,
    /// `post-interrupt`
    PostInterrupt,
}

/// What of a step decides whether it runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its path in the package.
    pub path: &'a str,
    /// The package says that it runs each time (`idempotence` is true, "Disabled").
    pub idempotence_disabled: bool,
    /// OVERLAY_ALWAYS_RUN_STEP is set.
    pub always_run: bool,
}

/// What becomes of a step that may have been run before. Messages are whole lines without their newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It has no flag.
    Run,
    /// It runs although it has a flag, and this says why.
    RunAgain {
        /// The line for stdout.
        message: String,
    },
    /// It was done.
    Skip {
        /// The line for stdout.
        message: String,
    },
}

/// Decides whether a step runs. `flag` is its flag as the host knows it, where that exists. The first rule that
/// applies decides: always run, the mode, the package.
pub fn decide(flag: Option<&Path>, mode: FlaggedMode, asked: &Asked<'_>) -> Decision {
    let Some(flag) = flag else { return Decision::Run };
    let Asked { path, idempotence_disabled, always_run } = *asked;
    let flag = flag.display();
    if always_run {
        let message = format!(
            "WARNING: {flag} exists for {path} but OVERLAY_ALWAYS_RUN_STEP flag is set so running anyway."
        );
        return Decision::RunAgain { message };
    }
    match mode {
        FlaggedMode::Config | FlaggedMode::Uninstall | FlaggedMode::Upgrade => Decision::RunAgain {
            message: "Flag exists but CONFIG, UNINSTALL, and UPGRADE mode don't support idempotence so running step \
                      anyway."
                .to_owned(),
        },
        FlaggedMode::Apply | FlaggedMode::PostInterrupt if idempotence_disabled => Decision::RunAgain {
            message: "Flag exists but idempotence is Idempotence.Disabled so running step.".to_owned(),
        },
        FlaggedMode::Apply | FlaggedMode::PostInterrupt => {
            Decision::Skip { message: format!("Skipping {path} because {flag} exists.") }
        }
    }
}

/// A step's flag, inside the root. `arguments` and `returncodes` are the lists as Python shows them (`['one']`, `[0]`),
/// before `env:NAME` and versions are put in.
pub fn step_flag(places: &Places, path: &str, arguments: &str, returncodes: &str) -> Result<PathBuf> {
    require_step_path(path)?;
    let marker = STANDARD.encode(format!("{arguments}_{returncodes}"));
    let relative = format!("{path}_{marker}");
    let names = relative.split('/').map(|name| shortened(OsStr::new(name), NAME_BYTES_MAX));
    let mut flag = places.step_flags().into_os_string();
    for name in names {
        flag.push("/");
        flag.push(name);
    }
    Ok(PathBuf::from(flag))
}

/// Whether a flag is there, and under which name the host knows it.
pub fn find(root: &Root, flag: &Path) -> Result<Option<PathBuf>> {
    Ok(root.exists(flag)?.then(|| root.host_path(flag)))
}

/// Flags a step as done. `last_run` is the local time as stamps carry it, `always_runs` what the package says.
pub fn set_step(root: &Root, flag: &Path, last_run: &str, always_runs: bool) -> Result<()> {
    let text = format!("last_run: {last_run}\nstep_always_runs: {}", python_bool(always_runs));
    root.write_whole(flag, text.as_bytes(), FLAG_MODE)
}

/// Writes any other flag, such as an interrupt's.
pub fn set(root: &Root, flag: &Path, text: &str) -> Result<()> {
    root.write_whole(flag, text.as_bytes(), FLAG_MODE)
}

/// Takes a flag away, durably. Says whether it was there.
pub fn remove(root: &Root, flag: &Path) -> Result<bool> {
    root.remove(flag)
}

/// Opens the mark that the agent has started on this node, and makes it where it is missing. All who do so at once have
/// the same file, which calls take turns by.
pub fn open_start(root: &Root, places: &Places) -> Result<File> {
    let path = below(&places.flags(), &["START"]);
    let file = root.open_or_create(&path, FLAG_MODE)?;
    let shown = root.host_path(&path);
    if file.metadata().map_err(Error::io("looking at", &shown))?.len() > 0 {
        file.set_len(0).map_err(Error::io("emptying", &shown))?;
    }
    Ok(file)
}

/// Whether a file that was opened as that mark still is it.
pub fn is_start(root: &Root, places: &Places, file: &File) -> Result<bool> {
    let path = below(&places.flags(), &["START"]);
    let opened = rustix::fs::fstat(file).map_err(Error::io("looking at", &root.host_path(&path)))?;
    let stands = root.stat_followed(&path)?;
    Ok(stands.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (opened.st_dev, opened.st_ino)))
}

/// Takes away the mark that a mode's checks have all passed. To be called before they start.
pub fn forget_all_checked(root: &Root, places: &Places, mode: &str) -> Result<()> {
    root.remove(&all_checked(places, mode)).map(drop)
}

/// Marks that a mode's checks have all passed.
pub fn set_all_checked(root: &Root, places: &Places, mode: &str) -> Result<()> {
    set_empty(root, &all_checked(places, mode))
}

/// Writes what came of a mode's checks: each step's path and whether it **failed**.
pub fn write_check_results<'a>(
    root: &Root,
    places: &Places,
    results: impl IntoIterator<Item = (&'a str, bool)>,
) -> Result<()> {
    let mut text = String::new();
    for (path, failed) in results {
        let newline = if text.is_empty() { "" } else { "\n" };
        write!(text, "{newline}{path} {}", python_bool(failed)).expect("a string takes everything");
    }
    root.write_whole(&below(&places.flags(), &["check_results"]), text.as_bytes(), FLAG_MODE)
}

/// Removes the temporary files that killed agents left among the flags that this one may write: of the package's steps
/// (not in folders below) and the common ones.
pub fn sweep(root: &Root, places: &Places) -> Result<()> {
    for folder in [places.flags(), places.step_flags()] {
        root.sweep(&folder)?;
    }
    Ok(())
}

fn all_checked(places: &Places, mode: &str) -> PathBuf {
    below(&places.flags(), &[&format!("{mode}_ALL_CHECKED")])
}

fn set_empty(root: &Root, flag: &Path) -> Result<()> {
    if root.read(flag, 0).is_ok_and(|text| text.is_some()) {
        return Ok(());
    }
    root.write_whole(flag, b"", FLAG_MODE)
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

#[cfg(test)]
mod tests;
