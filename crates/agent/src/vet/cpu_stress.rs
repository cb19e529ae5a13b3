//! The stage CPUStress: every CPU computes, every result is verified.
//!
//! `stress-ng --cpu N --verify` does it; its metrics file, exit status and failure lines are read by [`parse`]. The
//! kernel's throttling counters are compared before and after, frequencies sampled meanwhile. A wrong result fails
//! whatever else went wrong; short of that, what stress-ng does not say clearly leaves every check unreadable.

mod frequency;
mod parse;
mod throttle;

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::limits::ARTIFACT_BYTES_MAX;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::CpuStressSettings;
use groundcrew_protocol::wire::LogLevel;

use self::frequency::Frequencies;
use self::parse::{Failure, Metrics};
use super::{Done, StageContext};
use crate::probe::cpu;
use crate::process::tool::{
    Ending, Finished, Leftovers, Lines, Surroundings, TERM_PATIENCE, Tool, ToolError, run as run_tool,
};

const PROGRAM: &str = "stress-ng";
/// Time between two samples of the frequencies, and two words on progress.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A metrics file has some 1 KiB.
const METRICS_BYTES_MAX: u64 = 1024 * 1024;
/// Failure messages that are kept as evidence; all are counted, and in the log.
const FAILURES_KEPT_MAX: usize = 8;

/// What was seen of failures, line by line: all counted, the first few kept.
#[derive(Debug, Default)]
struct Failures {
    miscompares: u64,
    others: u64,
    kept: Vec<String>,
}

impl Failures {
    fn take(&mut self, line: &str) {
        let message = match parse::failure(line) {
            Some(Failure::Miscompare(message)) => {
                self.miscompares += 1;
                message
            }
            Some(Failure::Other(message)) => {
                self.others += 1;
                message
            }
            None => return,
        };
        if self.kept.len() < FAILURES_KEPT_MAX {
            self.kept.push(message);
        }
    }
}

/// Loads the CPUs and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.cpu_stress.clone().unwrap_or_default();
    let workers = workers(context, &settings);
    let metrics_path = context.work.join("stress-ng.yaml");
    // One of an earlier run must not speak for this one.
    if let Err(error) = remove(&metrics_path) {
        let why = format!("could not remove {} of an earlier run: {error}", metrics_path.display());
        return Done { checks: context.all_unreadable(&why), ..Done::default() };
    }
    let arguments = arguments(&settings, workers, &context.work, &metrics_path);
    let said: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let command = format!("{PROGRAM} {}", said.join(" "));
    context.say(LogLevel::Info, format!("runs {command}"));

    let failures = Arc::new(Mutex::new(Failures::default()));
    let before = throttle::snapshot(&context.root);
    let (result, frequencies) = loaded(context, &settings, arguments, deadline, &failures);
    let after = throttle::snapshot(&context.root);

    let finished = match result {
        Ok(finished) => finished,
        Err(error) => {
            let why = error_text(&error);
            return Done { checks: context.all_unreadable(&why), ..Done::default() };
        }
    };
    let metrics_text = read_metrics(&metrics_path);
    let failures = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    let throttling = throttle::compare(&before, &after, finished.elapsed);
    let frequency = frequencies.observed(workers as usize);
    let load = Load { context, finished: &finished, failures: &failures, metrics: &metrics_text };
    let checks = load.checks(&command, throttling, frequency);
    let mut artifacts = vec![("stress-ng.stderr".to_owned(), finished.stderr.bytes.clone())];
    artifacts.extend(metrics_text.ok().map(|text| ("stress-ng.yaml".to_owned(), text.into_bytes())));
    Done { checks, artifacts, stopped: finished.stopped, inventory: None }
}

fn workers(context: &StageContext, settings: &CpuStressSettings) -> u32 {
    if settings.workers > 0 {
        return settings.workers;
    }
    let online = cpu::online(&context.root).len();
    let count = if online > 0 { online } else { std::thread::available_parallelism().map_or(1, usize::from) };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn arguments(settings: &CpuStressSettings, workers: u32, work: &Path, metrics: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--cpu".into(), workers.to_string().into()];
    if !settings.method.is_empty() {
        arguments.extend(["--cpu-method".into(), settings.method.clone().into()]);
    }
    arguments.extend(["--verify".into(), "--metrics".into(), "--yaml".into(), metrics.into()]);
    // It refuses to work where its temporary folder, by default the current one, cannot be written to.
    arguments.extend(["--temp-path".into(), work.into()]);
    arguments.extend(["--timeout".into(), format!("{}s", settings.duration.div_ceil(1000).max(1)).into()]);
    arguments
}

/// Runs stress-ng while another thread samples frequencies and shows progress.
fn loaded(
    context: &StageContext,
    settings: &CpuStressSettings,
    arguments: Vec<OsString>,
    deadline: Instant,
    failures: &Arc<Mutex<Failures>>,
) -> (Result<Finished, ToolError>, Frequencies) {
    let tool = Tool {
        program: PROGRAM.to_owned(),
        arguments,
        environment: vec![("LC_ALL".into(), "C".into())],
        search_path: context.search_path.clone(),
        deadline: deadline.saturating_duration_since(Instant::now()),
        term_patience: TERM_PATIENCE,
        stdout_bytes_max: ARTIFACT_BYTES_MAX / 16,
        stderr_bytes_max: ARTIFACT_BYTES_MAX / 16,
        leftovers: Leftovers::Ended,
    };
    let (sink, failures) = (Arc::clone(&context.lines), Arc::clone(failures));
    let lines: Lines = Arc::new(move |_, line| {
        failures.lock().unwrap_or_else(PoisonError::into_inner).take(&line);
        let level = if parse::failure(&line).is_some() { LogLevel::Error } else { LogLevel::Info };
        sink(level, line);
    });
    let around = Surroundings {
        launcher: &context.launcher,
        children: &context.children,
        cancel: &context.cancel,
        lines,
    };
    std::thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let sampler = scope.spawn(move || {
            let began = Instant::now();
            let mut frequencies = Frequencies::default();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SAMPLE_INTERVAL) {
                frequencies.sample(&context.root);
                show(context, began.elapsed(), settings.duration);
            }
            frequencies
        });
        let result = run_tool(&tool, &around);
        drop(done);
        let frequencies = sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, frequencies)
    })
}

