//! Notices of an agent's orderly shutdown: who is told of what. Plain data, and one pure table ([`whom`]).
//!
//! ```text
//!                              a sink of the fleet   a sink of the run   both
//!   the run is active          fleet                 run                 run, which says all that the fleet's says
//!   the run is not             fleet                                     fleet
//!   active, the marker quiet                         run                 run
//!   neither, the marker quiet
//! ```

use groundcrew_protocol::ids::SinkName;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{Command, IntentKind, StageAttempt};
use serde::{Deserialize, Serialize};

use super::state::{HeldFor, Run, Standing};

/// Notices of a run that wait to be sent. An agent that is stopped again and again while no sink answers makes no more.
pub const NOTICES_MAX: usize = 8;

/// A shutdown of which somebody is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number within the run.
    pub number: u64,
    /// When the agent said it, or the one after it.
    pub at: WallMs,
    /// The same on the clock of listening, on which it gets too old.
    pub at_ms: u64,
    /// When that was heard.
    #[serde(default)]
    pub heard: Heard,
    /// Why the agent shuts down.
    pub why: Why,
    /// The attempt that was cut off.
    pub cut_off: Option<StageAttempt>,
    /// How the run goes on, in a sentence.
    pub resume: String,
    /// Who is still to be told.
    pub to: Vec<Due>,
}

/// When an agent's end was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// From itself.
    #[default]
    InTime,
    /// From the next agent of its home.
    Late,
}

impl Heard {
    /// What the agent does, or did.
    pub fn verb(self) -> &'static str {
        match self {
            Heard::InTime => "shuts down",
            Heard::Late => "had shut down unheard, before it claimed again",
        }
    }
}

/// A sink that is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Which.
    pub sink: SinkName,
    /// As whose.
    pub audience: Audience,
}

/// For whom a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Whoever watches over the whole fleet: an agent shuts down.
    Fleet,
    /// Whoever waits for this run: it was met by that.
    Run,
}

impl Audience {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Audience::Fleet => "fleet",
            Audience::Run => "run",
        }
    }
}

/// Why an agent shuts down in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody on its node asked it to.
    Stopped,
    /// The run asked for a reboot of its machine.
    Reboot,
    /// The run has ended, and its machine is switched off.
    PowerOff,
    /// An operator has aborted the run.
    Aborted,
}

impl Why {
    /// What the run itself says of it.
    pub fn of(run: &Run) -> Why {
        let boot = run.claim.as_ref().and_then(|claim| claim.boot.as_ref());
        let intent = run.intent.as_ref().filter(|intent| Some(&intent.boot) == boot);
        match intent.map(|intent| &intent.kind) {
            Some(IntentKind::Reboot) => Why::Reboot,
            Some(IntentKind::PowerOff) => Why::PowerOff,
            Some(IntentKind::Wipe | IntentKind::Unknown(_)) | None => {
                let aborts = run.directives.iter().any(|one| one.command == Command::Abort);
                if aborts { Why::Aborted } else { Why::Stopped }
            }
        }
    }

    /// In a word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Why::Stopped => "stopped",
            Why::Reboot => "reboot",
            Why::PowerOff => "power_off",
            Why::Aborted => "aborted",
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Why::Stopped => "it was told to stop",
            Why::Reboot => "for the reboot that the run asked for",
            Why::PowerOff => "for the power-off at the end of the run",
            Why::Aborted => "an operator aborted the run",
        }
    }

    /// True where the run itself, or who decides about it, wanted it so.
    pub fn is_expected(self) -> bool {
        match self {
            Why::Reboot | Why::PowerOff | Why::Aborted => true,
            Why::Stopped => false,
        }
    }
}

/// Who is told, each once: one that is of the fleet and of the run hears of the run, which says all that the other says.
pub fn whom(fleet: &[SinkName], own: &[SinkName], is_active: bool, is_quiet: bool) -> Vec<Due> {
    let own: &[SinkName] = if is_active { own } else { &[] };
    let fleet: &[SinkName] = if is_quiet { &[] } else { fleet };
    let of_run = own.iter().map(|sink| Due { sink: sink.clone(), audience: Audience::Run });
    let rest = fleet.iter().filter(|sink| !own.contains(sink));
    of_run.chain(rest.map(|sink| Due { sink: sink.clone(), audience: Audience::Fleet })).collect()
}

/// How the run goes on after the shutdown, and what is to be done for it.
pub fn resume(run: &Run, why: Why, cut_off: Option<&StageAttempt>) -> String {
    let node = &run.node;
    let start = format!("start the agent on node {node} again, with its home (or boot the machine)");
    match (&run.standing, why) {
        (Standing::Completed { .. } | Standing::Cancelled { .. }, _) => {
            "The run has ended: there is nothing to resume".to_owned()
        }
        (_, Why::Reboot) => {
            format!(
                "Nothing is to be done if the machine reboots now: its agent then goes on with the run. If it does not, {start}"
            )
        }
        (Standing::Held { why: HeldFor::Silence { .. }, .. }, _) => {
            format!("The run is held for silence: to resume it, {start}")
        }
        (Standing::Held { .. }, _) => {
            format!("The run stays held: to go on after your decision, {start}")
        }
        (Standing::Walking, _) => {
            let stage = &run.stage().spec.name;
            let how = match cut_off.map(|cut| &cut.stage) {
                Some(Stage::Package { .. }) => "goes on with the first step that has no flag",
                Some(_) => "begins anew",
                None => "is next",
            };
            format!(
                "To resume, {start}: {stage} {how}. Otherwise the run is held for silence; `groundcrewctl run why {}` says when",
                run.id
            )
        }
    }
}

/// How the run goes on after a shutdown that is told only now, with the next claim.
pub fn resumed(run: &Run) -> String {
    match &run.standing {
        Standing::Completed { .. } | Standing::Cancelled { .. } => {
            "The run has ended: there is nothing to resume".to_owned()
        }
        Standing::Held { why: HeldFor::Silence { .. }, .. } | Standing::Walking => {
            format!("Nothing is to be done: an agent on node {} has the run again", run.node)
        }
        Standing::Held { .. } => "An agent has the run again, which stays held for your decision".to_owned(),
    }
}

/// The event's sentence.
pub fn event_text(
    heard: Heard,
    why: Why,
    cut_off: Option<&StageAttempt>,
    is_quiet: bool,
    resume: &str,
) -> String {
    let what = match cut_off {
        Some(cut) => format!("{}, attempt {}, is cut off", cut.stage, cut.attempt),
        None => "nothing is cut off".to_owned(),
    };
    let quiet = if is_quiet { "; the fleet is not told, as the node's drain marker asks" } else { "" };
    format!("the agent {} ({}): {what}{quiet}. {resume}", heard.verb(), why.describe())
}
