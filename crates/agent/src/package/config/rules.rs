//! What a config must keep to beyond its schema: the reference's rules about modes and steps, and that no name in it
//! leads out of the folder that it is put into.

use super::error::{Fault, Place};
use super::{Config, Mode, Step};
use crate::package::quoted::quoted;

/// The longest name of a file or folder on Linux, in bytes (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;
/// What follows a package's name in the longest file name that is made of it: its history, moved aside.
const HISTORY_SUFFIX: &str = ".json.backup";
/// The missing files that one line names.
const MISSING_NAMED_MAX: usize = 20;

pub(super) fn check(config: &Config) -> Result<(), Fault> {
    package_name(&config.package_name)?;
    if config.package_version.len() > NAME_BYTES_MAX {
        let found = format!("{} bytes", config.package_version.len());
        return Err(Place::top()
            .key("package_version")
            .fault(found, "255 bytes or fewer, as it names a folder"));
    }
    for (index, name) in config.expected_config_files.iter().enumerate() {
        if name.chars().any(char::is_control) {
            let file = Place::top().key("expected_config_files").index(index);
            return Err(file.fault(quoted(name), "no control characters, as it stands in a line"));
        }
    }
    modes(config)?;
    for (mode, steps) in &config.modes {
        for (index, step) in steps.iter().enumerate() {
            check_step(*mode, step, &place(*mode).index(index))?;
        }
    }
    Ok(())
}

/// The package's name names folders of flags and logs, and its history file.
fn package_name(name: &str) -> Result<(), Fault> {
    let bytes_max = NAME_BYTES_MAX - HISTORY_SUFFIX.len();
    let expected = match name {
        "." | ".." => "a name of its own, as it names a folder",
        _ if name.contains('/') => "no slash, as it names one folder",
        _ if name.chars().any(char::is_control) => "no control characters",
        _ if name.len() > bytes_max => "243 bytes or fewer, as it names a folder and a file",
        _ => return Ok(()),
    };
    Err(Place::top().key("package_name").fault(quoted(name), expected))
}

fn place(mode: Mode) -> Place {
    Place::top().key("modes").key(mode.name())
}

fn modes(config: &Config) -> Result<(), Fault> {
    let all = Place::top().key("modes");
    if config.modes.iter().all(|(_, steps)| steps.is_empty()) {
        return Err(all.fault("no steps in any mode", "one step or more"));
    }
    let checked: Vec<Mode> = Mode::ALL.into_iter().filter(|mode| mode.check().is_some()).collect();
    if !config.modes.iter().any(|(mode, _)| checked.contains(mode)) {
        let names: Vec<&str> = config.modes.iter().map(|(mode, _)| mode.name()).collect();
        let expected: Vec<&str> = checked.iter().map(|mode| mode.name()).collect();
        return Err(
            all.fault(format!("only {}", names.join(", ")), format!("one of {}", expected.join(", ")))
        );
    }
    for mode in checked {
        let steps = config.steps(mode).len();
        let check = mode.check().expect("only modes that have a check were taken");
        if steps > 0 && config.steps(check).is_empty() {
            let found = format!("{steps} steps, and none in {check}");
            return Err(place(mode).fault(found, format!("a step in {check} that checks them")));
        }
    }
    Ok(())
}

fn check_step(mode: Mode, step: &Step, place: &Place) -> Result<(), Fault> {
    if step.upgrade_step && !matches!(mode, Mode::Upgrade | Mode::UpgradeCheck) {
        let found = format!("true for {} in {mode}", quoted(&step.path));
        return Err(place.key("upgrade_step").fault(found, "true in upgrade and upgrade-check alone"));
    }
    if step.upgrade_step && !step.arguments.is_empty() {
        let found = format!("{} of an upgrade step", step.arguments.len());
        let expected = "none, as it is given the previous and the current version";
        return Err(place.key("arguments").fault(found, expected));
    }
    step_path(&step.path).map_err(|expected| place.key("path").fault(quoted(&step.path), expected))?;
    let texts = "text without a NUL, which no process can be given";
    if let Some(index) = step.arguments.iter().position(|argument| argument.contains('\0')) {
        return Err(place.key("arguments").index(index).fault(quoted(&step.arguments[index]), texts));
    }
    for (name, value) in &step.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            let expected = "a variable's name: not empty, without = and NUL";
            return Err(place.key("env").fault(quoted(name), expected));
        }
        if value.contains('\0') {
            return Err(place.key("env").key(name).fault("a NUL", texts));
        }
    }
    Ok(())
}

