//! A root file system with a shell in it, a package to be delivered, and calls of the built binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};

use crate::programs::write_program;
use crate::shell_root;

/// The built binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_groundcrew");
/// Where a package lies inside the root.
pub const COPY_DIR: &str = "/opt/skyhook/sample";
/// Where places lie: a file system in memory, as what a power cut leaves behind is not what is tested here, and thousands
/// of calls sync their files.
const MEMORY: &str = "/dev/shm";
/// The resource id of every call that sets no other.
pub const RESOURCE_ID: &str = "groundcrew-run1-1_sample_1.0.0";
/// Where the flags of the package lie in the root.
pub const FLAGS: &str = "etc/skyhook/flags/sample/1.0.0";
/// Where its logs lie.
pub const LOGS: &str = "var/log/skyhook/sample/1.0.0";

/// What stands in a tree: path to kind, mode and content. Times are left out.
pub type Tree = BTreeMap<PathBuf, String>;

pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        require_root();
        let place = Place { folder: tempfile::tempdir_in(MEMORY).expect("TEST needs /dev/shm") };
        for folder in ["root/bin", "root/etc", "root/opt", "root/var/log", "root/effects", "data", "outside"]
        {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        place.add_program(shell_root::SHELL);
        place
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The root mount.
    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// Something in the root mount, by its path from there.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// What the root mount must not lead to.
    pub fn outside(&self) -> PathBuf {
        self.path().join("outside")
    }

    /// SKYHOOK_DATA_DIR.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Puts a program and its libraries into the root, at its own path.
    pub fn add_program(&self, program: &str) {
        shell_root::add_program(&self.root(), program);
    }

    /// Puts a shell script into the root, as a program of the machine.
    pub fn write_program(&self, name: &str, script: &str) {
        write_program(&self.at("bin").join(name), script);
    }

    /// A package whose apply steps are these shell scripts, in this order. Each one has a check that passes.
    pub fn package(&self, steps: &[(&str, &str)]) {
        let listed: Vec<Value> = steps.iter().map(|(path, _)| step(path, &[], &[0])).collect();
        let checks: Vec<Value> = steps.iter().map(|(path, _)| step(&check_of(path), &[], &[0])).collect();
        self.write_config(&config(json!({ "apply": listed, "apply-check": checks })));
        for (path, script) in steps {
            self.write_step(path, script);
            self.write_step(&check_of(path), &effect("check"));
        }
    }

    pub fn write_config(&self, config: &Value) {
        fs::write(self.data().join("config.json"), serde_json::to_vec_pretty(config).unwrap()).unwrap();
    }

    pub fn write_step(&self, path: &str, script: &str) {
        let file = self.data().join("skyhook_dir").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("#!/bin/sh\n{script}\n")).unwrap();
    }

    /// A call with these arguments behind `package`, and an environment of its own.
    pub fn call_with(&self, arguments: &[&str]) -> Call {
        let mut command = Command::new(BINARY);
        command.arg("package").args(arguments);
        self.dressed(command)
    }

    /// A call for this root and package.
    pub fn call(&self, mode: &str) -> Call {
        let root = self.root();
        self.call_with(&[mode, root.to_str().unwrap(), COPY_DIR])
    }

    /// Gives a command the environment of a call.
    pub fn dressed(&self, mut command: Command) -> Call {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SKYHOOK_RESOURCE_ID", RESOURCE_ID)
            .env("SKYHOOK_DATA_DIR", self.data())
            .env("COPY_RESOLV", "false")
            .current_dir("/")
            .stdin(Stdio::null());
        Call { command }
    }

    /// How often each effect came about: the lines of `/effects/log` in the root.
    pub fn effects(&self) -> BTreeMap<String, usize> {
        let text = match fs::read_to_string(self.at("effects/log")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("reading the effects: {error}"),
        };
        let mut counted = BTreeMap::new();
        for line in text.lines() {
            *counted.entry(line.to_owned()).or_default() += 1;
        }
        counted
    }

    /// The names of the flags of the package's steps, without what is encoded in them.
    pub fn flagged(&self) -> Vec<String> {
        names(&self.at(FLAGS)).iter().map(|name| name.split('_').next().unwrap().to_owned()).collect()
    }

    /// Files that an agent makes for itself while it works, anywhere in the root. Only their names are looked at, and a place
    /// is looked through thousands of times.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let root = self.root();
        let (mut found, mut left) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".running-") || name.starts_with(".groundcrew") {
                    found.push(entry.path().strip_prefix(&root).unwrap().to_owned());
                }
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }
}

