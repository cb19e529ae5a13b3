//! The built xtask with a cargo, a compiler and an apt-get that only write down how they were called.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process_group};

/// Held while a script is written and while a process is started: a child that another test forks meanwhile would hold
/// the script open for writing, and the kernel refuses to run such a file (ETXTBSY).
static WRITES_OR_STARTS: Mutex<()> = Mutex::new(());

/// A folder with stand-ins: `bin` is the whole PATH, `target/release` what the cargo there claims to have built.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// A fresh stage on which every package is installed and the three binaries are scripts with the body `binary`.
    fn new(test: &str, binary: &str) -> Stage {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir_all(folder.join("target/release")).unwrap();
        fs::create_dir_all(folder.join("target/any-linux-gnu/agent")).unwrap();
        let stage = Stage { folder };
        let cargo = format!(
            "echo \"cargo $*\" >> {0}/calls\n[ \"$1\" != metadata ] || echo '{{\"target_directory\":\"{0}/target\"}}'",
            stage.folder.display()
        );
        stage.program("bin/cargo", &cargo);
        stage.program("bin/rustc", "echo host: any-linux-gnu");
        for tool in
            ["cc", "stress-ng", "fio", "mkfs.ext4", "losetup", "iperf3", "ssh", "chromium", "debootstrap"]
        {
            stage.program(&format!("bin/{tool}"), "exit 0");
        }
        for place in ["any-linux-gnu/agent/groundcrew", "release/groundcrewd", "release/groundcrewctl"] {
            stage.program(&format!("target/{place}"), binary);
        }
        stage
    }

    fn program(&self, path: &str, body: &str) {
        let _alone = WRITES_OR_STARTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let path = self.folder.join(path);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Has the guests prepared already, by the recipe of today.
    fn with_guests(self) -> Stage {
        let tools =
            concat!(include_str!("../src/debian/bootstrap.rs"), include_str!("../src/debian/tools.rs"));
        let image = concat!(
            include_str!("../src/guest/system.rs"),
            include_str!("../src/guest/init.sh"),
            include_str!("../src/guest/hand.service"),
            include_str!("../src/guest/unit-ended.sh")
        );
        let live = concat!(
            include_str!("../src/image/mod.rs"),
            include_str!("../src/image/contents.rs"),
            include_str!("../src/image/newc.rs"),
            include_str!("../src/image/tree.rs"),
            include_str!("../src/image/files/prepare.sh"),
            include_str!("../src/image/files/lease.sh"),
            include_str!("../src/image/files/sshd_config")
        );
        for (part, recipe) in [("tools", ""), ("live", live), ("image", image)] {
            let recipe = [tools, recipe].concat();
            let part = self.folder.join("target/guest").join(part);
            fs::create_dir_all(&part).unwrap();
            fs::write(part.join("recipe"), recipe).unwrap();
        }
        self
    }

    fn xtask(&self, arguments: &[&str]) -> Command {
        // Whoever runs the tests in the background of a script has SIGINT ignored, which a child takes over.
        let mut command = Command::new("/usr/bin/env");
        command
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_xtask")])
            .args(arguments)
            .stdin(Stdio::null());
        command.env("PATH", self.folder.join("bin")).env("CARGO", self.folder.join("bin/cargo"));
        // The task that runs this very test tells its tests where the guests' kit lies.
        command
            .env_remove("GROUNDCREW_GUEST_DIR")
            .env_remove("GROUNDCREW_NO_VM")
            .env_remove("PROPTEST_RNG_SEED");
        command
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.folder.join("calls")).unwrap_or_default()
    }
}

