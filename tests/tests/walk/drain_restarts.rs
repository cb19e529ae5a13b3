//! Which restart ends a drain: the document's table with real processes. A container is a PID namespace of its own, whose
//! process 1 is a shell that starts the agent.

use std::path::Path;
use std::process::Command;

use groundcrew_tests::harness::{Process, binary, eventually};

use crate::drain_commands::{Alone, agent};

/// The agent of this home in a container, whose process 1 starts it again once `respawn` is there.
fn container(alone: &Alone, respawn: &Path) -> Process {
    assert!(rustix::process::geteuid().is_root(), "a PID namespace of its own needs root");
    let agent_of = agent(&alone.home());
    let script = format!(
        "{program} agent & agent=$!; until [ -e {respawn} ]; do sleep 0.05; done\n\
         kill -9 $agent; wait $agent; echo respawn; {program} agent & wait",
        program = binary("groundcrew").display(),
        respawn = respawn.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]).env_clear();
    for (name, value) in agent_of.get_envs() {
        command.env(name, value.expect("every variable has a value"));
    }
    Process::start("container", command.env("PATH", "/usr/bin:/bin"))
}

#[test]
fn a_new_container_ends_a_drain_and_a_respawn_of_the_agent_alone_does_not() {
    let alone = Alone::new();
    std::fs::create_dir_all(alone.home()).unwrap();
    let respawn = alone.beside("respawn");
    let mut first = container(&alone, &respawn);
    alone.wait_until_it_answers();
    // Asked for from the host, which has another process 1: by the agent's epoch.
    assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
    std::fs::write(&respawn, "").unwrap();
    first.wait_for_line("respawn");
    alone.wait_until_it_answers();
    assert!(alone.is_draining(), "a respawn of the agent alone keeps the drain");
    first.kill();
    eventually("the end of the container", || alone.status()["gateway_state"].is_null().then_some(()));

    std::fs::remove_file(&respawn).unwrap();
    let mut second = container(&alone, &respawn);
    second.wait_for_line("drain marker: the marker is of another boot");
    alone.wait_until_it_answers();
    let status = alone.status();
    assert_eq!((&status["gateway_state"], &status["drain"]["epoch"]), (&"starting".into(), &"other".into()));
    assert!(alone.marker().exists(), "it reads as absent, and is nobody's to remove");
    let (code, said) = alone.says(&["wait"]);
    assert!(code == 4 && said.contains("another boot"), "{code} {said}");
    // A new drain takes its place.
    assert_eq!(alone.says(&["begin"]).0, 0);
    second.kill();
    eventually("the end of the container", || alone.status()["gateway_state"].is_null().then_some(()));
    // Asked for while no container runs, by the epoch of the last: the next one is the restart that it was for.
    assert_eq!(alone.says(&["begin"]).0, 4);
    let third = container(&alone, &respawn);
    third.wait_for_line("drain marker: the marker is of another boot");
    alone.wait_until_it_answers();
    assert!(!alone.is_draining());
}

#[test]
fn on_a_host_a_drain_outlives_the_agent_and_not_the_boot() {
    let mut alone = Alone::started();
    assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
    for orderly in [true, false] {
        if orderly {
            assert!(alone.agent().stop().success());
        } else {
            alone.agent().kill();
        }
        alone.start(&[]);
        assert!(alone.is_draining(), "stopped in order: {orderly}");
    }
    // The same marker after a reboot, as far as one process can tell: of another boot id.
    let text = std::fs::read_to_string(alone.marker()).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(alone.marker(), text.replace(boot.trim(), "11111111-2222-4333-8444-555555555555"))
        .unwrap();
    assert!(!alone.is_draining());
    alone.agent().kill();
    alone.start(&[]);
    assert!(!alone.is_draining());
}

