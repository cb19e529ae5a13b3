//! The hidden subcommand `chroot-exec`: what a step's process is between its fork and its program.
//!
//! Nothing but a few system calls may happen between fork and exec, and a chroot would be felt by every thread. So the
//! agent starts itself again, with one thread, and that process becomes the step:
//!
//! ```text
//! agent:       spawn ── write the child down ── control data ────────────────▶ watches
//! chroot-exec: waits for control data ── enters the root ── chmod ── signals ── exec
//! ```
//!
//! Its standard input is one end of a socket. Control data comes in over it, and a sentence goes out where the program
//! could not be started; a success is its end, since exec closes it. Where the agent dies before it has sent
//! everything, nothing ever runs. The exit status or signal is then the step's own.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::control_data::ControlData;

/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "chroot-exec";
/// Exit status where the program could not be started. The sentence on the socket tells it from a program's own.
pub const NOT_STARTED: u8 = 1;
/// Every permission to execute.
const EXECUTABLE: u32 = 0o111;
/// Where a program without a slash is looked for if its environment has no `PATH`, as the C library has it.
const PATH_DEFAULT: &[u8] = b"/bin:/usr/bin";
/// Signal numbers go up to this one.
const SIGNAL_MAX: i32 = 64;

/// The subcommand. It returns only where the program was not started.
pub fn run() -> ExitCode {
    // A copy that exec closes. Number 0 itself will be the program's standard input.
    let socket = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(socket) => File::from(socket),
        Err(error) => {
            eprintln!("groundcrew {SUBCOMMAND}: copy the control socket: {error}");
            return ExitCode::from(NOT_STARTED);
        }
    };
    let Err(error) = become_program(&socket);
    let sentence = one_line(&format!("{error:#}"));
    eprintln!("groundcrew: {sentence}");
    // Where the agent is gone, nobody needs it.
    let _nobody_listens = (&socket).write_all(sentence.as_bytes());
    ExitCode::from(NOT_STARTED)
}

