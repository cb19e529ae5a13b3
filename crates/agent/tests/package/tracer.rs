//! A call that is stopped before each of its system calls that changes anything, by ptrace(2), so that it can be ended
//! or signalled at every moment that makes a difference, and at none twice; or whose reads are looked at.

use std::collections::BTreeSet;
use std::io::{BufRead, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::place::Call;

/// What comes of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// It is ended there: the call at which it stopped is not made.
    Kill,
    /// It gets SIGTERM there, and goes on.
    Terminate,
    /// It goes on.
    Nothing,
}

/// What became of a traced call.
#[derive(Debug)]
pub struct Traced {
    /// Its exit status, or the negative number of a signal.
    pub exit: i32,
    /// How often it stopped.
    pub stops: usize,
    /// The system call of the stop at which something was done.
    pub at: Option<i64>,
}

/// A call of read(2) on a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeRead {
    /// Bytes that were asked for.
    pub asked: u64,
    /// Bytes that came, or the negative number of an error.
    pub given: i64,
}

/// Runs a command, and says in which order it made what durable: `sync` of a file or folder by its name, `rename` by the
/// name that it gives, and `start` of a process or thread. Its exit status too. Temporary files are `new`.
pub fn order_of_syncs(command: Command) -> (Vec<String>, i32) {
    let mut order = Vec::new();
    let exit = follow(command, |pid, stopped| {
        let Stop::Entered(call) = stopped else { return };
        match call.number {
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let file = std::fs::read_link(format!("/proc/{pid}/fd/{}", call.arguments[0])).unwrap();
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let name = if name.starts_with(".groundcrew-tmp-") { "new".to_owned() } else { name };
                order.push(format!("sync {name}"));
            }
            libc::SYS_renameat | libc::SYS_renameat2 => {
                order.push(format!("rename {}", text_at(pid, call.arguments[3])));
            }
            libc::SYS_clone | libc::SYS_clone3 | libc::SYS_vfork => order.push("start".to_owned()),
            _ => {}
        }
    });
    (order, exit)
}

/// The text that ends with a zero, in a stopped process.
fn text_at(pid: i32, address: u64) -> String {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    memory.seek(SeekFrom::Start(address)).unwrap();
    let mut text = Vec::new();
    std::io::BufReader::with_capacity(256, memory).read_until(0, &mut text).unwrap();
    text.pop();
    String::from_utf8(text).unwrap()
}

/// Where a traced command stands.
enum Stop {
    Entered(Entered),
    /// Behind a call, with what it returned.
    Left(i64),
}

/// Runs a command, and does `what` at the stop of this number, from 0.
fn run(command: Command, stop: usize, what: At) -> Traced {
    let (mut stops, mut at) = (0, None);
    let exit = follow(command, |pid, stopped| {
        let Stop::Entered(call) = stopped else { return };
        if !call.changes_anything() {
            return;
        }
        stops += 1;
        if stops - 1 != stop {
            return;
        }
        let process = Pid::from_raw(pid).unwrap();
        match what {
            At::Kill => rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap(),
            At::Terminate => rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap(),
            At::Nothing => return,
        }
        at = Some(call.number);
    });
    Traced { exit, stops, at }
}

/// Runs a call whose output nobody reads, and does `what` at the stop of this number. A step that is asked to end has time
/// for as long as a test lasts: a machine that stands still for half a minute must not decide how it ends.
pub fn run_unheard(call: Call, stop: usize, what: At) -> Traced {
    run_said(call, Stdio::null(), stop, what)
}

/// The same with its standard error.
pub fn run_said(call: Call, stderr: impl Into<Stdio>, stop: usize, what: At) -> Traced {
    let mut command = call.env("SKYHOOK_AGENT_TERM_GRACE_S", "86400").into_command();
    command.stdout(Stdio::null()).stderr(stderr);
    run(command, stop, what)
}

/// Runs a command to its end, and does `tell` each time before it changes anything, while it stands still.
pub fn at_each_change(command: Command, mut tell: impl FnMut()) -> i32 {
    follow(command, |_pid, stopped| match stopped {
        Stop::Entered(call) if call.changes_anything() => tell(),
        Stop::Entered(_) | Stop::Left(_) => {}
    })
}

/// Runs a command, and ends it before it changes anything more once `is_time` says so.
pub fn kill_once(command: Command, is_time: impl Fn() -> bool) -> i32 {
    follow(command, |pid, stopped| match stopped {
        Stop::Entered(call) if call.changes_anything() && is_time() => {
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
                .unwrap();
        }
        Stop::Entered(_) | Stop::Left(_) => {}
    })
}

