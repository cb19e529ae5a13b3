//! `groundcrew drain` beside a running agent: what it asks for, what it confirms, and how it ends.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use groundcrew_durable::fault::ON_DISK;
use groundcrew_protocol::ids::TokenText;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Process, Server, binary, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::profiles::LOAD;

/// A home with an agent that finds no orchestrator: what a drain is to an agent needs none.
pub struct Alone {
    folder: tempfile::TempDir,
    agent: Option<Process>,
}

impl Alone {
    /// One whose agent is up.
    pub fn started() -> Alone {
        let mut alone = Alone::new();
        alone.start(&[]);
        alone
    }

    /// One whose agent is not.
    pub fn new() -> Alone {
        Alone { folder: tempfile::tempdir().expect("there is a temporary folder"), agent: None }
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn marker(&self) -> PathBuf {
        self.home().join(".drain_request.json")
    }

    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent, with more in its environment, and waits until it answers.
    pub fn start(&mut self, more: &[(&str, &str)]) {
        let mut command = agent(&self.home());
        command.envs(more.iter().copied());
        self.agent = Some(Process::start("agent", &mut command));
        self.wait_until_it_answers();
    }

    pub fn wait_until_it_answers(&self) {
        eventually("an agent that answers", || self.status()["gateway_state"].is_string().then_some(()));
    }

    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("the agent was started")
    }

    pub fn drain(&self, words: &[&str]) -> Output {
        self.drain_with(words, &[])
    }

    pub fn drain_with(&self, words: &[&str], more: &[(&str, &str)]) -> Output {
        drain_with(&self.home(), words, more)
    }

    /// Exit status and what was said.
    pub fn says(&self, words: &[&str]) -> (i32, String) {
        says(self.drain(words))
    }