/// A message as one line, whatever names it holds.
pub(super) fn one_line(message: &str) -> String {
    message
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn become_program(mut socket: &File) -> anyhow::Result<Infallible> {
    let data = ControlData::read(&mut socket).context(
        "receive what to start (this is no command for people: the agent calls it for the steps of a package)",
    )?;
    let program = data.argv.first().expect("control data has a program").clone();
    // Once it is entered, the root may have no /dev/null.
    empty_stdin().context("give it an empty standard input")?;
    close_on_exec(socket.as_fd()).context("keep other descriptors from it")?;
    enter(&data).with_context(|| format!("could not start {}", program.display()))?;
    if !data.no_chmod {
        make_executable(Path::new(&program))
            .with_context(|| format!("could not start {}: make it executable", program.display()))?;
    }
    reset_signals();
    execute(&data).with_context(|| format!("could not start {}", program.display()))
}

fn empty_stdin() -> std::io::Result<()> {
    match File::open("/dev/null") {
        Ok(null) => rustix::stdio::dup2_stdin(&null)?,
        // An image without devices: a pipe that nobody writes to reads the same.
        Err(_) => rustix::stdio::dup2_stdin(std::io::pipe()?.0)?,
    }
    Ok(())
}

/// Marks everything but the standard streams to be closed by exec: what our own parent left open is not the step's.
fn close_on_exec(socket: BorrowedFd<'_>) -> std::io::Result<()> {
    // SAFETY: close_range with this flag closes nothing; it only marks descriptors, which every owner here has already
    // marked anyway.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one. Without /proc that cannot be done, and what was left open is not ours to know.
    let Ok(listed) = std::fs::read_dir("/proc/self/fd") else { return Ok(()) };
    for entry in listed {
        let number: Option<i32> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        for number in number.into_iter().filter(|number| *number > 2) {
            // SAFETY: the borrow ends with this turn, and one thread alone runs here: nobody closes the descriptor
            // meanwhile. The listing's own is among them, and is open.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
        }
    }
    Ok(rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?)
}

fn enter(data: &ControlData) -> anyhow::Result<()> {
    if let Some(root) = &data.root {
        rustix::process::chroot(root).with_context(|| format!("enter the root {}", root.display()))?;
        std::env::set_current_dir("/").context("go to / in the root")?;
    }
    std::env::set_current_dir(&data.directory)
        .with_context(|| format!("go to {} in the root", data.directory.display()))
}

/// Adds the permission to execute, through the descriptor of the very file that was looked at. The root is entered, so
/// that no symlink leads out of it.
fn make_executable(program: &Path) -> anyhow::Result<()> {
    // Something that is no file, like a pipe, must not be waited for.
    let open = |flags| File::options().read(true).custom_flags(flags).open(program);
    let file = open(libc::O_NONBLOCK | libc::O_NOCTTY)?;
    let found = file.metadata()?;
    if !found.is_file() {
        bail!("it is no regular file");
    }
    let mode = found.permissions().mode();
    // A root that is read-only is fine where nothing has to be changed.
    if mode & EXECUTABLE != EXECUTABLE {
        file.set_permissions(std::fs::Permissions::from_mode(mode | EXECUTABLE))?;
    }
    Ok(())
}

/// A program expects signals as they are at login. Our runtime ignores SIGPIPE; what our parent ignored or blocked is no
/// business of a step's either.
fn reset_signals() {
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: the default action is no function of ours. Where a signal cannot be changed (SIGKILL, those of the C
        // library) the call fails and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Becomes the program. A file without a `#!` line fails, as it does with the reference: no shell is tried.
fn execute(data: &ControlData) -> anyhow::Result<Infallible> {
    let no_nul = "control data is made of strings that end with a NUL";
    let strings = |texts: Vec<Vec<u8>>| -> Vec<CString> {
        texts.into_iter().map(|text| CString::new(text).expect(no_nul)).collect()
    };
    let argv = strings(data.argv.iter().map(|argument| argument.as_bytes().to_vec()).collect());
    let joined = |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let environment = strings(data.environment.iter().map(joined).collect());
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, variables) = (pointers(&argv), pointers(&environment));
    let mut refused = None;
    for candidate in strings(candidates(data)) {
        // SAFETY: both lists end with a null pointer, and their strings end with a NUL and outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // As a shell does: another folder may have one that may be executed.
            Some(libc::EACCES) => refused = Some(error),
            _ => return Err(error.into()),
        }
    }
    Err(refused.unwrap_or_else(|| std::io::Error::from_raw_os_error(libc::ENOENT)).into())
}

/// The files that the program may be: itself where it has a slash, else one in each folder of `PATH`.
fn candidates(data: &ControlData) -> Vec<Vec<u8>> {
    let program = data.argv.first().expect("control data has a program").as_bytes();
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = data.environment.iter().rev().find(|(name, _value)| name == "PATH");
    let folders = search_folders(path.map(|(_name, value)| value.as_bytes()));
    folders.iter().map(|folder| [folder.as_os_str().as_bytes(), b"/", program].concat()).collect()
}

/// The folders in which a program is looked for that is started with this `PATH`. One that is not absolute is meant from
/// where the program runs.
pub(crate) fn search_folders(path: Option<&[u8]>) -> Vec<PathBuf> {
    let folders = path.unwrap_or(PATH_DEFAULT).split(|byte| *byte == b':');
    let named = folders.map(|folder| if folder.is_empty() { b"." } else { folder });
    named.map(|folder| PathBuf::from(OsStr::from_bytes(folder))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_slash_is_looked_for_in_the_steps_own_path() {
        let data = |program: &str, path: Option<&str>| ControlData {
            argv: vec![program.into()],
            environment: path.map(|path| ("PATH".into(), path.into())).into_iter().collect(),
            root: None,
            directory: "/".into(),
            no_chmod: true,
        };
        let found = |data: ControlData| {
            let texts = candidates(&data).into_iter().map(|text| String::from_utf8(text).unwrap());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(found(data("reboot", Some("/a:/b c:"))), ["/a/reboot", "/b c/reboot", "./reboot"]);
        assert_eq!(found(data("reboot", None)), ["/bin/reboot", "/usr/bin/reboot"]);
        assert_eq!(found(data("./reboot", Some("/a"))), ["./reboot"]);
    }

    #[test]
    fn a_message_is_one_line_whatever_names_it_holds() {
        assert_eq!(one_line("start /a\nb\u{1b}: é"), "start /a\\nb\\u{1b}: é");
    }
}
