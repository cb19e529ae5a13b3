//! What `agent-info.json` says: how an agent describes itself to whoever can read its home.
//!
//! The file belongs to the agent, and other systems add fields of their own. So it is never read into one type and
//! written back: [`AgentInfo::of`] takes out the fields that this version knows, each for itself, [`AgentInfo::put`] sets
//! them, and all others stay as and where they are. How the file is locked, read and replaced is the matter of the crate
//! `durable`; how what a runtime knows is brought together with it, that of [`reconcile()`].

mod heard;
mod reconcile;
mod runtime;
mod stale;
mod view;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{Attempt, ClaimNumber, RandomId, RunId};
use crate::stage::Stage;
use crate::text_enum::text_enum;
use crate::time::WallMs;

pub use heard::heard;
pub use reconcile::{AgentLife, Change, SETTLE_MS, reconcile};
pub use runtime::{Ending, Exit, RuntimeFact, RuntimeSource, RuntimeState};
pub use stale::{Clocks, Staleness, staleness};
pub use view::{AgentList, AgentView};

/// The name of the file in an agent's home.
pub const FILE_NAME: &str = "agent-info.json";

/// Longest text of one field that is taken from a file, in bytes: a longer one is cut for those who show it.
const TEXT_BYTES_MAX: usize = 1024;

text_enum! {
    /// Where an agent stands in its life.
    InfoPhase {
        /// It is to be, and nothing has been made for it.
        Created = "created",
        /// What it needs is being made.
        Provisioning = "provisioning",
        /// Its workspace is being copied.
        Cloning = "cloning",
        /// Its process runs and is not ready.
        Starting = "starting",
        /// It works, or waits for work.
        Running = "running",
        /// It is on its way out.
        Stopping = "stopping",
        /// It ended in order.
        Stopped = "stopped",
        /// It ended otherwise.
        Error = "error",
        /// It ended, in the word of an older version; how, its container's status says.
        Ended = "ended",
    }
}

impl InfoPhase {
    /// Whether it says that the agent has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self, InfoPhase::Stopped | InfoPhase::Error | InfoPhase::Ended)
    }
}

text_enum! {
    /// What an agent does at this moment. None while it does not run.
    InfoActivity {
        /// It waits for work.
        Idle = "idle",
        /// A stage runs.
        Executing = "executing",
        /// It waits for an operator's decision.
        WaitingForInput = "waiting_for_input",
        /// Something keeps it from working, and the detail says what.
        Blocked = "blocked",
        /// Its work is done.
        Completed = "completed",
        /// It should work and gets nowhere.
        Stalled = "stalled",
        /// Nobody answers it.
        Offline = "offline",
    }
}

/// What of a file this version knows. A field that is missing, or of another shape than ours, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AgentInfo {
    /// Where it stands in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<InfoPhase>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<InfoActivity>,
    /// The same for people, or why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it runs on: `local`, `kubernetes`, or the word of another system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// What the runtime calls this life of the agent: the uid of its pod, or the process with its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    /// Its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The stage in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Its attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Its claim of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimNumber>,
    /// The boot of the machine or container that it runs under, `boot_id:pid1_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The agent process, by its random id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<RandomId>,
    /// Its process id, as it is seen from inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that process started, in the kernel's clock ticks since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_start: Option<u64>,
    /// When it started, by its wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<WallMs>,
    /// When it last wrote the file itself, by its wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<WallMs>,
    /// The same in milliseconds since its machine booted, which no step of a clock changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_up_ms: Option<u64>,
    /// The status of its container, where another system wrote it. It is never written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<String>,
}

