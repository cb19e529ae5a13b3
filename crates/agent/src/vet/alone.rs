//! A run without an orchestrator: walks the stages of a profile on this machine and makes their report.
//!
//! Unlike a run it does not hold at a stage that failed: whoever waits at the terminal wants to see them all. The report
//! says where a run would have been held.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Judged, Observation, Verdict};
use groundcrew_protocol::ids::{Attempt, NodeName};
use groundcrew_protocol::inventory::Inventory;
use groundcrew_protocol::limits::SENSOR_INTERVAL_MS;
use groundcrew_protocol::plan::planned_of;
use groundcrew_protocol::profile::{Profile, StageSpec};
use groundcrew_protocol::report::{LOG_TAIL_LINES, Report, StageReport, run_verdict, series_of};
use groundcrew_protocol::spec_diff::spec_validate;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLine, OverrideFlags, SensorSample};

use super::terminal::Screen;
use super::{StageContext, StageOutcome, outcome, run_stage};
use crate::probe::{Root, hwmon};
use crate::process::{Cancel, ChildRecords, Launcher};

/// Time between two looks of the terminal's line.
const TICK: Duration = Duration::from_millis(500);
/// Samples that are kept: sixty sensors for a day.
const SAMPLES_MAX: usize = 1_000_000;

/// What a run without an orchestrator is done with.
pub(super) struct Alone<'a> {
    /// The profile.
    pub(super) profile: &'a Profile,
    /// The machine.
    pub(super) root: Root,
    /// What tools are started through.
    pub(super) launcher: Launcher,
    /// Where they are looked for.
    pub(super) search_path: OsString,
    /// A folder for files of the stages and the record of children.
    pub(super) work: &'a Path,
    /// Ends it before its time.
    pub(super) cancel: &'a Cancel,
    /// Shows how far it is.
    pub(super) screen: Arc<Screen>,
}

/// A report and the raw output of tools, by stage and name.
pub(super) struct Walked {
    pub(super) report: Report,
    pub(super) artifacts: Vec<(String, Vec<u8>)>,
}

