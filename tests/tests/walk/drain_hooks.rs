//! Hooks of a node around its drains and at the ends of its runs, with an agent that is killed at the worst moments.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_durable::fault::ON_DISK;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Handle, Machine, Process, Server, eventually};
use serde_json::Value;

use crate::drain_commands::{Alone, agent, drain, says};
use crate::drains::LOAD_THEN_INVENTORY;
use crate::profiles::{LOAD, LOAD_THEN_HELD};

/// A script that notes that it was begun, waits for leave, and ends as that says. Its own number is told first.
const SCRIPT: &str = r#"
echo "begun by $GROUNDCREW_HOOK, token ${GROUNDCREW_TOKEN-none}"
echo "$1 $$" >> "$2/begun"
until [ -e "$2/$1-may-end" ]; do sleep 0.05; done
status=$(cat "$2/$1-may-end")
echo "$1 $status" >> "$2/ended"
exit "$status"
"#;

/// A node whose hooks do as a test tells them.
pub struct Node {
    alone: Alone,
}

impl Node {
    pub fn new() -> Node {
        let node = Node { alone: Alone::new() };
        let hook = |name: &str| {
            let script = serde_json::to_string(SCRIPT).unwrap();
            let folder = node.folder();
            format!(
                "{name} = {{ argv = [\"/bin/sh\", \"-c\", {script}, \"hook\", \"{name}\", {folder:?}], deadline = \"10m\" }}\n"
            )
        };
        std::fs::write(node.hooks(), format!("[drain]\n{}{}", hook("before"), hook("after"))).unwrap();
        node
    }

    fn started() -> Node {
        let mut node = Node::new();
        node.start();
        node
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with more in its environment.
    pub fn start_with(&mut self, more: &[(&str, &str)]) {
        let hooks = self.hooks();
        let own = [("GROUNDCREW_HOOKS", hooks.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        self.alone.start(&[&own, more].concat());
    }

    pub fn alone(&mut self) -> &mut Alone {
        &mut self.alone
    }

    /// Its hooks for an agent whose PATH has none of their tools.
    pub fn hooks_text(&self) -> String {
        let text = std::fs::read_to_string(self.hooks()).unwrap();
        text.replace("sleep 0.05", "/bin/sleep 0.05").replace("$(cat ", "$(/bin/cat ")
    }

    /// The hooks that have succeeded, in order.
    pub fn succeeded(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.alone.beside("ended")).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.strip_suffix(" 0")?.to_owned())).collect()
    }

    fn folder(&self) -> PathBuf {
        self.alone.beside("").components().collect()
    }

    fn hooks(&self) -> PathBuf {
        self.alone.beside("hooks.toml")
    }

    fn begun(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.alone.beside("begun")).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
    }

    /// Waits until the hooks that were begun are these, and gives the last one's process.
    pub fn wait_for(&self, names: &[&str]) -> Handle {
        eventually("a hook that is begun", || (self.begun() == names).then_some(()));
        let text = std::fs::read_to_string(self.alone.beside("begun")).unwrap();
        Handle::on(text.lines().last().unwrap().split_once(' ').unwrap().1.parse().unwrap())
    }

    pub fn lets_end(&self, name: &str, status: u8) {
        // In one step, so that the script never reads half of it.
        let (part, whole) = (self.alone.beside("part"), self.alone.beside(&format!("{name}-may-end")));
        std::fs::write(&part, status.to_string()).unwrap();
        std::fs::rename(part, whole).unwrap();
    }

    fn keeps_from_ending(&self, name: &str) {
        std::fs::remove_file(self.alone.beside(&format!("{name}-may-end"))).unwrap();
    }

    /// What the home says is owed.
    pub fn owes(&self) -> Value {
        match std::fs::read(self.alone.home().join("hooks.json")) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).unwrap()["owes"].clone(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => panic!("hooks.json: {error}"),
        }
    }

    fn is_active(&self, count: u32) -> bool {
        self.alone.status()["active_agents"] == count
    }
}

