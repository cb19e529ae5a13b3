//! How an agent ended is told once, and everywhere the same: in its file, by `groundcrew status`, in the list, of the run.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use groundcrew_durable::points as durable;
use groundcrew_orchestrator::points;
use groundcrew_protocol::agent_info::{AgentList, AgentView};
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Cgroup, Machine, Run, Server, binary, eventually, in_own_mounts, mount};
use serde_json::{Value, json};

use crate::profiles::LOAD;

/// The agent of this name in the list.
pub(crate) fn listed(server: &Server, name: &str) -> Option<AgentView> {
    let list: AgentList = server.get("/api/v1/agents");
    let mut agents = list.agents.into_iter().filter(|agent| agent.name == name);
    let agent = agents.next();
    assert!(agents.next().is_none(), "{name} is listed twice");
    agent
}

/// Waits until the list says so.
pub(crate) fn wait_for(
    server: &Server,
    name: &str,
    what: &str,
    wanted: impl Fn(&AgentView) -> bool,
) -> AgentView {
    eventually(what, || listed(server, name).filter(|agent| wanted(agent)))
}

fn file(home: &Path) -> Value {
    let bytes = std::fs::read(home.join("agent-info.json")).expect("the agent wrote it");
    serde_json::from_slice(&bytes).expect("it is whole")
}

