//! The built binary: what it prints, how it stops, what it refuses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn groundcrewd(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrewd"));
    command.args(arguments).arg("--data").arg(data).env("GROUNDCREWD_LOG", "warn");
    command
}

fn run(arguments: &[&str], data: &Path) -> Output {
    groundcrewd(arguments, data).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server, and the lines that it printed up to its address.
struct Serving {
    child: Child,
    lines: Vec<String>,
}

impl Serving {
    fn start(data: &Path) -> Serving {
        Serving::of(groundcrewd(&["serve", "--listen", "127.0.0.1:0"], data))
    }

    fn of(mut command: Command) -> Serving {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().starts_with("listening on ") {
                break;
            }
        }
        Serving { child, lines }
    }

    fn find(&self, start: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(start))
    }

    /// Asks it to stop, and gives its exit code.
    fn stop(mut self, signal: rustix::process::Signal) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    /// A test that fails leaves no server behind. One that was waited for is gone already.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().expect("a child that was not waited for can be killed");
            self.child.wait().expect("a child that was killed ends");
        }
    }
}

#[test]
fn a_server_prints_what_is_needed_once_and_stops_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = Serving::start(&data);
    assert!(first.find("admin token gco_").is_some(), "{:?}", first.lines);
    let address = first.find("listening on ").unwrap();
    assert_eq!(std::fs::read_to_string(data.join("address")).unwrap(), format!("{address}\n"));
    let fingerprint = first.find("certificate SHA-256 ").unwrap().to_owned();
    assert_eq!(text(&run(&["fingerprint"], &data).stdout).trim(), fingerprint);

    let second = run(&["serve", "--listen", "127.0.0.1:0"], &data);
    assert_eq!(second.status.code(), Some(1));
    let error = text(&second.stderr);
    assert!(error.contains("in use") && error.contains(&first.child.id().to_string()), "{error}");
    let token = run(&["token", "add", "ann"], &data);
    assert_eq!(token.status.code(), Some(1));
    assert!(text(&token.stderr).contains("/api/v1/tokens"));

    assert_eq!(first.stop(rustix::process::Signal::TERM), Some(0));
    let again = Serving::start(&data);
    assert_eq!(again.find("admin token "), None, "{:?}", again.lines);
    assert_eq!(again.find("certificate SHA-256 "), Some(fingerprint.as_str()));
    assert_eq!(again.stop(rustix::process::Signal::INT), Some(0));
}

/// As a unit starts it: the folder is named by the environment alone. Root's key would go to /etc, so root names that file.
#[test]
fn a_server_needs_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let start = |variable: &str, value: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrewd"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).env_clear().env(variable, value);
        command.env("HOME", folder.path()).env("GROUNDCREWD_LOG", "warn");
        if rustix::process::geteuid().is_root() {
            command.arg("--key-file").arg(folder.path().join("key"));
        }
        Serving::of(command)
    };
    let named = start("STATE_DIRECTORY", &state);
    assert!(named.find("admin token gco_").is_some(), "{:?}", named.lines);
    let address = named.find("listening on ").unwrap();
    assert_eq!(std::fs::read_to_string(state.join("address")).unwrap(), format!("{address}\n"));
    assert_eq!(named.stop(rustix::process::Signal::TERM), Some(0));
    if !rustix::process::geteuid().is_root() {
        let user = start("XDG_STATE_HOME", &state);
        assert!(state.join("groundcrewd/address").exists());
        assert_eq!(user.stop(rustix::process::Signal::TERM), Some(0));
        let bare = start("LANG", Path::new("C"));
        assert!(folder.path().join(".local/state/groundcrewd/address").exists());
        assert_eq!(bare.stop(rustix::process::Signal::TERM), Some(0));
    }
}

#[test]
fn tokens_are_kept_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let added = run(&["token", "add", "ann"], data);
    assert!(added.status.success(), "{}", text(&added.stderr));
    assert!(text(&added.stdout).starts_with("gco_"));
    assert!(run(&["token", "add", "bob"], data).status.success());
    assert_eq!(run(&["token", "add", "ann"], data).status.code(), Some(1));
    assert!(run(&["token", "revoke", "ann"], data).status.success());
    assert_eq!(run(&["token", "revoke", "ann"], data).status.code(), Some(1));
    let listed = text(&run(&["token", "list"], data).stdout);
    assert!(listed.contains("ann") && listed.contains("revoked") && !listed.contains("gco_"), "{listed}");
}

