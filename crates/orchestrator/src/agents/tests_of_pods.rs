use std::fs;
use std::path::PathBuf;

use groundcrew_protocol::agent_info::{Ending, InfoPhase, RuntimeFact, RuntimeState};
use serde_json::{Value, json};

use super::*;

const NOW: WallMs = WallMs(1_000_000);

/// A cluster that is observed, and the folder of homes that it shares.
struct Shared {
    folder: tempfile::TempDir,
    agents: Agents,
}

impl Shared {
    fn new(facts: Vec<AgentFact>) -> Shared {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("lab/a")).unwrap();
        let homes = format!("{}/{{namespace}}/{{agent}}", folder.path().display());
        let agents = Agents::new(Some(homes.parse().unwrap()), true);
        agents.load(facts);
        Shared { folder, agents }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("lab/a/agent-info.json")
    }

    fn says(&self, phase: &str, uid: &str) {
        let said = json!({"phase": phase, "activity": "executing", "runtime_id": uid, "detail": "own"});
        fs::write(self.path(), said.to_string()).unwrap();
    }

    fn file(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }

    fn lists(&self, pods: Vec<PodSeen>) {
        self.agents.with_pods(|table| table.replace(pods.into_iter().map(|pod| (None, pod)))).unwrap();
    }

    fn pass(&self) -> Pass {
        let mut pass = self.agents.look(&[], NOW).unwrap();
        self.agents.show(&mut pass);
        self.agents.stored();
        pass
    }

    /// Phase, name and container status of all rows.
    fn shown(&self) -> Vec<(String, String, String)> {
        let shown = |known: Known| {
            let said = known.said.and_then(|said| said.phase).map(|phase| phase.as_str().to_owned());
            (known.fact.key.name, said.unwrap_or_default(), known.fact.fact.container_status)
        };
        self.agents.rows().into_iter().map(shown).collect()
    }
}

/// The `number`th pod of an agent, which is called by its number.
fn pod(name: &str, number: i64, state: RuntimeState, status: &str) -> PodSeen {
    let uid = format!("uid-{number}");
    let life = AgentLife {
        runtime_id: Some(uid.clone()),
        started_at: Some(WallMs(number * 1_000)),
        ..AgentLife::default()
    };
    let fact = AgentFact {
        key: AgentKey { source: RuntimeSource::Kubernetes, namespace: "lab".into(), name: name.into() },
        run: None,
        node: None,
        fact: RuntimeFact {
            source: RuntimeSource::Kubernetes,
            life,
            state,
            container_status: status.into(),
            at: NOW,
        },
    };
    PodSeen { fact, pod: name.into(), created: WallMs(number), end: format!("{uid}:c"), warning: None }
}

fn runs(number: i64) -> PodSeen {
    pod("a", number, RuntimeState::Running, "Running")
}

fn failed(number: i64) -> PodSeen {
    let detail = format!("OOMKilled: of {number}");
    let (ending, reason) = (Ending::Error, "OOMKilled".to_owned());
    pod("a", number, RuntimeState::Ended { ending, exit: None, reason, detail }, "Failed (OOMKilled)")
}

fn waits(number: i64) -> PodSeen {
    pod(
        "a",
        number,
        RuntimeState::Waiting { reason: "ImagePullBackOff".into() },
        "Pending (ImagePullBackOff)",
    )
}

fn row(name: &str, phase: &str, status: &str) -> (String, String, String) {
    (name.to_owned(), phase.to_owned(), status.to_owned())
}

fn told(pass: &Pass) -> Vec<(&str, Ending)> {
    pass.ends.iter().map(|end| (end.runtime.id.as_str(), end.ending)).collect()
}

#[test]
fn an_agent_whose_pod_is_no_more_is_one_row_and_its_file_is_kept_as_soon_as_it_can_be() {
    let shared = Shared::new(Vec::new());
    fs::create_dir(shared.path()).unwrap();
    shared.lists(vec![failed(1)]);
    assert_eq!(shared.pass().failures, 1);
    shared.lists(Vec::new());
    for _ in 0..2 {
        assert_eq!(shared.pass().failures, 1, "it is tried again");
        assert_eq!(shared.shown(), [row("a", "", "Failed (OOMKilled)")]);
        let warning = shared.agents.rows()[0].warnings[0].clone();
        assert!(warning.contains("is a folder"), "{warning}");
    }
    fs::remove_dir(shared.path()).unwrap();
    shared.says("running", "uid-1");
    for _ in 0..2 {
        assert_eq!((shared.pass().failures, shared.file()["phase"].as_str()), (0, Some("error")));
        assert_eq!(shared.shown(), [row("a", "error", "Failed (OOMKilled)")]);
    }
    // Nor is there another after a restart, before the cluster is listed and after.
    let stored = shared.agents.rows().into_iter().map(|known| known.fact).collect();
    let again = Agents::new(shared.agents.homes.clone(), true);
    again.load(stored);
    for is_listed in [false, true] {
        if is_listed {
            again.with_pods(|table| table.replace([])).unwrap();
        }
        let mut pass = again.look(&[], NOW).unwrap();
        again.show(&mut pass);
        again.stored();
        let rows = again.rows();
        assert_eq!((rows.len(), &rows[0].fact.key.source), (1, &RuntimeSource::Kubernetes));
        assert_eq!(rows[0].said.as_ref().unwrap().phase, Some(InfoPhase::Error));
        assert!(pass.changed.is_empty(), "{:?}", pass.changed);
    }
}

