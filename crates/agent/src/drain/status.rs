//! What the agent says of itself to whoever asks on this machine. Made from what the control loop has published, and from
//! nothing else: so nobody is told of an idle that the loop has not seen the marker for.

use groundcrew_durable::drain_marker::read::{Absence, Active, Drain};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{Phase, StageAttempt};
use serde::{Deserialize, Serialize};

use crate::control::hooks::Which;
use crate::control::sight::{Sight, why_absent, why_drained};

/// Where the control loop stands, as it publishes it: what becomes active before a step's actions, what ends after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The newest look at the marker that the loop knows.
    pub sight: Option<Sight>,
    /// What the agent does as a whole.
    pub phase: Phase,
    /// What is active, and since when.
    pub active: Vec<(Item, WallMs)>,
    /// The stage that waits for the drain to end.
    pub waiting: Option<StageAttempt>,
    /// The stage that drains the node for itself, where nobody else does. It is not active in its own drain.
    pub own: Option<StageAttempt>,
}

/// A work item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An attempt of a stage.
    Stage(StageAttempt),
    /// A hook of the node.
    Hook {
        /// Which.
        which: Which,
        /// Why it is not done yet, where it has failed; empty where it has not.
        failed: String,
    },
    /// The machine is being switched off at the end of the run.
    PowerOff,
}

impl Item {
    /// True where it is the same item, however it stands.
    pub fn is_same(&self, other: &Item) -> bool {
        match (self, other) {
            (Item::Stage(one), Item::Stage(other)) => one == other,
            (Item::Hook { which: one, .. }, Item::Hook { which: other, .. }) => one == other,
            (Item::PowerOff, Item::PowerOff) => true,
            (Item::Stage(_), Item::Hook { .. } | Item::PowerOff)
            | (Item::Hook { .. }, Item::Stage(_) | Item::PowerOff)
            | (Item::PowerOff, Item::Stage(_) | Item::Hook { .. }) => false,
        }
    }
}

/// What the active work is busy with right now.
#[derive(Debug, Clone, Default)]
pub struct Busy {
    /// For people.
    pub activity: String,
    /// The processes of all of it.
    pub pids: Vec<i32>,
}

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The agent's run.
    pub run: RunId,
    /// Its epoch, for whoever writes a marker.
    pub epoch: String,
    /// The greatest age of a marker, in milliseconds.
    pub max_age_ms: u64,
}

/// The agent's status, in the words of the drain contract.
///
/// `gateway_busy` means that it is running and something is active, `gateway_drainable` that it is running, whatever is
/// active. Both are false while it drains: whoever asked for the drain waits for `active_agents` to be 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `starting`, `running`, `draining` or `stopping`.
    pub gateway_state: String,
    /// How many work items are active.
    pub active_agents: u32,
    /// Running, and something is active.
    pub gateway_busy: bool,
    /// Running.
    pub gateway_drainable: bool,
    /// What is active.
    pub active_work: Vec<Work>,
    /// What whoever asked for a drain waits for, or what the agent waits for; empty where nobody waits.
    pub waits_for: String,
    /// How the drain stands.
    pub drain: DrainStatus,
    /// The agent's epoch.
    pub epoch: String,
    /// The greatest age of a marker, in milliseconds.
    pub max_age_ms: u64,
    /// The agent's process.
    pub pid: u32,
}

/// A work item that is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The run.
    pub run: String,
    /// The stage, `hook` and its key, or `power-off`.
    pub stage: String,
    /// Its attempt; 0 of what has none.
    pub attempt: u32,
    /// What it is busy with; of a hook that has failed, how.
    pub activity: String,
    /// The processes that the agent's work has started; seldom two items are active at a time, and then it is those of both.
    pub pids: Vec<i32>,
    /// Since when.
    pub since: String,
}