/// Another process writes it: a file that this one has open for writing, or that a child of another test still has, is not
/// run (ETXTBSY).
fn write_program(path: &Path, text: &str) {
    let write = ["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""];
    assert!(Command::new("/bin/sh").args(write).arg(path).arg(text).status().unwrap().success());
}

#[test]
fn a_drain_is_idle_once_its_hook_has_succeeded_and_is_undone_when_it_ends() {
    let mut node = Node::started();
    assert_eq!(node.alone.says(&["begin", "--principal", "ann"]).0, 0);
    // From the moment of the drain on, whether the process is there yet or not.
    let status = node.alone.status();
    assert_eq!((&status["gateway_state"], &status["active_agents"]), (&"draining".into(), &1.into()));
    assert_eq!(status["active_work"][0]["stage"], "hook drain.before", "{status}");
    let process = node.wait_for(&["before"]);
    assert!(node.alone.says(&["status"]).1.contains(&format!("hook drain.before, pid {}", process.pid())));
    let (code, said) = node.alone.says(&["wait", "--timeout", "1ms"]);
    assert!(code == 3 && said.contains("waited for the hook drain.before, since"), "{code} {said}");
    assert_eq!(node.owes()["is_drained"], false, "the debt is there while it runs");
    node.lets_end("before", 0);
    assert_eq!(node.alone.says(&["wait", "--timeout", "2m"]).0, 0);
    let agent = node.alone.agent();
    agent.wait_for_line("hook drain.before: starts, asked for by ann");
    agent.wait_for_line("hook drain.before: begun by drain.before, token none");
    // Another agent of the home has nothing to do again.
    agent.kill();
    node.start();
    assert!(node.alone.is_draining() && node.is_active(0));
    assert_eq!(node.alone.says(&["cancel"]).1, "the drain is off\n");
    node.wait_for(&["before", "after"]);
    assert!(node.is_active(1) && node.alone.status()["active_work"][0]["stage"] == "hook drain.after");
    node.lets_end("after", 0);
    eventually("nothing that is owed", || node.owes().is_null().then_some(()));
    eventually("nothing that is active", || node.is_active(0).then_some(()));
}

#[test]
fn an_agent_that_is_killed_in_its_hook_is_followed_by_one_that_undoes_it() {
    let mut node = Node::started();
    assert_eq!(node.alone.says(&["begin"]).0, 0);
    let before = node.wait_for(&["before"]);
    node.alone.agent().kill();
    // While nobody is there the drain is taken off.
    std::fs::remove_file(node.alone.marker()).unwrap();
    node.start();
    before.wait_gone();
    let after = node.wait_for(&["before", "after"]);
    node.alone.agent().kill();
    node.start();
    after.wait_gone();
    node.wait_for(&["before", "after", "after"]);
    node.lets_end("after", 0);
    eventually("nothing that is owed", || node.owes().is_null().then_some(()));
    // And under a drain that goes on, the hook that was cut off is run again.
    assert_eq!(node.alone.says(&["begin"]).0, 0);
    node.wait_for(&["before", "after", "after", "before"]);
    node.alone.agent().kill();
    node.start();
    assert!(node.is_active(1));
    node.wait_for(&["before", "after", "after", "before", "before"]);
}

#[test]
fn a_hook_that_fails_is_told_tried_again_and_keeps_the_drain_from_being_idle() {
    let mut node = Node::started();
    node.lets_end("before", 3);
    node.lets_end("after", 4);
    assert_eq!(node.alone.says(&["begin"]).0, 0);
    node.alone.agent().wait_for_line("hook drain.before: try 1 failed");
    let (code, said) = node.alone.says(&["wait", "--timeout", "1ms"]);
    assert!(code == 3 && said.contains("drain.before, which failed 1 times"), "{code} {said}");
    assert!(said.contains("exit status 3"), "{said}");
    node.alone.agent().wait_for_line("hook drain.before: try 2 failed");
    node.lets_end("before", 0);
    assert_eq!(node.alone.says(&["wait", "--timeout", "2m"]).0, 0);
    assert_eq!(node.alone.says(&["cancel"]).0, 0);
    node.alone.agent().wait_for_line("hook drain.after: try 1 failed");
    assert!(!node.owes().is_null());
    node.lets_end("after", 0);
    eventually("nothing that is owed", || node.owes().is_null().then_some(()));
}

#[test]
fn a_drain_that_is_taken_off_in_its_hook_ends_that_and_so_does_the_end_of_the_agent() {
    let mut node = Node::started();
    assert_eq!(node.alone.says(&["begin"]).0, 0);
    let before = node.wait_for(&["before"]);
    assert_eq!(node.alone.says(&["cancel"]).0, 0);
    before.wait_gone();
    let after = node.wait_for(&["before", "after"]);
    assert!(node.alone.agent().stop().success());
    after.wait_gone();
    assert!(!node.owes().is_null(), "the next agent undoes it");
    node.start();
    node.wait_for(&["before", "after", "after"]);
    // One that comes into a drain lets the undo end first.
    assert_eq!(node.alone.says(&["begin"]).0, 0);
    node.lets_end("after", 0);
    node.wait_for(&["before", "after", "after", "before"]);
    node.keeps_from_ending("after");
    node.lets_end("before", 0);
    assert_eq!(node.alone.says(&["wait", "--timeout", "2m"]).0, 0);
}

#[test]
fn an_agent_with_bad_hooks_does_not_start_and_says_where_they_are_bad() {
    let alone = Alone::new();
    let hooks = alone.beside("hooks.toml");
    for (text, part) in [
        ("[drain]\nbefore = { argv = [\"a\"] }\n", "line 2, drain.before.deadline: found nothing"),
        ("[drian]\n", "is drain meant?"),
    ] {
        std::fs::write(&hooks, text).unwrap();
        let mut command = agent(&alone.home());
        let mut process = Process::start("agent", command.env("GROUNDCREW_HOOKS", &hooks));
        assert_eq!(process.wait().code(), Some(64));
        let said = process.lines().join("\n");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn an_agent_whose_home_would_forget_what_is_to_be_undone_does_not_start_and_one_without_such_hooks_does() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("TEST needs /dev/shm");
    let (home, hooks) = (memory.path().join("home"), memory.path().join("hooks.toml"));
    let start = |text: &str| {
        std::fs::write(&hooks, text).unwrap();
        std::fs::set_permissions(&hooks, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = agent(&home);
        Process::start("agent", command.env_remove(ON_DISK).env("GROUNDCREW_HOOKS", &hooks))
    };
    let mut process = start(include_str!("../../../deploy/hooks/kubernetes.toml"));
    assert_eq!(process.wait().code(), Some(64), "a wrong setting: nobody starts it again and again");
    let said = process.lines().join("\n");
    for part in
        [hooks.to_str().unwrap(), home.to_str().unwrap(), "after a reboot in a drain nobody would know"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!home.exists(), "and leaves nothing behind");
    let _agent = start("[ready]\non_hold = { argv = [\"true\"], deadline = \"1m\" }\n");
    let state = || -> Value {
        serde_json::from_slice(&drain(&home, &["status", "--json"]).stdout).unwrap_or_default()
    };
    eventually("an agent that answers", || state()["gateway_state"].is_string().then_some(()));
}

#[test]
fn the_end_and_the_hold_of_a_run_have_their_hooks_and_the_output_is_in_its_log() {
    let server = Server::start();
    let hook = |words: &str| format!("{{ argv = [\"/bin/echo\", \"{words}\"], deadline = \"1m\" }}");
    let hooks =
        format!("[ready]\non_completed = {}\non_hold = {}\n", hook("up again {run}"), hook("held {run}"));
    let told = |name: &str, profile: &str, state: State| {
        let run = server.create_run(name, profile);
        let mut machine = Machine::new(&server, &run, name).with_hooks(&hooks);
        machine.start();
        machine.load.started();
        machine.load.pass();
        server.wait_for_state(&run, state);
        let text = if name == "held" { format!("held {}", run.id) } else { format!("up again {}", run.id) };
        let has = |part: &str| server.log(&run, None).iter().any(|line| line.contains(part));
        eventually("its output in the log", || has(&text).then_some(()));
        eventually("its end in the log", || has(": is done").then_some(()));
        machine
    };
    let mut held = told("held", LOAD_THEN_HELD, State::FailedHolding);
    // Another agent of the home says it no second time. It has claimed before it answers with a drain of its own.
    held.kill();
    held.start();
    held.agent().wait_for_line("the run stands at FailedHolding");
    held.agent().wait_for_line("held: waits for an operator");
    // A hook that it had begun would have been told before this line.
    assert_eq!(says(drain(&held.home(), &["status"])).0, 0);
    assert_eq!(says(drain(&held.home(), &["begin"])).0, 0);
    held.agent().wait_for_line("drains, asked for by drain-control");
    assert_eq!(held.agent().count_of("hook ready.on_hold"), 0);
    told("completed", LOAD, State::Completed);
}

#[test]
fn the_hook_for_slurm_waits_for_jobs_and_may_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    // It knows one node, whose state is a file; the first question about it finds a job that runs.
    let scontrol = r#"#!/bin/sh
cd "${0%/*}"
case "$1 $2" in
"show node") cat state; sed -i s/MIXED/IDLE/ state ;;
"update NodeName=n7")
    echo "$*" >> asked
    case "$3" in
    State=DRAIN) echo "   State=MIXED+DRAIN ThreadsPerCore=2" > state ;;
    State=UNDRAIN) echo "   State=IDLE ThreadsPerCore=2" > state ;;
    esac ;;