#[test]
fn an_agent_that_said_how_it_ended_before_its_pod_was_deleted_is_believed() {
    for (phase, uid, ending, file, detail) in [
        ("stopped", "uid-1", Ending::Stopped, "stopped", "own"),
        ("error", "uid-1", Ending::Error, "error", "own"),
        ("running", "uid-1", Ending::Error, "error", "Deleted: its pod was deleted before it ended"),
        // The word of another life of it.
        ("stopped", "uid-0", Ending::Error, "stopped", "own"),
    ] {
        let shared = Shared::new(vec![runs(1).fact]);
        shared.says(phase, uid);
        // Nobody watched meanwhile.
        shared.lists(Vec::new());
        let pass = shared.pass();
        assert_eq!(told(&pass), [("uid-1", ending)], "{phase} {uid}");
        let said = shared.file();
        if uid == "uid-1" {
            assert_eq!((said["phase"].as_str(), said["detail"].as_str()), (Some(file), Some(detail)));
        }
        let RuntimeState::Ended { ending: known, .. } = shared.agents.rows()[0].fact.fact.state else {
            panic!("it has ended")
        };
        assert_eq!(known, ending, "{phase} {uid}");
    }
}

#[test]
fn a_pod_whose_successor_has_its_name_already_has_ended_all_the_same() {
    for before in [runs(1).fact, failed(1).fact] {
        let shared = Shared::new(vec![before]);
        shared.says("running", "uid-1");
        shared.lists(vec![waits(2)]);
        let pass = shared.pass();
        assert_eq!(told(&pass), [("uid-1", Ending::Error)]);
        assert_eq!(shared.file()["phase"], "error");
        assert_eq!(shared.shown(), [row("a", "error", "Pending (ImagePullBackOff)")]);
    }
}

#[test]
fn the_file_of_a_pod_that_ended_says_so_while_its_successor_waits() {
    let shared = Shared::new(Vec::new());
    shared.says("running", "uid-2");
    shared.lists(vec![failed(1), failed(2), waits(3)]);
    shared.pass();
    let file = shared.file();
    assert_eq!((&file["phase"], &file["detail"]), (&json!("error"), &json!("OOMKilled: of 2")));
    let written = fs::metadata(shared.path()).unwrap().modified().unwrap();
    shared.pass();
    assert_eq!(fs::metadata(shared.path()).unwrap().modified().unwrap(), written, "once");
    // The successor has written: the end of the one before is no news of it.
    shared.says("running", "uid-3");
    shared.pass();
    assert_eq!(shared.file()["phase"], "running");
}

#[test]
fn a_pod_that_goes_by_another_name_now_lives() {
    let shared = Shared::new(vec![runs(1).fact]);
    shared.lists(vec![pod("b", 1, RuntimeState::Running, "Running")]);
    let pass = shared.pass();
    assert!(pass.ends.is_empty(), "{:?}", pass.ends);
    assert_eq!((shared.shown(), pass.forgotten), (vec![row("b", "", "Running")], vec![runs(1).fact.key]));
}

/// What the document's system corrects of an agent that goes on.
#[test]
fn a_container_that_runs_corrects_a_file_that_says_that_it_stopped() {
    let shared = Shared::new(Vec::new());
    shared.says("stopped", "uid-1");
    shared.lists(vec![runs(1)]);
    shared.pass();
    assert_eq!(shared.file()["phase"], "running");
    assert_eq!(shared.shown(), [row("a", "running", "Running")]);
}

#[test]
fn a_home_is_its_pod_s_whether_or_not_its_path_names_the_namespace() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/agent-info.json"), r#"{"phase":"running"}"#).unwrap();
    let agents_of = |facts| {
        let template = format!("{}/{{agent}}", folder.path().display());
        let agents = Agents::new(Some(template.parse().unwrap()), true);
        agents.load(facts);
        agents
    };
    let rows = |agents: &Agents| {
        let mut pass = agents.look(&[], NOW).unwrap();
        agents.show(&mut pass);
        agents.stored();
        let key = |known: Known| (known.fact.key.namespace, known.fact.key.source.to_string());
        agents.rows().into_iter().map(key).collect::<Vec<_>>()
    };
    let expected = [("lab".to_owned(), "kubernetes".to_owned())];
    let agents = agents_of(Vec::new());
    agents.with_pods(|table| table.replace([(None, runs(1))])).unwrap();
    assert_eq!(rows(&agents), expected);
    // Nor is it another's after a restart, before the cluster was listed.
    assert_eq!(rows(&agents_of(vec![runs(1).fact])), expected);
}

#[test]
fn a_pod_whose_node_was_lost_before_it_was_deleted_ended_for_that() {
    for (status, reason) in
        [("Running (NodeLost)", "NodeLost"), ("Running (Terminating)", "Deleted"), ("Running", "Deleted")]
    {
        let shared = Shared::new(vec![pod("a", 1, RuntimeState::Deferring, status).fact]);
        shared.says("running", "uid-1");
        shared.lists(Vec::new());
        let pass = shared.pass();
        assert_eq!(pass.ends[0].reason, reason, "the run is told so");
        assert_eq!(shared.file()["detail"], format!("{reason}: its pod was deleted before it ended"));
        let shown = if reason == "Deleted" { reason.to_owned() } else { format!("Deleted ({reason})") };
        assert_eq!(shared.shown(), [row("a", "error", &shown)]);
    }
}