    pub fn status(&self) -> Value {
        let output = self.drain(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    /// Has the marker look as if it had stood for so many hours since.
    pub fn age_marker(&self, hours: i64) {
        age_marker(&self.marker(), hours);
    }

    pub fn is_draining(&self) -> bool {
        self.status()["gateway_state"] == "draining"
    }
}

/// The agent of a home, without an orchestrator. Wherever tests have their folders, that counts as one on a disk.
pub fn agent(home: &Path) -> Command {
    let mut command = Command::new(binary("groundcrew"));
    command
        .arg("agent")
        .env_clear()
        .env("GROUNDCREW_URL", "https://127.0.0.1:1")
        .env("GROUNDCREW_RUN", "r-7f3k9q2m")
        .env("GROUNDCREW_TOKEN", TokenText::boot([7; 32]).as_str())
        .env("GROUNDCREW_FPR", "0".repeat(64))
        .env("GROUNDCREW_HOME", home)
        .env(ON_DISK, "yes");
    command
}

pub fn drain(home: &Path, words: &[&str]) -> Output {
    drain_with(home, words, &[])
}

fn drain_with(home: &Path, words: &[&str], more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary("groundcrew"));
    command.arg("drain").args(words).env_clear().env("GROUNDCREW_HOME", home).env("PATH", "/usr/bin:/bin");
    command.envs(more.iter().copied()).output().expect("the binary can be started")
}

/// Has a marker look as if it had stood for so many hours since.
fn age_marker(path: &Path, hours: i64) {
    let mut marker: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let asked: Timestamp = marker["requested_at"].as_str().unwrap().parse().unwrap();
    let long_ago = json!((asked - SignedDuration::from_hours(hours)).to_string());
    for holder in marker["holders"].as_object_mut().unwrap().values_mut() {
        holder["requested_at"] = long_ago.clone();
    }
    marker["requested_at"] = long_ago;
    let beside = path.with_extension("aged");
    std::fs::write(&beside, marker.to_string()).unwrap();
    std::fs::rename(beside, path).unwrap();
}

pub fn says(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_drain_is_confirmed_shown_and_taken_off() {
    let alone = Alone::started();
    assert_eq!(alone.says(&["wait"]).0, 4, "there is no drain to wait for");
    let (code, said) = alone.says(&["begin", "--principal", "ann", "--quiet"]);
    assert_eq!(code, 0, "{said}");
    let status = alone.status();
    assert_eq!((&status["gateway_state"], &status["active_agents"]), (&"draining".into(), &0.into()));
    assert_eq!((&status["gateway_busy"], &status["gateway_drainable"]), (&false.into(), &false.into()));
    let drain = &status["drain"];
    assert_eq!((&drain["principal"], &drain["epoch"]), (&"ann".into(), &"same".into()), "{drain}");
    assert_eq!(drain["suppress_notification"], true);
    let (_, text) = alone.says(&["status"]);
    assert!(
        text.contains("yes, asked for by ann") && text.contains("wait until nothing is active"),
        "{text}"
    );
    assert_eq!(alone.says(&["wait", "--timeout", "1m"]), (0, "nothing is active\n".to_owned()));
    assert_eq!(alone.says(&["cancel"]), (0, "the drain is off\n".to_owned()));
    assert!(!alone.is_draining() && !alone.marker().exists());
    assert_eq!(alone.says(&["cancel"]).1, "there was no drain\n");
}

#[test]
fn the_help_says_what_to_wait_for_and_a_bad_greatest_age_is_named_to_whoever_sets_it() {
    let alone = Alone::new();
    let (code, help) = alone.says(&["--help"]);
    assert!(code == 0 && help.contains("waits for active_agents to be 0"), "{code} {help}");
    for (age, found) in [("soon", "\"soon\""), ("0s", "\"0s\""), ("31d", "\"31d\"")] {
        let more = [("GROUNDCREW_DRAIN_MAX_AGE", age)];
        let asked = alone.drain_with(&["status"], &more);
        let mut command = agent(&alone.home());
        let started = command.envs(more).output().expect("the binary can be started");
        for output in [asked, started] {
            let (code, said) = says(output);
            assert!(code == 64 && said.contains(found) && said.contains("from 1s to 30d"), "{code} {said}");
        }
    }
}

#[test]
fn a_drain_holds_until_the_last_who_asked_takes_it_off() {
    let alone = Alone::started();
    for principal in ["updater", "ann"] {
        assert_eq!(alone.says(&["begin", "--principal", principal]).0, 0);
    }
    let (_, said) = alone.says(&["cancel", "--principal", "bob"]);
    assert!(said.starts_with("nothing was changed"), "{said}");
    assert_eq!(alone.says(&["cancel", "--principal", "ann"]).1, "it still holds, asked for by updater\n");
    assert!(alone.is_draining());
    // `ann` asks no more, and has nothing to wait for.
    let (code, said) = alone.says(&["wait", "--principal", "ann"]);
    assert!(code == 4 && said.contains("updater alone"), "{code} {said}");
    assert_eq!(alone.says(&["cancel", "--principal", "updater"]).1, "the drain is off\n");
    assert!(!alone.is_draining());
    // A plain cancel, and a removal by hand, free all.
    for _ in 0..2 {
        assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
        assert_eq!(alone.says(&["begin", "--principal", "updater"]).0, 0);
        std::fs::remove_file(alone.marker()).unwrap();
        assert!(!alone.is_draining());
    }
}

#[test]
fn without_an_agent_a_drain_is_asked_for_and_not_confirmed() {
    let mut alone = Alone::new();
    std::fs::create_dir_all(alone.home()).unwrap();
    let (code, said) = alone.says(&["begin"]);
    assert!(code == 4 && said.contains("no agent answers") && said.contains("The marker stands"), "{said}");
    let status = alone.status();
    assert!(status["gateway_state"].is_null() && status["drain"]["principal"] == "drain-control", "{status}");
    // Nothing is active where no agent is; whether one comes, nobody can tell.
    let (code, said) = alone.says(&["wait", "--timeout", "10ms"]);
    assert!(code == 3 && said.contains("no agent answers"), "{code} {said}");
    alone.start(&[]);
    assert!(alone.is_draining(), "the agent that comes drains by it");
    // What an agent of an earlier boot has left there says nothing of this one.
    alone.agent().kill();
    assert_eq!(alone.says(&["cancel"]).0, 0);
    let file = alone.home().join("agent-info.json");
    let mut fields: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(fields["epoch"].is_string(), "{fields}");
    fields["epoch"] = "0a0a0a0a-0b0b-4c0c-8d0d-0e0e0e0e0e0e:1".into();
    std::fs::write(&file, fields.to_string()).unwrap();
    assert_eq!(alone.says(&["begin"]).0, 4);
    alone.start(&[]);
    assert!(alone.is_draining(), "the agent that comes in this boot drains by it too");
}

/// Stands between those who ask and the agent: lets `change` see the number of each question before that is asked, and
/// change the answer.
fn stand_between(
    alone: &Alone,
    change: impl Fn(usize, String) -> String + Send + 'static,
    before: impl Fn(usize) + Send + 'static,
) {
    let (socket, real) = (alone.home().join("agent.sock"), alone.beside("real.sock"));
    std::fs::rename(&socket, &real).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for (number, asker) in listener.incoming().enumerate() {
            let mut asker = asker.unwrap();
            before(number);
            let mut agent = UnixStream::connect(&real).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                asker.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            agent.write_all(&head).unwrap();
            let mut answer = String::new();
            agent.read_to_string(&mut answer).unwrap();
            asker.write_all(change(number, answer).as_bytes()).unwrap();
        }
    });
}

