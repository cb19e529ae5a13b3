//! One call of a tool that says what it found in JSON or in lines: bounded, and either whole or an error that says why not.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use groundcrew_protocol::wire::LogLevel;

use super::StageContext;
use crate::process::tool::{
    Confined, Ending, Leftovers, Lines, Output, Surroundings, TERM_PATIENCE, Tool, run as run_tool,
};

/// A report of any of these tools has some 100 KiB; the log of a BMC has less than a MiB.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// A call.
pub(super) struct Call<'a> {
    pub context: &'a StageContext,
    pub program: &'static str,
    pub arguments: Vec<OsString>,
    /// It is ended after this.
    pub time: Duration,
    /// The stage's end, which ends it as well.
    pub deadline: Instant,
    /// What its complaints are about, for the log.
    pub about: String,
}

/// What a tool said that ended by itself.
pub(super) struct Said {
    pub exit: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Call<'_> {
    /// The command for people.
    pub fn command(&self) -> String {
        let words: Vec<String> =
            self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        format!("{} {}", self.program, words.join(" "))
    }

    /// Calls it.
    ///
    /// # Errors
    /// Why it says nothing: it is not installed, was ended, or printed more than anybody reads.
    pub fn run(&self) -> Result<Said, String> {
        let context = self.context;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let tool = Tool {
            program: self.program.to_owned(),
            arguments: self.arguments.clone(),
            environment: vec![("LC_ALL".into(), "C".into())],
            search_path: context.search_path.clone(),
            deadline: left.min(self.time),
            term_patience: TERM_PATIENCE,
            stdout_bytes_max: OUTPUT_BYTES_MAX,
            stderr_bytes_max: OUTPUT_BYTES_MAX,
            leftovers: Leftovers::Ended,
            confined: Confined::default(),
        };
        let (sink, about) = (Arc::clone(&context.lines), self.about.clone());
        let lines: Lines = Arc::new(move |output, line| match output {
            // It is kept whole, as an artifact.
            Output::Stdout => {}
            Output::Stderr => sink(LogLevel::Warn, format!("{about}: {line}")),
        });
        let around = Surroundings {
            launcher: &context.launcher,
            children: &context.children,
            cancel: &context.cancel,
            lines,
        };
        let finished = run_tool(&tool, &around).map_err(|error| crate::errors::chain(&error))?;
        if let Some(stopped) = finished.stopped {
            return Err(match left > self.time && !context.cancel.is_asked() {
                true => format!("{} did not end within {} s", self.command(), self.time.as_secs()),
                false => context.stopped_text(stopped),
            });
        }
        let exit = match finished.ending {
            Ending::Exited(status) => status,
            Ending::Signalled(signal) => {
                return Err(format!("{} was ended by signal {signal}", self.program));
            }
            Ending::Stuck => return Err(format!("{} was killed and hangs in the kernel", self.program)),
        };
        if finished.stdout.truncated() {
            return Err(format!("{} printed more than {OUTPUT_BYTES_MAX} bytes", self.program));
        }
        let (stdout, stderr) = (finished.stdout.bytes, finished.stderr.bytes);
        Ok(Said { exit, stdout, stderr })
    }
}