/// One call of the binary.
pub struct Call {
    command: Command,
}

impl Call {
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    /// Has it start in a folder.
    pub fn in_folder(mut self, folder: &Path) -> Call {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let output = self.command.output().unwrap();
        Outcome::new(output.status, &output.stdout, &output.stderr)
    }

    /// Runs it to its end, which must be a good one.
    pub fn succeed(self) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.exit, 0, "{outcome:#?}");
        outcome
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    pub fn into_command(self) -> Command {
        self.command
    }
}

/// A call that runs.
pub struct Running {
    child: Child,
}

impl Running {
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until a file is there, which a step makes. Fails where the call ends before.
    pub fn until_exists(&mut self, path: &Path) {
        while !path.exists() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?} before {} was there", path.display());
            std::thread::yield_now();
        }
    }

    pub fn end(mut self) -> Outcome {
        let (mut stdout, mut stderr) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        let status = self.child.wait().unwrap();
        Outcome::new(status, &bytes, &reading.join().unwrap())
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status, or the negative number of a signal.
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn new(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Outcome {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what it prints is UTF-8");
        Outcome { exit: exit_of(status), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The lines on standard output behind the banner.
    pub fn said(&self) -> Vec<&str> {
        let lines = self.stdout.lines();
        lines.filter(|line| line.starts_with("SUCEEDED: ") || line.starts_with("FAILED: ")).collect()
    }

    /// The last line on standard error: why the call could not be made.
    #[track_caller]
    pub fn why(&self) -> &str {
        assert_eq!(self.exit, 1, "{self:#?}");
        let last = self.stderr.lines().last().unwrap_or_else(|| panic!("it says nothing: {self:#?}"));
        last.strip_prefix("groundcrew package: ").unwrap_or_else(|| panic!("{self:#?}"))
    }
}

pub fn exit_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().expect("it has ended by the one or the other"))
}

/// A step as a config has it.
pub fn step(path: &str, arguments: &[&str], returncodes: &[i32]) -> Value {
    json!({
        "name": "step", "path": path, "arguments": arguments, "returncodes": returncodes,
        "on_host": true, "idempotence": false, "upgrade_step": false,
    })
}

/// A config with these modes.
pub fn config(modes: Value) -> Value {
    json!({
        "schema_version": "v1", "package_name": "sample", "package_version": "1.0.0",
        "expected_config_files": [], "modes": modes,
    })
}

/// A script that leaves a line among the effects, in one write.
pub fn effect(name: &str) -> String {
    format!("echo {name} >>/effects/log")
}

/// The check that the reference expects for a step.
pub fn check_of(path: &str) -> String {
    format!("{}_check.sh", path.strip_suffix(".sh").unwrap_or(path))
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What stands in a folder, all the way down, without following a link.
pub fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let what = if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "folder".to_owned()
        } else if metadata.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_file() {
            format!("file {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
        } else {
            format!("{:?}", metadata.file_type())
        };
        let mode = metadata.permissions().mode() & 0o7777;
        let key = path.strip_prefix(folder).unwrap().to_owned();
        found.insert(key, format!("{mode:o} {} {what}", metadata.uid()));
    }
    found
}

/// Runs `body` in a thread whose mounts nobody else sees.
pub fn with_own_mounts(body: impl FnOnce() + Send) {
    require_root();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: neither flag touches descriptors or memory; the thread ends with what it has of its own.
            unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
            mount(&["--make-rprivate", "/"]);
            body();
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// mount(8) in the mounts of the calling thread.
pub fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}: {status}");
}

fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "TEST needs root: the agent enters roots, and the tests mount file systems"
    );
}
