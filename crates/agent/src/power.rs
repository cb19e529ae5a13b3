//! Switches the machine off, once everything has agreed to that.
//!
//! By systemd where it answers, else by shutdown(8), else by the kernel itself, where this agent is process 1 or the child
//! of a live image's process 1, which is this same program.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{getpid, getppid};
use rustix::system::RebootCommand;

/// How long a command may take to accept the request.
const ACCEPT_MS: u64 = 10_000;
/// How often it is looked at meanwhile.
const LOOK_MS: u64 = 50;

/// No way to switch the machine off worked.
#[derive(Debug, thiserror::Error)]
#[error("switching the machine off: {0}")]
pub struct PowerError(String);

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// And stays so.
    Off,
    /// And comes up again.
    Reboot,
}

/// Has the kernel do it at once, once what was written is on the disks.
///
/// # Errors
/// Why the kernel refuses.
pub fn by_kernel(power: Power) -> Result<(), PowerError> {
    rustix::fs::sync();
    let command = match power {
        Power::Off => RebootCommand::PowerOff,
        Power::Reboot => RebootCommand::Restart,
    };
    rustix::system::reboot(command).map_err(|error| PowerError(format!("reboot(2): {error}")))
}

/// Asks for the power to go. Returns once that was accepted; blocks, and is for a plain thread.
///
/// # Errors
/// What each way said, where none worked.
pub fn off() -> Result<(), PowerError> {
    let mut said = Vec::new();
    for argv in [["systemctl", "poweroff"].as_slice(), &["shutdown", "-h", "now"]] {
        match ask(argv) {
            Ok(()) => return Ok(()),
            Err(why) => said.push(format!("{}: {why}", argv.join(" "))),
        }
    }
    if getpid().is_init() || is_of_live_image() {
        match by_kernel(Power::Off) {
            Ok(()) => return Ok(()),
            Err(PowerError(why)) => said.push(why),
        }
    }
    Err(PowerError(said.join("; ")))
}

/// True where process 1 is this agent's parent and the same program.
fn is_of_live_image() -> bool {
    let program = |path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = program("/proc/self/exe");
    getppid().is_some_and(|parent| parent.is_init()) && own.is_some() && own == program("/proc/1/exe")
}

fn ask(argv: &[&str]) -> Result<(), String> {
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + Duration::from_millis(ACCEPT_MS);
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string()),
            None if Instant::now() >= deadline => {
                child.kill().map_err(|error| error.to_string())?;
                child.wait().map_err(|error| error.to_string())?;
                return Err(format!("gave no answer within {} s", ACCEPT_MS / 1000));
            }
            None => std::thread::sleep(Duration::from_millis(LOOK_MS)),
        }
    }
}
