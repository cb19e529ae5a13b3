//! Calls the package agent as a child: this very program, called as an operator would call it, so that flags, history and
//! words are the same ones.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::wire::LogLevel;

use super::StageContext;
use crate::errors::chain;
use crate::package::settings::Settings;
use crate::process::tool::{
    Confined, Ending, Finished, Leftovers, Lines, Output, Stopped, Surroundings, Tool, run,
};

/// This very program, also where its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";
/// How much longer the package agent may take to end than it gives a step: that is killed 5 s after its grace, and what came of
/// it is written down.
const TERM_MARGIN: Duration = Duration::from_secs(10);
/// Output that is kept beside the log, as an artifact.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// The last lines are the evidence.
const EVIDENCE_LINES_MAX: usize = 20;

/// A call.
pub(super) struct Call {
    /// What it is called for, for people.
    pub what: String,
    /// Its arguments behind `groundcrew`.
    pub arguments: Vec<OsString>,
    /// The whole environment but `PATH`.
    pub environment: Vec<(OsString, OsString)>,
    /// `PATH`.
    pub search_path: OsString,
    /// How the line begins with which it says that something failed.
    pub failed: &'static str,
    /// What its artifacts' names begin with.
    pub artifacts: &'static str,
}

/// What came of a call.
pub(super) struct Called {
    /// How it ended.
    pub ending: Ending,
    /// Why it was ended, where it was.
    pub stopped: Option<Stopped>,
    /// Its output, by name.
    pub artifacts: Vec<(String, Vec<u8>)>,
    heard: Heard,
}

impl Call {
    /// Makes the call, and waits for its end.
    ///
    /// # Errors
    /// Where it could not be made.
    pub(super) fn make(self, context: &StageContext, deadline: Instant) -> Result<Called, String> {
        let said: Vec<_> = self.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        context.say(LogLevel::Info, format!("runs groundcrew {}", said.join(" ")));
        context.show(0.0, self.what);
        let heard = Arc::new(Mutex::new(Heard::new(self.failed)));
        let (sink, hears) = (Arc::clone(&context.lines), Arc::clone(&heard));
        let lines: Lines = Arc::new(move |output, line| {
            let level = {
                let mut heard = hears.lock().unwrap_or_else(PoisonError::into_inner);
                heard.take(&line);
                heard.level(output, &line)
            };
            sink(level, line);
        });
        let term_patience = term_patience(&self.environment);
        let tool = Tool {
            program: PROGRAM.to_owned(),
            arguments: self.arguments,
            environment: self.environment,
            search_path: self.search_path,
            deadline: deadline.saturating_duration_since(Instant::now()),
            term_patience,
            stdout_bytes_max: KEPT_BYTES_MAX,
            stderr_bytes_max: KEPT_BYTES_MAX,
            // What a step starts is meant to stay: a package may bring a service up.
            leftovers: Leftovers::Left,
            confined: Confined::default(),
        };
        let around = Surroundings {
            launcher: &context.launcher,
            children: &context.children,
            cancel: &context.cancel,
            lines,
        };
        let Finished { ending, stopped, stdout, stderr, .. } =
            run(&tool, &around).map_err(|error| chain(&error))?;
        let heard = std::mem::replace(
            &mut *heard.lock().unwrap_or_else(PoisonError::into_inner),
            Heard::new(self.failed),
        );
        let name = |stream: &str| format!("{}.{stream}", self.artifacts);
        let artifacts = vec![(name("stdout"), stdout.bytes), (name("stderr"), stderr.bytes)];
        Ok(Called { ending, stopped, artifacts, heard })
    }
}

impl Called {
    /// What its end says; `done` where it ended well.
    pub(super) fn observed(&self, context: &StageContext, done: &str) -> Observation {
        match self.stopped {
            Some(stopped) => Observation::Unreadable { why: context.stopped_text(stopped) },
            None => observed(self.ending, &self.heard, done),
        }
    }

    /// Its last lines.
    pub(super) fn evidence(&self) -> String {
        let last: Vec<&str> = self.heard.last.iter().map(String::as_str).collect();
        last.join("\n")
    }
}

/// How long the package agent may take to end: as long as this environment has it give a step that runs, and then some. One
/// that it refuses it does not run under.
fn term_patience(environment: &[(OsString, OsString)]) -> Duration {
    let value =
        |name: &str| environment.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.clone());
    Settings::read(value).map_or(Duration::ZERO, |settings| settings.term_grace) + TERM_MARGIN
}