fn show(context: &StageContext, elapsed: Duration, duration_ms: u64) {
    let whole = Duration::from_millis(duration_ms.max(1));
    let activity = format!("CPUs under load, {} s of {} s", elapsed.min(whole).as_secs(), whole.as_secs());
    context.show(elapsed.as_secs_f64() / whole.as_secs_f64(), activity);
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_metrics(path: &Path) -> Result<String, String> {
    match groundcrew_durable::whole::read_bounded(path, METRICS_BYTES_MAX) {
        Ok(Some(bytes)) => {
            String::from_utf8(bytes).map_err(|_| "the metrics file of stress-ng is no text".to_owned())
        }
        Ok(None) => Err("stress-ng wrote no metrics file".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An error with what caused it.
fn error_text(error: &ToolError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What is known of a load that has ended.
struct Load<'a> {
    context: &'a StageContext,
    finished: &'a Finished,
    failures: &'a Failures,
    metrics: &'a Result<String, String>,
}

impl Load<'_> {
    fn checks(
        &self,
        command: &str,
        (throttling, counters): (Observation, String),
        (frequency, samples): (Observation, String),
    ) -> Vec<Check> {
        let judged = self.judged();
        let said = match self.failures.kept.as_slice() {
            [] => command.to_owned(),
            kept => format!("{command}\n{}", kept.join("\n")),
        };
        let of = |observe: &dyn Fn(&Metrics) -> Observation| match &judged {
            Ok(metrics) => observe(metrics),
            Err(why) => unreadable(why),
        };
        let miscompares = if self.failures.miscompares > 0 {
            Observation::measured(self.failures.miscompares as f64, "miscompares")
        } else {
            of(&|metrics| match metrics.bogo_ops > 0.0 {
                true => Observation::measured(0.0, "miscompares"),
                false => unreadable("stress-ng did not finish a single operation"),
            })
        };
        let rate = of(&|metrics| match metrics.rate > 0.0 {
            true => Observation::measured(metrics.rate, "bogo-ops/s"),
            false => unreadable("stress-ng did not finish a single operation"),
        });
        // Its clock and ours: the shorter one is what is certain. Ended by SIGTERM it reports success, too.
        let ours = self.finished.elapsed.as_secs_f64();
        let duration = of(&|metrics| Observation::measured(metrics.seconds.min(ours), "s"));
        // Counters and samples are the kernel's, but of a load that nobody can vouch for they say nothing.
        let under_load = |observed: Observation| match (&judged, &observed) {
            (Err(why), Observation::Measured { .. }) => unreadable(why),
            (Ok(_), _) | (Err(_), _) => observed,
        };
        [
            (names::MISCOMPARES, miscompares, said),
            (names::RATE, rate, command.to_owned()),
            (names::DURATION, duration, command.to_owned()),
            (names::THROTTLING, under_load(throttling), counters),
            (names::FREQUENCY, under_load(frequency), samples),
        ]
        .into_iter()
        .map(|(name, observed, evidence)| self.context.check(name, observed).with_evidence(evidence))
        .collect()
    }

    /// The metrics of a load that ran as it was meant to, or was ended by a wrong result; otherwise why it says
    /// nothing about the CPUs.
    fn judged(&self) -> Result<Metrics, String> {
        if let Some(stopped) = self.finished.stopped {
            return Err(self.context.stopped_text(stopped));
        }
        match self.finished.ending {
            Ending::Exited(status) => {
                if let Some(why) = parse::why_unjudged(status) {
                    return Err(self.with_failure(why));
                }
                if status != 0 && self.failures.miscompares == 0 {
                    return Err(self.with_failure("a stressor failed without a wrong result".to_owned()));
                }
                if self.failures.others > 0 && self.failures.miscompares == 0 {
                    return Err(self.with_failure("stress-ng failed".to_owned()));
                }
            }
            Ending::Signalled(signal) => return Err(format!("stress-ng was ended by signal {signal}")),
            Ending::Stuck => return Err("stress-ng was killed and hangs in the kernel".to_owned()),
        }
        let text = self.metrics.as_ref().map_err(Clone::clone)?;
        parse::metrics(text).map_err(|error| error.to_string())
    }

    fn with_failure(&self, why: String) -> String {
        match self.failures.kept.first() {
            Some(first) => format!("{why}: {first}"),
            None => why,
        }
    }
}

fn unreadable(why: &str) -> Observation {
    Observation::Unreadable { why: why.to_owned() }
}
