use groundcrew_protocol::agent_info::InfoPhase;
use serde_json::{Value, json};

use super::*;

const NOW: WallMs = WallMs(9_000_000);

fn names() -> Names {
    Names {
        selector: "app=agent".into(),
        agent: "groundcrew.dev/agent".into(),
        run: "groundcrew.dev/run".into(),
        container: "agent".into(),
    }
}

/// A pod in this phase, with the state of its agent's container and what else its status says.
fn pod(phase: &str, state: Value, more: Value) -> Pod {
    let mut status = json!({"phase": phase, "startTime": "1970-01-01T00:00:01Z"});
    if !state.is_null() {
        status["containerStatuses"] = json!([
            {"name": "sidecar", "image": "i", "imageID": "", "ready": true, "restartCount": 7,
                "state": {"running": {"startedAt": "1970-01-01T00:00:02Z"}}},
            {"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 2, "state": state,
                "lastState": more.get("lastState").cloned().unwrap_or(json!({}))},
        ]);
    }
    for (name, value) in more.as_object().into_iter().flatten().filter(|(name, _)| *name != "lastState") {
        status[name] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "pod-1", "namespace": "lab", "uid": "u-1", "creationTimestamp": "1970-01-01T00:00:00Z",
            "labels": {"groundcrew.dev/agent": "one"}, "annotations": {"groundcrew.dev/run": "r-1"}},
        "spec": {"nodeName": "node-7", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn terminated(code: i32, reason: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "containerID": "c://9", "message": "",
        "startedAt": "1970-01-01T00:00:03Z", "finishedAt": "1970-01-01T00:00:05Z"}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "because"}})
}

fn runs() -> Value {
    json!({"running": {"startedAt": "1970-01-01T00:00:02Z"}})
}

/// How a state shows in this table: what it is, and the reason or detail.
fn shown(state: &RuntimeState) -> (String, String) {
    match state {
        RuntimeState::Deferring => ("defers".into(), String::new()),
        RuntimeState::Waiting { reason } => ("waits".into(), reason.clone()),
        RuntimeState::Running => ("runs".into(), String::new()),
        RuntimeState::Halted => ("halted".into(), String::new()),
        RuntimeState::Ended { ending, detail, .. } => (ending.phase().to_string(), detail.clone()),
    }
}

/// Phase, agent's container and what else the pod says; then state, container status, and reason or detail.
type Case = (&'static str, Value, Value, &'static str, &'static str, &'static str);

fn expect(cases: Vec<Case>) {
    for (phase, container, more, state, status, text) in cases {
        let case = format!("{phase} {container} {more}");
        let seen = seen(&pod(phase, container, more), &names(), NOW).unwrap();
        assert_eq!(shown(&seen.fact.fact.state), (state.to_owned(), text.to_owned()), "{case}");
        assert_eq!(seen.fact.fact.container_status, status, "{case}");
        let is_taken = ["DeletionBy", "EvictionBy"].iter().any(|by| status.contains(by));
        let warns = state == "defers" && status.contains("NodeLost") || state == "runs" && is_taken;
        assert_eq!(seen.warning.is_some(), warns || status.contains("Unknown"), "{case}: {:?}", seen.warning);
    }
}

fn none() -> Value {
    json!({})
}

fn lost() -> Value {
    json!({"reason": "NodeLost", "message": "Node is unresponsive"})
}

const ONE: &str = "Error: its container ended with exit status 1";
const KILLED: &str = "OOMKilled: its container ended with exit status 137";

#[test]
fn a_pod_that_ended_says_how_and_why() {
    let evicted = json!({"reason": "Evicted", "message": "The node was low on memory."});
    let late = json!({"reason": "DeadlineExceeded", "message": "It was active for too long"});
    let too_long = "DeadlineExceeded: It was active for too long: its container ended with exit status 137";
    expect(vec![
        ("Succeeded", terminated(0, "Completed"), none(), "stopped", "Succeeded (Completed)", ""),
        ("Succeeded", Value::Null, none(), "stopped", "Succeeded (Completed)", ""),
        ("Failed", terminated(1, "Error"), none(), "error", "Failed (Error)", ONE),
        ("Failed", terminated(137, "OOMKilled"), none(), "error", "Failed (OOMKilled)", KILLED),
        ("Failed", Value::Null, evicted, "error", "Failed (Evicted)", "Evicted: The node was low on memory."),
        ("Failed", terminated(137, "Error"), late, "error", "Failed (DeadlineExceeded)", too_long),
        ("Failed", Value::Null, lost(), "error", "Failed (NodeLost)", "NodeLost: Node is unresponsive"),
        ("Failed", Value::Null, none(), "error", "Failed (Error)", "Error"),
    ]);
}

