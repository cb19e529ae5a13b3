//! One mode of a package: the package is checked, and delivered in its turn; then its steps run in order, with flags, check
//! results and history as the reference agent keeps them.

use std::path::PathBuf;

use anyhow::bail;
use jiff::Timestamp;

use super::config::{Config, Idempotence, Mode, Step};
use super::flags::{self, Asked, Decision, FlaggedMode};
use super::history::{self, Previous};
use super::logs::Logs;
use super::places::Places;
use super::rooted::Root;
use super::session::{Ended, Session};
use super::step::{self, Prepared};
use super::turns::{self, Turn};
use super::{delivery, pyrepr};
use crate::process::local_time::LocalTime;

/// Tries to take the turn of the package that lies in its place, where another one is put there each time.
const TURNS_MAX: u32 = 8;

/// Runs a mode to its end.
///
/// # Errors
/// What stops it before or between steps, and is no failure of a step: a config that is refused, a file that cannot be
/// read or written.
pub(crate) fn run(session: &mut Session, root: &Root, mode: Mode) -> anyhow::Result<Ended> {
    let copy_dir = session.copy_dir()?;
    // What is refused is refused before anything is written, the mark included by which calls take turns.
    let mut checked = delivery::check(session, root, &copy_dir, mode, None)?;
    for _ in 0..TURNS_MAX {
        let places = checked.places(session)?;
        let Some(turn) = turns::take(session, root, &places)? else { return Ok(Ended::Failed) };
        // Until now another call may have been at work on all that was looked at.
        checked = delivery::check(session, root, &copy_dir, mode, Some(checked))?;
        if checked.places(session)? != places {
            continue;
        }
        let config = delivery::put(session, root, &copy_dir, mode, checked)?;
        flags::sweep(root, &places)?;
        history::sweep(root, &places)?;
        let logs = Logs::new(root, places.logs());
        let time = LocalTime::of_system();
        let running =
            Running { session, root, copy_dir, config, places, mode, logs, turn, time, previous: None };
        return running.run();
    }
    bail!("{}: found another package there each time its turn came", root.host_path(&copy_dir).display())
}

/// A mode of a package that is in its place.
struct Running<'a> {
    session: &'a mut Session,
    root: &'a Root,
    copy_dir: PathBuf,
    config: Config,
    places: Places,
    mode: Mode,
    logs: Logs<'a>,
    turn: Turn<'a>,
    /// For what flags say of when.
    time: LocalTime,
    /// Read once, so that every step sees the same.
    previous: Option<Previous>,
}

