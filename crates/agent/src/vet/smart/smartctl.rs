//! One call of smartctl.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundcrew_protocol::wire::LogLevel;
use serde_json::Value;

use crate::process::Cancel;
use crate::process::tool::{
    Confined, Ending, Leftovers, Lines, Output, Surroundings, TERM_PATIENCE, Tool, run as run_tool,
};
use crate::vet::StageContext;

const PROGRAM: &str = "smartctl";
/// A call that only reads is over in seconds, also of a disk that has to spin up.
const CALL_TIME: Duration = Duration::from_secs(60);
/// The JSON of a disk with full logs has some 100 KiB.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// What smartctl said.
pub(super) struct Said {
    /// Its exit status: a mask of bits (smartctl(8), "EXIT STATUS").
    pub exit: i32,
    /// What it printed, as JSON.
    pub json: Value,
    /// The same as it was printed.
    pub raw: Vec<u8>,
    /// The command, for people.
    pub command: String,
}

/// smartctl on one disk.
pub(super) struct Smartctl<'a> {
    pub context: &'a StageContext,
    /// As `/dev/sda`.
    pub device: String,
    /// The stage's.
    pub deadline: Instant,
}

/// What is done beyond the stage's own time gets this long.
const END_TIME: Duration = Duration::from_secs(5);

impl Smartctl<'_> {
    /// Does what must be done for the disk although the stage's time may be over, and its handle be asked.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn beyond_the_stage(
        &self,
        work: impl FnOnce(&Smartctl<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let cancel = Cancel::new().map_err(|error| error.to_string())?;
        let context = StageContext { cancel, ..self.context.clone() };
        let deadline = Instant::now() + END_TIME;
        work(&Smartctl { context: &context, device: self.device.clone(), deadline })
    }

    /// The command for people.
    pub fn command(&self, options: &[&str]) -> String {
        format!("{PROGRAM} -j {} {}", options.join(" "), self.device)
    }

    /// Calls it with these options.
    ///
    /// # Errors
    /// Why nothing can be said: it is not installed, was ended, or printed no JSON.
    pub fn ask(&self, options: &[&str]) -> Result<Said, String> {
        let context = self.context;
        let arguments = ["-j"].iter().chain(options).copied().chain([self.device.as_str()]);
        let left = self.deadline.saturating_duration_since(Instant::now());
        let tool = Tool {
            program: PROGRAM.to_owned(),
            arguments: arguments.map(Into::into).collect(),
            environment: vec![("LC_ALL".into(), "C".into())],
            search_path: context.search_path.clone(),
            deadline: left.min(CALL_TIME),
            term_patience: TERM_PATIENCE,
            stdout_bytes_max: OUTPUT_BYTES_MAX,
            stderr_bytes_max: OUTPUT_BYTES_MAX,
            leftovers: Leftovers::Ended,
            confined: Confined::default(),
        };
        let (sink, device) = (Arc::clone(&context.lines), self.device.clone());
        let lines: Lines = Arc::new(move |output, line| match output {
            // Its JSON is kept whole, as an artifact.
            Output::Stdout => {}
            Output::Stderr => sink(LogLevel::Warn, format!("{device}: {line}")),
        });
        let around = Surroundings {
            launcher: &context.launcher,
            children: &context.children,
            cancel: &context.cancel,
            lines,
        };
        let finished = run_tool(&tool, &around).map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })?;
        if let Some(stopped) = finished.stopped {
            return Err(match left.min(CALL_TIME) == CALL_TIME {
                true if !context.cancel.is_asked() => {
                    format!("{} did not end within {} s", self.command(options), CALL_TIME.as_secs())
                }
                true | false => context.stopped_text(stopped),
            });
        }
        let exit = match finished.ending {
            Ending::Exited(status) => status,
            Ending::Signalled(signal) => return Err(format!("smartctl was ended by signal {signal}")),
            Ending::Stuck => return Err("smartctl was killed and hangs in the kernel".to_owned()),
        };
        if finished.stdout.truncated() {
            return Err(format!("smartctl printed more than {OUTPUT_BYTES_MAX} bytes"));
        }
        let raw = finished.stdout.bytes;
        let json = serde_json::from_slice(&raw)
            .map_err(|error| format!("smartctl exited with {exit} and printed no JSON: {error}"))?;
        Ok(Said { exit, json, raw, command: self.command(options) })
    }
}