#[test]
fn an_agent_may_end_in_a_pod_that_goes_on() {
    let before = json!({"lastState": terminated(1, "Error")});
    let two = "Error: its container ended with exit status 2";
    expect(vec![
        ("Running", terminated(0, "Completed"), none(), "stopped", "Running (Completed)", ""),
        ("Running", terminated(2, "Error"), none(), "error", "Running (Error)", two),
        ("Running", terminated(137, "OOMKilled"), none(), "error", "Running (OOMKilled)", KILLED),
        ("Running", waiting("CrashLoopBackOff"), before.clone(), "error", "Running (CrashLoopBackOff)", ONE),
        // Started again: what was before is over.
        ("Running", runs(), before, "runs", "Running", ""),
    ]);
}

/// What clusters set by conditions: (type, status, reason).
fn conditions(all: &[(&str, &str, &str)]) -> Value {
    let one = |(kind, status, reason): &(&str, &str, &str)| json!({"type": kind, "status": status, "reason": reason, "message": "why"});
    json!({"conditions": all.iter().map(one).collect::<Vec<_>>()})
}

#[test]
fn a_pod_that_is_taken_away_or_whose_node_is_lost_says_so_by_its_conditions() {
    let silent = || conditions(&[("ContainersReady", "True", ""), ("Ready", "False", "")]);
    let gate = conditions(&[("ContainersReady", "True", ""), ("Ready", "False", "ReadinessGatesNotReady")]);
    let unready = conditions(&[("ContainersReady", "False", ""), ("Ready", "False", "")]);
    let taken = |by: &str| conditions(&[("DisruptionTarget", "True", by)]);
    let both = conditions(&[
        ("ContainersReady", "True", ""),
        ("Ready", "False", ""),
        ("DisruptionTarget", "True", "DeletionByTaintManager"),
    ]);
    let kept = conditions(&[("DisruptionTarget", "False", "EvictionByEvictionAPI")]);
    let gone = "DeletionByPodGC: why";
    let drained = "EvictionByEvictionAPI: why: its container ended with exit status 143";
    expect(vec![
        // A node that is silent: nobody knows of its containers.
        ("Running", runs(), silent(), "defers", "Running (NodeLost)", ""),
        ("Running", runs(), gate, "runs", "Running", ""),
        ("Running", runs(), unready, "runs", "Running", ""),
        // Somebody takes the pod away; its container runs until it has gone.
        ("Running", runs(), taken("EvictionByEvictionAPI"), "runs", "Running (EvictionByEvictionAPI)", ""),
        ("Running", runs(), kept, "runs", "Running", ""),
        ("Failed", Value::Null, taken("DeletionByPodGC"), "error", "Failed (DeletionByPodGC)", gone),
        (
            "Failed",
            terminated(143, "Error"),
            taken("EvictionByEvictionAPI"),
            "error",
            "Failed (EvictionByEvictionAPI)",
            drained,
        ),
        // What the container says of itself is no less true for that, and an end in order stays one.
        (
            "Failed",
            terminated(137, "OOMKilled"),
            taken("DeletionByPodGC"),
            "error",
            "Failed (OOMKilled)",
            KILLED,
        ),
        (
            "Succeeded",
            terminated(0, "Completed"),
            taken("EvictionByEvictionAPI"),
            "stopped",
            "Succeeded (Completed)",
            "",
        ),
    ]);
    let lost = seen(&pod("Running", runs(), both), &names(), NOW).unwrap();
    assert_eq!(lost.fact.fact.state, RuntimeState::Deferring);
    assert_eq!(lost.warning.unwrap(), "its node does not answer: DeletionByTaintManager: why");
}