impl Alone<'_> {
    /// Walks the stages.
    pub(super) fn walk(&self) -> Walked {
        let began = now();
        let samples = Mutex::new(Vec::new());
        let mut stages = Vec::new();
        let mut inventory = None;
        let mut artifacts = Vec::new();
        std::thread::scope(|scope| {
            let (done, ended) = channel::<()>();
            scope.spawn(|| self.keep_time(ended, &samples));
            let children = Arc::new(ChildRecords::in_home(self.work));
            // Reporting is what is made of this afterwards.
            for spec in self.profile.stages.iter().filter(|spec| spec.name != Stage::Reporting) {
                stages.push(if spec.name == Stage::SpecValidate {
                    self.validate(inventory.as_deref())
                } else {
                    self.stage(spec, &children, &mut inventory, &mut artifacts)
                });
            }
            drop(done);
        });
        let verdict = run_verdict(stages.iter().map(StageReport::counted));
        let interrupted = self.cancel.is_asked();
        let report = Report {
            run: None,
            node: node(&self.root),
            profile: self.profile.name.clone(),
            // Nobody holds anything here: what did not pass is the verdict's to say.
            state: if interrupted { State::Cancelled } else { State::Completed },
            verdict,
            reason: if interrupted { "interrupted".to_owned() } else { would_hold(&stages) },
            began,
            ended: Some(now()),
            made: now(),
            version: format!("groundcrew {}", env!("CARGO_PKG_VERSION")),
            stages,
            inventory,
            sensors: series_of(samples.into_inner().unwrap_or_else(PoisonError::into_inner)),
            gaps: Vec::new(),
        };
        Walked { report, artifacts }
    }

    /// Redraws and samples until the walk ends.
    fn keep_time(&self, ended: std::sync::mpsc::Receiver<()>, samples: &Mutex<Vec<SensorSample>>) {
        let mut sampled: Option<Instant> = None;
        loop {
            if sampled.is_none_or(|at| at.elapsed() >= Duration::from_millis(SENSOR_INTERVAL_MS)) {
                sampled = Some(Instant::now());
                let read = hwmon::read(&self.root, now());
                let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                if samples.len() + read.len() <= SAMPLES_MAX {
                    samples.extend(read);
                }
            }
            self.screen.tick();
            match ended.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn stage(
        &self,
        spec: &StageSpec,
        children: &Arc<ChildRecords>,
        inventory: &mut Option<Box<Inventory>>,
        artifacts: &mut Vec<(String, Vec<u8>)>,
    ) -> StageReport {
        let stage = &spec.name;
        if self.cancel.is_asked() {
            return not_started(stage);
        }
        self.screen.begin(&stage.to_string());
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(LOG_TAIL_LINES)));
        let began = now();
        let outcome = run_stage(&self.context(spec, children, &tail));
        self.screen.end(outcome.verdict, &words(&outcome));
        for (name, bytes) in outcome.artifacts {
            artifacts.push((format!("{stage}-{name}"), bytes));
        }
        if outcome.inventory.is_some() {
            *inventory = outcome.inventory;
        }
        let log_tail = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner)).into();
        StageReport {
            attempt: Attempt(1),
            attempts: 1,
            verdict: Some(outcome.verdict),
            summary: outcome.summary,
            message: outcome.message,
            began: Some(began),
            ended: Some(now()),
            checks: outcome.checks,
            log_tail,
            ..not_started(stage)
        }
    }

    fn context(
        &self,
        spec: &StageSpec,
        children: &Arc<ChildRecords>,
        tail: &Arc<Mutex<VecDeque<LogLine>>>,
    ) -> StageContext {
        let (tail, stage, screen) = (Arc::clone(tail), spec.name.clone(), Arc::clone(&self.screen));
        StageContext {
            spec: spec.clone(),
            plan: planned_of(self.profile, spec),
            expected_disks: self.profile.expected.disks.clone(),
            // Without a run there is no wipe override, so nothing may ever be written over.
            non_destructive: true,
            override_flags: OverrideFlags::default(),
            packages: Err("a vet without a run changes nothing, and applies no packages"),
            interrupts: Err("a vet without a run changes nothing, and interrupts nothing"),
            wipes: Err("a vet without a run writes over no disk"),
            root: self.root.clone(),
            launcher: self.launcher.clone(),
            children: Arc::clone(children),
            work: self.work.to_owned(),
            search_path: self.search_path.clone(),
            lines: Arc::new(move |level, text| {
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                if tail.len() == LOG_TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(LogLine { ts: now().to_string(), level, stage: Some(stage.clone()), text });
            }),
            progress: Arc::new(move |progress| screen.progress(progress)),
            cancel: self.cancel.clone(),
        }
    }

    /// The stage that an orchestrator does inside its answer to a result.
    fn validate(&self, inventory: Option<&Inventory>) -> StageReport {
        if self.cancel.is_asked() {
            return not_started(&Stage::SpecValidate);
        }
        let at = now();
        self.screen.begin(&Stage::SpecValidate.to_string());
        let Judged { verdict, checks } = spec_validate(&self.profile.expected, inventory);
        let (summary, message) = outcome::words(verdict, &checks);
        self.screen.end(verdict, if message.is_empty() { &summary } else { &message });
        StageReport {
            attempt: Attempt(1),
            attempts: 1,
            verdict: Some(verdict),
            summary,
            message,
            began: Some(at),
            ended: Some(now()),
            checks,
            ..not_started(&Stage::SpecValidate)
        }
    }
}

/// True where nothing at all could be observed: a run of skipped stages has checked nothing.
pub(super) fn nothing_was_checked(report: &Report) -> bool {
    let observed =
        |check: &groundcrew_protocol::check::Check| !matches!(check.observed, Observation::Absent { .. });
    report.verdict == Verdict::Skipped || !report.stages.iter().any(|stage| stage.checks.iter().any(observed))
}

/// Where a run would have stopped, which a vet does not; empty where it would not.
fn would_hold(stages: &[StageReport]) -> String {
    let holds = |stage: &&StageReport| stage.verdict.is_some_and(|verdict| !verdict.goes_on());
    let first = stages.iter().find(holds);
    first.map_or_else(String::new, |stage| {
        format!("A run would have been held at {}; a vet without a run does every stage.", stage.stage)
    })
}

fn words(outcome: &StageOutcome) -> String {
    if outcome.message.is_empty() { outcome.summary.clone() } else { outcome.message.clone() }
}

fn not_started(stage: &Stage) -> StageReport {
    StageReport {
        stage: stage.clone(),
        attempt: Attempt(0),
        attempts: 0,
        verdict: None,
        overridden: None,
        summary: String::new(),
        message: String::new(),
        began: None,
        ended: None,
        checks: Vec::new(),
        log_tail: Vec::new(),
    }
}

fn now() -> WallMs {
    WallMs(jiff::Timestamp::now().as_millisecond())
}

/// The machine's host name, where it is one that a node may have.
fn node(root: &Root) -> Option<NodeName> {
    root.detail("/proc/sys/kernel/hostname")?.to_ascii_lowercase().parse().ok()
}