/// Runs a command to its end, and says which files and folders it synced.
pub fn synced(command: Command) -> (BTreeSet<PathBuf>, i32) {
    let mut synced = BTreeSet::new();
    let exit = follow(command, |pid, stopped| match stopped {
        Stop::Entered(call) if call.number == libc::SYS_fsync => {
            synced.insert(std::fs::read_link(format!("/proc/{pid}/fd/{}", call.arguments[0])).unwrap());
        }
        Stop::Entered(_) | Stop::Left(_) => {}
    });
    (synced, exit)
}

/// Runs a command, and says what it read from pipes, and how it ended.
pub fn reads_of_pipes(command: Command) -> (Vec<PipeRead>, i32) {
    let (mut reads, mut asked) = (Vec::new(), None);
    let exit = follow(command, |pid, stopped| match stopped {
        Stop::Entered(call) => {
            let file = std::fs::read_link(format!("/proc/{pid}/fd/{}", call.arguments[0]));
            let is_pipe = call.number == libc::SYS_read
                && file.is_ok_and(|file| file.to_string_lossy().starts_with("pipe:"));
            asked = is_pipe.then_some(call.arguments[2]);
        }
        Stop::Left(given) => reads.extend(asked.take().map(|asked| PipeRead { asked, given })),
    });
    (reads, exit)
}

/// Runs a command to its end, and tells of each system call of its first thread. Its exit status, or the negative number of a signal.
fn follow(mut command: Command, mut tell: impl FnMut(i32, Stop)) -> i32 {
    // SAFETY: between fork and exec only ptrace(2) is called, which is one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 {
                return Ok(());
            }
            Err(std::io::Error::last_os_error())
        });
    }
    #[allow(clippy::zombie_processes, reason = "it is waited for below, by its number")]
    let child = command.spawn().expect("TEST needs ptrace(2), and a binary that was built");
    let pid = child.id().cast_signed();
    let first = wait(pid);
    assert!(libc::WIFSTOPPED(first), "it stops once it is the program: {first:x}");
    request(libc::PTRACE_SETOPTIONS, pid, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL);
    let mut signal = 0;
    loop {
        request(libc::PTRACE_SYSCALL, pid, signal);
        signal = 0;
        let status = wait(pid);
        if libc::WIFEXITED(status) {
            return libc::WEXITSTATUS(status);
        }
        if libc::WIFSIGNALED(status) {
            return -libc::WTERMSIG(status);
        }
        let stopped_by = libc::WSTOPSIG(status);
        if stopped_by == libc::SIGTRAP | 0x80 {
            tell(pid, stop_of(pid));
        } else {
            // A signal on its way, which it gets as if nobody looked.
            signal = stopped_by;
        }
    }
}

/// A system call that is about to be made.
struct Entered {
    number: i64,
    arguments: [u64; 6],
}

impl Entered {
    /// Whether anybody else can tell that it was made: a file, a process, a lock or a stream is different after it, or
    /// time has passed.
    fn changes_anything(&self) -> bool {
        match self.number {
            libc::SYS_openat => self.arguments[2] & libc::O_CREAT as u64 != 0,
            libc::SYS_fcntl => self.arguments[1] == libc::F_OFD_SETLK as u64,
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_sendto
            | libc::SYS_mkdirat
            | libc::SYS_renameat
            | libc::SYS_renameat2
            | libc::SYS_unlinkat
            | libc::SYS_linkat
            | libc::SYS_fchmod
            | libc::SYS_fchown
            | libc::SYS_utimensat
            | libc::SYS_ftruncate
            | libc::SYS_copy_file_range
            | libc::SYS_sendfile
            | libc::SYS_splice
            | libc::SYS_flock
            | libc::SYS_clone
            | libc::SYS_clone3
            | libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_wait4
            | libc::SYS_waitid
            | libc::SYS_rt_sigaction
            | libc::SYS_exit_group => true,
            _ => false,
        }
    }
}

/// Where a stopped process stands.
fn stop_of(pid: i32) -> Stop {
    // SAFETY: zeros are a valid value of this plain structure.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the process is stopped and ours, and the kernel writes at most `size` bytes.
    let filled = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
    assert!(filled > 0, "ptrace: {}", std::io::Error::last_os_error());
    match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: the kernel has just said that this is what it has filled in.
            let entry = unsafe { info.u.entry };
            Stop::Entered(Entered { number: entry.nr.cast_signed(), arguments: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: as above.
            Stop::Left(unsafe { info.u.exit }.sval)
        }
        other => panic!("a stop at a system call is before it or behind it, and this is {other}"),
    }
}

fn request(what: libc::c_uint, pid: i32, data: i32) {
    // SAFETY: these requests read no memory of ours.
    let done = unsafe { libc::ptrace(what, pid, 0, i64::from(data)) };
    let gone = std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    // One that was killed while it was stopped is gone, which the wait that follows tells.
    assert!(done == 0 || gone, "ptrace: {}", std::io::Error::last_os_error());
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours to be written to.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status
}
