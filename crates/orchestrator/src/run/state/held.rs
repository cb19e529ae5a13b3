//! Why a run is held, and the sentence that an operator reads; the key of a hold.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::stage::Stage;
use serde::{Deserialize, Serialize};

/// The SSH key of a hold for which no operator has registered one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HoldKey {
    /// It was made.
    Made {
        /// The public half: a line for authorized_keys.
        public: String,
        /// The private half, sealed ([`crate::pair`]).
        sealed: String,
    },
    /// It could not be made; that is tried again when the agent asks again.
    Failed {
        /// Why not.
        why: String,
    },
}

impl HoldKey {
    /// The public half, where it was made.
    pub fn public(&self) -> Option<&String> {
        match self {
            HoldKey::Made { public, .. } => Some(public),
            HoldKey::Failed { .. } => None,
        }
    }

    /// Why it was not made.
    pub fn failure(&self) -> Option<&String> {
        match self {
            HoldKey::Made { .. } => None,
            HoldKey::Failed { why } => Some(why),
        }
    }
}

/// Why a run is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HeldFor {
    /// The stage did not pass.
    Verdict {
        /// How it came out.
        verdict: Verdict,
        /// The checks that failed or stayed open, in a sentence.
        what: String,
    },
    /// The agent was silent for longer than the profile allows. Ends by itself when the claim speaks again.
    Silence {
        /// The limit.
        limit_ms: u64,
    },
    /// The stage took longer than its deadline and the limit of silence.
    OverDeadline {
        /// Both together.
        limit_ms: u64,
    },
    /// The node was drained for too long, and the stage could not start.
    Drained {
        /// The limit.
        limit_ms: u64,
    },
    /// The agent crashed too often in this stage.
    Crashes {
        /// How often.
        count: u32,
    },
    /// The agent was stopped in order, too often, in a stage that may itself be what stops it.
    Stopped {
        /// How often.
        count: u32,
    },
    /// The claim changed hands too often.
    ClaimFight {
        /// The one that held it and the one that took it, by address.
        between: [String; 2],
    },
    /// Nobody claimed the run in time.
    NeverClaimed {
        /// The limit.
        limit_ms: u64,
    },
    /// The machine runs an installed system, and a stage that is to come puts a load on it without leave.
    InService {
        /// The stage.
        stage: Stage,
        /// Its profile drains the node for it, which the agent does not know.
        drains: bool,
    },
    /// A reboot was asked for and not seen in time.
    RebootNotSeen {
        /// The limit.
        limit_ms: u64,
    },
    /// A reboot was asked for, and the agent came back too often under the same boot.
    RebootsMissed {
        /// How often.
        count: u32,
    },
}

impl HeldFor {
    /// True where what the agent said it would do may happen yet while the run is held.
    pub fn may_pass_yet(&self) -> bool {
        match self {
            HeldFor::Silence { .. } | HeldFor::RebootNotSeen { .. } | HeldFor::RebootsMissed { .. } => true,
            HeldFor::Verdict { .. }
            | HeldFor::OverDeadline { .. }
            | HeldFor::Drained { .. }
            | HeldFor::Crashes { .. }
            | HeldFor::Stopped { .. }
            | HeldFor::ClaimFight { .. }
            | HeldFor::NeverClaimed { .. }
            | HeldFor::InService { .. } => false,
        }
    }

    /// The reason in a sentence.
    pub fn describe(&self, stage: &Stage) -> String {
        let span = groundcrew_protocol::time::format_span_ms;
        match self {
            HeldFor::Verdict { verdict, what } => format!("{stage} came out {verdict}: {what}"),
            HeldFor::Silence { limit_ms } => {
                format!("the agent was silent for {} in {stage}", span(*limit_ms))
            }
            HeldFor::OverDeadline { limit_ms } => {
                format!(
                    "{stage} gave no result within {} (its deadline and the limit of silence)",
                    span(*limit_ms)
                )
            }
            HeldFor::Drained { limit_ms } => {
                format!("the node has been drained for {}, and {stage} waited", span(*limit_ms))
            }
            HeldFor::Crashes { count } => format!("the agent crashed {count} times in {stage}"),
            HeldFor::Stopped { count } => {
                format!(
                    "the agent was stopped in order {count} times in {stage}: what the stage does seems to stop the agent itself"
                )
            }
            HeldFor::ClaimFight { between } => {
                format!("two agents fight for the claim, last at {} and {}", between[0], between[1])
            }
            HeldFor::NeverClaimed { limit_ms } => {
                format!("no agent claimed the run within {}", span(*limit_ms))
            }
            HeldFor::InService { stage, drains: false } => format!(
                "{stage} puts a load on the machine, which runs an installed system, and the profile gives it no leave: write \
                 `in_service = true` at its top or in the stage, or `drain = true` in the stage to drain the node first, and \
                 make a new run; or boot the live image and retry"
            ),
            HeldFor::InService { stage, drains: true } => format!(
                "{stage} puts a load on the machine, which runs an installed system, and its agent is of a version that does \
                 not drain the node for a stage: bring it up to date and retry"
            ),
            HeldFor::RebootNotSeen { limit_ms } => {
                format!("a reboot was asked for and not seen within {}", span(*limit_ms))
            }
            HeldFor::RebootsMissed { count } => {
                format!("a reboot was asked for {count} times and the machine is still in the same boot")
            }
        }
    }
}
