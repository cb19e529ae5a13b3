//! stress-ng as a load: runs it, keeps what it says, and tells a load that can be judged from one that says nothing.
//!
//! Its metrics file, exit status and failure lines are read by [`parse`]. A wrong result counts whatever else went wrong;
//! short of that, what stress-ng does not say clearly is no word on the hardware.

pub(super) mod parse;

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::limits::ARTIFACT_BYTES_MAX;
use groundcrew_protocol::wire::LogLevel;

use self::parse::{Failure, Metrics, Stressor, Told};
use super::StageContext;
use crate::probe::cpu;
use crate::process::tool::{
    Confined, Ending, Finished, Leftovers, Lines, Surroundings, TERM_PATIENCE, Tool, ToolError,
    run as run_tool,
};

const PROGRAM: &str = "stress-ng";
/// Time between two samples of what is measured meanwhile, and two words on progress.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A metrics file has some 1 KiB.
const METRICS_BYTES_MAX: u64 = 1024 * 1024;
/// Failure messages that are kept as evidence; all are counted, and in the log.
const FAILURES_KEPT_MAX: usize = 8;

/// What stress-ng is to do.
pub(super) struct Load {
    /// Its stressor.
    pub stressor: Stressor,
    /// How many of them.
    pub workers: u32,
    /// Options of the stressor.
    pub options: Vec<OsString>,
    /// How long.
    pub duration_ms: u64,
    /// What is under load, for people: `CPUs`.
    pub what: &'static str,
    /// How it is set apart from the agent.
    pub confined: Confined,
}

/// What was seen of failures, line by line: all counted, the first few kept.
#[derive(Debug, Default)]
struct Failures {
    /// Wrong results by the messages of each, and by those of all: what was told of twice counts once.
    each: u64,
    total: u64,
    others: u64,
    kept: Vec<String>,
}

impl Failures {
    fn miscompares(&self) -> u64 {
        self.each.max(self.total)
    }

