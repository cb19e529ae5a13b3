//! Guests: real virtual machines with a small Debian under systemd, for what no process on the host can show, such as
//! what a reboot or a power cut leaves.
//!
//! ```text
//!   test ──▶ Guest ──▶ QEMU (TCG) ──▶ kernel, initramfs ──▶ systemd ──▶ guest-hand: runs the test's commands
//!              │                                                            ▲
//!              └── Line, a virtio serial port: commands out, ends and hellos in
//! ```
//!
//! A command of [`Guest::run`] is run by the hand, which is outside of the life that is tested: a shutdown takes it last
//! of all and gives it no SIGTERM before. What must live and die as a service does is a [`Unit`], or a unit file that
//! the test puts into the guest. Every boot says its id on the console before anything else, so that
//! [`Guest::boots`] misses none.
//!
//! A test calls [`left_out`] first. It owns its guest, boots it once and asks it for several things; the guest dies with
//! the thread that switched it on, so it cannot be shared between tests. Where the test fails, the guest's console and
//! journal are printed. Nothing is taken from how long something takes: emulation is slow, and slower beside other work.

pub mod bmc;
pub mod keys;
mod line;
pub mod live;
mod qemu;
mod relay;
mod slots;
mod units;
pub mod words;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Process, binary, eventually};
use line::Line;
use slots::Slot;
use words::{Ended, Request};

pub use bmc::{Bmc, Happening};
pub use keys::OperatorKey;
pub use line::Lost;
pub use live::{Live, Parts};
pub use qemu::{Kit, Setup};
pub use relay::Relay;
pub use units::{Unit, UnitEnd};

/// What has not come from a guest after this never comes.
pub const STUCK: Duration = Duration::from_secs(300);

/// When a command in a guest is killed.
const COMMAND: Duration = Duration::from_secs(200);

/// How much of a failed guest's console is printed.
const CONSOLE_LINES_MAX: usize = 120;

/// True where tests with guests are left out (GROUNDCREW_NO_VM=1, which `cargo xtask test --no-vm` sets); that is said
/// even where the output of passing tests is not shown.
pub fn left_out() -> bool {
    let is_left_out = std::env::var_os("GROUNDCREW_NO_VM").is_some_and(|value| value == "1");
    if is_left_out {
        say("left out, because it boots a guest (GROUNDCREW_NO_VM=1)");
    }
    is_left_out
}

/// Says something past the test runner, which keeps what a passing test prints.
fn say(text: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A closed standard error is nobody who reads.
    let _said = writeln!(std::io::stderr(), "{test}: {text}");
}

/// How a command ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its end.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A command for a guest.
#[derive(Debug, Clone)]
pub struct Call {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    deadline: Duration,
}

impl Call {
    /// This program with these arguments.
    pub fn new(argv: &[&str]) -> Call {
        let argv = argv.iter().map(ToString::to_string).collect();
        Call { argv, env: Vec::new(), stdin: Vec::new(), deadline: COMMAND }
    }

    /// Gives it a variable, besides PATH and HOME.
    pub fn env(mut self, name: &str, value: &str) -> Call {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a standard input.
    pub fn stdin(mut self, bytes: &[u8]) -> Call {
        bytes.clone_into(&mut self.stdin);
        self
    }

    /// Has it killed after this.
    pub fn deadline(mut self, deadline: Duration) -> Call {
        self.deadline = deadline;
        self
    }
}

/// A virtual machine of this test's own. It is switched off with its end.
#[derive(Debug)]
pub struct Guest {
    name: String,
    kit: Kit,
    setup: Setup,
    places: qemu::Places,
    /// Absent while it is switched off.
    power: Option<Power>,
    relays: Vec<(SocketAddr, Relay)>,
    began: Instant,
    files_put: AtomicU64,
    _slot: Slot,
}

/// A running QEMU and the line to its guest, which is closed before the process is gone.
#[derive(Debug)]
struct Power {
    line: Line,
    process: Process,
}

impl Guest {
    /// Boots a guest until systemd says that it is up.
    ///
    /// # Panics
    /// Where what it boots was not prepared, or it does not come up.
    pub fn boot(name: &str) -> Guest {
        Guest::boot_with(name, Setup::default())
    }