*) exit 1 ;;
esac
"#;
    let (program, state) = (folder.path().join("scontrol"), folder.path().join("state"));
    write_program(&program, scontrol);
    std::fs::write(&state, "   State=IDLE ThreadsPerCore=2\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hooks/slurm-node");
    let call = |words: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let mut command = Command::new(&script);
        says(command.args(words).env("PATH", path).env("SLURM_NODE_PAUSE", "0.01").output().unwrap())
    };
    for _ in 0..2 {
        let (code, said) = call(&["drain", "n7", "groundcrew: asked for by ann"]);
        assert!(code == 0 && said == "n7 is IDLE+DRAIN\n", "{code} {said}");
    }
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    assert!(
        asked.starts_with("update NodeName=n7 State=DRAIN Reason=groundcrew: asked for by ann\n"),
        "{asked}"
    );
    assert_eq!(call(&["undrain", "n7"]), (0, String::new()));
    assert_eq!(call(&["undrain", "n7"]), (0, "n7 is not drained\n".to_owned()));
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "   State=IDLE ThreadsPerCore=2\n");
    assert_eq!((call(&["drain", "n8", "x"]).0, call(&["drain"]).0), (1, 64));
}

#[test]
fn the_hooks_for_kubectl_are_tried_until_the_workloads_are_off_and_let_them_back() {
    let mut alone = Alone::new();
    // A pod is kept by its budget until it may go.
    let kubectl = r#"#!/bin/sh
cd "${0%/*}"
echo "$*" >> asked
[ "$2" != drain ] || [ -e may-go ] && exit 0
echo "error when evicting pods: Cannot evict pod as it would violate the pod's disruption budget." >&2
exit 1
"#;
    write_program(&alone.beside("kubectl"), kubectl);
    let hooks = alone.beside("hooks.toml");
    std::fs::write(&hooks, include_str!("../../../deploy/hooks/kubernetes.toml")).unwrap();
    let path = format!("{}:/usr/bin:/bin", hooks.parent().unwrap().display());
    alone.start(&[("GROUNDCREW_HOOKS", hooks.to_str().unwrap()), ("PATH", &path)]);
    assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
    let line = alone.agent().wait_for_line("hook drain.before: try 1 failed");
    assert!(line.contains("disruption budget"), "{line}");
    assert_eq!(alone.says(&["wait", "--timeout", "1ms"]).0, 3);
    std::fs::write(alone.beside("may-go"), "").unwrap();
    assert_eq!(alone.says(&["wait", "--timeout", "2m"]).0, 0);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let last = || {
        let asked = std::fs::read_to_string(alone.beside("asked")).unwrap();
        asked.lines().last().unwrap().replace("--kubeconfig=/etc/groundcrew/kubeconfig ", "")
    };
    let drains = format!("drain {} --ignore-daemonsets --delete-emptydir-data --timeout=14m", host.trim());
    assert_eq!(last(), drains);
    assert_eq!(alone.says(&["cancel"]).0, 0);
    eventually("the undo", || (last() == format!("uncordon {}", host.trim())).then_some(()));
}

