//! Lines for whoever looks at the agent's standard error, written by a thread of its own: a terminal that is
//! stopped, or a pipe that nobody reads, holds up nothing else. And what a command prints on standard output.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::LogLevel;

/// Lines that wait. Past it they are counted, and the count is shown; the spool has them all.
const WAITING_MAX: usize = 1_024;

/// Writes lines. Clones share the thread.
#[derive(Debug, Clone)]
pub struct Console {
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl Console {
    /// Starts the thread. It ends with the last console, after the lines that wait.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start() -> std::io::Result<Console> {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new()
            .name("console".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&waiting, &counted))?;
        Ok(Console { lines, dropped })
    }

    /// Writes a line of the agent's own.
    pub fn say(&self, level: LogLevel, text: &str) {
        self.put(format!("{:5} {text}\n", level.as_str()));
    }

    /// Writes a line of a stage.
    pub fn say_of(&self, stage: &Stage, level: LogLevel, text: &str) {
        self.put(format!("{:5} {stage}: {text}\n", level.as_str()));
    }

    fn put(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Prints what a command has to say, and a line end. Whoever closes the pipe has read enough, as `head` has: that is no
/// fault of the command's.
///
/// # Errors
/// Where it cannot be written for another reason, as to a full disk.
pub fn print(text: impl std::fmt::Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Says on standard error what kept a command from what it was asked for. Where nobody reads it, the exit status says it
/// alone.
pub fn complain(text: impl std::fmt::Display) {
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}

fn write_all(waiting: &Receiver<String>, dropped: &AtomicU64) {
    let mut out = std::io::stderr();
    while let Ok(line) = waiting.recv() {
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            // Where standard error is closed there is nobody to tell.
            let _closed = writeln!(out, "warn  {missing} lines were not shown here");
        }
        let _closed = out.write_all(line.as_bytes());
    }
}
