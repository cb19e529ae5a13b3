//! The stage `Package:NAME/MODE`: the package agent, as a child, does a mode of a package that lies on the node.
//!
//! It is this very program, called as an operator would call it, so that flags, history and words are the same ones: a
//! step that was done is skipped by its flag, and a retry goes on where the last attempt stopped. Asked to end, it
//! starts no further step and gives the one that runs its time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{STEPS_DONE, names};
use groundcrew_protocol::profile::PackageSettings;
use groundcrew_protocol::wire::LogLevel;

use super::{Done, StageContext, unknown};
use crate::errors::chain;
use crate::package::config::{CONFIG_BYTES_MAX, Config, Mode};
use crate::package::copying;
use crate::package::rooted::Root;
use crate::process::tool::{Ending, Finished, Leftovers, Lines, Output, Surroundings, Tool, run as run_tool};

/// This very program, also where its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";
/// How long the package agent may take to end: longer than it gives a step (20 s, SKYHOOK_AGENT_TERM_GRACE_S).
const TERM_PATIENCE: Duration = Duration::from_secs(30);
/// Output that is kept beside the log, as an artifact.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// The last lines are the evidence.
const EVIDENCE_LINES_MAX: usize = 20;
/// The line with which the package agent says that a step failed.
const FAILED: &str = "FAILED: ";
/// Where a package is put unless the profile says otherwise, beneath the root mount.
const COPIES: &str = "/var/lib/groundcrew/packages";
/// Folder of the stage's own for a package with the profile's config files in it.
const LAID_OVER: &str = "package-data";
/// Mode of a config file, as a ConfigMap is mounted.
const CONFIG_FILE_MODE: u32 = 0o644;

/// Does a mode of a package.
pub(super) fn run(context: &StageContext, name: &str, mode: &str, deadline: Instant) -> Done {
    // An interrupt is asked for with more than a mode. The package agent takes a mode that it does not know for a newer
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
    let instance = match &context.packages {
        Ok(instance) => instance,
        Err(why) => return refused(context, (*why).to_owned()),
    };
    match data_folder(context, settings) {
        Ok(data) => called(context, settings, mode, instance, &data, deadline),
        Err(Unusable::Other(found)) => {
            let check = context.check(names::STEPS, Observation::Found { text: found });
            Done { checks: vec![check], ..Done::default() }
        }
        Err(Unusable::Unreadable(why)) => refused(context, why),
    }
}

fn refused(context: &StageContext, why: String) -> Done {
    Done { checks: context.all_unreadable(&why), ..Done::default() }
}

/// Why a package's folder cannot be used.
enum Unusable {
    /// It is another package's.
    Other(String),
    /// It is not there, or cannot be read.
    Unreadable(String),
}

/// The folder that the package agent is to take the package from: its own, or a copy with the config files in it.
fn data_folder(context: &StageContext, settings: &PackageSettings) -> Result<PathBuf, Unusable> {
    let unreadable = |error: &dyn std::error::Error| {
        Unusable::Unreadable(format!("the package in {}: {}", settings.path, chain(error)))
    };
    let folder = Path::new(&settings.path);
    let package = Root::open_tree(folder).map_err(|error| unreadable(&error))?;
    let config = Path::new("/config.json");
    let bytes = package.read(config, CONFIG_BYTES_MAX as u64 + 1).map_err(|error| unreadable(&error))?;
    // A config that is refused is the package agent's to refuse, in its own words.
    if let Some(Ok(found)) = bytes.map(|bytes| Config::parse(&package.host_path(config), &bytes))
        && (found.package_name != settings.name || found.package_version != settings.version)
    {
        return Err(Unusable::Other(format!(
            "{}: found the package {} {}, expected {} {}",
            settings.path, found.package_name, found.package_version, settings.name, settings.version
        )));
    }
    if settings.config_files.is_empty() {
        return Ok(folder.to_owned());
    }
    laid_over(context, settings).map_err(|error| unreadable(&*error))
}