#[test]
fn an_interrupt_that_drains_the_node_waits_for_its_hook_with_no_deadline_running() {
    let server = Server::start();
    let node = Node::new();
    let profile = "name = \"drains\"\n[[stage]]\nname = \"Interrupt:it\"\n\
                   [[interrupt]]\nname = \"it\"\ntype = \"no_op\"\ndrain = true\n";
    let run = server.create_run("n1", profile);
    let mut machine = Machine::new(&server, &run, "m1").with_interrupts().with_hooks(&node.hooks_text());
    machine.start();
    node.wait_for(&["before"]);
    server.wait_for_event(&run, "waits_for_drain");
    let status = || -> Value {
        serde_json::from_slice(&drain(&machine.home(), &["status", "--json"]).stdout).unwrap()
    };
    let found = status();
    assert_eq!(
        (&found["gateway_state"], &found["active_agents"]),
        (&"draining".into(), &1.into()),
        "{found}"
    );
    assert_eq!(found["active_work"][0]["stage"], "hook drain.before");
    assert!(!machine.home().join(".drain_request.json").exists(), "it is no marker");
    node.lets_end("before", 0);
    server.wait_for_state(&run, State::Completed);
    node.wait_for(&["before", "after"]);
    node.lets_end("after", 0);
    eventually("an agent that drains no more", || (status()["gateway_state"] == "running").then_some(()));
    eventually("nothing that is active", || (status()["active_agents"] == 0).then_some(()));
}

