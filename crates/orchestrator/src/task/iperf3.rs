//! The server's own iperf3, with which nodes measure their links: kept up, and ended with this server.
//!
//! One client at a time is iperf3's own rule: whoever comes while it speaks with another is refused, and asks again. Off unless
//! `--iperf3` is given: whoever reaches the port may fill the link.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::api::app::App;

const NAME: &str = "iperf3";
/// Pause before it is started again: where the port is taken, somebody may let go of it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// One that has run for so long was no vain start: the next pause is the shortest again.
const STARTED_WELL: Duration = Duration::from_secs(60);
/// Bytes that are kept of what it said last.
const SAID_BYTES_MAX: usize = 512;

/// Runs it until told to stop.
pub async fn run(app: Arc<App>, address: SocketAddr, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    loop {
        let began = tokio::time::Instant::now();
        let ended = match start(address) {
            Ok(child) => {
                let pid = child.id().unwrap_or_default();
                app.tasks.note(NAME, Ok(format!("serves at {address}, pid {pid}")));
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = end_of(child) => ended,
                }
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        tracing::warn!(%address, ended, "iperf3 does not serve");
        pause = if began.elapsed() >= STARTED_WELL { PAUSE_MIN } else { pause };
        app.tasks.note(NAME, Err(format!("{ended}; started again in {} s", pause.as_secs())));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Starts it. It ends when its handle is dropped, and with this process however that ends.
fn start(address: SocketAddr) -> io::Result<Child> {
    let own = rustix::process::getpid();
    let mut command = Command::new(NAME);
    command.args(["-s", "-p", &address.port().to_string()]);
    if !address.ip().is_unspecified() {
        command.args(["-B", &address.ip().to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have ended before that was said.
            if getppid() == Some(own) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        });
    }
    command.spawn()
}

/// How it ended, with what it said last.
async fn end_of(mut child: Child) -> String {
    let mut said: Vec<u8> = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let mut bytes = [0; SAID_BYTES_MAX];
        while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
            said.extend(&bytes[..count]);
            said.drain(..said.len().saturating_sub(SAID_BYTES_MAX));
        }
    }
    let status = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => format!("end not seen: {error}"),
    };
    format!("{status}: {}", String::from_utf8_lossy(&said).trim())
}
