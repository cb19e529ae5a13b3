//! The stage `Package:NAME/MODE`: the package agent, as a child, does a mode of a package that lies on the node or is fetched
//! from the orchestrator's store.
//!
//! A step that was done is skipped by its flag, and a retry goes on where the last attempt stopped. Asked to end, the package
//! agent starts no further step and gives the one that runs its time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{STEPS_DONE, names};
use groundcrew_protocol::profile::PackageSettings;
use groundcrew_protocol::wire::LogLevel;

use super::package_agent::{Call, Called};
use super::{Done, Packages, StageContext, package_copies, refused, unknown};
use crate::errors::chain;
use crate::fetch::{Around, FREE_BYTES_LEAST, FetchError, Wanted};
use crate::package::config::{CONFIG_BYTES_MAX, Config, Mode};
use crate::package::copying::{self, Bounds};
use crate::package::rooted::{Error, Root};
use crate::process::tool::Stopped;

/// The line with which the package agent says that a step failed.
const FAILED: &str = "FAILED: ";
/// Folder of the stage's own for a package with the profile's config files in it.
const LAID_OVER: &str = "package-data";
/// Mode of a config file, as a ConfigMap is mounted.
const CONFIG_FILE_MODE: u32 = 0o644;

/// Does a mode of a package.
pub(super) fn run(context: &StageContext, name: &str, mode: &str, deadline: Instant) -> Done {
    // A package's interrupt is a stage of its own kind. The package agent takes a mode that it does not know for a newer
    // operator's and does nothing: that must not pass.
    if !matches!(Mode::parse(mode), Some(known) if known != Mode::Interrupt) {
        return unknown(context);
    }
    let Some(settings) = &context.spec.package else {
        return refused(
            context,
            format!("the run's profile told this agent no package's settings for {name}"),
        );
    };
    let packages = match &context.packages {
        Ok(packages) => packages,
        Err(why) => return refused(context, (*why).to_owned()),
    };
    let folder = match source(context, settings, packages, deadline) {
        Ok(folder) => folder,
        Err(done) => return done,
    };
    if settings.copy_dir.is_none() {
        package_copies::sweep(context, &settings.root_mount, &packages.instance);
    }
    match data_folder(context, settings, &folder, deadline) {
        Ok(data) => {
            let done = called(context, settings, mode, &packages.instance, &data, deadline);
            if data != folder {
                // The package agent has made a copy of it beneath the root mount.
                remove_copy(context, &data);
            }
            done
        }
        Err(Unusable::Stopped(stopped)) => {
            let why = format!("{}: nothing of the package was done", context.stopped_text(stopped));
            Done { stopped: Some(stopped), ..refused(context, why) }
        }
        Err(Unusable::Other(found)) => {
            let check = context.check(names::STEPS, Observation::Found { text: found });
            Done { checks: vec![check], ..Done::default() }
        }
        Err(Unusable::Unreadable(why)) => refused(context, why),
    }
}

/// The folder that holds the package: the one that the profile names, or what is fetched from the orchestrator's store.
///
/// A package that cannot be fetched is inconclusive: no step of it has run, and nothing was learnt of the machine.
fn source(
    context: &StageContext,
    settings: &PackageSettings,
    packages: &Packages,
    deadline: Instant,
) -> Result<PathBuf, Done> {
    if let Some(path) = &settings.path {
        return Ok(PathBuf::from(path));
    }
    let PackageSettings { name, version, sha256, .. } = settings;
    let Some(sha256) = sha256 else {
        let why = format!("the run names neither a folder nor a sum of package {name} {version}");
        return Err(refused(context, why));
    };
    let wanted = Wanted { name: name.clone(), version: version.clone(), sha256: sha256.clone() };
    let around = Around {
        cancel: &context.cancel,
        deadline,
        say: &|level, text| context.say(level, text),
        show: &|fraction, activity| context.show(fraction, activity),
    };
    packages.store.provide(&wanted, &around).map_err(|error| {
        let stopped = match &error {
            FetchError::Stopped => Some(Stopped::Cancelled),
            FetchError::Late { .. } => Some(Stopped::TimedOut),
            FetchError::Refused(_)
            | FetchError::OtherContent { .. }
            | FetchError::TooLarge { .. }
            | FetchError::NoRoom { .. }
            | FetchError::Archive(_)
            | FetchError::Disk { .. } => None,
        };
        let ended = stopped.map(|stopped| format!("{}: ", context.stopped_text(stopped))).unwrap_or_default();
        let why = format!("{ended}fetching package {name} {version}: {}", chain(&error));
        context.say(LogLevel::Error, why.clone());
        Done { stopped, ..refused(context, why) }
    })
}

/// Why a package's folder cannot be used.
enum Unusable {
    /// It is another package's.
    Other(String),
    /// It is not there, or cannot be read.
    Unreadable(String),
    /// The stage ended before all of it was copied.
    Stopped(Stopped),
}