#[test]
fn an_abort_under_somebodys_drain_ends_with_a_failure_and_the_next_agent_undoes_what_is_owed() {
    let server = Server::start();
    let node = Node::new();
    node.lets_end("before", 0);
    node.lets_end("after", 0);
    let run = server.create_run("n1", LOAD_THEN_INVENTORY);
    let mut machine = Machine::new(&server, &run, "m1").with_hooks(&node.hooks_text());
    machine.start();
    machine.load.started();
    assert_eq!(says(drain(&machine.home(), &["begin", "--principal", "ann"])).0, 0);
    machine.load.pass();
    assert_eq!(says(drain(&machine.home(), &["wait", "--principal", "ann", "--timeout", "2m"])).0, 0);
    // Its second stage is next.
    server.wait_for_event(&run, "waits_for_drain");
    server.order(&run, "abort", "enough");
    assert_eq!(machine.wait().code(), Some(1));
    assert_eq!(node.succeeded(), ["before"], "the drain holds on");
    machine.kill();
    machine.start();
    let status = || -> Value {
        serde_json::from_slice(&drain(&machine.home(), &["status", "--json"]).stdout).unwrap()
    };
    eventually("an agent that drains", || (status()["gateway_state"] == "draining").then_some(()));
    assert_eq!(says(drain(&machine.home(), &["cancel"])).1, "the drain is off\n");
    eventually("the undo", || (node.succeeded() == ["before", "after"]).then_some(()));
}
