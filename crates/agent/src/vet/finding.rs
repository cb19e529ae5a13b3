//! What a stage saw, before it is held against the plan.

use groundcrew_protocol::check::{Check, Observation};

use super::StageContext;

/// What was seen of a component, or of all of them.
pub(super) struct Finding {
    pub name: &'static str,
    pub component: Option<String>,
    pub observed: Observation,
    pub evidence: String,
}

impl Finding {
    pub fn of(name: &'static str, component: Option<&str>, observed: Observation, evidence: &str) -> Finding {
        Finding { name, component: component.map(str::to_owned), observed, evidence: evidence.to_owned() }
    }

    /// The check, held against the plan's limit.
    pub fn judged(self, context: &StageContext) -> Check {
        let limit = context.limit(self.name);
        Check::of(self.name, self.component.as_deref(), self.observed, limit).with_evidence(self.evidence)
    }
}