    fn take(&mut self, stressor: Stressor, line: &str) {
        let message = match parse::failure(stressor, line) {
            Some(Failure::Miscompare { count, told, message }) => {
                let sum = match told {
                    Told::Each => &mut self.each,
                    Told::Total => &mut self.total,
                };
                *sum = sum.saturating_add(count);
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

/// A load that has ended.
pub(super) struct Loaded {
    /// Metrics of a load that ran as it was meant to, or was ended by a wrong result; otherwise why it says nothing.
    pub judged: Result<Metrics, String>,
    /// The command and what failed.
    pub said: String,
    /// How long it ran by our clock, and how it ended.
    pub finished: Finished,
    stressor: Stressor,
    failures: Failures,
    metrics: Result<String, String>,
}

/// As many workers as the profile asks for: 0 is one for each CPU that is online.
pub(super) fn workers(context: &StageContext, asked: u32) -> u32 {
    if asked > 0 {
        return asked;
    }
    let online = cpu::online(&context.root).len();
    let count = if online > 0 { online } else { std::thread::available_parallelism().map_or(1, usize::from) };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Puts a load on the machine, and calls `sample` each second meanwhile.
///
/// # Errors
/// Why it did not run.
pub(super) fn run(
    context: &StageContext,
    load: &Load,
    deadline: Instant,
    sample: impl FnMut() + Send,
) -> Result<Loaded, String> {
    let metrics_path = context.work.join("stress-ng.yaml");
    // One of an earlier run must not speak for this one.
    remove(&metrics_path)
        .map_err(|error| format!("could not remove {} of an earlier run: {error}", metrics_path.display()))?;
    let arguments = arguments(load, &context.work, &metrics_path);
    let said: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let command = format!("{PROGRAM} {}", said.join(" "));
    context.say(LogLevel::Info, format!("runs {command}"));
    let failures = Arc::new(Mutex::new(Failures::default()));
    let finished = loaded(context, load, arguments, deadline, &failures, sample)
        .map_err(|error| crate::errors::chain(&error))?;
    let failures = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    let metrics = read_metrics(&metrics_path);
    let judged = judged(context, load.stressor, &finished, &failures, &metrics);
    let said = match failures.kept.as_slice() {
        [] => command,
        kept => format!("{command}\n{}", kept.join("\n")),
    };
    Ok(Loaded { judged, said, finished, stressor: load.stressor, failures, metrics })
}

fn arguments(load: &Load, work: &Path, metrics: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        vec![format!("--{}", load.stressor.word()).into(), load.workers.to_string().into()];
    arguments.extend(load.options.iter().cloned());
    arguments.extend(["--verify".into(), "--metrics".into(), "--yaml".into(), metrics.into()]);
    // It refuses to work where its temporary folder, by default the current one, cannot be written to.
    arguments.extend(["--temp-path".into(), work.into()]);
    arguments.extend(["--timeout".into(), format!("{}s", load.duration_ms.div_ceil(1000).max(1)).into()]);
    arguments
}

/// Runs stress-ng while another thread samples and shows progress.
fn loaded(
    context: &StageContext,
    load: &Load,
    arguments: Vec<OsString>,
    deadline: Instant,
    failures: &Arc<Mutex<Failures>>,
    mut sample: impl FnMut() + Send,
) -> Result<Finished, ToolError> {
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
        confined: load.confined.clone(),
    };
    let (sink, failures, stressor) = (Arc::clone(&context.lines), Arc::clone(failures), load.stressor);
    let lines: Lines = Arc::new(move |_, line| {
        failures.lock().unwrap_or_else(PoisonError::into_inner).take(stressor, &line);
        let level = if parse::failure(stressor, &line).is_some() { LogLevel::Error } else { LogLevel::Info };
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
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SAMPLE_INTERVAL) {
                sample();
                show(context, load, began.elapsed());
            }
        });
        let result = run_tool(&tool, &around);
        drop(done);
        sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result
    })
}

fn show(context: &StageContext, load: &Load, elapsed: Duration) {
    let whole = Duration::from_millis(load.duration_ms.max(1));
    let (past, of) = (elapsed.min(whole).as_secs(), whole.as_secs());
    context.show(
        elapsed.as_secs_f64() / whole.as_secs_f64(),
        format!("{} under load, {past} s of {of} s", load.what),
    );
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

fn judged(
    context: &StageContext,
    stressor: Stressor,
    finished: &Finished,
    failures: &Failures,
    metrics: &Result<String, String>,
) -> Result<Metrics, String> {
    let with_failure = |why: String| match failures.kept.first() {
        Some(first) => format!("{why}: {first}"),
        None => why,
    };
    if let Some(stopped) = finished.stopped {
        return Err(context.stopped_text(stopped));
    }
    match finished.ending {
        Ending::Exited(status) => {
            if let Some(why) = parse::why_unjudged(status) {
                return Err(with_failure(why));
            }
            if status != 0 && failures.miscompares() == 0 {
                return Err(with_failure("a stressor failed without a wrong result".to_owned()));
            }
            if failures.others > 0 && failures.miscompares() == 0 {
                return Err(with_failure("stress-ng failed".to_owned()));
            }
        }
        Ending::Signalled(signal) => return Err(format!("stress-ng was ended by signal {signal}")),
        Ending::Stuck => return Err("stress-ng was killed and hangs in the kernel".to_owned()),
    }
    parse::metrics(stressor, metrics.as_ref().map_err(Clone::clone)?).map_err(|error| error.to_string())
}

impl Loaded {
    /// What is read of the metrics, or why they say nothing.
    pub fn of(&self, observe: impl Fn(&Metrics) -> Observation) -> Observation {
        match &self.judged {
            Ok(metrics) => observe(metrics),
            Err(why) => unreadable(why),
        }
    }

    /// Wrong results. None were found only by a load that did something.
    pub fn miscompares(&self) -> Observation {
        let unit = self.stressor.unit();
        if self.failures.miscompares() > 0 {
            return Observation::measured(self.failures.miscompares() as f64, unit);
        }
        self.of(|metrics| match metrics.bogo_ops > 0.0 {
            true => Observation::measured(0.0, unit),
            false => unreadable("stress-ng did not finish a single operation"),
        })
    }

    /// Its clock and ours: the shorter one is what is certain. Ended by SIGTERM it reports success, too.
    pub fn duration(&self) -> Observation {
        let ours = self.finished.elapsed.as_secs_f64();
        self.of(|metrics| Observation::measured(metrics.seconds.min(ours), "s"))
    }

    /// What it printed and wrote.
    pub fn artifacts(self) -> Vec<(String, Vec<u8>)> {
        let mut artifacts = vec![("stress-ng.stderr".to_owned(), self.finished.stderr.bytes)];
        artifacts.extend(self.metrics.ok().map(|text| ("stress-ng.yaml".to_owned(), text.into_bytes())));
        artifacts
    }
}

pub(super) fn unreadable(why: &str) -> Observation {
    Observation::Unreadable { why: why.to_owned() }
}
