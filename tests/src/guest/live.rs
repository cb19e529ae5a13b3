//! Machines that boot the live image, which the project's own `xtask image` makes of the agent under test. There is no hand
//! in them: the agent is their first process, and what a test wants to know it asks the orchestrator, QEMU or the console.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::qemu::{KERNEL_COMMAND_LINE, Kit, joined};
use super::relay::Relay;
use super::slots::Slot;
use super::{CONSOLE_LINES_MAX, say, write_down};
use crate::harness::server::{Run, Server, own_loopback};
use crate::harness::{Process, binary, eventually};

/// The agent says so often that it is there: orders come with the answers.
const HEARTBEAT: &str = "GROUNDCREW_HEARTBEAT_INTERVAL_MS=500";

/// Disks of a machine are as large as its tests read of them in seconds.
const DISK_BYTES: u64 = 64 * 1024 * 1024;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Serial numbers of its NVMe disks.
    pub nvme: Vec<String>,
    /// Serial numbers of its SATA disks.
    pub sata: Vec<String>,
    /// A sector that no SATA disk of it can read.
    pub unreadable: Option<u64>,
    /// QEMU's name for its network card.
    pub nic: &'static str,
    /// More settings of its agent, as `GROUNDCREW_ALLOW_PACKAGES=yes`.
    pub settings: Vec<String>,
    /// More words for its kernel command line.
    pub words: String,
    /// More arguments for QEMU: devices of the test's own.
    pub more: Vec<OsString>,
}

impl Default for Parts {
    /// One disk of each kind.
    fn default() -> Parts {
        let one = |serial: &str| vec![serial.to_owned()];
        let (nvme, sata) = (one("NVME-1"), one("SATA-1"));
        let (settings, words, more) = (Vec::new(), String::new(), Vec::new());
        Parts {
            cpus: 2,
            memory_mib: 1536,
            nvme,
            sata,
            unreadable: None,
            nic: "e1000e",
            settings,
            words,
            more,
        }
    }
}

/// A machine under the orchestrator of its test. It is switched off with its end.
#[derive(Debug)]
pub struct Live {
    name: String,
    kit: Kit,
    folder: tempfile::TempDir,
    process: Process,
    /// The way to its orchestrator.
    _way: Relay,
    /// Where the host finds its SSH server.
    ssh: SocketAddr,
    began: Instant,
    _slot: Slot,
}

impl Live {
    /// Builds an image that trusts this orchestrator alone, and boots it for that run.
    ///
    /// The kernel command line names the run, and another orchestrator, which no image with pins of its own may believe.
    pub fn boot(name: &str, server: &Server, run: &Run, parts: &Parts) -> Live {
        let (kit, slot) = (Kit::find(), Slot::wait());
        let began = Instant::now();
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let to = server.url().trim_start_matches("https://").parse().expect("it has an address and a port");
        let way = Relay::to(to);
        let pin = format!("https://10.0.2.2:{},{}", way.port(), server.fingerprint());
        make_image(folder.path(), &pin, &parts.settings);
        let stranger = "0".repeat(64);
        let words = format!(
            "groundcrew.run={} groundcrew.token={} groundcrew.url=https://10.0.2.2:9 groundcrew.fpr={stranger} {}",
            run.id,
            run.token.as_str(),
            parts.words,
        );
        let mut qemu = kit.bare(parts.cpus, parts.memory_mib);
        qemu.arg("-kernel").arg(kit.kernel());
        qemu.arg("-initrd").arg(folder.path().join("initramfs.img"));
        qemu.args(["-append", &format!("{KERNEL_COMMAND_LINE} {words}")]);
        for (index, serial) in parts.nvme.iter().enumerate() {
            let disk = add_disk(&mut qemu, folder.path(), &format!("nvme{index}"), None);
            qemu.args(["-device", &format!("nvme,id=nvme{index},drive={disk},serial={serial}")]);
        }
        for (index, serial) in parts.sata.iter().enumerate() {
            let disk = add_disk(&mut qemu, folder.path(), &format!("sata{index}"), parts.unreadable);
            qemu.args(["-device", &format!("ide-hd,drive={disk},serial={serial},bus=ide.{index}")]);
        }
        // The address is this machine's alone, so that the port is still free when QEMU takes it.
        let free = TcpListener::bind((own_loopback(), 0)).expect("loopback has a free port");
        let ssh = free.local_addr().expect("a listener has an address");
        drop(free);
        qemu.args(["-netdev", &format!("user,id=net0,hostfwd=tcp:{ssh}-:22")]);
        qemu.args(["-device", &format!("{},id=nic0,netdev=net0,romfile=", parts.nic)]);
        qemu.arg("-chardev").arg(joined("file,id=console,append=on,path=", &console_in(folder.path())));
        qemu.args(["-serial", "chardev:console"]);
        let mut monitor = joined("unix:", &monitor_in(folder.path()));
        monitor.push(",server=on,wait=off");
        qemu.arg("-qmp").arg(monitor);
        qemu.args(&parts.more);
        let process = Process::start(name, &mut qemu);
        Live { name: name.to_owned(), kit, folder, process, _way: way, ssh, began, _slot: slot }
    }

