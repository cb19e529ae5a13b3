//! The key of a hold with a real SSH server: who gets in with it, who no more, and who takes it out.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use groundcrew_agent::hold;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_tests::harness::{Machine, Run, Server, Sshd, binary, eventually};

use crate::profiles::LOAD;

const OTHERS: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody@else\n";
/// Long after any test, and before the year 9999, which is as far as sshd's times go.
const FAR_MS: i64 = 4_000_000_000_000;

/// A held run whose machine has an SSH server that reads the file of its keys.
struct Held {
    server: Server,
    run: Run,
    machine: Machine,
    sshd: Sshd,
}

impl Held {
    fn new() -> Held {
        let server = Server::start();
        let run = server.create_run("n1", LOAD);
        let mut machine = Machine::new(&server, &run, "m1");
        std::fs::write(machine.authorized_keys(), OTHERS).unwrap();
        let folder = server.beside("ssh");
        let sshd = Sshd::start(&folder, &machine.authorized_keys());
        machine.start_with(&[("GROUNDCREW_HOST_KEYS", folder.to_str().unwrap())]);
        machine.load.started();
        machine.load.fail();
        server.wait_for_state(&run, State::FailedHolding);
        machine.agent().wait_for_line("an operator's key may log in");
        Held { server, run, machine, sshd }
    }

