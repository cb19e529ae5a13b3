//! Process 1 of a live image: this same binary under the name `init`, where there is no other.
//!
//! It mounts what every program expects, has the image's own program load drivers and bring up the network and SSH, and
//! keeps an agent running. What else ends, its own orphans and those of others, it reaps. It never ends itself: the kernel
//! would panic. Decisions are in [`keeper`]; here they are heard of and done.

mod ground;
mod keeper;

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::console::complain;
use crate::power::{self, Power};
use keeper::{Do, Event, Keeper};

/// The name under which the kernel starts it.
const NAME: &str = "init";
/// The image's own program: drivers, network, SSH.
const PREPARE: &str = "/etc/groundcrew/prepare";
/// The pause after a fault of its own, before it begins anew.
const AGAIN: Duration = Duration::from_secs(5);

/// True where this process is the first of its system and was started as its init, rather than as the one process of a
/// container.
pub fn is_asked_for(program: &OsStr) -> bool {
    rustix::process::getpid().is_init() && Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// Runs until the machine goes down.
pub fn run() -> ! {
    ground::lay();
    say(format_args!("boot {}", ground::boot_id()));
    loop {
        match std::panic::catch_unwind(keep) {
            Ok(Err(error)) => say(format_args!("{error}; everything begins anew")),
            // The panic has said its own words.
            Err(_panicked) => say(format_args!("everything begins anew")),
        }
        // What was started before would stand in the way of what is started next.
        end_all();
        std::thread::sleep(AGAIN);
    }
}

fn say(text: std::fmt::Arguments) {
    complain(format_args!("groundcrew {NAME}: {text}"));
}

fn keep() -> std::io::Result<std::convert::Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(hear_and_do())
}

async fn hear_and_do() -> std::io::Result<std::convert::Infallible> {
    let mut ended = signal(SignalKind::child())?;
    // As busybox's commands, sysvinit's and the kernel (for ctrl-alt-delete) ask an init.
    let mut reboot = signal(SignalKind::terminate())?;
    let mut keys = signal(SignalKind::interrupt())?;
    let mut off = signal(SignalKind::user_defined2())?;
    let mut halt = signal(SignalKind::user_defined1())?;
    let mut keeper = Keeper::preparing(start(&mut Command::new(PREPARE)), Instant::now());
    loop {
        // Also those that ended before there was an ear for it.
        while let Some((pid, status)) = reaped() {
            let event = Event::Ended(pid);
            if keeper.knows(pid) {
                say(format_args!("{} ended: {status}", keeper.what()));
            }
            obey(&mut keeper, event);
        }
        let event = tokio::select! {
            _ = ended.recv() => continue,
            _ = reboot.recv() => Event::Asked(Power::Reboot),
            _ = keys.recv() => Event::Asked(Power::Reboot),
            _ = off.recv() => Event::Asked(Power::Off),
            _ = halt.recv() => Event::Asked(Power::Off),
            () = tokio::time::sleep_until(keeper.until().into()) => Event::Time,
        };
        obey(&mut keeper, event);
    }
}

fn obey(keeper: &mut Keeper, event: Event) {
    // Without a random number the pause is a whole one.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    match keeper.next(event, Instant::now(), random) {
        Do::Nothing => {}
        Do::Start { instead_of } => {
            if let Some(pid) = instead_of {
                say(format_args!("{PREPARE} takes too long and is ended; the agent starts all the same"));
                send(pid, Signal::KILL);
            }
            let mut agent = Command::new("/proc/self/exe");
            agent.arg("agent").env_clear().envs(ground::settings(say));
            keeper.started(start(&mut agent), Instant::now());
        }
        Do::Pause(pause) => say(format_args!("the agent starts again in {:.1} s", pause.as_secs_f64())),
        Do::Stop(pid) => {
            say(format_args!("asked to go down; the agent ends first"));
            send(pid, Signal::TERM);
        }
        Do::Go(power) => {
            end_all();
            if let Err(error) = power::by_kernel(power) {
                say(format_args!("{error}"));
            }
        }
    }
}

fn start(command: &mut Command) -> Option<Pid> {
    match command.spawn() {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => {
            say(format_args!("starting {}: {error}", command.get_program().display()));
            None
        }
    }
}

/// A process that has ended, whoever started it.
fn reaped() -> Option<(Pid, ExitStatus)> {
    let (pid, status) = wait(WaitOptions::NOHANG).ok()??;
    Some((pid, ExitStatus::from_raw(status.as_raw())))
}

fn send(pid: Pid, signal: Signal) {
    // It fails only where that process has ended, which is what was wanted.
    let _ended = kill_process(pid, signal);
}

/// Ends every other process.
fn end_all() {
    // SAFETY: a system call without memory of ours. From process 1, -1 means every process but this one.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}
