//! What an agent runs in: a pod of Kubernetes, or a process of its host.

use serde::{Deserialize, Serialize};

use crate::text_enum::text_enum;

text_enum! {
    /// What knows whether an agent still runs.
    RuntimeSource {
        /// An observer of pods.
        Kubernetes = "kubernetes",
        /// The host on which both the agent and the orchestrator run.
        Local = "local",
    }
}

/// The very pod or process that an agent is, as it names itself in its claim: whoever sees one end knows whose end
/// it was, and that of an earlier one says nothing of its successor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentRuntime {
    /// What knows of it.
    pub source: RuntimeSource,
    /// For `kubernetes` the pod's uid, for `local` boot id, pid and start of the process as `BOOT:PID:START`.
    pub id: String,
}

impl AgentRuntime {
    /// A pod, by its uid.
    pub fn pod(uid: &str) -> AgentRuntime {
        AgentRuntime { source: RuntimeSource::Kubernetes, id: uid.to_owned() }
    }

    /// A process, by the boot under which it runs, its number, and its start in clock ticks since that boot.
    pub fn process(boot_id: &str, pid: i32, start: u64) -> AgentRuntime {
        AgentRuntime { source: RuntimeSource::Local, id: format!("{boot_id}:{pid}:{start}") }
    }
}

impl std::fmt::Display for AgentRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.source, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_of_a_newer_kind_is_kept_as_it_came() {
        let text = r#"{"source":"firecracker","id":"vm-7"}"#;
        let runtime: AgentRuntime = serde_json::from_str(text).unwrap();
        assert_eq!(runtime.source, RuntimeSource::Unknown("firecracker".into()));
        assert_eq!(serde_json::to_string(&runtime).unwrap(), text);
        assert_eq!(runtime.to_string(), "firecracker vm-7");
        assert_eq!(AgentRuntime::pod("u").to_string(), "kubernetes u");
        assert_eq!(AgentRuntime::process("b", 7, 9).to_string(), "local b:7:9");
    }
}