#[test]
fn a_drain_by_which_the_agent_does_not_drain_is_not_confirmed() {
    // Its epoch changes between the two questions, as a container's that is started again.
    let alone = Alone::started();
    let epoch = alone.status()["epoch"].as_str().unwrap().to_owned();
    let other: String = epoch.chars().map(|one| if one == '0' { '1' } else { '0' }).collect();
    let change = move |number, answer: String| match number {
        0 => answer.replace(&epoch, &other),
        _ => answer,
    };
    stand_between(&alone, change, |_number| {});
    let (code, said) = alone.says(&["begin", "--principal", "ann"]);
    assert!(
        code == 4 && said.contains("does not drain for ann: the marker is of another boot"),
        "{code} {said}"
    );
    // The marker lapses between the two.
    let alone = Alone::started();
    let marker = alone.marker();
    let before = move |number| {
        if number == 1 {
            age_marker(&marker, 2)
        }
    };
    stand_between(&alone, |_number, answer| answer, before);
    let (code, said) = alone.says(&["begin", "--principal", "ann"]);
    assert!(code == 4 && said.contains("does not drain for ann: the marker of ann lapsed"), "{code} {said}");
}

#[test]
fn a_drain_that_lapsed_is_over() {
    let mut alone = Alone::started();
    assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
    alone.age_marker(2);
    alone.agent().wait_for_line("the drain is over, the marker of ann lapsed");
    // Two more looks at it, which say nothing new.
    assert!(!alone.is_draining() && !alone.is_draining());
    assert_eq!(
        alone.agent().count_of("lapsed: nobody renewed it"),
        2,
        "once of the marker, once of the drain"
    );
    let (code, said) = alone.says(&["wait"]);
    assert!(code == 4 && said.contains("lapsed"), "{code} {said}");
}

#[test]
fn a_drain_that_a_command_runs_under_is_renewed() {
    let mut alone = Alone::new();
    alone.start(&[("GROUNDCREW_DRAIN_MAX_AGE", "2m")]);
    let begun = alone.beside("begun");
    let script = format!(
        ": > {}; until [ -e {} ]; do sleep 0.1; done",
        begun.display(),
        alone.beside("end").display()
    );
    let mut command = Command::new(binary("groundcrew"));
    command.args(["drain", "run", "--principal", "bob", "--", "sh", "-c", &script]).env_clear();
    let mut run = Process::start(
        "drain run",
        command.env("GROUNDCREW_HOME", alone.home()).env("PATH", "/usr/bin:/bin"),
    );
    eventually("the command", || begun.exists().then_some(()));
    let renewed = || std::fs::read_to_string(alone.marker()).unwrap();
    // It changes when it was asked for.
    let first = renewed();
    eventually("a renewal", || (renewed() != first).then_some(()));
    assert!(alone.is_draining());
    std::fs::write(alone.beside("end"), "").unwrap();
    assert!(run.wait().success());
    assert!(!alone.marker().exists());
}

