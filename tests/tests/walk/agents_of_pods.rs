//! An agent whose pod a cluster shows to have ended: its file, `groundcrew status`, the list and `groundcrewctl agents` say
//! the same after one pass, whatever the cluster does on the way and wherever the server is killed.

use std::path::PathBuf;

use groundcrew_durable::points as durable;
use groundcrew_orchestrator::points;
use groundcrew_protocol::agent_info::{AgentList, AgentView};
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::agents::{expect_same_in, wait_for, waits_for_successor};
use crate::cluster::{Cluster, Quirk, ended, runs};
use crate::profiles::LOAD;

/// A cluster, and a server that observes it and shares the homes of its agents.
struct Observed {
    server: Server,
    cluster: Cluster,
    /// The cluster's.
    _runtime: Runtime,
}

impl Observed {
    fn start(quirk: Quirk) -> Observed {
        let runtime = Runtime::new().expect("the system has what a runtime needs");
        let cluster = runtime.block_on(Cluster::start(quirk));
        let server = Server::start_observing(&cluster.kubeconfig, "app=agent");
        Observed { server, cluster, _runtime: runtime }
    }

    fn home(&self, agent: &str) -> PathBuf {
        self.server.beside(agent).join("home")
    }

    /// An agent wrote this, and says nothing more.
    fn says(&self, agent: &str, phase: &str, activity: &str) {
        let said = json!({"phase": phase, "activity": activity, "detail": "in its own words", "mine": [1],
            "runtime": "kubernetes", "runtime_id": format!("uid-{agent}")});
        std::fs::create_dir_all(self.home(agent)).expect("the folder is ours");
        std::fs::write(self.home(agent).join("agent-info.json"), said.to_string())
            .expect("the folder is ours");
    }

    /// Waits until the list says so of an agent, and then asks all who can be asked.
    fn expect(&self, what: &str, agent: &str, phase: &str, status: &str) -> AgentView {
        let view = wait_for(&self.server, agent, &format!("{what}: {agent}"), |view| {
            view.phase.as_ref().is_some_and(|said| said.as_str() == phase) && view.container_status == status
        });
        expect_same_in(&self.server, &self.home(agent), agent);
        view
    }
}