    fn ctl(&self, words: &[&str]) -> Output {
        let home = self.server.beside("operator");
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new(binary("groundcrewctl"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("XDG_RUNTIME_DIR", &home)
            .env("GROUNDCREW_URL", self.server.url())
            .env("GROUNDCREW_FPR", self.server.fingerprint())
            .env("GROUNDCREW_OPERATOR_TOKEN", self.server.token().as_str());
        let output = command.output().expect("the binary can be started");
        let left = std::fs::read_dir(&home).unwrap().count();
        assert_eq!(left, 0, "{words:?} leaves nothing of a key");
        output
    }

    /// `groundcrewctl run ssh` of a command.
    fn ssh(&self, command: &[&str]) -> Output {
        let port = self.sshd.port().to_string();
        let run = self.run.id.to_string();
        let words = ["run", "ssh", &run, "--host", "127.0.0.1", "--port", &port, "--"];
        self.ctl(&[&words[..], command].concat())
    }

    /// The private half in a file of the operator's own.
    fn key_file(&self) -> PathBuf {
        let path = self.server.beside("key");
        let run = self.run.id.to_string();
        let output = self.ctl(&["run", "hold-key", &run, "--output", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        path
    }

    fn keys(&self) -> String {
        let text = std::fs::read_to_string(self.machine.authorized_keys()).unwrap();
        assert!(text.starts_with(OTHERS), "{text}");
        text
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_refused(output: &Output) -> bool {
    output.status.code() == Some(255) && said(output).contains("Permission denied")
}

#[test]
fn the_key_of_a_hold_logs_in_and_no_more_after_the_release() {
    let held = Held::new();
    let text = held.keys();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("groundcrew-hold:")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("expiry-time=\"") && lines[0].ends_with(held.run.id.as_str()), "{text}");
    let output = held.ssh(&["echo", "inside"]);
    assert!(output.status.success() && said(&output).contains("inside\n"), "{}", said(&output));
    assert_eq!(held.ssh(&["exit", "7"]).status.code(), Some(7), "the status is that of the command");
    let key = held.key_file();
    assert!(held.sshd.log_in(&key, "true").status.success());
    held.server.order(&held.run, "release", "");
    held.machine.agent().wait_for_line("the operator's key is out of");
    assert_eq!(held.keys(), OTHERS);
    let refused = held.sshd.log_in(&key, "true");
    assert!(is_refused(&refused), "{}", said(&refused));
    let none = held.ssh(&["true"]);
    assert!(none.status.code() == Some(1) && said(&none).contains("destroyed"), "{}", said(&none));
}

#[test]
fn the_key_of_a_hold_that_nobody_takes_out_logs_in_no_more_after_its_time() {
    let mut held = Held::new();
    let key = held.key_file();
    assert!(held.sshd.log_in(&key, "true").status.success());
    // Nobody is left who could take it out.
    held.machine.kill();
    let path = held.machine.authorized_keys();
    let text = held.keys();
    let public = text.lines().find(|line| line.contains("groundcrew-hold:")).unwrap();
    let public = public.split_once("\" ").unwrap().1;
    let install = |until: i64| hold::install(&path, None, &held.run.id, public, WallMs(until)).unwrap();
    let now_ms = jiff::Timestamp::now().as_millisecond();
    assert!(install(now_ms + 2_000));
    let refused = eventually("the end of the key's time", || {
        let tried = held.sshd.log_in(&key, "true");
        (!tried.status.success()).then_some(tried)
    });
    assert!(is_refused(&refused), "{}", said(&refused));
    assert!(held.keys().contains("groundcrew-hold:"), "it lies there as before");
    // It was its time and nothing else.
    assert!(install(FAR_MS));
    assert!(held.sshd.log_in(&key, "true").status.success());
}

#[test]
fn the_key_of_a_hold_is_the_same_after_a_kill_of_the_server() {
    let mut held = Held::new();
    let key = held.key_file();
    held.server.kill();
    held.server.start_again(&[]);
    let run = held.run.id.to_string();
    let again = held.ctl(&["run", "hold-key", &run]);
    assert_eq!(std::fs::read(&key).unwrap(), again.stdout, "{}", said(&again));
}

#[test]
fn registered_keys_are_preferred_to_one_of_the_hold_s_own() {
    let held = Held::new();
    let own = held.key_file();
    let mut files = Vec::new();
    for name in ["ann", "ben"] {
        let path = held.server.beside(name);
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        let public = path.with_extension("pub");
        let output = held.ctl(&["hold-key", "set", public.to_str().unwrap(), "--name", name]);
        assert!(output.status.success(), "{}", said(&output));
        files.push(path);
    }
    // An agent that comes into a hold asks for its keys at once.
    let mut held = held;
    held.machine.kill();
    held.machine.start();
    held.machine.agent().wait_for_line("an operator's key may log in");
    assert_eq!(held.keys().matches("groundcrew-hold:").count(), 2);
    for file in &files {
        assert!(held.sshd.log_in(file, "true").status.success());
    }
    assert!(is_refused(&held.sshd.log_in(&own, "true")));
    let run = held.run.id.to_string();
    let output = held.ctl(&["run", "hold-key", &run]);
    assert!(said(&output).contains("ann, ben"), "{}", said(&output));
}

#[test]
fn the_key_of_a_hold_goes_out_though_the_home_is_lost_and_the_file_is_no_file_for_a_while() {
    let mut held = Held::new();
    held.machine.kill();
    std::fs::remove_dir_all(held.machine.home()).unwrap();
    let (path, aside) = (held.machine.authorized_keys(), held.server.beside("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    held.machine.start();
    held.machine.agent().wait_for_line("changing the keys in");
    assert!(std::fs::read_to_string(&aside).unwrap().contains("groundcrew-hold:"));
    std::fs::rename(&aside, &path).unwrap();
    held.machine.agent().wait_for_line("keys of an earlier hold were left in");
    assert_eq!(held.keys(), OTHERS);
}

#[test]
fn the_key_of_a_hold_goes_out_where_the_home_has_another_run_afterwards() {
    let mut held = Held::new();
    let home = held.machine.home();
    held.machine.kill();
    held.server.order(&held.run, "release", "");
    let other = held.server.create_run("n1", LOAD);
    let mut machine = Machine::new(&held.server, &other, "m2");
    // The same machine: its home and its file.
    std::fs::rename(&home, machine.home()).unwrap();
    std::fs::copy(held.machine.authorized_keys(), machine.authorized_keys()).unwrap();
    machine.start();
    machine.agent().wait_for_line("keys of an earlier hold were left in");
    assert_eq!(std::fs::read_to_string(machine.authorized_keys()).unwrap(), OTHERS);
    machine.load.started();
}
