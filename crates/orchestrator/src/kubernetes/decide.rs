//! What a pod says of the agent in it: a pure function of the pod as the cluster shows it.
//!
//! ```text
//!   pod Succeeded                           stopped
//!   pod Failed                              error
//!   agent's container has terminated,       stopped, or error by its exit status; also while the cluster waits before it
//!     in a pod that goes on                 starts the container again
//!   container runs                          runs
//!   container waits                         waits, with the reason
//!   anything else                           the agent's own word
//! ```
//!
//! The reason of the cluster (OOMKilled, Evicted, DeadlineExceeded, NodeLost, those of images) comes along. That a node is
//! lost a cluster says in several ways, by version and by how far it has got:
//!
//! ```text
//!   status.reason NodeLost, phase Unknown              older clusters, as their node controller evicts
//!   condition Ready False, ContainersReady True        the node controller alone does that to a pod whose node is silent:
//!                                                      MarkPodsNotReady leaves all else as the kubelet said it last
//!   condition DisruptionTarget True, with a reason     who takes the pod away: DeletionByTaintManager (a node that stays
//!     (kubernetes.io, "Pod disruption conditions")     unreachable), DeletionByPodGC (a node that is no more),
//!                                                      EvictionByEvictionAPI, PreemptionByScheduler, TerminationByKubelet
//! ```

use groundcrew_protocol::agent_info::{AgentLife, Ending, Exit, RuntimeFact, RuntimeSource, RuntimeState};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::agents::PodSeen;
use crate::agents::pods::TERMINATING;
use crate::store::{AgentFact, AgentKey};

/// Longest message of the cluster that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 300;

/// By which names the pods of agents are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The label selector of their pods.
    pub selector: String,
    /// The label that holds the agent's name; a pod without it is called by its own, one of a DaemonSet by its node.
    pub agent: String,
    /// The label or annotation that holds its run, where there is one.
    pub run: String,
    /// The container that it is. In a pod with one container it is that one.
    pub container: String,
}

/// What is shown of a pod whose node is silent, in the word that clusters once had for it.
const NODE_LOST: &str = "NodeLost";
/// Reasons of a container that tell no more than that it ended, or that nobody knows how.
const SAY_LITTLE: [&str; 3] = ["Error", "Completed", "ContainerStatusUnknown"];

/// How the agent's container ended, and which of its ends that was.
struct End {
    ending: Ending,
    exit: Option<Exit>,
    reason: String,
    message: String,
    container: String,
}

/// What a pod says of its agent; `None` for an object that is no pod of a cluster: without name or uid.
pub fn seen(pod: &Pod, names: &Names, now: WallMs) -> Option<PodSeen> {
    let metadata = &pod.metadata;
    let (pod_name, uid) = (metadata.name.clone()?, metadata.uid.clone()?);
    let marked = |key: &str| {
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(key));
        label.or_else(|| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)))
    };
    let status = pod.status.clone().unwrap_or_default();
    let container = container_of(&status, &names.container);
    let told = told(&status, container);
    let started = container.and_then(started_of).or(status.start_time.as_ref()).map(wall_of);
    let at = told.finished.filter(|_| matches!(told.state, RuntimeState::Ended { .. })).unwrap_or(now);
    let is_leaving = metadata.deletion_timestamp.is_some()
        && !matches!(told.state, RuntimeState::Ended { .. })
        && told.warning.is_none();
    let fact = AgentFact {
        key: AgentKey {
            source: RuntimeSource::Kubernetes,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: marked(&names.agent).cloned().unwrap_or_else(|| name_of(pod, &pod_name)),
        },
        run: marked(&names.run).and_then(|run| run.parse::<RunId>().ok()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        fact: RuntimeFact {
            source: RuntimeSource::Kubernetes,
            life: AgentLife { runtime_id: Some(uid.clone()), started_at: started, ..AgentLife::default() },
            state: told.state,
            container_status: if is_leaving { status_text(&told.phase, TERMINATING) } else { told.status },
            at,
        },
    };
    let created = metadata.creation_timestamp.as_ref().map(wall_of).unwrap_or_default();
    let end = format!("{uid}:{}", told.end);
    Some(PodSeen { fact, pod: pod_name, created, end, warning: told.warning })
}

