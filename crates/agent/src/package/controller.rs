//! One mode of a package: the package is delivered and read, then its steps run in order, with flags, check results
//! and history as the reference agent keeps them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::config::{CONFIG_BYTES_MAX, Config, Idempotence, Mode, Step};
use super::copying::Bounds;
use super::flags::{self, Asked, Decision, FlaggedMode};
use super::history::{self, Previous};
use super::logs::Logs;
use super::places::Places;
use super::rooted::Root;
use super::session::{Ended, Session};
use super::step::{self, Prepared};
use super::turns::{self, Turn};
use super::{copying, pyrepr};
use crate::process::local_time::LocalTime;

/// Name of a package's config in its folder.
const CONFIG: &str = "config.json";

/// Runs a mode to its end.
///
/// # Errors
/// What stops it before or between steps, and is no failure of a step: a config that is refused, a file that cannot be
/// read or written.
pub(crate) fn run(session: &mut Session, root: &Root, mode: Mode) -> anyhow::Result<Ended> {
    let copy_dir = session.copy_dir()?;
    let config = deliver(session, root, &copy_dir, mode)?;
    let places = session.places(&config.package_name, &config.package_version)?;
    flags::set_start(root, &places)?;
    let Some(turn) = turns::take(session, root, &places)? else { return Ok(Ended::Failed) };
    flags::sweep(root, &places)?;
    history::sweep(root, &places)?;
    let logs = Logs::new(root, places.logs());
    let time = LocalTime::of_system();
    Running { session, root, copy_dir, config, places, mode, logs, turn, time, previous: None }.run()
}

/// Sees to it that the package is in its place, and reads its config. What is refused is refused before anything is
/// copied.
fn deliver(session: &mut Session, root: &Root, copy_dir: &Path, mode: Mode) -> anyhow::Result<Config> {
    let cancel = session.cancel.clone();
    let bounds = Bounds { stop: &|| cancel.is_asked(), free_bytes_least: 0 };
    // An uninstall neither changes the host's files nor needs those that only an installation has.
    let installs = !matches!(mode, Mode::Uninstall | Mode::UninstallCheck);
    if !root.exists(copy_dir)? {
        let data = Path::new(&session.settings.data_dir);
        let package =
            Root::open_tree(data).with_context(|| format!("opening the package in {}", data.display()))?;
        // What lies there for this node is copied over the package, and may replace its config.
        let node_files = Path::new(copying::NODE_FILES);
        let over = if node_files.is_dir() { Some(Root::open_tree(node_files)?) } else { None };
        let top = Path::new("/");
        let of = match &over {
            Some(over) if over.exists(&top.join(CONFIG))? => over,
            _ => &package,
        };
        let config = read_config(of, top)?;
        if installs {
            let trees = std::iter::once(&package).chain(&over).map(|tree| (tree, top));
            require_config_files(&config, &of.host_path(&top.join(CONFIG)), trees)?;
        }
        copying::deliver(root, copy_dir, data, node_files, &bounds)?;
    }
    let config = read_config(root, copy_dir)?;
    for warning in config.missing_checks() {
        session.say_on_stderr(&warning);
    }
    let file = root.host_path(&copy_dir.join(CONFIG));
    config.check_files(&file, |path| root.exists(&step::file_of(copy_dir, path)).unwrap_or(false))?;
    if installs {
        require_config_files(&config, &file, std::iter::once((root, copy_dir)))?;
        copying::copy_root_dir(root, copy_dir, &bounds)?;
    }
    Ok(config)
}

fn read_config(tree: &Root, package: &Path) -> anyhow::Result<Config> {
    let path = package.join(CONFIG);
    // One byte more than is taken: the config's own error says that it is too long.
    let bytes = tree.read(&path, CONFIG_BYTES_MAX as u64 + 1)?;
    let shown = tree.host_path(&path);
    let Some(bytes) = bytes else {
        bail!("{}: found no such file, expected a package's config", shown.display());
    };
    Ok(Config::parse(&shown, &bytes)?)
}

/// A config file that is expected may lie in any of these trees. `file` is what errors call the config.
fn require_config_files<'a>(
    config: &Config,
    file: &Path,
    trees: impl IntoIterator<Item = (&'a Root, &'a Path)>,
) -> anyhow::Result<()> {
    let mut missing: BTreeSet<String> = config.expected_config_files.iter().cloned().collect();
    for (tree, package) in trees {
        let names: Vec<String> = missing.into_iter().collect();
        let still = copying::missing_config_files(tree, package, names.iter().map(String::as_str))?;
        missing = still.into_iter().map(|name| name.to_string()).collect();
    }
    Ok(config.check_config_files(file, |name| missing.contains(name))?)
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