    /// Boots a guest of other make.
    ///
    /// # Panics
    /// As [`boot`](Self::boot).
    pub fn boot_with(name: &str, setup: Setup) -> Guest {
        let kit = Kit::find();
        let hand = binary("guest-hand");
        let slot = Slot::wait();
        let places = qemu::Places::fresh();
        std::fs::create_dir(places.share()).expect("the folder is ours");
        std::fs::copy(&hand, places.share().join("guest-hand")).expect("the folder is ours");
        kit.make_disk(&places.disk());
        let mut guest = Guest {
            name: name.to_owned(),
            kit,
            setup,
            places,
            power: None,
            relays: Vec::new(),
            began: Instant::now(),
            files_put: AtomicU64::new(0),
            _slot: slot,
        };
        guest.power_on();
        assert_eq!(guest.failed_units(), "", "{name} came up with failed units");
        guest
    }

    /// Switches it on, and waits until systemd says that it is up.
    pub fn power_on(&mut self) {
        assert!(self.power.is_none(), "the guest {} is on already", self.name);
        let socket = self.places.socket();
        if socket.exists() {
            std::fs::remove_file(&socket).expect("the socket is ours");
        }
        let listener = UnixListener::bind(&socket).expect("the folder is ours");
        listener.set_nonblocking(true).expect("a socket can be asked without waiting");
        let process = Process::start(&self.name, &mut self.kit.qemu(&self.setup, &self.places));
        let stream = eventually("QEMU's connection", || match listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(_) if process.is_alive() => None,
            Err(_) => panic!("QEMU ended: {}", process.lines().join("\n")),
        });
        stream.set_nonblocking(false).expect("a socket can be waited for");
        self.power = Some(Power { line: Line::new(stream), process });
        self.wait_for_boot_after(None);
    }

    /// Takes its power away at once: what it had not written to its disk is lost.
    pub fn cut_power(&mut self) {
        let mut power = self.power.take().expect("the guest is on");
        power.process.kill();
    }

    /// True while it is on.
    pub fn is_on(&self) -> bool {
        self.power.as_ref().is_some_and(|power| power.process.is_alive())
    }

    /// Waits until it has switched itself off.
    pub fn wait_for_power_off(&mut self) {
        let mut power = self.power.take().expect("the guest is on");
        power.process.wait();
    }

    fn line(&self) -> &Line {
        &self.power.as_ref().expect("the guest is on").line
    }

    /// The id of the boot that it is in, or was in last.
    pub fn boot_id(&self) -> String {
        self.boots().pop().expect("a guest that was switched on has booted")
    }

    /// The ids of all its boots, in order: each says its own on the console, before anything that a test does.
    pub fn boots(&self) -> Vec<String> {
        let console = self.console();
        console
            .lines()
            .filter_map(|line| line.split_once("guest: boot ")?.1.split_whitespace().next().map(String::from))
            .collect()
    }

    /// Waits for a boot after `before`, until systemd says that it is up. Its id.
    pub fn wait_for_next_boot(&self, before: &str) -> String {
        self.wait_for_boot_after(Some(before))
    }

    fn wait_for_boot_after(&self, before: Option<&str>) -> String {
        let Some(boot) = self.line().next_boot(before) else {
            panic!("the guest {} did not boot", self.name);
        };
        // A unit of the test's own may have failed: `degraded` is up as well.
        let up = self.run(&["systemctl", "is-system-running", "--wait"]);
        assert!(["running", "degraded"].contains(&up.stdout.trim()), "{} did not come up: {up:?}", self.name);
        boot
    }

