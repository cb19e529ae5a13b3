use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use groundcrew_durable::epoch::{PROC, boot_epoch, boot_id, process_start};
use groundcrew_protocol::agent_info::{Ending, InfoPhase, RuntimeState};
use serde_json::{Value, json};

use super::*;
use crate::store::ENDED_AGENTS_MS;

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
        self.agents.show(&mut pass);
        self.agents.stored();
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
    assert_eq!(agents.look(&[], NOW.plus(ENDED_AGENTS_MS - 1)).unwrap().agents(), 1);
    let pass = agents.look(&[], NOW.plus(ENDED_AGENTS_MS)).unwrap();
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
fn an_agent_that_runs_while_its_file_is_gone_is_listed_and_told_of_when_it_ends() {
    let mut bench = Bench::new();
    bench.says("running");
    bench.pass();
    fs::remove_file(bench.path()).unwrap();
    bench.pass();
    let row = bench.row();
    assert_eq!((&row.fact.fact.state, row.said), (&RuntimeState::Running, None));
    assert_eq!(row.warnings, ["it runs, and its file is gone"]);
    bench.kill();
    for _ in 0..2 {
        let pass = bench.pass();
        assert_eq!(pass.ends.iter().map(|end| end.ending).collect::<Vec<_>>(), [Ending::Error]);
        assert!(matches!(bench.row().fact.fact.state, RuntimeState::Ended { .. }));
    }
    assert_eq!(bench.agents.look(&[], NOW.plus(ENDED_AGENTS_MS)).unwrap().agents(), 0);
}

/// What the document's system corrects of an agent that goes on.
#[test]
fn a_process_that_runs_corrects_a_file_that_says_that_it_stopped() {
    let bench = Bench::new();
    bench.says("stopped");
    bench.pass();
    let file = bench.file();
    assert_eq!((&file["phase"], &file["activity"]), (&json!("running"), &json!("executing")));
    assert_eq!(bench.row().said.unwrap().phase, Some(InfoPhase::Running));
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
        agents.show(&mut pass);
        agents.stored();
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
