//! Switches the machine off, once everything has agreed to that.
//!
//! By systemd where it answers, else by shutdown(8), else, where this agent is process 1, by the kernel itself.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::system::RebootCommand;

/// How long a command may take to accept the request.
const ACCEPT_MS: u64 = 10_000;
/// How often it is looked at meanwhile.
const LOOK_MS: u64 = 50;

/// No way to switch the machine off worked.
#[derive(Debug, thiserror::Error)]
#[error("switching the machine off: {0}")]
pub struct PowerError(String);

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
    if rustix::process::getpid().is_init() {
        rustix::fs::sync();
        match rustix::system::reboot(RebootCommand::PowerOff) {
            Ok(()) => return Ok(()),
            Err(error) => said.push(format!("reboot(2): {error}")),
        }
    }
    Err(PowerError(said.join("; ")))
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