/// The last lines, and the last that says that something failed.
#[derive(Debug)]
struct Heard {
    last: VecDeque<String>,
    failed: Option<String>,
    /// How a line begins that says so.
    word: &'static str,
}

impl Heard {
    fn new(word: &'static str) -> Heard {
        Heard { last: VecDeque::new(), failed: None, word }
    }

    fn take(&mut self, line: &str) {
        if let Some(failed) = self.failure(line) {
            self.failed = Some(failed.to_owned());
        }
        if self.last.len() == EVIDENCE_LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// The word on what failed. After a command's output it stands behind that stream's label and stamp, which the
    /// package agent writes at the end of each line, as the reference does.
    fn failure<'l>(&self, line: &'l str) -> Option<&'l str> {
        let labelled = line.starts_with("[out]") || line.starts_with("[err]");
        let said = if labelled { line.split_once(' ').map_or(line, |(_, said)| said) } else { line };
        said.starts_with(self.word).then(|| said.trim_end())
    }

    fn level(&self, output: Output, line: &str) -> LogLevel {
        match output {
            _ if self.failure(line).is_some() => LogLevel::Error,
            Output::Stdout => LogLevel::Info,
            Output::Stderr => LogLevel::Warn,
        }
    }
}

/// What the end of the package agent says.
fn observed(ending: Ending, heard: &Heard, done: &str) -> Observation {
    let unreadable = |why: String| Observation::Unreadable { why };
    let last = || heard.failed.clone().or_else(|| heard.last.back().cloned());
    match ending {
        Ending::Exited(0) => Observation::Found { text: done.to_owned() },
        Ending::Exited(1) => Observation::Found {
            text: last().filter(|line| line != done).unwrap_or_else(|| "it said nothing".to_owned()),
        },
        Ending::Exited(status) => {
            let said = last().unwrap_or_default();
            unreadable(format!("the package agent ended with exit status {status}: {said}"))
        }
        Ending::Signalled(signal) => unreadable(format!("the package agent was ended by signal {signal}")),
        Ending::Stuck => unreadable("the package agent was killed and hangs in the kernel".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "done";

    #[test]
    fn the_end_of_the_package_agent_says_how_it_came_out() {
        let nothing = || Heard::new("FAILED: ");
        let mut heard = nothing();
        for line in ["a.sh", "[out]2026-01-02T03:04:05 FAILED: a.sh one 3", "[out] done"] {
            heard.take(line);
        }
        let said = |ending, heard: &Heard| observed(ending, heard, DONE).describe();
        assert_eq!(said(Ending::Exited(0), &heard), DONE);
        assert_eq!(said(Ending::Exited(1), &heard), "FAILED: a.sh one 3");
        assert_eq!(said(Ending::Exited(1), &nothing()), "it said nothing");
        for (ending, part) in [
            (Ending::Exited(64), "exit status 64"),
            (Ending::Exited(126), "exit status 126"),
            (Ending::Signalled(9), "signal 9"),
            (Ending::Stuck, "hangs"),
        ] {
            let observed = observed(ending, &heard, DONE);
            assert!(
                matches!(&observed, Observation::Unreadable { why } if why.contains(part)),
                "{observed:?}"
            );
        }
        // What prints the very word is not believed where the call failed.
        let mut liar = nothing();
        liar.take(DONE);
        assert_ne!(said(Ending::Exited(1), &liar), DONE);
    }

    /// It was 30 s whatever the profile said.
    #[test]
    fn the_package_agent_is_given_the_grace_that_it_gives_a_step() {
        let patience = |set: &[(&str, &str)]| {
            let environment: Vec<_> = set.iter().map(|(name, value)| (name.into(), value.into())).collect();
            term_patience(&environment).as_millis()
        };
        let grace = |seconds| ("SKYHOOK_AGENT_TERM_GRACE_S", seconds);
        assert_eq!(patience(&[("LEVEL", "1")]), 30_000);
        assert_eq!(patience(&[grace("600")]), 610_000);
        assert_eq!(patience(&[grace("0.5")]), 10_500);
        assert_eq!(patience(&[grace("600"), grace("700")]), 710_000, "the last is what it is started with");
        assert_eq!(patience(&[grace("a minute")]), 10_000);
    }

    #[test]
    fn evidence_is_the_last_lines() {
        let mut heard = Heard::new("FAILED: ");
        (0..100).for_each(|number| heard.take(&number.to_string()));
        let called = Called { ending: Ending::Exited(0), stopped: None, artifacts: Vec::new(), heard };
        assert!(called.evidence().starts_with("80\n") && called.evidence().ends_with("\n99"));
    }
}
