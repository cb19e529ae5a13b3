use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use groundcrew_durable::epoch::{PROC, boot_epoch, boot_id, process_start};
use groundcrew_protocol::agent_info::{Ending, InfoPhase};
use serde_json::{Value, json};

use super::*;

const NOW: WallMs = WallMs(1_000_000);

/// A folder of homes that a server watches, and a process that stands for an agent.
struct Bench {
    folder: tempfile::TempDir,
    agents: Agents,
    child: Child,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("one")).unwrap();
        let agents = agents_in(folder.path());
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        Bench { folder, agents, child }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("one/agent-info.json")
    }

    fn id(&self) -> String {
        let pid = self.child.id();
        let start = process_start(Path::new(PROC), pid).unwrap().unwrap();
        format!("{}:{pid}:{start}", boot_id(Path::new(PROC)).unwrap())
    }

    /// What the agent says of itself, as long as it lives.
    fn says(&self, phase: &str) {
        let said = json!({"phase": phase, "activity": "executing", "runtime": "local", "runtime_id": self.id(),
            "run": "r-1", "pid": self.child.id(), "epoch": boot_epoch(Path::new(PROC)), "mine": 1});
        fs::write(self.path(), said.to_string()).unwrap();
    }

    fn pass(&self) -> Pass {
        let mut pass = self.agents.look(&[], NOW).unwrap();
        self.agents.stored(&mut pass);
        pass
    }

    fn row(&self) -> Known {
        self.agents.rows().into_iter().next().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn file(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn agents_in(folder: &Path) -> Agents {
    Agents::new(Some(format!("{}/{{agent}}", folder.display()).parse().unwrap()), false)
}

#[test]
fn a_killed_agent_is_an_error_in_the_file_the_list_and_the_store_after_one_pass() {
    let mut bench = Bench::new();
    bench.says("running");
    let pass = bench.pass();
    assert_eq!((pass.changed.len(), pass.ends.len(), pass.begun.len()), (1, 0, 1));
    assert_eq!(bench.row().fact.fact.state, RuntimeState::Running);
    assert!(bench.pass().changed.is_empty(), "nothing has changed");

    let id = bench.id();
    bench.kill();
    let pass = bench.pass();
    let file = bench.file();
    assert_eq!((&file["phase"], &file["activity"], &file["mine"]), (&json!("error"), &json!(""), &json!(1)));
    assert!(file["detail"].as_str().unwrap().ends_with("and did not say so"), "{file}");
    let row = bench.row();
    assert_eq!(row.said.as_ref().unwrap().phase, Some(InfoPhase::Error));
    assert!(row.warnings.is_empty(), "{:?}", row.warnings);
    assert_eq!(pass.changed, [row.fact]);
    let end = &pass.ends[0];
    assert_eq!((&end.runtime.id, &end.end, end.ending), (&id, &id, Ending::Error));
    // It is told for as long as it is known, and stored once.
    let again = bench.pass();
    assert_eq!((again.changed.len(), again.ends), (0, pass.ends));
}

#[test]
fn an_end_while_nobody_watched_is_known_by_the_boot_and_a_restart_forgets_none() {
    let mut bench = Bench::new();
    bench.says("running");
    bench.kill();
    let pass = bench.pass();
    assert_eq!(bench.file()["phase"], "error");
    let stored = pass.changed[0].clone();
    // After a restart what was stored counts, and is not stored anew.
    let agents = agents_in(bench.folder.path());
    agents.load(vec![stored.clone()]);
    let pass = agents.look(&[], NOW.plus(5_000)).unwrap();
    assert!(pass.changed.is_empty(), "{:?}", pass.changed);
    assert_eq!(pass.ends.len(), 1);
    // Its home goes: it is shown for a week, then forgotten.
    fs::remove_dir_all(bench.folder.path().join("one")).unwrap();
    assert_eq!(agents.look(&[], NOW.plus(ENDED_SHOWN_MS - 1)).unwrap().agents(), 1);
    let pass = agents.look(&[], NOW.plus(ENDED_SHOWN_MS)).unwrap();
    assert_eq!((pass.agents(), pass.forgotten), (0, vec![stored.key]));
}

#[test]
fn an_agent_that_comes_back_wins_over_the_end_of_the_one_before() {
    let mut bench = Bench::new();
    bench.says("running");
    bench.pass();
    bench.kill();
    bench.child = Command::new("sleep").arg("600").spawn().unwrap();
    // The successor writes before the pass comes: the end of the one before is no news of this one.
    bench.says("running");
    let pass = bench.pass();
    assert_eq!((bench.file()["phase"].as_str(), pass.ends.len()), (Some("running"), 0));
    assert_eq!(bench.row().fact.fact.life.runtime_id, Some(bench.id()));
}

#[test]
fn one_that_said_that_it_stopped_has_stopped() {
    let mut bench = Bench::new();
    bench.says("running");
    bench.pass();
    bench.says("stopped");
    bench.kill();
    bench.pass();
    assert_eq!(bench.file()["phase"], "stopped");
    let RuntimeState::Ended { ending, .. } = bench.row().fact.fact.state else { panic!("it has ended") };
    assert_eq!(ending, Ending::Stopped);
}

#[test]
fn a_run_is_told_of_an_end_as_the_file_tells_it() {
    let mut bench = Bench::new();
    bench.says("running");
    let runtime = AgentRuntime { source: RuntimeSource::Local, id: bench.id() };
    let look = |bench: &Bench| bench.agents.look(std::slice::from_ref(&runtime), NOW).unwrap().ends;
    assert!(look(&bench).is_empty());
    // It said so, and was killed while it closed.
    bench.says("stopped");
    bench.kill();
    let ends = look(&bench);
    assert_eq!(ends.iter().map(|end| end.ending).collect::<Vec<_>>(), [Ending::Stopped]);
    assert_eq!(bench.file()["phase"], "stopped");
}

#[test]
fn a_file_that_cannot_be_written_is_counted_and_shown_and_done_by_the_next_pass() {
    let mut bench = Bench::new();
    bench.says("running");
    bench.pass();
    bench.kill();
    let whole = fs::read(bench.path()).unwrap();
    fs::write(bench.path(), &whole[..whole.len() / 2]).unwrap();
    for passes in 1..=2 {
        assert_eq!((bench.pass().failures, bench.agents.failures()), (1, passes));
        let row = bench.row();
        assert!(row.warnings[0].contains("its file is not kept: ") && row.warnings[0].contains("not JSON"));
        assert!(matches!(row.fact.fact.state, RuntimeState::Ended { .. }), "it has ended all the same");
    }
    fs::write(bench.path(), whole).unwrap();
    assert_eq!(bench.pass().failures, 0);
    assert_eq!((bench.file()["phase"].as_str(), bench.row().warnings.len()), (Some("error"), 0));
}

#[test]
fn a_folder_that_cannot_be_listed_hides_its_own_agents_and_no_others() {
    let bench = Bench::new();
    let homes = |namespace: &str| bench.folder.path().join(namespace).join("homes");
    for namespace in ["lab", "other"] {
        fs::create_dir_all(homes(namespace).join("a")).unwrap();
        fs::write(homes(namespace).join("a/agent-info.json"), r#"{"phase":"running"}"#).unwrap();
    }
    let template = format!("{}/{{namespace}}/homes/{{agent}}", bench.folder.path().display());
    let agents = Agents::new(Some(template.parse().unwrap()), false);
    let pass = || {
        let mut pass = agents.look(&[], NOW).unwrap();
        agents.stored(&mut pass);
        let rows: Vec<_> = agents.rows().into_iter().map(|row| row.fact.key.namespace).collect();
        (pass.failures, rows, pass.forgotten.len())
    };
    let both = ["lab", "other"].map(str::to_owned).to_vec();
    assert_eq!(pass(), (0, both.clone(), 0));
    // Something that is no folder: root may list all folders there are.
    fs::remove_dir_all(homes("lab")).unwrap();
    fs::write(homes("lab"), "").unwrap();
    assert_eq!(pass(), (1, both, 0), "what was known there stays");
    fs::remove_file(homes("lab")).unwrap();
    assert_eq!(pass(), (0, vec!["other".to_owned()], 1));
}

#[test]
fn a_process_that_only_a_claim_names_is_told_once_it_was_held() {
    let mut bench = Bench::new();
    let runtime = AgentRuntime { source: RuntimeSource::Local, id: bench.id() };
    let claims = [runtime.clone()];
    let look = |bench: &Bench| bench.agents.look(&claims, NOW).unwrap().ends;
    assert!(look(&bench).is_empty());
    bench.kill();
    let ends = look(&bench);
    assert_eq!((ends.len(), &ends[0].runtime), (1, &runtime));
    // One that was never held may live in a container, where its number means another process.
    let agents = agents_in(bench.folder.path());
    assert!(agents.look(&claims, NOW).unwrap().ends.is_empty());
}

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
        self.agents.stored(&mut pass);
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
        again.stored(&mut pass);
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