/// The folder that the package agent is to take the package from: its own, or a copy with the config files in it.
fn data_folder(
    context: &StageContext,
    settings: &PackageSettings,
    folder: &Path,
    deadline: Instant,
) -> Result<PathBuf, Unusable> {
    let unreadable = |error: &dyn std::error::Error| {
        Unusable::Unreadable(format!("the package in {}: {}", folder.display(), chain(error)))
    };
    let package = Root::open_tree(folder).map_err(|error| unreadable(&error))?;
    let config = Path::new("/config.json");
    let bytes = package.read(config, CONFIG_BYTES_MAX as u64 + 1).map_err(|error| unreadable(&error))?;
    // A config that is refused is the package agent's to refuse, in its own words.
    if let Some(Ok(found)) = bytes.map(|bytes| Config::parse(&package.host_path(config), &bytes))
        && (found.package_name != settings.name.as_str()
            || found.package_version != settings.version.as_str())
    {
        return Err(Unusable::Other(format!(
            "{}: found the package {} {}, expected {} {}",
            folder.display(),
            found.package_name,
            found.package_version,
            settings.name,
            settings.version
        )));
    }
    if settings.config_files.is_empty() {
        return Ok(folder.to_owned());
    }
    let stopped = || match context.cancel.is_asked() {
        true => Some(Stopped::Cancelled),
        false => (Instant::now() >= deadline).then_some(Stopped::TimedOut),
    };
    let laid = laid_over(context, settings, folder, &|| stopped().is_some());
    laid.map_err(|error| {
        // Half of it is of no use to anybody.
        remove_copy(context, &context.work.join(LAID_OVER));
        match (error.downcast_ref(), stopped()) {
            (Some(Error::Stopped { .. }), Some(stopped)) => Unusable::Stopped(stopped),
            (Some(_) | None, _) => unreadable(&*error),
        }
    })
}

/// Copies the package and puts the profile's config files into it. What an earlier attempt copied goes first.
fn laid_over(
    context: &StageContext,
    settings: &PackageSettings,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let copy = context.work.join(LAID_OVER);
    match std::fs::remove_dir_all(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let work = Root::open(&context.work)?;
    let inside = Path::new("/").join(LAID_OVER);
    // It lies in the agent's home, where results and log lines must find room. No other tree goes over it here: the package
    // agent looks for that itself.
    let bounds = Bounds { stop, free_bytes_least: FREE_BYTES_LEAST };
    copying::deliver(&work, &inside, folder, Path::new(""), &bounds)?;
    for (name, text) in &settings.config_files {
        work.write_whole(&inside.join("configmaps").join(name), text.as_bytes(), CONFIG_FILE_MODE)?;
    }
    Ok(copy)
}

/// Removes a copy in the stage's own folder. What cannot be removed is said; the next copy removes it first.
fn remove_copy(context: &StageContext, copy: &Path) {
    match std::fs::remove_dir_all(copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            context.say(LogLevel::Warn, format!("removing {}: {error}", copy.display()));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Calls the package agent and judges its end.
fn called(
    context: &StageContext,
    settings: &PackageSettings,
    mode: &str,
    instance: &str,
    data: &Path,
    deadline: Instant,
) -> Done {
    match call(context, settings, mode, instance, data).make(context, deadline) {
        Ok(called) => {
            let check = context.check(names::STEPS, called.observed(context, STEPS_DONE));
            let check = check.with_evidence(called.evidence());
            let Called { artifacts, stopped, .. } = called;
            Done { checks: vec![check], artifacts, stopped, inventory: None }
        }
        Err(why) => refused(context, why),
    }
}

fn call(context: &StageContext, settings: &PackageSettings, mode: &str, instance: &str, data: &Path) -> Call {
    let PackageSettings { name, version, .. } = settings;
    let copy_dir =
        settings.copy_dir.clone().unwrap_or_else(|| package_copies::default_of(name, version, instance));
    let mut environment = environment(settings);
    // Last, so that nothing takes their place.
    environment.push(("SKYHOOK_RESOURCE_ID".into(), format!("{instance}_{name}_{version}").into()));
    environment.push(("SKYHOOK_DATA_DIR".into(), data.into()));
    Call {
        what: format!("{mode} of {name} {version}"),
        arguments: ["package", mode, &settings.root_mount, &copy_dir].map(OsString::from).to_vec(),
        environment,
        search_path: search_path(context, settings),
        failed: FAILED,
        artifacts: "package",
    }
}

/// What the profile gives a package's steps, and its interrupt.
pub(super) fn environment(settings: &PackageSettings) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<(OsString, OsString)> =
        vec![("HOME".into(), "/root".into()), ("LANG".into(), "C.UTF-8".into())];
    environment.extend(settings.env.iter().map(|(name, value)| (name.into(), value.into())));
    environment
}

/// Where a package's steps and its interrupt look for programs.
pub(super) fn search_path(context: &StageContext, settings: &PackageSettings) -> OsString {
    settings.env.get("PATH").map_or_else(|| context.search_path.clone(), OsString::from)
}