/// A step's path names a file beneath the step folder, and by it a flag and a log beneath theirs. It may go down and
/// come up again, but never above where it began. A slash in front changes nothing, as in the reference.
fn step_path(path: &str) -> Result<(), &'static str> {
    if path.chars().any(char::is_control) {
        return Err("no control characters, as it stands in lines of the log");
    }
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1).ok_or("a path that does not leave the step folder by ..")?,
            _ if part.len() > NAME_BYTES_MAX => return Err("names of 255 bytes or fewer"),
            _ => depth += 1,
        }
    }
    if depth == 0 { Err("a file in the step folder") } else { Ok(()) }
}

/// The warnings about steps whose check is in no check mode, one line each, in the order of the modes.
pub(super) fn missing_checks(config: &Config) -> Vec<String> {
    let of = |wanted: fn(Mode) -> bool| {
        Mode::ALL.into_iter().filter(move |mode| wanted(*mode)).flat_map(|mode| config.steps(mode))
    };
    let checks: std::collections::HashSet<&str> = of(Mode::is_check).map(|step| &*step.path).collect();
    let mut said = std::collections::HashSet::new();
    of(|mode| mode.check().is_some())
        .map(Step::check_path)
        .filter(|path| !checks.contains(&**path) && said.insert(path.clone()))
        .map(|path| {
            format!(
                "WARNING:root: {path} doesn't exist. Checks ensure that all tasks in the step will complete."
            )
        })
        .collect()
}

/// Refuses a config that names step files that are not there.
pub(super) fn files(config: &Config, exists: impl Fn(&str) -> bool) -> Result<(), Fault> {
    let steps = config.modes.iter().flat_map(|(mode, steps)| {
        steps.iter().enumerate().map(move |(index, step)| (*mode, index, &*step.path))
    });
    let missing: Vec<(Mode, usize, &str)> = steps.filter(|(_, _, path)| !exists(path)).collect();
    let Some((mode, index, _)) = missing.first() else { return Ok(()) };
    let mut paths: Vec<&str> = Vec::new();
    for (_, _, path) in &missing {
        if paths.len() < MISSING_NAMED_MAX && !paths.contains(path) {
            paths.push(path);
        }
    }
    let more = if missing.len() > paths.len() {
        format!(" ({} steps in all)", missing.len())
    } else {
        String::new()
    };
    let found = format!("steps whose files do not exist: {}{more}", paths.join(", "));
    Err(place(*mode).index(*index).key("path").fault(found, "a file for each step"))
}

/// Refuses a config that expects config files that are not there.
pub(super) fn config_files(config: &Config, is_missing: impl Fn(&str) -> bool) -> Result<(), Fault> {
    let listed = config.expected_config_files.iter().enumerate();
    let missing: Vec<(usize, &String)> = listed.filter(|(_, name)| is_missing(name)).collect();
    let Some((index, _)) = missing.first() else { return Ok(()) };
    let names: Vec<&str> = missing.iter().take(MISSING_NAMED_MAX).map(|(_, name)| name.as_str()).collect();
    let more =
        if missing.len() > names.len() { format!(" ({} in all)", missing.len()) } else { String::new() };
    let found = format!("config files that are not in the package's configmaps: {}{more}", names.join(", "));
    Err(Place::top().key("expected_config_files").index(*index).fault(found, "a file for each one listed"))
}
