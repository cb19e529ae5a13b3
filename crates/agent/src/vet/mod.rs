//! The stages that vet a machine: one file a stage, and [`run_stage`] by which the control loop and
//! `groundcrew vet` do them.
//!
//! A stage runs on a plain thread of its caller's and blocks it. It observes and judges by the plan; what counts is
//! the orchestrator's judgement of the same checks.

mod alone;
pub mod command;
mod counters;
mod cpu_stress;
mod finding;
mod gpu;
mod interrupt;
mod inventory;
mod json_tool;
mod local_disks;
mod memory;
mod network;
mod outcome;
mod package;
mod package_agent;
mod package_copies;
mod pcie;
mod psu;
mod smart;
mod soak;
mod storage;
mod stress_ng;
mod terminal;
mod work_folder;
mod worst;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Limit, Observation, PlannedCheck};
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::inventory::Inventory;
use groundcrew_protocol::plan::{names, planned_checks};
use groundcrew_protocol::profile::{ExpectedDisk, StageSpec};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::format_span_ms;
use groundcrew_protocol::wire::{LogLevel, OverrideFlags};

use crate::control::core::Asked;
use crate::fetch::Store;
use crate::probe::Root;
use crate::process::tool::Stopped;
use crate::process::{Cancel, ChildRecords, Launcher};

pub use outcome::StageOutcome;

/// Takes the lines that a stage writes. It may block; the stage's tool then waits.
pub type LineSink = Arc<dyn Fn(LogLevel, String) + Send + Sync>;
/// Takes how far a stage is. It must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// How far a stage is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What it is busy with, for people.
    pub activity: String,
}

/// Everything that a stage may use.
#[derive(Clone)]
pub struct StageContext {
    /// The stage, its settings and its deadline.
    pub spec: StageSpec,
    /// The frozen plan; empty: the plan that the settings give.
    pub plan: Vec<PlannedCheck>,
    /// Disks that the profile expects.
    pub expected_disks: Vec<ExpectedDisk>,
    /// True where nothing may be written over.
    pub non_destructive: bool,
    /// Allowances of this attempt.
    pub override_flags: OverrideFlags,
    /// What packages are done with; or why none are.
    pub packages: Result<Packages, &'static str>,
    /// What interrupts are done with; or why none are.
    pub interrupts: Result<Interrupts, &'static str>,
    /// Whether, and when, disks may be written over; or why none ever is.
    pub wipes: Result<Leave, &'static str>,
    /// The machine, or a folder that stands in for it.
    pub root: Root,
    /// What tools are started through.
    pub launcher: Launcher,
    /// Where they are written down.
    pub children: Arc<ChildRecords>,
    /// A folder for files of the stage's own, which is there and may be written to.
    pub work: PathBuf,
    /// Where tools are looked for, as `PATH` has it.
    pub search_path: OsString,
    /// Takes its lines.
    pub lines: LineSink,
    /// Takes its progress.
    pub progress: ProgressSink,
    /// Ends it before its time.
    pub cancel: Cancel,
}

/// What the packages of a run are done with.
#[derive(Clone)]
pub struct Packages {
    /// The instance under which they are done, `groundcrew-{run}-{operator's retries}`.
    pub instance: String,
    /// Where those come from that the orchestrator stores.
    pub store: Arc<Store>,
}

/// Waits until what a stage asks for may be done: until the orchestrator knows of it, and before a reboot until everything
/// that it would lose has arrived. Not beyond the moment given. Says why it may not.
pub type Leave = Arc<dyn Fn(Asked, Instant) -> Result<(), String> + Send + Sync>;

/// What the interrupts of a run are done with.
#[derive(Clone)]
pub struct Interrupts {
    /// The instance under which they are done once, `groundcrew-{run}-{operator's retries}`.
    pub instance: String,
    /// The attempt. A reboot is done once for each: the orchestrator gives out another only where the last one's was not
    /// seen.
    pub attempt: Attempt,
    /// Why services may not be restarted, where they may not.
    pub services: Result<(), &'static str>,
    /// Whether, and when, the machine may be rebooted.
    pub leave: Leave,
}

impl StageContext {
    fn say(&self, level: LogLevel, text: impl Into<String>) {
        (self.lines)(level, text.into());
    }

    fn show(&self, fraction: f64, activity: impl Into<String>) {
        (self.progress)(Progress { fraction: fraction.clamp(0.0, 1.0), activity: activity.into() });
    }

    /// What the stage is judged by: what it owes itself, and the counters around it.
    fn whole_plan(&self) -> Vec<PlannedCheck> {
        if self.plan.is_empty() { planned_checks(&self.spec) } else { self.plan.clone() }
    }

    /// What the stage itself owes. The counters are read around it.
    fn plan(&self) -> Vec<PlannedCheck> {
        let plan = self.whole_plan().into_iter();
        plan.filter(|planned| !counters::is_counter(&planned.name)).collect()
    }

    /// The limit of a check by the plan.
    fn limit(&self, name: &str) -> Limit {
        let planned = self.whole_plan().into_iter().find(|planned| planned.name == name);
        planned.map(|planned| planned.limit).unwrap_or_default()
    }