impl Running<'_> {
    fn run(mut self) -> anyhow::Result<Ended> {
        let steps = self.config.steps(self.mode).to_vec();
        if steps.is_empty() {
            let mode = self.mode;
            self.session.warn(&format!(" There are no {mode} steps defined. This will be ran as a no-op."));
        }
        let ended = match flagged(self.mode) {
            Some(mode) => self.run_flagged(mode, &steps)?,
            None => self.run_checks(&steps)?,
        };
        if ended == Ended::Done {
            self.write_history()?;
        }
        Ok(ended)
    }

    /// Runs steps until one fails, and flags those that succeed. After SIGTERM no further one starts, and the exit status
    /// alone says that something was left undone, as the reference's does.
    fn run_flagged(&mut self, mode: FlaggedMode, steps: &[Step]) -> anyhow::Result<Ended> {
        for (index, step) in steps.iter().enumerate() {
            if self.session.cancel.is_asked() {
                return Ok(Ended::Failed);
            }
            let added = self.versions_of(step)?;
            let flag = self.flag_of(step)?;
            let asked = Asked {
                path: &step.path,
                idempotence_disabled: step.idempotence == Idempotence::Disabled,
                always_run: self.session.settings.always_run_step,
            };
            match flags::decide(flags::find(self.root, &flag)?.as_deref(), mode, &asked) {
                Decision::Run => {}
                Decision::RunAgain { message } => self.session.say(&message),
                Decision::Skip { message } => {
                    self.session.say(&message);
                    continue;
                }
            }
            if !self.run_step(step, added, index + 1 < steps.len())? {
                return Ok(Ended::Failed);
            }
            let now = self.time.now();
            let last_run = String::from_utf8_lossy(now.as_bytes()).into_owned();
            flags::set_step(self.root, &flag, &last_run, step.idempotence == Idempotence::Disabled)?;
        }
        Ok(Ended::Done)
    }

    /// Runs every check, then says what came of them.
    fn run_checks(&mut self, steps: &[Step]) -> anyhow::Result<Ended> {
        let name = self.mode.name();
        // Whoever reads the mark of an earlier run meanwhile must not take it for this one's.
        flags::forget_all_checked(self.root, &self.places, name)?;
        let mut results = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            if self.session.cancel.is_asked() {
                return Ok(Ended::Failed);
            }
            let added = self.versions_of(step)?;
            let succeeded = self.run_step(step, added, index + 1 < steps.len())?;
            results.push((step.path.as_str(), !succeeded));
        }
        if results.is_empty() {
            return Ok(Ended::Done);
        }
        flags::write_check_results(self.root, &self.places, results.iter().copied())?;
        if results.iter().any(|(_, failed)| *failed) {
            return Ok(Ended::Failed);
        }
        flags::set_all_checked(self.root, &self.places, name)?;
        Ok(Ended::Done)
    }

    /// One step, from its header to its verdict. True where it succeeded.
    fn run_step(&mut self, step: &Step, added: Versions, another_follows: bool) -> anyhow::Result<bool> {
        let prepared = Prepared::new(step, &self.copy_dir, added);
        self.session.say(&step.header(self.mode, &prepared.shown));
        step::run(self.session, self.root, &mut self.logs, &mut self.turn, step, prepared, another_follows)
    }

    /// What an upgrade tells a step, as environment and, to an upgrade step, as arguments.
    fn versions_of(&mut self, step: &Step) -> anyhow::Result<Versions> {
        if !matches!(self.mode, Mode::Upgrade | Mode::UpgradeCheck) {
            return Ok(Versions::default());
        }
        let (previous, first) = match self.previous.take() {
            Some(previous) => (previous, false),
            None => (history::previous_version(self.root, &self.places)?, true),
        };
        // The reference reads anew for each step, and says each time that there is nothing to read. A corrupt file
        // was moved aside once.
        if let Some(message) = previous.message.as_ref().filter(|_| first || !previous.version.is_empty()) {
            self.session.say(message);
        }
        let versions = Versions {
            previous: Some(previous.version.clone()),
            current: Some(self.config.package_version.clone()),
            as_arguments: step.upgrade_step,
        };
        self.previous = Some(previous);
        Ok(versions)
    }

    /// A step's flag, by what the config says of it.
    fn flag_of(&self, step: &Step) -> super::rooted::Result<PathBuf> {
        let arguments = pyrepr::texts(&step.arguments);
        flags::step_flag(&self.places, &step.path, &arguments, &step.returncodes_repr())
    }

    fn write_history(&mut self) -> anyhow::Result<()> {
        let version = match self.mode {
            Mode::ApplyCheck | Mode::UpgradeCheck => self.config.package_version.clone(),
            Mode::UninstallCheck => history::UNINSTALLED.to_owned(),
            Mode::Apply
            | Mode::Config
            | Mode::ConfigCheck
            | Mode::Upgrade
            | Mode::Uninstall
            | Mode::Interrupt
            | Mode::PostInterrupt
            | Mode::PostInterruptCheck => return Ok(()),
        };
        if let Some(message) = history::record(self.root, &self.places, &version, Timestamp::now())? {
            self.session.say(&message);
        }
        if self.mode == Mode::UninstallCheck {
            // What is not installed was not run.
            for step in self.config.modes.iter().flat_map(|(_, steps)| steps) {
                flags::remove(self.root, &self.flag_of(step)?)?;
            }
        }
        Ok(())
    }
}

/// What an upgrade knows of versions; nothing in other modes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The one that stood before.
    pub previous: Option<String>,
    /// The package's.
    pub current: Option<String>,
    /// Whether the step gets both as arguments.
    pub as_arguments: bool,
}

/// The modes whose steps are flagged; the others are checks.
fn flagged(mode: Mode) -> Option<FlaggedMode> {
    match mode {
        Mode::Apply => Some(FlaggedMode::Apply),
        Mode::Config => Some(FlaggedMode::Config),
        Mode::Upgrade => Some(FlaggedMode::Upgrade),
        Mode::Uninstall => Some(FlaggedMode::Uninstall),
        Mode::PostInterrupt => Some(FlaggedMode::PostInterrupt),
        Mode::ApplyCheck
        | Mode::ConfigCheck
        | Mode::UpgradeCheck
        | Mode::UninstallCheck
        | Mode::PostInterruptCheck
        | Mode::Interrupt => None,
    }
}
