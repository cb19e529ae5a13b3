//! Processes under measurement: started, looked at in /proc, and ended with the benchmark at the latest.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A process may take this long to end in order.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// Between two looks at a process that is ending.
const STOP_POLL: Duration = Duration::from_millis(20);

/// A process that ends with its owner.
pub struct Service {
    name: &'static str,
    child: Child,
}

/// What a process prints.
pub type Lines = std::io::Lines<BufReader<ChildStdout>>;

impl Service {
    /// Starts a process whose standard output is a pipe. Its standard input is a pipe too, which closes when the
    /// benchmark ends, however that happens.
    pub fn start(mut command: Command, name: &'static str) -> Result<(Service, Lines)> {
        let program = command.get_program().to_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let out = child.stdout.take().expect("standard output was asked for as a pipe");
        Ok((Service { name, child }, BufReader::new(out).lines()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, Signal::TERM).with_context(|| format!("ending {}", self.name))?;
        let asked = Instant::now();
        loop {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?
            {
                return Ok(status);
            }
            if asked.elapsed() > STOP_TIME_MAX {
                bail!("{} did not end within {} s of SIGTERM", self.name, STOP_TIME_MAX.as_secs());
            }
            std::thread::sleep(STOP_POLL);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that was stopped has been waited for; both calls fail then, and nothing is left to do.
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

/// Reads lines up to the one that begins with `start`, and returns the rest of that.
pub fn line_with(lines: &mut Lines, start: &str) -> Result<String> {
    for line in lines.by_ref() {
        let line = line.context("reading what a process prints")?;
        if let Some(rest) = line.strip_prefix(start) {
            return Ok(rest.trim().to_owned());
        }
    }
    bail!("a process ended without printing a line that begins with {start:?}")
}

/// What a process holds in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident, as the kernel counts it for /proc/PID/status.
    pub resident: u64,
    /// Of what is resident, that which is in no file.
    pub anonymous: u64,
}

/// Looks at the memory of a process.
pub fn memory_of(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_status(&text).with_context(|| format!("reading {path}"))
}

fn parse_status(text: &str) -> Result<Memory> {
    let bytes = |key: &str| -> Result<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = value.with_context(|| format!("there is no {key}"))?.trim();
        let kilobytes =
            value.strip_suffix(" kB").with_context(|| format!("{key} is {value:?}, expected kB"))?;
        Ok(kilobytes.trim().parse::<u64>().with_context(|| format!("{key} is {value:?}"))? * 1024)
    };
    let memory = Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? };
    ensure!(memory.resident > 0, "nothing is resident: the process has ended");
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let text = "Name:\tx\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n";
        let memory = parse_status(text).unwrap();
        assert_eq!(memory, Memory { resident: 1 << 20, anonymous: 1 << 19 });
        assert!(parse_status("Name:\tx\n").unwrap_err().to_string().contains("VmRSS"));
        assert!(memory_of(std::process::id()).unwrap().resident > 100_000);
    }

    #[test]
    fn a_service_is_read_from_and_ends_when_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo ready at 7; exec sleep 600"]);
        let (service, mut lines) = Service::start(command, "a shell").unwrap();
        assert_eq!(line_with(&mut lines, "ready at ").unwrap(), "7");
        assert_eq!(service.stop().unwrap().code(), None);
        let error = line_with(&mut lines, "never").unwrap_err().to_string();
        assert!(error.contains("never"), "{error}");
    }
}