#[test]
fn a_command_runs_under_a_drain_that_ends_with_it() {
    let alone = Alone::started();
    let seen = alone.beside("seen");
    let script = format!("cp {} {}; exit 7", alone.marker().display(), seen.display());
    assert_eq!(alone.says(&["run", "--quiet", "--", "sh", "-c", &script]).0, 7);
    let marker: Value = serde_json::from_slice(&std::fs::read(&seen).unwrap()).unwrap();
    assert!(marker["principal"].as_str().unwrap().starts_with("drain-run:"), "{marker}");
    assert_eq!(marker["suppress_notification"], true);
    assert!(!alone.marker().exists() && !alone.is_draining());
    assert_eq!(alone.says(&["run", "--", "sh", "-c", "kill -9 $$"]).0, 137);
    let (code, said) = alone.says(&["run", "--", "/nowhere/nothing"]);
    assert!(code == 1 && said.contains("starting /nowhere/nothing"), "{code} {said}");
    assert!(!alone.marker().exists(), "also after a command that could not be started");
    // A drain that cannot be taken off changes nothing of what the command came to.
    let home = alone.home();
    let (home, away) = (home.display(), alone.beside("away"));
    let away = away.display();
    let script = format!("mv {home} {away} && : > {home} && exit 7");
    let (code, said) = alone.says(&["run", "--", "sh", "-c", &script]);
    assert!(code == 7 && said.contains("taking the drain off"), "{code} {said}");
    let back = Command::new("sh").args(["-c", &format!("rm {home} && mv {away} {home}")]).status().unwrap();
    assert!(back.success());
    assert_eq!(alone.says(&["cancel"]).1, "the drain is off\n");
    // Whoever ends it ends the command, and the drain.
    let begun = alone.beside("begun");
    let script = format!("trap 'exit 9' TERM; : > {}; while :; do sleep 0.1; done", begun.display());
    let mut command = Command::new(binary("groundcrew"));
    command.args(["drain", "run", "--", "sh", "-c", &script]).env_clear();
    let mut run = Process::start(
        "drain run",
        command.env("GROUNDCREW_HOME", alone.home()).env("PATH", "/usr/bin:/bin"),
    );
    eventually("the command", || begun.exists().then_some(()));
    assert_eq!(run.stop().code(), Some(9));
    assert!(!alone.marker().exists());
}

#[test]
fn what_is_active_is_named_and_waited_for() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    let tool = machine.load.started();
    let home = machine.home();
    let status = || -> Value {
        serde_json::from_slice(&drain(&home, &["status", "--json"]).stdout).expect("it prints JSON")
    };
    let before = status();
    assert_eq!(
        (&before["gateway_busy"], &before["gateway_drainable"]),
        (&true.into(), &true.into()),
        "{before}"
    );
    let work = &before["active_work"][0];
    assert_eq!((&work["stage"], &work["run"]), (&"CPUStress".into(), &run.id.to_string().into()), "{work}");
    assert!(work["pids"].as_array().unwrap().contains(&tool.pid().into()), "{work} has no {}", tool.pid());
    assert_eq!(says(drain(&home, &["begin"])).0, 0);
    let (code, said) = says(drain(&home, &["wait", "--timeout", "1ms"]));
    assert!(code == 3 && said.contains("waited for the end of CPUStress, attempt 1"), "{code} {said}");
    let during = status();
    assert_eq!((&during["active_agents"], &during["gateway_busy"]), (&1.into(), &false.into()), "{during}");
    machine.load.pass();
    assert_eq!(says(drain(&home, &["wait", "--timeout", "2m"])).0, 0);
    assert_eq!(status()["active_agents"], 0);
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn a_drain_that_is_waited_for_is_renewed_and_the_wait_ends_where_it_lapsed_all_the_same() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start_with(&[("GROUNDCREW_DRAIN_MAX_AGE", "2m")]);
    machine.load.started();
    let (home, marker) = (machine.home(), machine.home().join(".drain_request.json"));
    assert_eq!(says(drain(&home, &["begin", "--principal", "ann"])).0, 0);
    let mut command = Command::new(binary("groundcrew"));
    command.args(["drain", "wait"]).env_clear().env("GROUNDCREW_HOME", &home);
    let mut wait = Process::start("drain wait", &mut command);
    wait.wait_for_line("waits for the end of CPUStress, attempt 1");
    let asked = || {
        let marker: Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
        (marker["holders"]["ann"]["requested_at"].clone(), marker["principal"].clone())
    };
    // Once where it begins, and again and again.
    let first = asked();
    let second = eventually("a renewal", || Some(asked()).filter(|now| *now != first));
    assert_eq!(second.1, "ann", "it asks in nobody else's name");
    // Nobody can renew one that lapsed. A renewal that was on its way would bring it back, so it is made old again until then.
    eventually("the end of the wait", || {
        age_marker(&marker, 2);
        (!wait.is_alive()).then_some(())
    });
    let (status, said) = (wait.wait(), wait.lines().join("\n"));
    assert!(status.code() == Some(4) && said.contains("lapsed"), "{status} {said}");
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}
