//! Who is told when an agent shuts down in order, and when the orchestrator does: real agents that get SIGTERM, and sinks that
//! take what they are told, or do not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::server::SINKS_FILE;
use groundcrew_tests::harness::sink::SECRET;
use groundcrew_tests::harness::{Answers, Machine, Run, Server, Sink, eventually};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::drain_commands::{drain, says};
use crate::drains::{LOAD_THEN_INVENTORY, ctl};
use crate::interrupts;
use crate::profiles::LOAD;

/// Past every pause between two tries.
const PAST_A_PAUSE_MS: u64 = 60_000;

/// A server that tells `ops` of every shutdown, and `team` of runs that name it.
struct Site {
    server: Server,
    ops: Sink,
    team: Sink,
}

impl Site {
    fn started() -> Site {
        let (ops, team) = (Sink::that(Answers::Well), Sink::that(Answers::Well));
        let sinks = ops.settings("ops", "webhook", "") + &team.settings("team", "webhook", "fleet = false");
        Site { server: Server::start_telling(&sinks, PAST_A_PAUSE_MS), ops, team }
    }

    /// A run that names `team`, with its load under way.
    fn walking(&self, node: &str) -> (Run, Machine) {
        self.walking_by(LOAD, node)
    }

    fn walking_by(&self, profile: &str, node: &str) -> (Run, Machine) {
        let run = self.server.create_run_told_to(node, profile, &["team"]);
        let mut machine = Machine::started(&self.server, &run, node);
        machine.load.started();
        (run, machine)
    }
}

fn shutdowns(server: &Server, run: &Run) -> Vec<EventView> {
    server.events(run).into_iter().filter(|event| event.kind == "agent_shutdown").collect()
}

/// The runs of which a sink was told, in the order in which that came.
fn runs_of(told: &[Value]) -> Vec<&str> {
    told.iter().filter_map(|body| body["agent"]["run"].as_str()).collect()
}

/// Whatever a server said, tells operators and keeps shows no more of an address than scheme and host, and nothing of an
/// `authorization`.
fn expect_no_secret(server: &Server, run: &Run) {
    assert_eq!(server.process().count_of(SECRET), 0, "{:#?}", server.process().lines());
    for path in [format!("/api/v1/runs/{}", run.id), "/api/v1/tasks".to_owned(), "/metrics".to_owned()] {
        assert!(!server.text(&path).contains(SECRET), "{path}");
    }
    assert!(server.events(run).iter().all(|event| !event.text.contains(SECRET)));
}

#[test]
fn a_stop_is_told_once_to_the_fleet_to_the_run_and_in_its_log_and_says_how_to_resume() {
    let site = Site::started();
    let server = &site.server;
    let (run, mut machine) = site.walking("n1");
    assert!(machine.stop().success());
    let events = shutdowns(server, &run);
    assert_eq!(events.len(), 1, "{events:?}");
    let said = "the agent shuts down (it was told to stop): CPUStress, attempt 1, is cut off. To resume, start the agent on \
                node n1 again";
    assert!(events[0].text.starts_with(said), "{}", events[0].text);
    eventually("the run's log", || {
        let log = server.log(&run, None);
        log.iter()
            .any(|line| line.contains("the agent shuts down: CPUStress, attempt 1, is cut off"))
            .then_some(())
    });
    let (fleet, own) = (site.ops.wait_for(1), site.team.wait_for(1));
    for (body, audience) in [(&fleet[0], "fleet"), (&own[0], "run")] {
        assert_eq!((&body["version"], &body["kind"]), (&1.into(), &"agent_shutdown".into()), "{body}");
        assert_eq!(body["audience"], audience, "{body}");
        assert_eq!(body["agent"]["cut_off"], json!({"stage": "CPUStress", "attempt": 1}));
        assert!(
            body["agent"]["resume"].as_str().unwrap().starts_with("To resume, start the agent"),
            "{body}"
        );
    }
    assert_eq!(server.wait_for_event(&run, "notice_sent").text, "sink team was told of the agent's shutdown");
    // It goes on as it says, and the next stop, after the end of the run, is the fleet's affair alone.
    machine.start();
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    assert_eq!(server.count_of(&run, "crashed"), 0);
    machine.agent().wait_for_line("the run has ended (Completed)");
    assert!(machine.stop().success());
    let fleet = site.ops.wait_for(2);
    assert_eq!(fleet[1]["agent"]["resume"], "The run has ended: there is nothing to resume");
    assert_eq!((shutdowns(server, &run).len(), site.team.told().len()), (1, 1));
    // In the run's history, in words.
    let history = ctl(server, &["run", "watch", run.id.as_str()]);
    assert!(history.lines().any(|line| line.contains("agent_shutdown") && line.contains(said)), "{history}");
    expect_no_secret(server, &run);
}