fn status(home: &Path) -> Value {
    let mut command = std::process::Command::new(binary("groundcrew"));
    command.args(["status", "--json"]).env_clear().env("GROUNDCREW_HOME", home);
    let output = command.output().expect("the binary can be started");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn ctl(server: &Server, more: &[&str]) -> String {
    let mut command = std::process::Command::new(binary("groundcrewctl"));
    command.arg("agents").args(more).env_clear();
    command.env("GROUNDCREW_URL", server.url()).env("GROUNDCREW_FPR", server.fingerprint());
    command.env("GROUNDCREW_OPERATOR_TOKEN", server.token().as_str());
    let output = command.output().expect("the binary can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// All who can be asked give the same answer.
pub(crate) fn expect_same(server: &Server, machine: &Machine, name: &str) {
    expect_same_in(server, &machine.home(), name);
}

/// The same of an agent whose home is this.
pub(crate) fn expect_same_in(server: &Server, home: &Path, name: &str) {
    let (agent, file, status) = (listed(server, name).unwrap(), file(home), status(home));
    let phase = agent.phase.as_ref().unwrap().as_str();
    let activity = agent.activity.as_ref().map_or("", |activity| activity.as_str());
    assert_eq!((file["phase"].as_str(), status["phase"].as_str()), (Some(phase), Some(phase)));
    assert_eq!(file["activity"].as_str().unwrap_or_default(), activity);
    assert_eq!(file["detail"].as_str().unwrap_or_default(), agent.detail);
    assert_eq!(status["file"], file);
    let list: AgentList = serde_json::from_str(&ctl(server, &["--json"])).unwrap();
    assert!(list.agents.contains(&agent), "{agent:?} is not in {list:?}");
    let shown = match agent.namespace.as_str() {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    };
    assert!(ctl(server, &[]).lines().any(|line| line.starts_with(&shown) && line.contains(phase)));
}

pub(crate) fn waits_for_successor(server: &Server, run: &Run) -> String {
    let view = server.wait_for(run, "the wait for a successor", |view| {
        view.summary.wait.as_ref().is_some_and(|wait| wait.r#for.starts_with("a successor of the agent"))
    });
    view.summary.wait.unwrap().r#for
}

#[test]
fn a_killed_agent_shows_as_such_everywhere_and_its_run_waits_for_a_successor() {
    let mut server = Server::start_watching_homes();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let runs = wait_for(&server, "m1", "a stage in the list", |agent| agent.stage.is_some());
    assert_eq!((runs.run.as_ref(), runs.node.as_deref()), (Some(&run.id), Some("n1")));
    assert_eq!((runs.container_status.as_str(), runs.warnings.len()), ("Running", 0), "{runs:?}");
    assert_eq!(runs.activity.unwrap().as_str(), "executing");

    let pid = machine.agent().pid();
    machine.kill();
    let ended = wait_for(&server, "m1", "the end in the list", |agent| agent.phase != runs.phase);
    assert_eq!(ended.phase.as_ref().unwrap().as_str(), "error");
    assert!(
        ended.activity.is_none() && ended.detail.starts_with(&format!("its process {pid} ")),
        "{ended:?}"
    );
    let reason = waits_for_successor(&server, &run);
    assert!(reason.contains("its process ended: error"), "{reason}");
    expect_same(&server, &machine, "m1");
    assert_eq!(status(&machine.home())["staleness"]["is"], "final");
    assert_eq!(server.count_of(&run, "agent_ended"), 1);

    // What is known outlives the orchestrator, and is told once.
    server.start_again(&[]);
    let again = wait_for(&server, "m1", "the file after a restart", |agent| agent.last_seen.is_some());
    assert_eq!(again, ended);
    expect_same(&server, &machine, "m1");

    machine.start();
    machine.load.started();
    let back = wait_for(&server, "m1", "the successor in the list", |agent| agent.phase == runs.phase);
    assert!(back.runtime_id != runs.runtime_id && !back.detail.contains("did not say so"), "{back:?}");
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    assert_eq!(server.count_of(&run, "agent_ended"), 1);
    // After the run an end changes nothing of it.
    assert!(machine.stop().success());
    wait_for(&server, "m1", "the end in order", |agent| {
        agent.phase.as_ref().is_some_and(|phase| phase.as_str() == "stopped")
            && agent.container_status.starts_with("Exited")
    });
    expect_same(&server, &machine, "m1");
    assert_eq!(server.view(&run).summary.state, State::Completed);
    assert_eq!(server.count_of(&run, "agent_ended"), 1);
}

#[test]
fn an_agent_whose_home_nobody_watches_is_listed_and_known_to_end_all_the_same() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let runs = wait_for(&server, "n1", "the agent of the run", |agent| agent.stage.is_some());
    assert_eq!((runs.runtime.unwrap().as_str(), runs.phase.unwrap().as_str()), ("local", "running"));
    // A pass has to have taken hold of it: another than the one that may be under way.
    let passes = || {
        let tasks: Vec<Value> = server.get("/api/v1/tasks");
        let agents = tasks.into_iter().find(|task| task["name"] == "agents");
        agents.and_then(|task| task["passes"].as_u64()).unwrap_or_default()
    };
    let before = passes();
    eventually("two passes", || (passes() >= before + 2).then_some(()));
    machine.kill();
    waits_for_successor(&server, &run);
    let ended = listed(&server, "n1").unwrap();
    assert_eq!((ended.phase.unwrap().as_str(), ended.activity), ("error", None));
    // Nobody corrects the file, which the next agent writes anew.
    let last = file(&machine.home());
    assert_eq!(last["phase"], json!("running"));
    machine.start();
    machine.load.started();
    eventually("the next agent's file", || {
        let said = file(&machine.home());
        (said["claim"] == 2 && said["runtime_id"] != last["runtime_id"]).then_some(())
    });
    wait_for(&server, "n1", "the next agent", |agent| {
        agent.activity.is_some() && agent.detail != ended.detail
    });
}

/// The kernel ends it in a cgroup whose memory another process has taken: no outcome, no last word, no exit status.
#[test]
fn an_agent_that_the_kernel_ends_for_want_of_memory_shows_that_reason_everywhere() {
    in_own_mounts(|| {
        let cgroup = Cgroup::with_memory(96 << 20);
        let server = Server::start_watching_homes();
        let run = server.create_run("n1", LOAD);
        let mut machine = Machine::new(&server, &run, "m1").in_cgroup(&cgroup);
        machine.start();
        machine.load.started();
        wait_for(&server, "m1", "the agent that is watched", |agent| agent.container_status == "Running");
        let pid = machine.agent().pid();
        // Of all in its cgroup it is the first to go.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").unwrap();
        let mut filler = cgroup.fill();
        assert_eq!(machine.wait().signal(), Some(9));
        filler.kill();
        let killed = |agent: &AgentView| agent.phase.as_ref().is_some_and(|phase| phase.as_str() == "error");
        let ended = wait_for(&server, "m1", "the end in the list", killed);
        assert_eq!(ended.detail, format!("OOMKilled: the kernel ended its process {pid} for want of memory"));
        expect_same(&server, &machine, "m1");
        let reason = waits_for_successor(&server, &run);
        assert!(reason.contains("its process ended: error (OOMKilled)"), "{reason}");
        cgroup.remove();
    });
}

/// Between the file, the store and the run: whichever of them knew of an end, all do after the next start, once.
#[test]
fn an_end_is_told_once_by_a_server_that_is_killed_at_any_step_of_it() {
    let mut server = Server::start_watching_homes();
    let of_file = durable::ALL.iter().filter(|point| point.name().starts_with("json."));
    for (number, point) in of_file.chain(points::ALL).enumerate() {
        let name = format!("m{number}");
        let run = server.create_run(&format!("n{number}"), LOAD);
        let mut machine = Machine::started(&server, &run, &name);
        machine.load.started();
        wait_for(&server, &name, "the agent that is watched", |agent| agent.container_status == "Running");
        server.kill();
        machine.kill();
        let died = server.start_to_die_at(*point);
        assert_eq!(died.signal(), Some(9), "{} was not passed", point.name());
        server.start_again(&[]);
        // The run may know of it before the first pass does.
        let is_known = |agent: &AgentView| {
            agent.phase.as_ref().is_some_and(|phase| phase.as_str() == "error")
                && agent.container_status.starts_with("Exited")
        };
        wait_for(&server, &name, point.name(), is_known);
        let reason = waits_for_successor(&server, &run);
        assert!(reason.contains("its process ended: error"), "{}: {reason}", point.name());
        expect_same(&server, &machine, &name);
        assert_eq!(server.count_of(&run, "agent_ended"), 1, "{}", point.name());
    }
}

/// How it ended is known at once, and comes into the file as soon as that can be written.
#[test]
fn an_end_whose_file_cannot_be_written_is_shown_with_the_cause_and_kept_later() {
    in_own_mounts(|| {
        let mut server = Server::start_watching_homes();
        let run = server.create_run("n1", LOAD);
        let mut machine = Machine::new(&server, &run, "m1");
        std::fs::create_dir_all(machine.home()).unwrap();
        let home = machine.home().display().to_string();
        mount(&["-t", "tmpfs", "-o", "mode=700", "tmpfs", &home]);
        machine.start();
        machine.load.started();
        wait_for(&server, "m1", "the agent that is watched", |agent| agent.container_status == "Running");
        server.kill();
        machine.kill();
        eventually("a home that nobody writes to", || {
            let read_only = std::process::Command::new("mount").args(["-o", "remount,ro", &home]).status();
            read_only.unwrap().success().then_some(())
        });
        server.start_again(&[]);
        let ended = wait_for(&server, "m1", "the end in the list", |agent| !agent.warnings.is_empty());
        assert!(ended.warnings[0].contains(&home) && ended.warnings[0].contains("Read-only"), "{ended:?}");
        assert_eq!(
            (ended.phase.unwrap().as_str(), ended.activity),
            ("error", None),
            "it has ended all the same"
        );
        waits_for_successor(&server, &run);
        assert_eq!(file(&machine.home())["phase"], "running");
        mount(&["-o", "remount,rw", &home]);
        wait_for(&server, "m1", "the end in the file", |agent| agent.warnings.is_empty());
        assert_eq!(file(&machine.home())["phase"], "error");
        expect_same(&server, &machine, "m1");
    });
}