#[test]
fn a_pod_that_waits_or_runs_or_is_lost_has_not_ended() {
    let (creating, pull, back_off) = ("ContainerCreating", "ErrImagePull", "ImagePullBackOff");
    expect(vec![
        (
            "Pending",
            waiting(creating),
            none(),
            "waits",
            "Pending (ContainerCreating)",
            "ContainerCreating: because",
        ),
        ("Pending", waiting(pull), none(), "waits", "Pending (ErrImagePull)", "ErrImagePull: because"),
        (
            "Pending",
            waiting(back_off),
            none(),
            "waits",
            "Pending (ImagePullBackOff)",
            "ImagePullBackOff: because",
        ),
        ("Pending", Value::Null, none(), "defers", "Pending", ""),
        ("Running", runs(), none(), "runs", "Running", ""),
        ("Running", runs(), lost(), "defers", "Running (NodeLost)", ""),
        ("Unknown", runs(), lost(), "defers", "Unknown (NodeLost)", ""),
        ("Running", json!({}), none(), "defers", "Running", ""),
        ("", Value::Null, none(), "defers", "", ""),
    ]);
}

#[test]
fn an_agent_is_called_by_its_label_and_its_life_by_the_pod() {
    let mut pod = pod("Running", terminated(1, "Error"), json!({}));
    let seen_as = |pod: &Pod| seen(pod, &names(), NOW).unwrap();
    let one = seen_as(&pod);
    assert_eq!((one.fact.key.namespace.as_str(), one.fact.key.name.as_str()), ("lab", "one"));
    assert_eq!((one.fact.run.unwrap().as_str(), one.fact.node.as_deref()), ("r-1", Some("node-7")));
    assert_eq!(one.fact.fact.life.runtime_id.as_deref(), Some("u-1"));
    assert_eq!((one.fact.fact.life.started_at, one.fact.fact.at), (Some(WallMs(3_000)), WallMs(5_000)));
    assert_eq!(one.end, "u-1:c://9", "this end and no other");
    assert_eq!(
        one.fact.fact.state,
        RuntimeState::Ended {
            ending: Ending::Error,
            exit: Some(Exit::Code(1)),
            reason: "Error".into(),
            detail: "Error: its container ended with exit status 1".into(),
        }
    );
    pod.metadata.labels = None;
    pod.metadata.annotations = None;
    let other = seen_as(&pod);
    assert_eq!((other.fact.key.name.as_str(), other.fact.run), ("pod-1", None));
    let owner = |kind: &str| {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "groundcrew-agent", "uid": "o"});
        Some(vec![serde_json::from_value(owner).unwrap()])
    };
    pod.metadata.owner_references = owner("Job");
    assert_eq!(seen_as(&pod).fact.key.name, "pod-1");
    // The next pod there is the same agent.
    pod.metadata.owner_references = owner("DaemonSet");
    assert_eq!(seen_as(&pod).fact.key.name, "node-7");
    pod.metadata.uid = None;
    assert_eq!(seen(&pod, &names(), NOW), None);
}

#[test]
fn a_pod_that_is_being_deleted_says_so_until_it_has_ended() {
    let mut leaving = pod("Running", runs(), json!({}));
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    let seen_now = seen(&leaving, &names(), NOW).unwrap();
    assert_eq!(
        (seen_now.fact.fact.container_status.as_str(), shown(&seen_now.fact.fact.state).0.as_str()),
        ("Running (Terminating)", "runs")
    );
    // Why it is taken away says more than that it is.
    let mut lost = pod("Running", runs(), lost());
    lost.metadata.deletion_timestamp = leaving.metadata.deletion_timestamp;
    assert_eq!(seen(&lost, &names(), NOW).unwrap().fact.fact.container_status, "Running (NodeLost)");
    let mut gone = pod("Succeeded", terminated(0, "Completed"), json!({}));
    gone.metadata.deletion_timestamp = gone.metadata.creation_timestamp.clone();
    let seen_now = seen(&gone, &names(), NOW).unwrap();
    assert_eq!(seen_now.fact.fact.container_status, "Succeeded (Completed)");
    assert_eq!(InfoPhase::Stopped.to_string(), shown(&seen_now.fact.fact.state).0);
}

#[test]
fn the_only_container_is_the_agent_whatever_it_is_called() {
    let mut pod = pod("Running", runs(), json!({}));
    let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    statuses[1].name = "main".into();
    assert_eq!(
        seen(&pod, &names(), NOW).unwrap().fact.fact.state,
        RuntimeState::Deferring,
        "which of the two?"
    );
    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap().remove(0);
    assert_eq!(seen(&pod, &names(), NOW).unwrap().fact.fact.state, RuntimeState::Running);
}