/// A marker of the home, written whole.
fn mark(machine: &Machine, fields: &Value) {
    let beside = machine.home().join("marker");
    std::fs::write(&beside, fields.to_string()).unwrap();
    std::fs::rename(beside, machine.home().join(".drain_request.json")).unwrap();
}

#[test]
fn only_an_active_marker_that_says_true_keeps_it_from_the_fleet() {
    let mut site = Site::started();
    let now = || Timestamp::now().to_string();
    let marker =
        |quiet: Value| json!({"action": "drain", "requested_at": now(), "suppress_notification": quiet});
    let long_ago = (Timestamp::now() - SignedDuration::from_hours(2)).to_string();
    let cases = [
        ("n-true", marker(true.into()), false),
        ("n-false", marker(false.into()), true),
        ("n-text", marker("true".into()), true),
        ("n-absent", json!({"action": "drain", "requested_at": now()}), true),
        ("n-lapsed", json!({"requested_at": long_ago, "suppress_notification": true}), true),
        ("n-other-boot", json!({"epoch": "another:1", "suppress_notification": true}), true),
    ];
    let mut expected = Vec::new();
    for (node, fields, is_told) in cases {
        let (run, mut machine) = site.walking(node);
        // Just before the stop: it is read for that.
        mark(&machine, &fields);
        assert!(machine.stop().success());
        // The run is told in any case.
        site.server.wait_for_event(&run, "notice_sent");
        let text = shutdowns(&site.server, &run).remove(0).text;
        assert_eq!(text.contains("the fleet is not told"), !is_told, "{node}: {text}");
        if is_told {
            expected.push(run.id.to_string());
        }
    }
    // As an updater asks for it.
    let (run, mut machine) = site.walking("n-quiet");
    assert_eq!(says(drain(&machine.home(), &["begin", "--principal", "updater", "--quiet"])).0, 0);
    assert!(machine.stop().success());
    site.server.wait_for_event(&run, "notice_sent");
    // Its end is the last that it tells, and it comes to that with nothing left to send.
    assert!(site.server.stop().success());
    let fleet = site.ops.told();
    let last = fleet.last().unwrap();
    assert_eq!((&last["kind"], &last["agent"]), (&"orchestrator_shutdown".into(), &Value::Null), "{last}");
    let mut found = runs_of(&fleet);
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(site.team.told().len(), 7);
}