/// What an agent is called that has no name of its own. A DaemonSet's is the one of its node, whichever pod that is.
fn name_of(pod: &Pod, pod_name: &str) -> String {
    let is_of_node = pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet");
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| is_of_node);
    node.unwrap_or_else(|| pod_name.to_owned())
}

/// What is told by a pod's status.
struct Told {
    state: RuntimeState,
    /// The pod's phase.
    phase: String,
    /// As people read it: `Phase (Reason)`.
    status: String,
    /// Which end of the container.
    end: String,
    finished: Option<WallMs>,
    warning: Option<String>,
}

fn told(status: &PodStatus, container: Option<&ContainerStatus>) -> Told {
    let phase = status.phase.clone().unwrap_or_default();
    let Why { reason: pod_reason, message } = why(status);
    let state = container.and_then(|container| container.state.as_ref());
    let terminated = container.and_then(terminated_of);
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let mut told = Told {
        state: RuntimeState::Deferring,
        status: status_text(&phase, &pod_reason),
        phase: phase.clone(),
        end: "pod".to_owned(),
        finished: terminated.and_then(|terminated| terminated.finished_at.as_ref()).map(wall_of),
        warning: None,
    };
    let is_final = phase == "Succeeded" || phase == "Failed";
    if is_final || terminated.is_some() {
        let end = end_of(status, container, terminated);
        let reason = waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_else(|| end.reason.clone());
        told.status = status_text(&phase, &reason);
        told.end = end.container.clone();
        told.state = ended(end);
        return told;
    }
    if let Some(waiting) = waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        told.status = status_text(&phase, &reason);
        told.state = RuntimeState::Waiting { reason: joined(&reason, waiting.message.as_deref()) };
    } else if state.is_some_and(|state| state.running.is_some()) {
        // A node that is lost may run it on: nobody knows.
        let is_lost = is_node_lost(status);
        told.state = if is_lost { RuntimeState::Deferring } else { RuntimeState::Running };
    } else if !pod_reason.is_empty() {
        told.state = RuntimeState::Waiting { reason: joined(&pod_reason, Some(&message)) };
    }
    let text = joined(&pod_reason, Some(&message));
    if is_node_lost(status) {
        told.warning = Some(format!("its node does not answer: {text}"));
    } else if disruption(status).is_some() {
        told.warning = Some(format!("its pod is taken away: {text}"));
    }
    told
}

/// Why a pod stands as it does, in the cluster's words; empty where there are none.
#[derive(Default)]
struct Why {
    reason: String,
    message: String,
}

fn why(status: &PodStatus) -> Why {
    let said = |reason: &Option<String>, message: &Option<String>| {
        let reason = reason.clone().filter(|reason| !reason.is_empty())?;
        Some(Why { reason, message: message.clone().unwrap_or_default() })
    };
    let of_pod = said(&status.reason, &status.message);
    let of_disruption = || disruption(status).and_then(|one| said(&one.reason, &one.message));
    let of_node = || is_node_lost(status).then(|| Why { reason: NODE_LOST.to_owned(), ..Why::default() });
    of_pod.or_else(of_disruption).or_else(of_node).unwrap_or_default()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|one| one.type_ == kind)
}

/// That the pod is taken away, by whom ever.
fn disruption(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "DisruptionTarget").filter(|one| one.status == "True")
}

/// Whether nobody hears the pod's node. A readiness gate that is not met is no sign of that, and has a reason.
fn is_node_lost(status: &PodStatus) -> bool {
    let is = |kind: &str, wanted: &str| condition(status, kind).filter(|one| one.status == wanted);
    let was_marked = is("ContainersReady", "True").is_some()
        && is("Ready", "False").is_some_and(|one| one.reason.as_deref().unwrap_or_default().is_empty());
    status.phase.as_deref() == Some("Unknown") || status.reason.as_deref() == Some(NODE_LOST) || was_marked
}