    /// Whether the plan has a check of this name.
    fn owes(&self, name: &str) -> bool {
        self.whole_plan().iter().any(|planned| planned.name == name)
    }

    /// A check of this stage, held against the plan's limit.
    fn check(&self, name: &str, observed: Observation) -> Check {
        Check::of(name, None, observed, self.limit(name))
    }

    /// Every check that the stage itself owes, unreadable for one reason.
    fn all_unreadable(&self, why: &str) -> Vec<Check> {
        self.still_owed(&[], &Observation::Unreadable { why: why.to_owned() })
    }

    /// Every check that the stage itself owes and that is not among these, for one reason.
    fn still_owed(&self, checks: &[Check], observed: &Observation) -> Vec<Check> {
        let owed = self.plan().into_iter();
        owed.filter(|planned| !checks.iter().any(|check| planned.is_fulfilled_by(check)))
            .map(|owed| Check::of(&owed.name, owed.component.as_deref(), observed.clone(), owed.limit))
            .collect()
    }

    fn stopped_text(&self, stopped: Stopped) -> String {
        match stopped {
            Stopped::TimedOut => {
                format!("ended at the stage's deadline of {}", format_span_ms(self.spec.deadline))
            }
            Stopped::Cancelled => self.cancel.why().unwrap_or(outcome::CANCELLED_MESSAGE).to_owned(),
        }
    }
}

/// What a stage did, before it is judged.
#[derive(Debug, Default)]
struct Done {
    checks: Vec<Check>,
    inventory: Option<Box<Inventory>>,
    artifacts: Vec<(String, Vec<u8>)>,
    stopped: Option<Stopped>,
}

/// Does a stage, judges it by the plan, and says how it came out. A panic inside makes it inconclusive.
pub fn run_stage(context: &StageContext) -> StageOutcome {
    let stage = &context.spec.name;
    context.show(0.0, format!("{stage} begins"));
    // A BMC that is slow to say what it has logged takes nothing of the stage's time.
    let guarded = counters::Guarded::over(context);
    let watch = counters::Watch::begin(context, &guarded);
    let deadline = Instant::now() + Duration::from_millis(context.spec.deadline);
    // The stage shares nothing that a panic could leave half changed but the record of children, whose lock
    // forgives it.
    let mut done =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| perform(&guarded.context, deadline)))
            .unwrap_or_else(|panic| {
                let why =
                    format!("the stage broke off by an error in the agent itself: {}", panic_text(&*panic));
                context.say(LogLevel::Error, why.clone());
                Done { checks: context.all_unreadable(&why), ..Done::default() }
            });
    watch.end(context, &mut done);
    // Stopped for the machine's heat is not cancelled: nobody asked.
    if !context.cancel.is_asked() {
        done.stopped = done.stopped.filter(|stopped| *stopped != Stopped::Cancelled);
    }
    let outcome = outcome::judge(&context.whole_plan(), done);
    for check in &outcome.checks {
        context.say(outcome::level(check.verdict), outcome::line(check));
    }
    context.show(1.0, outcome.summary.clone());
    outcome
}

fn perform(context: &StageContext, deadline: Instant) -> Done {
    if context.cancel.is_asked() {
        let why = context.stopped_text(Stopped::Cancelled);
        let checks = context.all_unreadable(&why);
        return Done { checks, stopped: Some(Stopped::Cancelled), ..Done::default() };
    }
    match &context.spec.name {
        Stage::Inventory => inventory::run(context, deadline),
        Stage::CpuStress => cpu_stress::run(context, deadline),
        stage if stage.is_interrupt() => interrupt::run(context, deadline),
        Stage::Smart => smart::run(context, deadline),
        Stage::Memory => memory::run(context, deadline),
        Stage::Storage => storage::run(context, deadline),
        Stage::Network => network::run(context, deadline),
        Stage::Gpu => gpu::run(context, deadline),
        Stage::Psu => psu::run(context, deadline),
        Stage::Soak => soak::run(context, deadline),
        Stage::Package { name, mode } => package::run(context, name, mode, deadline),
        Stage::SpecValidate | Stage::Reporting | Stage::Interrupt { .. } | Stage::Unknown(_) => {
            unknown(context)
        }
    }
}

/// A stage of which nothing could be checked, for one reason.
fn refused(context: &StageContext, why: String) -> Done {
    Done { checks: context.all_unreadable(&why), ..Done::default() }
}

/// Why a stage that has run to here was ended before its time, where it was.
fn stopped(context: &StageContext, deadline: Instant) -> Option<Stopped> {
    match (context.cancel.is_asked(), Instant::now() >= deadline) {
        (true, _) => Some(Stopped::Cancelled),
        (false, true) => Some(Stopped::TimedOut),
        (false, false) => None,
    }
}

/// A stage that this agent cannot do is inconclusive, by name.
fn unknown(context: &StageContext) -> Done {
    let why = format!("this agent ({}) has no stage {}", env!("CARGO_PKG_VERSION"), context.spec.name);
    let check = context.check(names::STAGE_KNOWN, Observation::Unreadable { why });
    Done { checks: vec![check], ..Done::default() }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}

#[cfg(test)]
pub(crate) mod tests;