/// How the drain stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Whether the agent drains: its control loop has seen the marker and starts nothing new.
    pub draining: bool,
    /// Why it does, or why not.
    pub why: String,
    /// False where the disk did not answer: what is said is what was last seen.
    pub is_fresh: bool,
    /// Who wrote the marker last.
    pub principal: Option<String>,
    /// Everybody who asks.
    pub holders: Vec<String>,
    /// When it was last asked for.
    pub requested_at: Option<String>,
    /// How old the marker is, in seconds.
    pub age_s: Option<u64>,
    /// How its epoch stands to the agent's: `same`, `marker_has_none`, `own_unknown` or `other`.
    pub epoch: Option<String>,
    /// Whether it asks for a quiet shutdown.
    pub suppress_notification: bool,
    /// Why the marker counts as one without fields.
    pub defect: Option<String>,
}

impl Status {
    /// What is said where the loop stands so. `is_fresh`: the loop has seen a look that was made for this answer.
    pub fn of(standing: &Standing, is_fresh: bool, fixed: &Fixed, busy: &Busy) -> Status {
        let state = match &standing.phase {
            Phase::Stopping => "stopping",
            Phase::Draining => "draining",
            Phase::Starting => "starting",
            Phase::Running | Phase::Holding | Phase::Ended | Phase::Idle | Phase::Unknown(_) => "running",
        };
        let is_running = state == "running";
        let active_work: Vec<Work> = standing.active.iter().map(|active| work(active, fixed, busy)).collect();
        Status {
            gateway_state: state.to_owned(),
            active_agents: u32::try_from(active_work.len()).unwrap_or(u32::MAX),
            gateway_busy: is_running && !active_work.is_empty(),
            gateway_drainable: is_running,
            waits_for: waits_for(standing),
            active_work,
            drain: DrainStatus { is_fresh, ..drain_status(standing) },
            epoch: fixed.epoch.clone(),
            max_age_ms: fixed.max_age_ms,
            pid: std::process::id(),
        }
    }

    /// True where nothing is active and nothing starts: whoever asked for the drain may act.
    pub fn is_idle(&self) -> bool {
        self.drain.draining && self.drain.is_fresh && self.active_agents == 0
    }
}

fn work((item, since): &(Item, WallMs), fixed: &Fixed, busy: &Busy) -> Work {
    let (stage, attempt, activity) = match item {
        Item::Stage(which) => (which.stage.to_string(), which.attempt.0, busy.activity.clone()),
        Item::Hook { which, failed } => (format!("hook {}", which.key()), 0, failed.clone()),
        Item::PowerOff => ("power-off".to_owned(), 0, "the machine is being switched off".to_owned()),
    };
    let (run, pids, since) = (fixed.run.to_string(), busy.pids.clone(), since.to_string());
    Work { run, stage, attempt, activity, pids, since }
}

fn waits_for(standing: &Standing) -> String {
    let is_draining = standing.phase == Phase::Draining;
    let ends: Vec<String> = standing.active.iter().map(end_of).collect();
    match (&standing.waiting, is_draining) {
        (_, true) if !ends.is_empty() => ends.join(", then "),
        (None, _) if standing.own.is_some() => standing.own.iter().map(own_drain).collect(),
        (Some(waiting), _) if ends.is_empty() => {
            format!("{}, attempt {}, waits for the drain to end", waiting.stage, waiting.attempt)
        }
        (Some(_) | None, _) => String::new(),
    }
}

fn own_drain(own: &StageAttempt) -> String {
    format!("the end of {}, attempt {}, which drains the node for itself", own.stage, own.attempt)
}

fn end_of((item, since): &(Item, WallMs)) -> String {
    match item {
        Item::Stage(which) => format!("the end of {}, attempt {}, since {since}", which.stage, which.attempt),
        Item::Hook { which, failed } if failed.is_empty() => {
            format!("the hook {}, since {since}", which.key())
        }
        Item::Hook { which, failed } => format!("the hook {}, which {failed}, since {since}", which.key()),
        Item::PowerOff => format!("the power-off, which makes way for the drain, since {since}"),
    }
}