/// Copies the package and puts the profile's config files into it. What an earlier attempt copied goes first.
fn laid_over(
    context: &StageContext,
    settings: &PackageSettings,
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let copy = context.work.join(LAID_OVER);
    match std::fs::remove_dir_all(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let work = Root::open(&context.work)?;
    let inside = Path::new("/").join(LAID_OVER);
    // No other tree goes over it here: the package agent looks for that itself.
    copying::deliver(&work, &inside, Path::new(&settings.path), Path::new(""))?;
    for (name, text) in &settings.config_files {
        work.write_whole(&inside.join("configmaps").join(name), text.as_bytes(), CONFIG_FILE_MODE)?;
    }
    Ok(copy)
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
    let tool = tool(context, settings, mode, instance, data, deadline);
    let call: Vec<_> = tool.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    context.say(LogLevel::Info, format!("runs groundcrew {}", call.join(" ")));
    context.show(0.0, format!("{mode} of {} {}", settings.name, settings.version));
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (sink, hears) = (Arc::clone(&context.lines), Arc::clone(&heard));
    let lines: Lines = Arc::new(move |output, line| {
        let level = level(output, &line);
        hears.lock().unwrap_or_else(PoisonError::into_inner).take(&line);
        sink(level, line);
    });
    let around = Surroundings {
        launcher: &context.launcher,
        children: &context.children,
        cancel: &context.cancel,
        lines,
    };
    let finished = match run_tool(&tool, &around) {
        Ok(finished) => finished,
        Err(error) => return refused(context, chain(&error)),
    };
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    let observed = match finished.stopped {
        Some(stopped) => Observation::Unreadable { why: context.stopped_text(stopped) },
        None => observed(finished.ending, &heard),
    };
    let check = context.check(names::STEPS, observed).with_evidence(heard.evidence());
    let Finished { stdout, stderr, stopped, .. } = finished;
    let artifacts =
        vec![("package.stdout".to_owned(), stdout.bytes), ("package.stderr".to_owned(), stderr.bytes)];
    Done { checks: vec![check], artifacts, stopped, inventory: None }
}

fn tool(
    context: &StageContext,
    settings: &PackageSettings,
    mode: &str,
    instance: &str,
    data: &Path,
    deadline: Instant,
) -> Tool {
    let PackageSettings { name, version, .. } = settings;
    let copy_dir =
        settings.copy_dir.clone().unwrap_or_else(|| format!("{COPIES}/{name}-{version}/{instance}"));
    let mut environment: Vec<(OsString, OsString)> =
        vec![("HOME".into(), "/root".into()), ("LANG".into(), "C.UTF-8".into())];
    environment.extend(settings.env.iter().map(|(name, value)| (name.into(), value.into())));
    // Last, so that nothing takes their place.
    environment.push(("SKYHOOK_RESOURCE_ID".into(), format!("{instance}_{name}_{version}").into()));
    environment.push(("SKYHOOK_DATA_DIR".into(), data.into()));
    Tool {
        program: PROGRAM.to_owned(),
        arguments: ["package", mode, &settings.root_mount, &copy_dir].map(OsString::from).to_vec(),
        environment,
        search_path: settings.env.get("PATH").map_or_else(|| context.search_path.clone(), OsString::from),
        deadline: deadline.saturating_duration_since(Instant::now()),
        term_patience: TERM_PATIENCE,
        stdout_bytes_max: KEPT_BYTES_MAX,
        stderr_bytes_max: KEPT_BYTES_MAX,
        // What a step starts is meant to stay: a package may bring a service up.
        leftovers: Leftovers::Left,
    }
}

/// The last lines, and the last that says that a step failed.
#[derive(Debug, Default)]
struct Heard {
    last: VecDeque<String>,
    failed: Option<String>,
}

impl Heard {
    fn take(&mut self, line: &str) {
        if let Some(failed) = failure(line) {
            self.failed = Some(failed.to_owned());
        }
        if self.last.len() == EVIDENCE_LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    fn evidence(&self) -> String {
        let last: Vec<&str> = self.last.iter().map(String::as_str).collect();
        last.join("\n")
    }
}

/// The word on a step that failed. After a step's output it stands behind that stream's label and stamp, which the
/// package agent writes at the end of each line, as the reference does.
fn failure(line: &str) -> Option<&str> {
    let labelled = line.starts_with("[out]") || line.starts_with("[err]");
    let said = if labelled { line.split_once(' ').map_or(line, |(_, said)| said) } else { line };
    said.starts_with(FAILED).then(|| said.trim_end())
}

/// What the end of the package agent says about the steps.
fn observed(ending: Ending, heard: &Heard) -> Observation {
    let unreadable = |why: String| Observation::Unreadable { why };
    let last = || heard.failed.clone().or_else(|| heard.last.back().cloned());
    match ending {
        Ending::Exited(0) => Observation::Found { text: STEPS_DONE.to_owned() },
        Ending::Exited(1) => Observation::Found {
            text: last().filter(|line| line != STEPS_DONE).unwrap_or_else(|| "it said nothing".to_owned()),
        },
        Ending::Exited(status) => {
            let said = last().unwrap_or_default();
            unreadable(format!("the package agent ended with exit status {status}: {said}"))
        }
        Ending::Signalled(signal) => unreadable(format!("the package agent was ended by signal {signal}")),
        Ending::Stuck => unreadable("the package agent was killed and hangs in the kernel".to_owned()),
    }
}

fn level(output: Output, line: &str) -> LogLevel {
    match output {
        _ if failure(line).is_some() => LogLevel::Error,
        Output::Stdout => LogLevel::Info,
        Output::Stderr => LogLevel::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_package_agent_says_how_the_steps_came_out() {
        let mut heard = Heard::default();
        for line in ["a.sh", "[out]2026-01-02T03:04:05 FAILED: a.sh one 3", "[out] done"] {
            heard.take(line);
        }
        let said = |ending, heard: &Heard| observed(ending, heard).describe();
        assert_eq!(said(Ending::Exited(0), &heard), STEPS_DONE);
        assert_eq!(said(Ending::Exited(1), &heard), "FAILED: a.sh one 3");
        assert_eq!(said(Ending::Exited(1), &Heard::default()), "it said nothing");
        for (ending, part) in [
            (Ending::Exited(64), "exit status 64"),
            (Ending::Exited(126), "exit status 126"),
            (Ending::Signalled(9), "signal 9"),
            (Ending::Stuck, "hangs"),
        ] {
            let observed = observed(ending, &heard);
            assert!(
                matches!(&observed, Observation::Unreadable { why } if why.contains(part)),
                "{observed:?}"
            );
        }
        // A step that prints the very word is not believed where the call failed.
        let mut liar = Heard::default();
        liar.take(STEPS_DONE);
        assert_ne!(said(Ending::Exited(1), &liar), STEPS_DONE);
    }

    #[test]
    fn evidence_is_the_last_lines() {
        let mut heard = Heard::default();
        (0..100).for_each(|number| heard.take(&number.to_string()));
        assert!(heard.evidence().starts_with("80\n") && heard.evidence().ends_with("\n99"));
    }
}
