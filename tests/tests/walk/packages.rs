//! A package as a stage of a run: its steps in a root of their own, their output in the run's log, a failure that holds,
//! a retry that goes on where it stopped.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Handle, Machine, Run, Server, eventually, programs};

pub(super) const STAGE: &str = "Package:tuning/apply";
const CONFIG: &str = r#"{"schema_version": "v1", "package_name": "tuning", "package_version": "1.0.0",
"expected_config_files": ["level.conf"], "modes": {"apply": [
{"name": "one", "path": "one.sh", "arguments": ["first"], "returncodes": [0], "on_host": true, "idempotence": false,
 "upgrade_step": false},
{"name": "two", "path": "two.sh", "arguments": [], "returncodes": [0], "on_host": true, "idempotence": false,
 "upgrade_step": false}],
"apply-check": [
{"name": "check", "path": "check.sh", "arguments": [], "returncodes": [0], "on_host": true, "idempotence": false,
 "upgrade_step": false}]}}"#;
const ONE: &str = "#!/bin/sh\necho \"one is here, $1, $LEVEL\"\necho ran >>/one-ran\n";
const TWO: &str = "#!/bin/sh\nread -r text <\"$SKYHOOK_DIR/configmaps/level.conf\"\necho \"two reads $text\"\n\
                   [ -e /mended ] || exit 3\n";
const CHECK: &str = "#!/bin/sh\n[ -e /one-ran ] && [ -e /mended ]\n";

/// A root with a shell and nothing else, and a package beside it.
pub(super) fn ground(server: &Server) -> (PathBuf, PathBuf) {
    assert!(
        rustix::process::geteuid().is_root(),
        "applying a package needs root: its steps change their root"
    );
    let (root, package) = (server.beside("root"), server.beside("tuning"));
    programs::make_root(&root);
    std::fs::create_dir_all(package.join("skyhook_dir")).unwrap();
    std::fs::write(package.join("config.json"), CONFIG).unwrap();
    for (name, text) in [("one.sh", ONE), ("two.sh", TWO), ("check.sh", CHECK)] {
        std::fs::write(package.join("skyhook_dir").join(name), text).unwrap();
    }
    (root, package)
}

fn profile(root: &Path, package: &Path) -> String {
    profile_of(root, &format!("path = \"{}\"", package.display()))
}

/// A profile with the package; `source` says where it comes from.
pub(super) fn profile_of(root: &Path, source: &str) -> String {
    format!(
        r#"
name = "package"
[[stage]]
name = "{STAGE}"
[[stage]]
name = "Package:tuning/apply-check"
[[package]]
name = "tuning"
version = "1.0.0"
{source}
root_mount = "{}"
[package.env]
LEVEL = "high"
SKYHOOK_AGENT_TERM_GRACE_S = "0.1"
COPY_RESOLV = "false"
[package.config_files]
"level.conf" = "seven\n"
"#,
        root.display()
    )
}

/// Waits for a line of the stage that holds `part`.
pub(super) fn expect_line(server: &Server, run: &Run, part: &str) {
    eventually(part, || {
        let lines = server.log(run, Some(&Stage::from(STAGE)));
        lines.iter().any(|line| line.contains(part)).then_some(())
    });
}

/// Whether there is a copy of a package in its agent's home, with the profile's config files laid over it.
fn has_own_copy(machine: &Machine) -> bool {
    machine.home().join("package-data").exists()
}

#[test]
fn a_package_that_fails_holds_and_once_mended_goes_on_where_it_stopped() {
    let server = Server::start();
    let (root, package) = ground(&server);
    let run = server.create_run("n1", &profile(&root, &package));
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    let held = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(held.stages[0].verdict, Some(Verdict::Fail), "{}", held.summary.reason);
    assert!(held.summary.reason.contains("\"FAILED: two.sh  3\""), "{}", held.summary.reason);
    for part in ["one is here, first, high", "SUCEEDED: one.sh first", "two reads seven", "FAILED: two.sh"] {
        expect_line(&server, &run, part);
    }
    let id = |retries: u32| format!("groundcrew-{}-{retries}_tuning_1.0.0", run.id);
    expect_line(&server, &run, &id(0));
    assert!(!has_own_copy(&machine));
    assert!(root.join("etc/skyhook/flags").is_dir(), "flags lie where an operator's agent looks for them");

    std::fs::write(root.join("mended"), "").unwrap();
    server.order(&run, "retry", "");
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.stages[0].verdict), (2, Some(Verdict::Pass)));
    assert_eq!((view.stages[1].attempts, view.stages[1].verdict), (1, Some(Verdict::Pass)));
    assert_eq!(std::fs::read_to_string(root.join("one-ran")).unwrap(), "ran\n", "the first step ran again");
    expect_line(&server, &run, "Skipping one.sh");
    expect_line(&server, &run, "SUCEEDED: two.sh");
    expect_line(&server, &run, &id(1));
    assert!(machine.stop().success());
}

#[test]
fn a_machine_that_allows_no_packages_is_left_alone() {
    let server = Server::start();
    let (root, package) = ground(&server);
    let run = server.create_run("n1", &profile(&root, &package));
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start();
    let held = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(held.stages[0].verdict, Some(Verdict::Inconclusive));
    assert!(held.summary.reason.contains("--allow-packages"), "{}", held.summary.reason);
    assert!(!root.join("one-ran").exists() && !root.join("etc").exists());
}