impl AgentInfo {
    /// Takes what is known out of a file's fields.
    pub fn of(fields: &Map<String, Value>) -> AgentInfo {
        let text = |name: &str| {
            let text = fields.get(name)?.as_str()?;
            (!text.is_empty()).then(|| cut(text).to_owned())
        };
        let number = |name: &str| fields.get(name)?.as_u64();
        let moment = |name: &str| moment_of(fields.get(name)?.as_str()?);
        let detail = match fields.get("detail") {
            // Another system's shape, with the same text in it.
            Some(Value::Object(detail)) => {
                detail.get("message").and_then(Value::as_str).map(|text| cut(text).to_owned())
            }
            Some(_) | None => text("detail"),
        };
        AgentInfo {
            phase: text("phase").map(InfoPhase::from),
            activity: text("activity").map(InfoActivity::from),
            detail,
            runtime: text("runtime"),
            runtime_id: text("runtime_id"),
            run: text("run").and_then(|run| run.parse().ok()),
            stage: text("stage").map(Stage::from),
            attempt: number("attempt").and_then(|attempt| u32::try_from(attempt).ok()).map(Attempt),
            claim: number("claim").map(ClaimNumber),
            epoch: text("epoch"),
            session: text("session").and_then(|session| session.parse().ok()),
            pid: number("pid").and_then(|pid| u32::try_from(pid).ok()),
            pid_start: number("pid_start"),
            started_at: moment("started_at"),
            last_seen: moment("last_seen").or_else(|| moment("lastSeen")),
            last_seen_up_ms: number("last_seen_up_ms"),
            container_status: text("container_status").or_else(|| text("containerStatus")),
        }
    }

    /// The phase that is shown: the legacy `ended` is read by the container's status that stands beside it, as the
    /// systems that write it mean it.
    pub fn shown_phase(&self) -> Option<InfoPhase> {
        match &self.phase {
            Some(InfoPhase::Ended) => {
                Some(runtime::ended_by_status(self.container_status.as_deref().unwrap_or_default()).phase())
            }
            other => other.clone(),
        }
    }

    /// Sets every field that this version knows, and takes off those that are `None`; all others stay. A detail that
    /// another system keeps as an object gets its text there.
    pub fn put(&self, fields: &mut Map<String, Value>) {
        let text = |value: &Option<String>| value.clone().map(Value::String);
        let word = |word: Option<&str>| word.map(|word| Value::String(word.to_owned()));
        let moment = |at: Option<WallMs>| at.map(|at| Value::String(at.to_string()));
        set(fields, "phase", word(self.phase.as_ref().map(InfoPhase::as_str)));
        set(fields, "activity", word(self.activity.as_ref().map(InfoActivity::as_str)));
        put_detail(fields, self.detail.as_deref());
        set(fields, "runtime", text(&self.runtime));
        set(fields, "runtime_id", text(&self.runtime_id));
        set(fields, "run", word(self.run.as_ref().map(RunId::as_str)));
        set(fields, "stage", self.stage.clone().map(|stage| Value::String(stage.into())));
        set(fields, "attempt", self.attempt.map(|attempt| attempt.0.into()));
        set(fields, "claim", self.claim.map(|claim| claim.0.into()));
        set(fields, "epoch", text(&self.epoch));
        set(fields, "session", word(self.session.as_ref().map(RandomId::as_str)));
        set(fields, "pid", self.pid.map(Value::from));
        set(fields, "pid_start", self.pid_start.map(Value::from));
        set(fields, "started_at", moment(self.started_at));
        set(fields, "last_seen", moment(self.last_seen));
        set(fields, "last_seen_up_ms", self.last_seen_up_ms.map(Value::from));
    }
}

/// Sets a field at its place, or takes it off and leaves the others in their order.
fn set(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value)),
        None => drop(fields.shift_remove(name)),
    }
}

fn put_detail(fields: &mut Map<String, Value>, detail: Option<&str>) {
    let value = detail.map(|detail| Value::String(detail.to_owned()));
    match fields.get_mut("detail") {
        Some(Value::Object(theirs)) => set(theirs, "message", value),
        Some(_) | None => set(fields, "detail", value),
    }
}

/// A moment as RFC 3339 writes it.
fn moment_of(text: &str) -> Option<WallMs> {
    text.parse::<jiff::Timestamp>().ok().map(|at| WallMs(at.as_millisecond()))
}

/// The beginning of a text, whole characters of it.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