/// The agent's container: by its name, else the only one.
fn container_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let named = containers.iter().find(|container| container.name == name);
    named.or(if containers.len() == 1 { containers.first() } else { None })
}

/// How the container ended, where it does not run: now, or before it waits to be started again.
fn terminated_of(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref()?;
    let before = container.last_state.as_ref().filter(|_| now.waiting.is_some());
    now.terminated.as_ref().or_else(|| before.and_then(|before| before.terminated.as_ref()))
}

fn started_of(container: &ContainerStatus) -> Option<&Time> {
    let state = container.state.as_ref()?;
    let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    running.or_else(|| terminated_of(container).and_then(|terminated| terminated.started_at.as_ref()))
}

fn end_of(
    status: &PodStatus,
    container: Option<&ContainerStatus>,
    terminated: Option<&ContainerStateTerminated>,
) -> End {
    let exit = terminated.map(exit_of);
    let by_exit = match exit {
        Some(Exit::Code(0)) => Ending::Stopped,
        Some(Exit::Code(_) | Exit::Signal(_)) | None => Ending::Error,
    };
    let (ending, otherwise) = match status.phase.as_deref() {
        Some("Succeeded") => (Ending::Stopped, "Completed"),
        Some("Failed") => (Ending::Error, "Error"),
        Some(_) | None => (by_exit, if by_exit == Ending::Stopped { "Completed" } else { "Error" }),
    };
    let of_container = terminated.map(|terminated| Why {
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
    });
    let of_container = of_container.filter(|why| !why.reason.is_empty());
    // What the pod says counts; why it was taken away counts where the container tells no more than that it failed.
    let of_pod = Some(why(status)).filter(|why| !why.reason.is_empty());
    let is_own = status.reason.as_ref().is_some_and(|reason| !reason.is_empty());
    let says_much = of_container.as_ref().is_some_and(|why| !SAY_LITTLE.contains(&&*why.reason));
    let Why { reason, message } = match ending {
        _ if is_own => of_pod,
        Ending::Error if !says_much => of_pod.or(of_container),
        Ending::Error | Ending::Stopped => of_container,
    }
    .unwrap_or_else(|| Why { reason: otherwise.to_owned(), ..Why::default() });
    let restarts = container.map_or(0, |container| container.restart_count);
    let container = terminated.and_then(|terminated| terminated.container_id.clone());
    End {
        ending,
        exit,
        reason,
        message,
        // Each start of a container has another id; where the cluster shows none, the number of starts tells.
        container: container.filter(|id| !id.is_empty()).unwrap_or_else(|| restarts.to_string()),
    }
}

fn exit_of(terminated: &ContainerStateTerminated) -> Exit {
    match terminated.signal {
        Some(signal) if signal > 0 => Exit::Signal(signal),
        // As a shell does, runtimes show a signal as 128 and its number.
        Some(_) | None => Exit::Code(terminated.exit_code),
    }
}

fn ended(end: End) -> RuntimeState {
    let End { ending, exit, reason, message, .. } = end;
    let detail = match (ending, exit) {
        // There is nothing to tell that the phase does not say.
        (Ending::Stopped, _) => String::new(),
        (Ending::Error, Some(exit)) => {
            format!("{}: its container ended with {exit}", joined(&reason, Some(&message)))
        }
        (Ending::Error, None) => joined(&reason, Some(&message)),
    };
    RuntimeState::Ended { ending, exit, reason, detail }
}

/// `Phase (Reason)`.
fn status_text(phase: &str, reason: &str) -> String {
    match (phase, reason) {
        (phase, "") => phase.to_owned(),
        ("", reason) => reason.to_owned(),
        (phase, reason) => format!("{phase} ({reason})"),
    }
}

fn joined(reason: &str, message: Option<&str>) -> String {
    let message = message.unwrap_or_default().trim();
    let ends = message.char_indices().map(|(at, one)| at + one.len_utf8());
    let kept = ends.take_while(|end| *end <= MESSAGE_BYTES_MAX).last().unwrap_or(0);
    match (reason, &message[..kept]) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn wall_of(time: &Time) -> WallMs {
    WallMs(time.0.as_millisecond())
}

#[cfg(test)]
mod tests;