    fn failed_units(&self) -> String {
        self.run(&["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout
    }

    /// True where systemd is on its way down, or asked to be.
    pub fn is_stopping(&self) -> bool {
        let jobs = self.ok(&["systemctl", "list-jobs", "--no-legend"]);
        let state = self.run(&["systemctl", "is-system-running"]).stdout;
        state.trim() == "stopping" || jobs.contains(".target")
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where the boot is over before the end is known.
    pub fn run(&self, argv: &[&str]) -> Finished {
        self.try_call(&Call::new(argv)).unwrap_or_else(|lost| panic!("{argv:?} in {}: {lost:?}", self.name))
    }

    /// Runs a command that must exit with 0. What it printed.
    pub fn ok(&self, argv: &[&str]) -> String {
        let finished = self.run(argv);
        assert_eq!(
            finished.ended,
            Ended::Exit(0),
            "{argv:?} in {}: {}{}",
            self.name,
            finished.stdout,
            finished.stderr
        );
        finished.stdout
    }

    /// Runs a shell script that must exit with 0, each of its commands too. What it printed.
    pub fn sh(&self, script: &str) -> String {
        self.ok(&["sh", "-euc", script])
    }

    /// Runs a command on the boot that the guest is in.
    ///
    /// # Errors
    /// Where its end is never told, because that boot is over: a command that reboots may tell its end or not.
    pub fn try_call(&self, call: &Call) -> Result<Finished, Lost> {
        let request = Request {
            id: 0,
            boot: self.boots().pop().ok_or(Lost::Silent)?,
            argv: call.argv.clone(),
            env: call.env.clone(),
            stdin: STANDARD.encode(&call.stdin),
            deadline_s: call.deadline.as_secs(),
        };
        let answer = self.line().run(request)?;
        if answer.ended == Ended::OtherBoot {
            return Err(Lost::Rebooted);
        }
        let text = |base64: &str| {
            let bytes = STANDARD.decode(base64).expect("the hand writes base64");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Finished {
            ended: answer.ended.clone(),
            stdout: text(&answer.stdout),
            stderr: text(&answer.stderr),
        })
    }

    /// Puts a file into the guest, with its folders, and onto its disk.
    pub fn put(&self, path: &str, mode: u32, contents: &[u8]) {
        let number = self.files_put.fetch_add(1, Ordering::Relaxed);
        let name = format!("put-{number}");
        let shared = self.places.share().join(&name);
        std::fs::write(&shared, contents).expect("the folder is ours");
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o644)).expect("the file is ours");
        self.ok(&["install", "-D", "-m", &format!("{mode:o}"), &format!("/run/share/{name}"), path]);
        self.ok(&["sync", path]);
        std::fs::remove_file(&shared).expect("the file is ours");
    }

    /// Puts a file of the host into the guest.
    pub fn put_file(&self, path: &str, mode: u32, file: &Path) {
        let contents =
            std::fs::read(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
        self.put(path, mode, &contents);
    }

    /// Puts one of the project's binaries into the guest's PATH.
    pub fn put_binary(&self, name: &str) {
        self.put_file(&format!("/usr/local/bin/{name}"), 0o755, &binary(name));
    }

    /// What is in a file of the guest; nothing where there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        let finished = self.run(&["sh", "-c", "test -e \"$1\" || exit 44; exec cat \"$1\"", "sh", path]);
        match finished.ended {
            Ended::Exit(0) => Some(finished.stdout),
            Ended::Exit(44) => None,
            ended => panic!("reading {path} in {}: {ended:?} {}", self.name, finished.stderr),
        }
    }

    /// What its consoles said in all its boots.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(self.places.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where the guest finds a server of the host's loopback: `10.0.2.2:PORT`. The same one each time, whether the
    /// server runs or not.
    pub fn address_of(&mut self, server: SocketAddr) -> String {
        let known = self.relays.iter().position(|(to, _)| *to == server);
        let at = known.unwrap_or_else(|| {
            self.relays.push((server, Relay::to(server)));
            self.relays.len() - 1
        });
        format!("10.0.2.2:{}", self.relays[at].1.port())
    }

    /// An orchestrator's URL as the guest has it. Its certificate is pinned, so its address does not matter.
    pub fn url_of(&mut self, url: &str) -> String {
        let address =
            url.trim_start_matches("https://").parse().expect("a server of a test has an address and a port");
        format!("https://{}", self.address_of(address))
    }

    /// Where the host finds the port that its [`Setup::forwarding`] leads to.
    pub fn forwarded(&self) -> Option<SocketAddr> {
        self.setup.forward.map(|(from, _)| from)
    }

    /// What a failed test's guest said at last.
    fn tell_last_words(&self) {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let from = lines.len().saturating_sub(CONSOLE_LINES_MAX);
        eprintln!(
            "---- boots of {}: {:?}\n---- its console:\n{}",
            self.name,
            self.boots(),
            lines[from..].join("\n")
        );
        let journal =
            Call::new(&["journalctl", "-b", "-n", "150", "--no-pager"]).deadline(Duration::from_secs(60));
        if self.is_on()
            && let Ok(journal) = self.try_call(&journal)
        {
            eprintln!("---- its journal:\n{}", journal.stdout);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A guest that answers nothing is itself a reason to fail; its console is printed first.
            self.tell_last_words();
        }
        if self.power.is_some() {
            self.cut_power();
        }
        let seconds = self.began.elapsed().as_secs_f64();
        say(&format!("the guest {} took {seconds:.1} s over {} boots", self.name, self.boots().len()));
        write_down(&self.kit, &self.name, seconds);
    }
}

/// Writes down what a guest took, for the sum of all.
fn write_down(kit: &Kit, name: &str, seconds: f64) {
    let spent = std::fs::OpenOptions::new().create(true).append(true).open(kit.folder().join("spent"));
    let written = spent.and_then(|mut file| file.write_all(format!("{name} {seconds:.1}\n").as_bytes()));
    if let Err(error) = written {
        say(&format!("its time could not be written down: {error}"));
    }
}