fn start(mut command: Command) -> Child {
    let _alone = WRITES_OR_STARTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(command: Command) -> Output {
    start(command).wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn up_becomes_groundcrewctl_with_its_arguments_and_its_exit_status() {
    let stage = Stage::new("up", "echo \"$0 $*\"\nexit 3");
    let output = finished(stage.xtask(&["up", "--keep"]));
    let release = stage.folder.join("target/release").display().to_string();
    let reports = stage.folder.join("target/up").display().to_string();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().display();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "{release}/groundcrewctl up --keep --bin-dir {release} --profile {root}/profiles/demo.toml --report-dir {reports}\n"
        )
    );
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let build = "cargo build --profile agent --target any-linux-gnu --package groundcrew-agent\n\
                 cargo metadata --no-deps --format-version=1\n\
                 cargo build --release --package groundcrew-orchestrator --package groundcrew-ctl\n";
    assert!(stage.calls().starts_with(build), "{}", stage.calls());
}

#[test]
fn ctrl_c_reaches_what_up_became_and_its_answer_is_the_status() {
    let stage = Stage::new("ctrl-c", "trap 'exit 7' INT\necho $$\n/bin/cat");
    let mut command = stage.xtask(&["up"]);
    command.stdin(Stdio::piped()).process_group(0);
    let mut child = start(command);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), child.id().to_string(), "the same process throughout");
    let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    // Ends `cat` if the signal came before it was there.
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn up_refuses_a_binary_with_faults_and_a_failed_build() {
    let stage = Stage::new("faults", "exit 0 # GROUNDCREW_FAULT");
    let output = finished(stage.xtask(&["up"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("target/release/groundcrew holds GROUNDCREW_FAULT"),
        "{}",
        stderr(&output)
    );

    let stage = Stage::new("failed-build", "exit 0");
    stage.program("bin/cargo", "exit 101");
    let output = finished(stage.xtask(&["up"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cargo build --profile agent"), "{}", stderr(&output));
}

#[test]
fn test_builds_and_runs_with_one_selection_and_tells_the_tests_what_they_need() {
    let stage = Stage::new("test", "exit 0").with_guests();
    let cargo = fs::read_to_string(stage.folder.join("bin/cargo")).unwrap();
    let told = "$GROUNDCREW_BIN_DIR $GROUNDCREW_MODEL_SEEDS ${PROPTEST_RNG_SEED-fresh} ${GROUNDCREW_NO_VM-guests} ${GROUNDCREW_GUEST_DIR-}";
    let guests = stage.folder.join("target/guest").display().to_string();
    // The stand-in for all tests boots one guest and writes down what it took.
    let report = format!(
        "[ \"$1\" != test ] || {{ echo \"{told}\"; [ -z \"$GROUNDCREW_GUEST_DIR\" ] || echo one 61.5 >>{guests}/spent; }}"
    );
    stage.program("bin/cargo", &format!("{cargo}\n{report}"));
    let debug = stage.folder.join("target/debug").display().to_string();
    for _again in 0..2 {
        let output = finished(stage.xtask(&["test"]));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{debug} 10000 11 guests {guests}\n"));
        let spent = "1 guests took 1 min 02 s together";
        assert!(stderr(&output).contains(spent), "{}", stderr(&output));
    }
    assert!(
        stage.calls().ends_with(
            "cargo metadata --no-deps --format-version=1\ncargo build --workspace --bins --tests\n\
             cargo metadata --no-deps --format-version=1\ncargo test --workspace --no-fail-fast\n"
        ),
        "{}",
        stage.calls()
    );
    let output = finished(stage.xtask(&["test", "--no-vm", "--seeds", "5", "--fresh", "model", "wire"]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{debug} 5 fresh 1 \n"));
    assert!(
        stage.calls().ends_with("cargo test --workspace --no-fail-fast -- model wire\n"),
        "{}",
        stage.calls()
    );
    assert!(stderr(&output).contains("left out (--no-vm)"), "{}", stderr(&output));
}

#[test]
fn guests_that_cannot_be_prepared_end_the_test_before_anything_is_built() {
    let stage = Stage::new("no-guests", "exit 0");
    stage.program("bin/mmdebstrap", "exit 7");
    for (task, name) in [(&["guest"][..], "guest"), (&["test"], "test")] {
        let output = finished(stage.xtask(task));
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stderr(&output));
        let why = if rustix::process::geteuid().is_root() { "apt-get" } else { "--no-vm" };
        assert!(stderr(&output).contains(why), "{name}: {}", stderr(&output));
    }
    stage.program("bin/apt-get", "exit 0");
    let output = finished(stage.xtask(&["test"]));
    if rustix::process::geteuid().is_root() {
        assert!(stderr(&output).contains("mmdebstrap"), "{}", stderr(&output));
        assert!(stderr(&output).contains("exit status: 7"), "{}", stderr(&output));
    }
    assert!(!stage.calls().contains("cargo build"), "{}", stage.calls());
    assert!(!stage.folder.join("target/guest/tools").exists(), "half of a part is none");
}

/// A stage on which one package is missing, with an apt-get that brings it.
fn without_a_package(test: &str) -> Stage {
    let stage = Stage::new(test, "exit 0");
    fs::remove_file(stage.folder.join("bin/stress-ng")).unwrap();
    let calls = stage.folder.join("calls").display().to_string();
    let put =
        "[ \"$3\" != install ] || { echo > \"${0%/*}/stress-ng\"; /bin/chmod +x \"${0%/*}/stress-ng\"; }";
    stage.program("bin/apt-get", &format!("echo \"apt-get $3 $4 $5 $6\" >> {calls}\n{put}"));
    stage
}

#[test]
fn a_missing_package_is_installed_by_root() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can show what root does");
        return;
    }
    let stage = without_a_package("packages");
    let output = finished(stage.xtask(&["up"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let installed = "apt-get update   \napt-get install -y --no-install-recommends stress-ng\ncargo build";
    assert!(stage.calls().starts_with(installed), "{}", stage.calls());
    assert!(
        stderr(&output).contains("installing stress-ng: it does the work of the stages CPUStress and Memory")
    );
}

#[test]
fn a_missing_package_is_named_to_whoever_is_not_root() {
    let stage = without_a_package("packages-of-others");
    let mut command = stage.xtask(&["up"]);
    if rustix::process::geteuid().is_root() {
        // In a user namespace that maps nobody, nobody is root; files stay as they can be read.
        let mut others = Command::new("/usr/bin/unshare");
        others.arg("--user").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => others.env(name, value),
                None => others.env_remove(name),
            };
        }
        command = others;
    }
    let output = finished(command);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("sudo apt-get install -y --no-install-recommends stress-ng"), "{said}");
    assert!(said.contains("stress-ng: does the work of the stages CPUStress and Memory"), "{said}");
    assert_eq!(stage.calls(), "", "nothing ran");
}

#[test]
fn an_apt_get_that_brings_nothing_or_is_not_there_ends_the_task() {
    let stage = Stage::new("no-packages", "exit 0");
    fs::remove_file(stage.folder.join("bin/stress-ng")).unwrap();
    for apt_get in [None, Some("exit 0"), Some("exit 100")] {
        if let Some(body) = apt_get {
            stage.program("bin/apt-get", body);
        }
        let output = finished(stage.xtask(&["test"]));
        assert_eq!(output.status.code(), Some(1), "apt-get: {apt_get:?}");
        assert!(stderr(&output).contains("stress-ng") || apt_get == Some("exit 100"), "{}", stderr(&output));
        assert_eq!(stage.calls(), "", "nothing was built, apt-get: {apt_get:?}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_64_and_help_with_0() {
    let stage = Stage::new("usage", "exit 0");
    let wrong = finished(stage.xtask(&["up", "--loud"]));
    assert_eq!(wrong.status.code(), Some(64));
    assert!(stderr(&wrong).contains("--loud"), "{}", stderr(&wrong));
    let help = finished(stage.xtask(&["test", "--help"]));
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).starts_with("usage: cargo xtask test"));
}
