//! One step: its arguments and environment, its run, and what its end means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::config::{ReturnCode, Step};
use super::controller::Versions;
use super::logs::{LogFiles, Logs};
use super::places::below;
use super::rooted::Root;
use super::session::Session;
use super::settings::ReturnCodes;
use super::turns::Turn;
use crate::errors::chain;
use crate::process::ControlData;
use crate::process::tee::{Command, Log};

/// In front of an argument that stands for a variable's value.
const FROM_ENVIRONMENT: &str = "env:";
/// The folder of a package's steps in its folder.
const STEPS: &str = "skyhook_dir";

/// Where the file of a step lies, inside the root. A slash in front of its path does not lead out of the package.
pub(crate) fn file_of(copy_dir: &Path, path: &str) -> PathBuf {
    below(&copy_dir.join(STEPS), &[path])
}

/// A step with what an upgrade adds to it.
pub(crate) struct Prepared {
    /// Its arguments as they may be shown: `env:NAME` stands for a value.
    pub shown: Vec<String>,
    /// How many of them are the config's, and may stand for a value. What follows is taken as it is.
    from_config: usize,
    /// The folder of the package, inside the root.
    copy_dir: PathBuf,
    /// What is added to the step's own environment.
    environment: Vec<(&'static str, OsString)>,
}

impl Prepared {
    /// A step of the package in `copy_dir`.
    pub fn new(step: &Step, copy_dir: &Path, versions: Versions) -> Prepared {
        let mut shown = step.arguments.clone();
        let from_config = shown.len();
        let mut environment: Vec<(&str, OsString)> = Vec::new();
        let Versions { previous, current, as_arguments } = versions;
        if as_arguments {
            shown.extend([&previous, &current].into_iter().flatten().cloned());
        }
        environment.extend(current.map(|version| ("CURRENT_VERSION", version.into())));
        environment.extend(previous.map(|version| ("PREVIOUS_VERSION", version.into())));
        environment.push(("STEP_ROOT", copy_dir.join(STEPS).into()));
        environment.push(("SKYHOOK_DIR", copy_dir.as_os_str().to_owned()));
        Prepared { shown, from_config, copy_dir: copy_dir.to_owned(), environment }
    }

