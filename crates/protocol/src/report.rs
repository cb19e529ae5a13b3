//! The report of a run: what was checked, how it came out, and what it was made from.
//!
//! The orchestrator makes it for a run, `groundcrew vet` for a machine without one. Rendering is elsewhere.

mod thin;
mod words;

use serde::{Deserialize, Serialize};

pub use words::{message, name, said, summary};

pub use thin::{POINTS_MAX, SERIES_MAX, SERIES_POINTS_MAX, Thinner, series_of};

use crate::check::{Check, Verdict};
use crate::ids::{Attempt, NodeName, ProfileName, RunId};
use crate::inventory::Inventory;
use crate::stage::{Stage, State};
use crate::time::WallMs;
use crate::wire::LogLine;

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// The run; absent for `vet`.
    pub run: Option<RunId>,
    /// The node, or the machine's host name.
    pub node: Option<NodeName>,
    /// The profile.
    pub profile: ProfileName,
    /// Where the run stands.
    pub state: State,
    /// Verdict over all stages. An overridden stage counts as a warning.
    pub verdict: Verdict,
    /// Why the run is held or was cancelled, where it is or was.
    #[serde(default)]
    pub reason: String,
    /// When the run was created, or `vet` was started.
    pub began: WallMs,
    /// When it ended.
    pub ended: Option<WallMs>,
    /// When the report was made.
    pub made: WallMs,
    /// Version of what made the report.
    pub version: String,
    /// The stages in order.
    pub stages: Vec<StageReport>,
    /// The hardware, once it was read.
    pub inventory: Option<Box<Inventory>>,
    /// Series of sensors, one for each (kind, key).
    pub sensors: Vec<SensorSeries>,
    /// Parts of the log that are not there.
    pub gaps: Vec<String>,
}

/// A stage in a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// The attempt that counts; 0 where it was never started.
    pub attempt: Attempt,
    /// How many attempts there were.
    pub attempts: u32,
    /// Its verdict; absent where it has none yet.
    pub verdict: Option<Verdict>,
    /// The reason that an operator gave for overriding the verdict.
    #[serde(default)]
    pub overridden: Option<String>,
    /// The agent's own word in a few words.
    #[serde(default)]
    pub summary: String,
    /// What went wrong, where something did.
    #[serde(default)]
    pub message: String,
    /// When the attempt that counts began.
    pub began: Option<WallMs>,
    /// When it ended.
    pub ended: Option<WallMs>,
    /// The checks, judged.
    pub checks: Vec<Check>,
    /// The last lines of its log.
    pub log_tail: Vec<LogLine>,
}

/// Readings of one sensor over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorSeries {
    /// Kind, as [`crate::wire::SensorSample::kind`].
    pub kind: String,
    /// Which one.
    pub key: String,
    /// Unit.
    pub unit: String,
    /// Moment and value, in order of time.
    pub points: Vec<(WallMs, f64)>,
}

/// Lines of log of each stage in a report.
pub const LOG_TAIL_LINES: usize = 60;

/// What a stage counts as in its run: an overridden one is a warning. `None` where it has no verdict.
pub fn counted(overridden: bool, verdict: Option<Verdict>) -> Option<Verdict> {
    if overridden { Some(Verdict::Warn) } else { verdict }
}

/// The verdict over all stages of a run, each as it is [`counted`]: one without a verdict is inconclusive.
pub fn run_verdict(stages: impl IntoIterator<Item = Option<Verdict>>) -> Verdict {
    Verdict::over(stages.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Inconclusive)))
}

impl StageReport {
    /// What the stage counts as in the run's verdict.
    pub fn counted(&self) -> Option<Verdict> {
        counted(self.overridden.is_some(), self.verdict)
    }
}