fn drain_status(standing: &Standing) -> DrainStatus {
    match standing.sight.as_ref().map(|sight| &sight.drain) {
        None => {
            DrainStatus { why: "nobody has looked for a marker yet".to_owned(), ..DrainStatus::default() }
        }
        Some(Drain::Absent(absence)) => DrainStatus {
            why: why_absent(absence),
            epoch: matches!(absence, Absence::OtherEpoch { .. }).then(|| "other".to_owned()),
            ..DrainStatus::default()
        },
        Some(Drain::Active(active)) => of_active(active),
    }
}

fn of_active(active: &Active) -> DrainStatus {
    DrainStatus {
        draining: true,
        why: why_drained(active),
        is_fresh: true,
        principal: Some(active.principal.to_string()),
        holders: active.holders.iter().map(|holder| holder.principal.to_string()).collect(),
        requested_at: active.requested_at.clone(),
        age_s: Some(active.age.as_secs()),
        epoch: Some(active.epoch.word().to_owned()),
        suppress_notification: active.suppress_notification,
        defect: active.defect.clone(),
    }
}

/// How the drain stands by the marker alone, where no agent answers.
pub fn by_marker(drain: &Drain) -> DrainStatus {
    match drain {
        // A marker alone is no drain: nobody has confirmed it.
        Drain::Active(active) => DrainStatus { draining: false, ..of_active(active) },
        Drain::Absent(absence) => DrainStatus { why: why_absent(absence), ..DrainStatus::default() },
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::ids::Attempt;
    use groundcrew_protocol::stage::Stage;

    use super::*;

    fn fixed() -> Fixed {
        Fixed { run: "r-1".parse().unwrap(), epoch: "b:1".into(), max_age_ms: 1 }
    }

    #[test]
    fn busy_drainable_and_idle_mean_what_the_contract_says() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(groundcrew_durable::drain_marker::path_in(home.path()), "{}").unwrap();
        let found = groundcrew_durable::drain_marker::read::look(home.path());
        let against = groundcrew_durable::drain_marker::read::Against {
            epoch: "b:1",
            wall_ms: 0,
            known_for: std::time::Duration::ZERO,
            max_age: std::time::Duration::from_secs(9),
        };
        let drains = groundcrew_durable::drain_marker::read::judge(&found, &against);
        let none = Drain::Absent(Absence::NoMarker);
        // phase, drains, active, fresh: state, active_agents, busy, drainable, idle
        let cases = [
            (Phase::Starting, false, false, true, ("starting", 0, false, false, false)),
            (Phase::Running, false, false, true, ("running", 0, false, true, false)),
            (Phase::Running, false, true, true, ("running", 1, true, true, false)),
            (Phase::Holding, false, false, true, ("running", 0, false, true, false)),
            (Phase::Draining, true, true, true, ("draining", 1, false, false, false)),
            (Phase::Draining, true, false, true, ("draining", 0, false, false, true)),
            (Phase::Draining, true, false, false, ("draining", 0, false, false, false)),
            (Phase::Stopping, false, false, true, ("stopping", 0, false, false, false)),
        ];
        for (phase, is_drained, is_active, is_fresh, expected) in cases {
            let item = (StageAttempt { stage: Stage::Gpu, attempt: Attempt(2) }, WallMs(0));
            let drain = if is_drained { drains.clone() } else { none.clone() };
            let sight = Some(Sight { number: 1, drain });
            let active = is_active.then_some((Item::Stage(item.0), item.1)).into_iter().collect();
            let standing = Standing { sight, phase: phase.clone(), active, waiting: None, own: None };
            let status = Status::of(&standing, is_fresh, &fixed(), &Busy::default());
            let found = (
                status.gateway_state.as_str(),
                status.active_agents,
                status.gateway_busy,
                status.gateway_drainable,
                status.is_idle(),
            );
            assert_eq!(found, expected, "{phase}");
            let back: Status = serde_json::from_slice(&serde_json::to_vec(&status).unwrap()).unwrap();
            assert_eq!(back, status);
        }
    }
}