    /// The arguments with their values, or the names of all variables that are not there.
    fn arguments(&self, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Vec<OsString>, Vec<String>> {
        let mut missing = Vec::new();
        let mut arguments = Vec::with_capacity(self.shown.len());
        for (index, argument) in self.shown.iter().enumerate() {
            match argument.strip_prefix(FROM_ENVIRONMENT) {
                Some(rest) if index < self.from_config => {
                    // As the reference splits it: a second mark ends the name.
                    let name = rest.split(FROM_ENVIRONMENT).next().unwrap_or(rest);
                    match lookup(name) {
                        Some(value) => arguments.push(value),
                        None => missing.push(name.to_owned()),
                    }
                }
                _ => arguments.push(argument.into()),
            }
        }
        if missing.is_empty() { Ok(arguments) } else { Err(missing) }
    }

    /// The container's environment, over it the step's, over it what every step is told.
    fn environment(
        &self,
        step: &Step,
        own: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let mut all: BTreeMap<OsString, OsString> = own.into_iter().collect();
        all.extend(step.env.iter().map(|(name, value)| (name.into(), value.into())));
        all.extend(self.environment.iter().map(|(name, value)| (name.into(), value.clone())));
        all.into_iter().collect()
    }
}

/// Runs a step whose header has been printed. True where it succeeded. `another_follows` says that it is not the mode's
/// last.
///
/// # Errors
/// Where what another agent must know of it cannot be written.
pub(crate) fn run(
    session: &mut Session,
    root: &Root,
    logs: &mut Logs<'_>,
    turn: &mut Turn<'_>,
    step: &Step,
    prepared: Prepared,
    another_follows: bool,
) -> anyhow::Result<bool> {
    let arguments = match prepared.arguments(|name| std::env::var_os(name)) {
        Ok(arguments) => arguments,
        Err(missing) => {
            for name in missing {
                session.say(&format!("{}: Expected environment variable did not exist: {name}", step.path));
            }
            return Ok(false);
        }
    };
    let files = open_logs(session, logs, &step.path);
    let program = file_of(&prepared.copy_dir, &step.path);
    let argv = std::iter::once(program.into_os_string()).chain(arguments).collect();
    let program = ControlData {
        argv,
        environment: prepared.environment(step, std::env::vars_os()),
        root: session.entered_root(),
        directory: prepared.copy_dir.clone(),
        no_chmod: false,
    };
    let [stdout_log, stderr_log] = handles(root, files.as_ref());
    let mut record = |pid| turn.record(pid, &step.path);
    let command = Command {
        program,
        write_command: false,
        stdout_log,
        stderr_log,
        term_grace: None,
        started: None,
        time_max: None,
        record: &mut record,
    };
    let ended =
        if another_follows { session.tee.run_before_another(command) } else { session.tee.run(command) };
    turn.strike_off()?;
    session.tell(&ended.notes);
    clean_logs(session, logs, files, &step.path);
    let verdict =
        judge(ended.exit, ended.not_started.is_some(), &step.returncodes, session.settings.returncodes);
    let shown = prepared.shown.join(" ");
    if let Some(hint) = &verdict.hint {
        session.warn(&format!("{}: {hint}", step.path));
    }
    if verdict.succeeded && !ended.ended_by_us {
        // Spelt so: the operator's end-to-end tests and its users' dashboards look for this very word.
        session.say(&format!("SUCEEDED: {} {shown}", step.path));
        return Ok(true);
    }
    session.say(&format!("FAILED: {} {shown} {}", step.path, verdict.exit));
    Ok(false)
}

/// The logs of a run of a step. A disk that takes none stops no step.
pub(crate) fn open_logs(session: &mut Session, logs: &mut Logs<'_>, path: &str) -> Option<LogFiles> {
    if !session.settings.write_logs {
        return None;
    }
    match logs.create(path, Timestamp::now()) {
        Ok(files) => Some(files),
        Err(error) => {
            session.warn(&format!("{path}: it runs without log files: {}", chain(&error)));
            None
        }
    }
}

/// Removes the oldest logs of what has just been logged; `of` is how it is called.
pub(crate) fn clean_logs(session: &mut Session, logs: &mut Logs<'_>, files: Option<LogFiles>, of: &str) {
    if let Some(files) = files
        && let Err(error) = logs.clean(&files)
    {
        session.warn(&format!("removing old logs of {of}: {}", chain(&error)));
    }
}

/// The files as the tee takes them.
pub(crate) fn handles(root: &Root, files: Option<&LogFiles>) -> [Option<Log>; 2] {
    let Some(files) = files else { return [None, None] };
    let out = root.host_path(&files.path);
    let mut err = out.clone().into_os_string();
    err.push(".err");
    let log = |file: &std::fs::File, path: PathBuf| file.try_clone().ok().map(|file| Log::new(file, path));
    [log(&files.out, out), log(&files.err, err.into())]
}

/// What the end of a step means.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    succeeded: bool,
    /// The exit status that is shown.
    exit: i32,
    /// What else must be said.
    hint: Option<String>,
}

/// Judges an end by the step's return codes. What could not be started has failed, whatever they list.
fn judge(exit: i32, not_started: bool, accepted: &[ReturnCode], rule: ReturnCodes) -> Verdict {
    let accepts = |exit| accepted.iter().any(|code| code.accepts(exit));
    let mapped = i32::from(exit != 0);
    if not_started {
        return Verdict { succeeded: false, exit, hint: None };
    }
    match rule {
        ReturnCodes::Reference => Verdict { succeeded: accepts(mapped), exit: mapped, hint: None },
        ReturnCodes::Own => {
            let succeeded = accepts(exit);
            let hint = (!succeeded && accepts(mapped)).then(|| {
                format!(
                    "it ended with {exit}, which its returncodes do not list; the reference agent takes every failure \
                     for 1, which they do, and GROUNDCREW_RETURNCODES=reference makes this one do so too"
                )
            });
            Verdict { succeeded, exit, hint }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::config::Idempotence;

    fn codes(texts: &[&str]) -> Vec<ReturnCode> {
        texts.iter().map(|text| ReturnCode::Integer((*text).to_owned())).collect()
    }

    fn step(arguments: &[&str], env: &[(&str, &str)]) -> Step {
        Step {
            name: "a".to_owned(),
            path: "a.sh".to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            returncodes: codes(&["0"]),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            on_host: true,
            idempotence: Idempotence::Auto,
            upgrade_step: false,
            requires_interrupt: false,
        }
    }

    #[test]
    fn an_end_is_judged_by_the_steps_own_status() {
        use ReturnCodes::{Own, Reference};
        let hinted = "it ended with 3";
        let table = [
            (0, false, &["0"][..], Own, (true, 0, false)),
            (3, false, &["0", "3"], Own, (true, 3, false)),
            (3, false, &["0"], Own, (false, 3, false)),
            (3, false, &["0", "1"], Own, (false, 3, true)),
            (-15, false, &["0"], Own, (false, -15, false)),
            (-15, false, &["-15"], Own, (true, -15, false)),
            (1, true, &["0", "1"], Own, (false, 1, false)),
            (3, false, &["0", "3"], Reference, (false, 1, false)),
            (3, false, &["1"], Reference, (true, 1, false)),
            (1, true, &["1"], Reference, (false, 1, false)),
        ];
        for (exit, not_started, accepted, rule, (succeeded, shown, hint)) in table {
            let verdict = judge(exit, not_started, &codes(accepted), rule);
            assert_eq!((verdict.succeeded, verdict.exit), (succeeded, shown), "{exit} {accepted:?} {rule:?}");
            assert_eq!(
                verdict.hint.is_some_and(|told| told.starts_with(hinted)),
                hint,
                "{exit} {accepted:?}"
            );
        }
    }

    #[test]
    fn every_variable_that_is_missing_is_named() {
        let step = step(&["env:A", "x", "env:B", "env:C", "env:Aenv:B"], &[]);
        let prepared = Prepared::new(&step, Path::new("/pkg"), Versions::default());
        let only_a = |name: &str| (name == "A").then(|| OsString::from("1"));
        assert_eq!(prepared.arguments(only_a), Err(vec!["B".to_owned(), "C".to_owned()]));
        let all = |_: &str| Some(OsString::from("v"));
        assert_eq!(prepared.arguments(all), Ok(["v", "x", "v", "v", "v"].map(OsString::from).to_vec()));
    }

    #[test]
    fn what_a_history_says_is_never_taken_for_a_variable() {
        let versions = Versions {
            previous: Some("env:SECRET".to_owned()),
            current: Some("1.0.0".to_owned()),
            as_arguments: true,
        };
        let prepared = Prepared::new(&step(&[], &[]), Path::new("/pkg"), versions);
        let arguments = prepared.arguments(|_| Some(OsString::from("secret")));
        assert_eq!(arguments, Ok(["env:SECRET", "1.0.0"].map(OsString::from).to_vec()));
        assert_eq!(prepared.shown, ["env:SECRET", "1.0.0"]);
    }

    #[test]
    fn a_steps_environment_goes_over_the_containers_and_under_what_every_step_is_told() {
        let step = step(&[], &[("PATH", "/step"), ("STEP_ROOT", "/lie"), ("OWN", "1")]);
        let versions = Versions {
            previous: Some(String::new()),
            current: Some("2.0.0".to_owned()),
            as_arguments: false,
        };
        let prepared = Prepared::new(&step, Path::new("/pkg"), versions);
        let own = [("PATH", "/container"), ("LINES", "a\nB=c"), ("CURRENT_VERSION", "0")];
        let environment = prepared.environment(&step, own.map(|(name, value)| (name.into(), value.into())));
        let expected = [
            ("CURRENT_VERSION", "2.0.0"),
            ("LINES", "a\nB=c"),
            ("OWN", "1"),
            ("PATH", "/step"),
            ("PREVIOUS_VERSION", ""),
            ("SKYHOOK_DIR", "/pkg"),
            ("STEP_ROOT", "/pkg/skyhook_dir"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name.into(), value.into())));
    }
}