#[test]
fn markers_of_others_drain_unless_they_are_definitely_past() {
    let alone = Alone::started();
    let ago = |seconds: i64| jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(9));
    let cases = [
        (r#"{"requested_at": "1970-01-01T00:00:00+00:00"}"#.to_owned(), true),
        (r#"{"requested_at": "2100-01-01T00:00:00+00:00"}"#.to_owned(), true),
        (r#"{"requested_at": "2026-07-01T12:02:05"}"#.to_owned(), true),
        (format!(r#"{{"requested_at": "{}"}}"#, ago(600).to_zoned(zone.clone()).strftime("%FT%T%:z")), true),
        (format!(r#"{{"requested_at": "{}"}}"#, ago(7200).to_zoned(zone).strftime("%FT%T%:z")), false),
        (format!(r#"{{"requested_at": "{}"}}"#, ago(7200)), false),
        (r#"{"epoch": 17}"#.to_owned(), false),
        (r#"{"epoch": null, "requested_at": 7}"#.to_owned(), true),
        ("[]".to_owned(), true),
        (String::new(), true),
    ];
    for (marker, drains) in cases {
        std::fs::write(alone.marker(), &marker).unwrap();
        assert_eq!(alone.is_draining(), drains, "{marker}");
        std::fs::remove_file(alone.marker()).unwrap();
        assert!(!alone.is_draining());
    }
    // What is no regular file drains, and holds nobody up.
    std::fs::create_dir(alone.marker()).unwrap();
    assert!(alone.is_draining());
    std::fs::remove_dir(alone.marker()).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", alone.marker()).unwrap();
    assert!(alone.is_draining());
}

#[test]
fn where_the_home_cannot_be_written_a_drain_is_refused_with_the_reason() {
    let alone = Alone::started();
    let home = alone.home();
    let there = |words: &str| {
        let script = format!(
            "mount --bind {home} {home} && mount -o remount,ro,bind {home} && exec {} {words}",
            binary("groundcrew").display(),
            home = home.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        for (name, value) in agent(&home).get_envs() {
            command.env(name, value.expect("every variable has a value"));
        }
        command.output().expect("unshare comes with every system")
    };
    let output = there("drain begin");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains(".drain_request.json"), "{said}");
    // One that stands there is read all the same, and cannot be taken off.
    std::fs::write(alone.marker(), "{}").unwrap();
    let output = there("drain status");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("yes, asked for by drain-control"), "{output:?}");
    let output = there("drain cancel");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("Read-only file system"), "{output:?}");
    std::fs::remove_file(alone.marker()).unwrap();
    assert!(!alone.is_draining());
}

/// Does it, and again where another writer had the marker's lock for all of the time that a call waits for it.
fn again<T: std::fmt::Debug>(mut ask: impl FnMut() -> Result<T, groundcrew_durable::Error>) {
    while let Err(error) = ask() {
        assert!(matches!(error, groundcrew_durable::Error::LockWait { .. }), "{error}");
    }
}

#[test]
fn of_a_thousand_pairs_the_last_wins() {
    use groundcrew_durable::drain_marker::sighting::Now;
    use groundcrew_durable::drain_marker::write::{When, Whom, begin, cancel};
    let alone = Alone::started();
    let epoch = alone.status()["epoch"].as_str().unwrap().to_owned();
    let pairs = |principal: &str, count: usize, holds: bool| {
        let principal = principal.parse().unwrap();
        let when = || When {
            epoch: &epoch,
            boot_id: "",
            now: Now::read(),
            max_age: std::time::Duration::from_secs(3600),
        };
        for _ in 0..count {
            again(|| begin(&alone.home(), &principal, false, &when()));
            again(|| cancel(&alone.home(), Whom::One(&principal), &when()));
        }
        if holds {
            again(|| begin(&alone.home(), &principal, false, &when()));
        }
    };
    // Two writers at once, of whom one stays.
    std::thread::scope(|scope| {
        scope.spawn(|| pairs("ann", 250, true));
        scope.spawn(|| pairs("bob", 250, false));
    });
    assert_eq!(alone.status()["drain"]["holders"], serde_json::json!(["ann"]));
    pairs("ann", 500, false);
    assert!(!alone.is_draining());
}
