//! Runs a test's commands in a guest: reads them from a virtio serial port, a line each, and says how each ended and
//! what it printed. It decides nothing, and several commands run at once.

use std::fs::{File, OpenOptions, read_dir, read_to_string};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundcrew_tests::guest::words::{Answer, BOOT_ID, Ended, PORT, Request, Told};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Of each output; what is beyond is not told.
const OUTPUT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How long a port without a test at its other end is left alone.
const NOBODY_THERE: Duration = Duration::from_millis(200);

fn main() -> Result<()> {
    let boot = read_to_string(BOOT_ID).context("reading the boot id")?.trim().to_owned();
    let port = OpenOptions::new().read(true).write(true).open(device()?).context("opening the port")?;
    let answers = Arc::new(Mutex::new(port.try_clone().context("cloning the port")?));
    tell(&answers, &Told::Hello { boot: boot.clone() })?;
    let mut lines = BufReader::new(port);
    let mut line = Vec::new();
    loop {
        // A port that nobody holds at its other end reads as ended; the half of a line that came stays.
        lines.read_until(b'\n', &mut line).context("reading the port")?;
        if line.last() != Some(&b'\n') {
            std::thread::sleep(NOBODY_THERE);
            continue;
        }
        // What does not parse is the rest of a line that a boot before this one began to read.
        if let Ok(request) = serde_json::from_slice::<Request>(&line) {
            let (answers, boot) = (answers.clone(), boot.clone());
            std::thread::spawn(move || {
                let answer = perform(&request, &boot);
                if let Err(error) = tell(&answers, &Told::Answer(answer)) {
                    eprintln!("guest-hand: {error:#}");
                }
            });
        }
        line.clear();
    }
}

fn device() -> Result<PathBuf> {
    for entry in read_dir("/sys/class/virtio-ports").context("listing the ports")? {
        let entry = entry.context("listing the ports")?;
        if read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    anyhow::bail!("there is no port {PORT}")
}

/// The line break before it ends what a boot before this one may have left unfinished.
fn tell(answers: &Mutex<File>, told: &Told) -> Result<()> {
    let line = format!("\n{}\n", serde_json::to_string(told).context("writing JSON")?);
    let mut port = answers.lock().expect("no holder of this lock panics");
    port.write_all(line.as_bytes()).context("writing to the port")
}

fn perform(request: &Request, boot: &str) -> Answer {
    let answer = |ended, stdout: &[u8], stderr: &[u8]| Answer {
        id: request.id,
        ended,
        stdout: STANDARD.encode(stdout),
        stderr: STANDARD.encode(stderr),
    };
    if request.boot != boot {
        return answer(Ended::OtherBoot, b"", b"");
    }
    match run(request) {
        Ok((ended, stdout, stderr)) => answer(ended, &stdout, &stderr),
        Err(error) => answer(Ended::NotStarted(format!("{error:#}")), b"", b""),
    }
}

/// Output goes to files in memory: what a command leaves running may hold them open and keeps nobody waiting.
fn run(request: &Request) -> Result<(Ended, Vec<u8>, Vec<u8>)> {
    let (mut input, stdout, stderr) = (in_memory()?, in_memory()?, in_memory()?);
    input
        .write_all(&STANDARD.decode(&request.stdin).context("reading base64")?)
        .context("writing the input")?;
    input.rewind().context("rewinding the input")?;
    let (program, arguments) = request.argv.split_first().context("no program is named")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().process_group(0).current_dir("/");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    command.envs(request.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::from(input));
    command.stdout(Stdio::from(stdout.try_clone().context("cloning a file")?));
    command.stderr(Stdio::from(stderr.try_clone().context("cloning a file")?));
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let status = end_of(&mut child, Duration::from_secs(request.deadline_s))?;
    let ended = match status.map(|status| (status.code(), status.signal())) {
        None => Ended::Deadline,
        Some((Some(code), _)) => Ended::Exit(code),
        Some((None, signal)) => Ended::Signal(signal.context("what has no code was ended by a signal")?),
    };
    Ok((ended, contents(stdout)?, contents(stderr)?))
}

/// Waits for a child's end; at the deadline its whole group is killed, and there is no status.
fn end_of(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("taking hold of the command")?;
    let until = Instant::now() + deadline;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the deadline is too far")?;
        match poll(&mut [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                kill_process_group(pid, Signal::KILL).context("killing the command")?;
                child.wait().context("waiting for the killed command")?;
                return Ok(None);
            }
            Ok(_) => return child.wait().map(Some).context("waiting for the command"),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

fn in_memory() -> Result<File> {
    memfd_create("guest-hand", MemfdFlags::CLOEXEC).map(File::from).context("making a file in memory")
}

fn contents(mut file: File) -> Result<Vec<u8>> {
    file.rewind().context("rewinding an output")?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).context("reading an output")?;
    Ok(bytes)
}