const AGENTS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn whatever_a_cluster_does_on_the_way_all_who_can_be_asked_say_the_same() {
    for quirk in [
        Quirk::None,
        Quirk::Bookmarks,
        Quirk::Expires,
        Quirk::ExpiresAtOnce,
        Quirk::Cuts,
        Quirk::CutsAtOnce,
        Quirk::Doubles,
        Quirk::Reorders,
        Quirk::Dribbles,
    ] {
        let what = format!("{quirk:?}");
        let observed = Observed::start(quirk);
        for name in AGENTS {
            // The last of them said that it has stopped, and its container runs.
            let (phase, activity) = if name == "e" { ("stopped", "") } else { ("running", "executing") };
            observed.says(name, phase, activity);
        }
        // Of a pod that is listed the file has been read.
        AGENTS.iter().for_each(|name| observed.cluster.put(name, runs()));
        AGENTS.iter().for_each(|name| drop(observed.expect(&what, name, "running", "Running")));
        observed.cluster.put("a", ended("Succeeded", 0, "Completed"));
        observed.cluster.put("b", ended("Failed", 137, "OOMKilled"));
        observed.cluster.put("c", runs());
        observed.cluster.delete("d");
        let stopped = observed.expect(&what, "a", "stopped", "Succeeded (Completed)");
        assert_eq!((stopped.activity, stopped.detail.as_str()), (None, "in its own words"), "{what}");
        let killed = observed.expect(&what, "b", "error", "Failed (OOMKilled)");
        assert_eq!(killed.detail, "OOMKilled: its container ended with exit status 137", "{what}");
        let deleted = observed.expect(&what, "d", "error", "Deleted");
        assert!(deleted.detail.starts_with("Deleted: "), "{what}: {deleted:?}");
        observed.expect(&what, "c", "running", "Running");
        observed.expect(&what, "e", "running", "Running");
        let file = std::fs::read(observed.home("b").join("agent-info.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(file["mine"], json!([1]), "{what}: what others wrote stays");
    }
}

/// What happens to a pod while the server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    IsDeleted,
    IsReplaced,
}

/// Between the file, the run and the store: whichever of them knew of an end, all do after the next start, once.
#[test]
fn the_end_of_a_pod_is_told_once_by_a_server_that_is_killed_at_any_step_of_it() {
    let Observed { mut server, cluster, _runtime } = Observed::start(Quirk::None);
    let of_file = durable::ALL.iter().filter(|point| point.name().starts_with("json."));
    let steps = of_file.chain(points::ALL).flat_map(|point| {
        [Meanwhile::Nothing, Meanwhile::IsDeleted, Meanwhile::IsReplaced].map(|meanwhile| (point, meanwhile))
    });
    for (number, (point, meanwhile)) in steps.enumerate() {
        let (name, what) = (format!("m{number}"), format!("{}, {meanwhile:?}", point.name()));
        let labels = json!({"app": "agent", "groundcrew.dev/agent": name});
        let uid = format!("uid-{name}");
        let run = server.create_run(&format!("n{number}"), LOAD);
        cluster.put_as(&uid, "lab", &name, labels.clone(), runs());
        let mut machine = Machine::new(&server, &run, &name);
        machine.start_with(&[("GROUNDCREW_POD_UID", &uid)]);
        machine.load.started();
        wait_for(&server, &name, &what, |agent| agent.container_status == "Running" && agent.stage.is_some());
        server.kill();
        machine.kill();
        cluster.put_as(&uid, "lab", &name, labels.clone(), ended("Failed", 137, "OOMKilled"));
        let died = server.start_to_die_at(*point);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died), Some(9), "{what} was not passed");
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::IsDeleted => cluster.delete(&name),
            Meanwhile::IsReplaced => {
                cluster.delete(&name);
                let waits = json!({"waiting": {"reason": "ImagePullBackOff"}});
                let container = json!({"name": "agent", "image": "i", "imageID": "", "ready": false,
                    "restartCount": 0, "state": waits});
                let status = json!({"phase": "Pending", "containerStatuses": [container]});
                cluster.put_as(&format!("{uid}-2"), "lab", &format!("{name}-2"), labels, status);
            }
        }
        server.start_again(&[]);
        // Until the cluster was listed its pod is shown as it was known last.
        let ended = wait_for(&server, &name, &what, |agent| {
            agent.phase.as_ref().is_some_and(|phase| phase.as_str() == "error")
                && agent.container_status != "Running"
        });
        assert_eq!(ended.activity, None, "{what}");
        let reason = waits_for_successor(&server, &run);
        assert!(reason.contains("its pod ended: error"), "{what}: {reason}");
        expect_same_in(&server, &machine.home(), &name);
        let agents: AgentList = server.get("/api/v1/agents");
        let of_run = agents.agents.iter().filter(|agent| agent.run.as_ref() == Some(&run.id));
        assert_eq!(of_run.count(), 1, "{what}: {agents:?}");
        assert_eq!(server.count_of(&run, "agent_ended"), 1, "{what}");
    }
}

/// A run whose agent is a pod, from its end to that of its successor.
#[test]
fn a_run_goes_on_with_the_successor_of_a_pod_that_was_killed() {
    let Observed { server, cluster, _runtime } = Observed::start(Quirk::None);
    let run = server.create_run("n1", LOAD);
    let labels = json!({"app": "agent", "groundcrew.dev/agent": "m1", "groundcrew.dev/run": run.id.as_str()});
    cluster.put_as("uid-1", "lab", "job-1", labels.clone(), runs());
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start_with(&[("GROUNDCREW_POD_UID", "uid-1")]);
    machine.load.started();
    let lives = |agent: &AgentView| agent.container_status == "Running" && agent.stage.is_some();
    let seen = wait_for(&server, "m1", "the first pod", lives);
    assert_eq!((seen.runtime_id.as_deref(), seen.run.as_ref()), (Some("uid-1"), Some(&run.id)));
    machine.kill();
    cluster.put_as("uid-1", "lab", "job-1", labels.clone(), ended("Failed", 137, "OOMKilled"));
    let reason = waits_for_successor(&server, &run);
    assert_eq!(
        reason, "a successor of the agent; its pod ended: error (OOMKilled), exit status 137",
        "known by the pod"
    );
    expect_same_in(&server, &machine.home(), "m1");
    cluster.put_as("uid-2", "lab", "job-2", labels.clone(), runs());
    machine.start_with(&[("GROUNDCREW_POD_UID", "uid-2")]);
    machine.load.started();
    wait_for(&server, "m1", "the next pod", |agent| {
        lives(agent) && agent.runtime_id.as_deref() == Some("uid-2") && agent.activity.is_some()
    });
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    // After the run an end changes nothing of it.
    assert!(machine.stop().success());
    cluster.put_as("uid-2", "lab", "job-2", labels, ended("Succeeded", 0, "Completed"));
    wait_for(&server, "m1", "the end in order", |agent| agent.container_status == "Succeeded (Completed)");
    expect_same_in(&server, &machine.home(), "m1");
    assert_eq!(server.view(&run).summary.state, State::Completed);
    assert_eq!(server.count_of(&run, "agent_ended"), 1);
}