#[test]
fn a_cancel_ends_the_step_that_runs_and_starts_no_further_one() {
    let server = Server::start();
    let (root, package) = ground(&server);
    assert!(Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
    let waits = "#!/bin/sh\necho \"one waits as $$\"\nread -r _ </fifo\n";
    std::fs::write(package.join("skyhook_dir/one.sh"), waits).unwrap();
    let run = server.create_run("n1", &profile(&root, &package));
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    let line = machine.agent().wait_for_line("one waits as ");
    let step = Handle::on(line.rsplit(' ').next().unwrap().parse().unwrap());
    server.order(&run, "cancel", "wrong machine");
    step.wait_gone();
    server.wait_for_event(&run, "late_result");
    expect_line(&server, &run, "FAILED: one.sh first -15");
    let lines = server.log(&run, Some(&Stage::from(STAGE)));
    assert!(!lines.iter().any(|line| line.contains("two reads")), "{lines:#?}");
    assert_eq!(server.view(&run).summary.state, State::Cancelled);
    assert!(!has_own_copy(&machine));
    assert!(machine.stop().success());
}

#[test]
fn a_package_lies_where_its_profile_says_and_no_copy_of_the_agents_own_is_left_even_by_one_that_was_killed() {
    let server = Server::start();
    let (root, package) = ground(&server);
    std::fs::write(root.join("mended"), "").unwrap();
    assert!(Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
    // Held open at both ends: each step that waits reads one line, whenever it comes to that.
    let mut fifo = OpenOptions::new().read(true).write(true).open(root.join("fifo")).unwrap();
    let one = package.join("skyhook_dir/one.sh");
    let waits = "#!/bin/sh\necho \"one waits in $SKYHOOK_DIR\"\nread -r _ </fifo\necho ran >>/one-ran\n";
    std::fs::write(&one, waits).unwrap();
    let source = format!("path = \"{}\"\ncopy_dir = \"/opt/tuning\"", package.display());
    let run = server.create_run("n1", &profile_of(&root, &source));
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    machine.agent().wait_for_line("one waits in /opt/tuning");
    let copied = root.join("opt/tuning");
    assert_eq!(std::fs::read_to_string(copied.join("configmaps/level.conf")).unwrap(), "seven\n");
    assert!(!package.join("configmaps").exists(), "the operator's own folder stays as it is");
    assert!(has_own_copy(&machine), "the profile's config files are laid over a copy");

    machine.kill();
    assert!(has_own_copy(&machine), "whoever is killed removes nothing");
    // More lines than steps that wait, of the killed agent and of the next.
    fifo.write_all(b"\n\n\n\n").unwrap();
    machine.start();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 2);
    assert!(!has_own_copy(&machine));
    assert!(machine.stop().success());
    assert!(
        !root.join("var/lib/groundcrew").exists(),
        "nothing lies where packages without such a folder lie"
    );

    // It is not another run's copy, and it is not copied again.
    std::fs::write(&one, "#!/bin/sh\n").unwrap();
    let again = server.create_run("n1", &profile_of(&root, &source));
    let mut machine = Machine::new(&server, &again, "m2").with_packages();
    machine.start();
    server.wait_for_state(&again, State::Completed);
    assert_eq!(std::fs::read_to_string(copied.join("skyhook_dir/one.sh")).unwrap(), waits);
    assert!(!has_own_copy(&machine));
    assert!(machine.stop().success());
}

#[test]
fn a_package_for_the_agents_own_root_is_applied_without_a_chroot() {
    let server = Server::start();
    let (_root, package) = ground(&server);
    let (copy, state, log) = (server.beside("copy"), server.beside("state"), server.beside("log"));
    for (name, text) in [
        ("one.sh", "#!/bin/sh\necho \"one is in $PWD\"\n: >\"$SKYHOOK_DIR/one-ran\"\n"),
        ("two.sh", "#!/bin/sh\nexit 0\n"),
        ("check.sh", "#!/bin/sh\n[ -e \"$SKYHOOK_DIR/one-ran\" ]\n"),
    ] {
        std::fs::write(package.join("skyhook_dir").join(name), text).unwrap();
    }
    let source = format!("path = \"{}\"\ncopy_dir = \"{}\"", package.display(), copy.display());
    let folders =
        format!("SKYHOOK_ROOT_DIR = \"{}\"\nSKYHOOK_LOG_DIR = \"{}\"", state.display(), log.display());
    let profile = profile_of(Path::new("local"), &source);
    let profile = profile.replace("[package.env]", &format!("[package.env]\n{folders}"));
    let run = server.create_run("n1", &profile);
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].verdict, Some(Verdict::Pass));
    expect_line(&server, &run, &format!("one is in {}", copy.display()));
    assert_eq!(std::fs::read_dir(state.join("flags/tuning/1.0.0")).unwrap().count(), 2);
    assert!(log.join("tuning/1.0.0").is_dir());
    assert!(!Path::new("local").exists(), "a folder of that name was made where the agent was started");
    assert!(machine.stop().success());
}