#[test]
fn a_drained_agent_that_is_stopped_cuts_nothing_off_and_tells_no_run() {
    let mut site = Site::started();
    let (run, mut machine) = site.walking_by(LOAD_THEN_INVENTORY, "n1");
    assert_eq!(says(drain(&machine.home(), &["begin", "--principal", "ann"])).0, 0);
    machine.load.pass();
    assert_eq!(says(drain(&machine.home(), &["wait", "--principal", "ann", "--timeout", "2m"])).0, 0);
    site.server.wait_for(&run, "a run that waits for the drain", |view| {
        view.summary.wait.as_ref().is_some_and(|wait| wait.r#for.contains("drain"))
    });
    assert!(machine.stop().success());
    let fleet = site.ops.wait_for(1);
    assert_eq!(fleet[0]["agent"]["cut_off"], Value::Null, "{}", fleet[0]);
    assert_eq!(shutdowns(&site.server, &run).len(), 1);
    assert!(site.server.stop().success());
    assert!(site.team.told().is_empty(), "{:?} of {}", site.team.told(), run.id);
}

#[test]
fn a_crash_is_no_shutdown() {
    let mut site = Site::started();
    let (run, mut machine) = site.walking("n1");
    machine.kill();
    machine.start();
    machine.load.started();
    assert_eq!(site.server.count_of(&run, "crashed"), 1);
    assert!(shutdowns(&site.server, &run).is_empty());
    machine.kill();
    assert!(site.server.stop().success());
    let fleet = site.ops.told();
    assert!(
        fleet.iter().all(|body| body["kind"] == "orchestrator_shutdown") && fleet.len() == 1,
        "{fleet:?}"
    );
    assert!(site.team.told().is_empty());
}

#[test]
fn an_abort_by_an_operator_and_a_reboot_of_the_runs_own_say_so() {
    let site = Site::started();
    let (run, mut machine) = site.walking("n1");
    site.server.order(&run, "abort", "enough");
    assert!(machine.wait().success());
    let fleet = site.ops.wait_for(1);
    let agent = &fleet[0]["agent"];
    assert_eq!((&agent["reason"], &agent["expected"]), (&"aborted".into(), &true.into()), "{agent}");

    // What reboots here is a program that says that it was called.
    let root = interrupts::root_with(&site.server, "reboot", "#!/bin/sh\necho reboot >>/calls\n");
    let profile = interrupts::profile(&root, "type = \"node_restart\"");
    let run = site.server.create_run_told_to("n2", &profile, &["team"]);
    let mut machine = Machine::new(&site.server, &run, "m1").with_interrupts();
    machine.start();
    eventually("the request", || (!interrupts::calls(&root).is_empty()).then_some(()));
    assert!(machine.stop().success());
    let text = site.server.wait_for_event(&run, "agent_shutdown").text;
    assert!(
        text.contains("for the reboot that the run asked for") && text.contains("Nothing is to be done"),
        "{text}"
    );
    let own = site.team.wait_for(1);
    let agent = &own[0]["agent"];
    assert_eq!((&agent["reason"], &agent["expected"]), (&"reboot".into(), &true.into()), "{agent}");
}

#[test]
fn sinks_that_are_dead_in_any_way_hold_up_nobody_and_are_named_with_the_reason() {
    let bad = [
        ("refuses", Answers::Refuses, "connecting: Connection refused"),
        ("silent", Answers::Never, "found no answer within"),
        ("slow", Answers::Slowly, "found no answer within"),
        ("broken", Answers::With(500), "found status 500, expected 200 to 299"),
        ("gone", Answers::With(404), "found status 404"),
        ("moved", Answers::With(302), "found a redirect (status 302), which is not followed"),
    ];
    let sinks: Vec<Sink> = bad.iter().map(|(_, answers, _)| Sink::that(*answers)).collect();
    let (good, endless) = (Sink::that(Answers::Well), Sink::that(Answers::Endlessly));
    let dead = sinks.iter().zip(&bad).map(|(sink, (name, ..))| sink.settings(name, "webhook", "tries = 1"));
    let text = dead.collect::<String>()
        + &good.settings("good", "slack", "")
        + &endless.settings("endless", "webhook", "");
    let mut server = Server::start_telling(&text, PAST_A_PAUSE_MS);
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    // It ends, whoever is dead; that each is given up is told later.
    assert!(machine.stop().success());
    let said = good.wait_for(1)[0]["text"].as_str().unwrap().to_owned();
    assert!(said.starts_with("Agent on node n1 shuts down (it was told to stop)"), "{said}");
    endless.wait_for(1);
    let failed = eventually("the end of every try", || {
        let events = server.events(&run);
        let failed: Vec<String> = events
            .into_iter()
            .filter(|event| event.kind == "notice_failed")
            .map(|event| event.text)
            .collect();
        (failed.len() >= bad.len()).then_some(failed)
    });
    for (name, _, why) in &bad {
        let start = format!("sink {name} was not told of the agent's shutdown: ");
        assert!(
            failed.iter().any(|text| text.starts_with(&start) && text.contains(why)),
            "{name}: {failed:#?}"
        );
    }
    assert_eq!(failed.len(), bad.len(), "each once: {failed:#?}");
    expect_no_secret(&server, &run);
    // Its own end is no later for them: one try each, all at once, and what became of each is said.
    let process = server.process();
    process.signal(rustix::process::Signal::TERM);
    for (name, ..) in &bad {
        process.wait_for_line(&format!("own shutdown not told sink={name}"));
    }
    assert!(server.stop().success());
    assert_eq!(good.told().len(), 2);
}

#[test]
fn a_notice_that_a_sink_does_not_take_outlives_the_orchestrator_and_is_told_once() {
    let mut late = Sink::that(Answers::Refuses);
    let mut server = Server::start_telling(&late.settings("ops", "webhook", ""), PAST_A_PAUSE_MS);
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    assert!(machine.stop().success());
    server.process().wait_for_line("notice not sent");
    // Only then it is known when the next try may be; time that passes before counts for nothing.
    eventually("a try that waits", || {
        server.text("/api/v1/tasks").contains("1 wait for another try").then_some(())
    });
    assert_eq!(server.process().count_of("try_number=2"), 0, "it waits before it tries again");
    server.pass_time();
    server.process().wait_for_line("try_number=2");
    server.kill();
    late.comes_back();
    server.start_again(&[]);
    let told = late.wait_for(1);
    assert_eq!(told[0]["id"], format!("{}/1", run.id));
    assert!(server.stop().success());
    let kinds: Vec<Value> = late.told().into_iter().map(|body| body["kind"].clone()).collect();
    assert_eq!(kinds, ["agent_shutdown", "orchestrator_shutdown"]);
}

#[test]
fn a_notice_of_a_run_that_has_ended_outlives_the_orchestrator_too() {
    let mut late = Sink::that(Answers::Refuses);
    let mut server = Server::start_telling(&late.settings("ops", "webhook", ""), PAST_A_PAUSE_MS);
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    machine.agent().wait_for_line("the run has ended (Completed)");
    assert!(machine.stop().success());
    server.process().wait_for_line("notice not sent");
    server.kill();
    late.comes_back();
    server.start_again(&[]);
    let told = late.wait_for(1);
    assert_eq!(told[0]["id"], format!("{}/1", run.id));
    assert!(server.stop().success());
    // It is owed no more.
    server.start_again(&[]);
    assert!(server.stop().success());
    let kinds: Vec<Value> = late.told().into_iter().map(|body| body["kind"].clone()).collect();
    assert_eq!(kinds, ["agent_shutdown", "orchestrator_shutdown", "orchestrator_shutdown"]);
}

#[test]
fn a_stop_that_the_orchestrator_did_not_hear_is_told_once_with_the_next_claim() {
    let mut site = Site::started();
    let (run, mut machine) = site.walking("n1");
    site.server.kill();
    assert!(machine.stop().success());
    site.server.start_again(&[]);
    machine.start();
    machine.load.started();
    let events = shutdowns(&site.server, &run);
    let said = "the agent had shut down unheard, before it claimed again (it was told to stop): CPUStress, attempt 1, is cut off. \
                Nothing is to be done: an agent on node n1 has the run again";
    assert!(events.len() == 1 && events[0].text == said, "{events:?}");
    for sink in [&site.ops, &site.team] {
        sink.wait_for(1);
    }
    // What is heard in time is not told again.
    assert!(machine.stop().success());
    machine.start();
    machine.load.started();
    machine.load.pass();
    site.server.wait_for_state(&run, State::Completed);
    assert_eq!(shutdowns(&site.server, &run).len(), 2);
    for sink in [&site.ops, &site.team] {
        let told = sink.wait_for(2);
        let late: Vec<&Value> = told.iter().map(|body| &body["agent"]["late"]).collect();
        assert_eq!(late, [true, false]);
        assert_eq!(told[0]["agent"]["cut_off"], json!({"stage": "CPUStress", "attempt": 1}));
    }
    assert_eq!(site.server.count_of(&run, "crashed"), 0);
}

#[test]
fn settings_that_cannot_be_meant_are_refused_at_the_start_and_at_a_run() {
    let mut site = Site::started();
    let body = json!({"node": "n1", "profile": "load", "notify": ["teem"]});
    let refused = site.server.call::<Value>(Method::POST, "/api/v1/runs", &body).unwrap_err();
    assert_eq!(refused.status(), Some(422));
    let why = refused.chain();
    assert!(why.contains("field notify: there is no sink teem") && why.contains("ops, team"), "{why}");
    assert!(site.server.stop().success());
    let file = site.server.beside(SINKS_FILE);
    let good = std::fs::read_to_string(&file).unwrap();
    let refuses = |path: &Path, text: &str, mode: u32, expected: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (status, said) = site.server.start_in_vain();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.contains(SINKS_FILE) && !said.contains(SECRET), "{said}");
    };
    refuses(&file, &good, 0o644, "mode 0644");
    refuses(&file, &good.replace("webhook", "pager"), 0o600, "sink 1 (ops), kind: found another word");
    refuses(&file, &good.replace("127.0.0.1", "192.0.2.1"), 0o600, "in the clear for whoever listens");
}
