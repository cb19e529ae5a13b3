//! Why a run is held, in words for people.

use groundcrew_protocol::stage::Stage;

use super::HeldFor;

impl HeldFor {
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
            HeldFor::Crashes { count } => format!("the agent crashed {count} times in {stage}"),
            HeldFor::ClaimFight { between } => {
                format!("two agents fight for the claim, last at {} and {}", between[0], between[1])
            }
            HeldFor::NeverClaimed { limit_ms } => {
                format!("no agent claimed the run within {}", span(*limit_ms))
            }
            HeldFor::RebootNotSeen { limit_ms } => {
                format!("a reboot was asked for and not seen within {}", span(*limit_ms))
            }
        }
    }
}