#[test]
fn a_backup_comes_back_as_another_generation() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, other) =
        (folder.path().join("data"), folder.path().join("copy"), folder.path().join("other"));
    let serving = Serving::start(&data);
    let made = run(&["backup", copy.to_str().unwrap()], &data);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(serving.stop(rustix::process::Signal::TERM), Some(0));
    let restored = run(&["restore", copy.to_str().unwrap()], &other);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(text(&restored.stdout).contains("generation 2"), "{}", text(&restored.stdout));
    let fingerprint = |data: &Path| text(&run(&["fingerprint"], data).stdout);
    assert_eq!(fingerprint(&other), fingerprint(&data));
}

#[test]
fn the_first_token_is_not_lost_with_an_address_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = run(&["serve", "--listen", &address], &data);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains(&address), "{}", text(&failed.stderr));
    assert!(!text(&failed.stdout).contains("admin token"));
    let serving = Serving::start(&data);
    assert!(serving.find("admin token gco_").is_some(), "{:?}", serving.lines);
}

#[test]
fn a_next_certificate_that_cannot_be_read_stops_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert_eq!(Serving::start(&data).stop(rustix::process::Signal::TERM), Some(0));
    assert!(run(&["certificate", "rotate"], &data).status.success());
    // Unreadable whoever asks: root can read what it may not.
    let next = data.join("tls/next.pem");
    std::fs::remove_file(&next).unwrap();
    std::fs::create_dir(&next).unwrap();
    let serving = Serving::start(&data);
    let fingerprint = text(&run(&["fingerprint"], &data).stdout);
    assert_eq!(serving.find("certificate SHA-256 "), Some(fingerprint.trim()));
}

#[test]
fn a_backup_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    std::fs::create_dir(&copy).unwrap();
    std::os::unix::fs::symlink("manifest.json", copy.join("manifest.json")).unwrap();
    let failed = run(&["restore", copy.to_str().unwrap()], &data);
    assert_eq!(failed.status.code(), Some(1));
    let error = text(&failed.stderr);
    assert!(error.contains("manifest.json") && error.contains("symbolic link"), "{error}");
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    std::fs::remove_dir(&copy).unwrap();
    std::fs::write(&copy, "no folder").unwrap();
    let error = text(&run(&["restore", copy.to_str().unwrap()], &data).stderr);
    assert!(error.contains("Not a directory"), "{error}");
}

#[test]
fn a_backup_holds_no_private_key_in_the_clear_and_a_lost_key_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, key) =
        (folder.path().join("data"), folder.path().join("copy"), folder.path().join("apart/key"));
    let key_file = key.to_str().unwrap();
    let serve = |data: &Path| run(&["serve", "--listen", "nowhere:1", "--key-file", key_file], data);
    assert_eq!(serve(&data).status.code(), Some(64));
    let mut command = groundcrewd(&["serve", "--listen", "127.0.0.1:0", "--key-file", key_file], &data);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("listening on ")));
    let backed_up = run(&["backup", copy.to_str().unwrap()], &data);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(backed_up.status.success(), "{}", text(&backed_up.stderr));
    let pem = std::fs::read_to_string(copy.join("tls/current.pem")).unwrap();
    assert!(pem.contains("SEALED KEY") && !pem.contains("PRIVATE KEY"), "{pem}");
    std::fs::remove_file(&key).unwrap();
    let failed = run(&["serve", "--listen", "127.0.0.1:0", "--key-file", key_file], &data);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains(key_file), "{}", text(&failed.stderr));
}

#[test]
fn usage_is_64_and_a_refusal_1() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&["nonsense"], folder.path()).status.code(), Some(64));
    assert_eq!(run(&["serve", "--listen", "nowhere"], folder.path()).status.code(), Some(64));
    let none = run(&["fingerprint"], folder.path());
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("groundcrewd serve"));
    assert_eq!(run(&["--help"], folder.path()).status.code(), Some(0));
}

/// As `groundcrewd openapi | head -0` has it; what is shown once must reach somebody.
#[test]
fn whoever_closes_the_pipe_has_read_enough_but_of_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    Serving::start(&data).stop(rustix::process::Signal::TERM);
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let openapi =
        Command::new(env!("CARGO_BIN_EXE_groundcrewd")).arg("openapi").stdout(closed()).output().unwrap();
    assert_eq!((openapi.status.code(), text(&openapi.stderr)), (Some(0), String::new()));
    let fingerprint = groundcrewd(&["fingerprint"], &data).stdout(closed()).output().unwrap();
    assert_eq!((fingerprint.status.code(), text(&fingerprint.stderr)), (Some(0), String::new()));
    let token = groundcrewd(&["token", "add", "ann"], &data).stdout(closed()).output().unwrap();
    assert_eq!(token.status.code(), Some(1));
    assert!(text(&token.stderr).contains("which nobody will see now"), "{}", text(&token.stderr));
}