    /// Tells QEMU to do something to the machine (QMP).
    pub fn tell(&self, command: &str, arguments: &Value) {
        let path = monitor_in(self.folder.path());
        let stream = eventually("QEMU's monitor", || UnixStream::connect(&path).ok());
        let mut out = stream.try_clone().expect("a socket can be cloned");
        let mut lines = BufReader::new(stream).lines();
        let mut ask = |request: Value| {
            writeln!(out, "{request}").expect("QEMU listens");
            loop {
                let line = lines.next().expect("QEMU answers").expect("it can be read");
                let answer: Value = serde_json::from_str(&line).expect("QEMU answers in JSON");
                assert!(answer.get("error").is_none(), "{request}: {answer}");
                if answer.get("return").is_some() {
                    break;
                }
            }
        };
        ask(json!({"execute": "qmp_capabilities"}));
        ask(json!({"execute": command, "arguments": arguments}));
    }

    /// Puts its network cable in, or pulls it.
    pub fn plug(&self, is_in: bool) {
        self.tell("set_link", &json!({"name": "nic0", "up": is_in}));
    }

    /// A command over SSH, with that key.
    pub fn ssh(&self, key: &Path, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        ssh.args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "-i"]).arg(key);
        ssh.args(["-p", &self.ssh.port().to_string(), &format!("root@{}", self.ssh.ip()), command]);
        ssh
    }

    /// The ids of all its boots, in order.
    pub fn boots(&self) -> Vec<String> {
        let console = self.console();
        let ids = console
            .lines()
            .filter_map(|line| line.split_once("groundcrew init: boot ")?.1.split_whitespace().next());
        ids.map(str::to_owned).collect()
    }

    /// What its console said in all its boots.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(console_in(self.folder.path())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has switched itself off.
    pub fn wait_for_power_off(&mut self) {
        assert!(self.process.wait().success(), "QEMU ended badly: {}", self.process.lines().join("\n"));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            let from = lines.len().saturating_sub(CONSOLE_LINES_MAX);
            eprintln!("---- console of {}:\n{}", self.name, lines[from..].join("\n"));
        }
        self.process.kill();
        let seconds = self.began.elapsed().as_secs_f64();
        say(&format!("the machine {} took {seconds:.1} s over {} boots", self.name, self.boots().len()));
        write_down(&self.kit, &self.name, seconds);
    }
}

fn make_image(folder: &Path, pin: &str, settings: &[String]) {
    let mut make = Command::new(binary("xtask"));
    make.args(["image", "--pin", pin, "--set", HEARTBEAT, "--agent"]).arg(binary("groundcrew"));
    for setting in settings {
        make.args(["--set", setting]);
    }
    let output = make.arg("--out").arg(folder).output().expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "making a live image: {said}");
}

/// An empty disk, by its name for a device.
fn add_disk(qemu: &mut Command, folder: &Path, name: &str, unreadable: Option<u64>) -> String {
    let path = folder.join(format!("{name}.raw"));
    let file = std::fs::File::create(&path).expect("the folder is ours");
    file.set_len(DISK_BYTES).expect("the file is ours");
    let drive = format!("drive-{name}");
    let Some(sector) = unreadable else {
        qemu.arg("-drive").arg(joined(&format!("if=none,id={drive},format=raw,file="), &path));
        return drive;
    };
    let faults = folder.join(format!("{name}.faults"));
    let rule = format!("[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"{sector}\"\n");
    std::fs::write(&faults, rule).expect("the folder is ours");
    // The faults lie beneath the format: above it they would be none.
    let mut option =
        joined(&format!("if=none,id={drive},driver=raw,file.driver=blkdebug,file.config="), &faults);
    option.push(joined(",file.image.driver=file,file.image.filename=", &path));
    qemu.arg("-drive").arg(option);
    drive
}

fn console_in(folder: &Path) -> PathBuf {
    folder.join("console.log")
}

fn monitor_in(folder: &Path) -> PathBuf {
    folder.join("monitor.sock")
}
