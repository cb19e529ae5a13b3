//! What the process is told that becomes a step: nobody else on the machine can read it, and it has one thread.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::place::{BINARY, Place, config, effect, step};

const SECRET: &str = "hunter2-and-more";
/// Another user of the machine, with no rights of its own.
const NOBODY: u32 = 65_534;
/// Tries everything of a process that could hold what it was told, and says what could be read.
const LOOK: &str = "cd /proc/$0 || exit 9; cat cmdline status comm; \
    for file in environ mem maps auxv stack syscall fd/0 fd/3; do cat $file && echo READ $file; done; \
    ls fd/ && echo LISTED fd; ls -l fd/0 && echo LISTED fd/0; readlink exe cwd root && echo LINKED; exit 0";

/// What another user finds of a process.
fn seen_by_another(pid: u32) -> String {
    let mut look = Command::new("/bin/sh");
    look.args(["-c", LOOK]).arg(pid.to_string()).uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = look.env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn is_closed_to_others(pid: u32) {
    let seen = seen_by_another(pid);
    assert!(seen.contains("Threads:"), "it looks at the right process: {seen}");
    for word in [SECRET, "READ", "LISTED", "LINKED"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }
}

fn proc_file(pid: u32, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap()).into_owned()
}

#[track_caller]
fn has_one_thread(pid: u32) {
    let status = proc_file(pid, "status");
    assert!(status.lines().any(|line| line == "Threads:\t1"), "{status}");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
}

/// Control data as the agent sends it: its length, then texts that end with a NUL each.
fn told(argv: &[&str], environment: &[&str]) -> Vec<u8> {
    let count = argv.len().to_string();
    let mut texts = vec!["1", "", "/", &count];
    texts.extend(argv.iter().chain(environment));
    let texts: Vec<u8> = texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
    [&u32::try_from(texts.len()).unwrap().to_le_bytes()[..], &texts].concat()
}

/// Whether all that was written to a socket has been read at its other end.
fn is_taken(socket: &UnixStream) -> bool {
    let mut left: libc::c_int = 0;
    // SAFETY: the call writes one number, to where it is told.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    left == 0
}

#[test]
fn what_has_been_told_half_of_it_shows_nothing_to_others_and_has_one_thread() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(BINARY);
    command.arg("chroot-exec").env_clear().stdin(OwnedFd::from(theirs)).current_dir("/");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let secret = format!("TOKEN={SECRET}");
    let told = told(&["/bin/sh", "-c", "test \"$TOKEN\" = \"$0\" && exit 7", SECRET], &[&secret, "LAST=1"]);
    let (first, rest) = told.split_at(told.len() - 3);
    ours.write_all(first).unwrap();
    // It has read both secrets, and waits for the rest.
    while !is_taken(&ours) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    has_one_thread(child.id());
    is_closed_to_others(child.id());
    // Not even to root do its arguments and its environment show any of it.
    assert_eq!(proc_file(child.id(), "cmdline"), format!("{BINARY}\0chroot-exec\0"));
    assert_eq!(proc_file(child.id(), "environ"), "");
    ours.write_all(rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7), "it became what it was told, with what it was told");
}

#[test]
fn an_agent_its_step_and_the_process_that_waits_to_be_the_next_show_nothing_to_others() {
    let place = Place::new();
    let script =
        format!("{}; echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done", effect("a.sh"));
    place.package(&[("a.sh", &script), ("b.sh", "exit 0")]);
    let modes = json!({
        "apply": [step("a.sh", &[], &[0]), step("b.sh", &["env:TOKEN"], &[0])],
        "apply-check": [step("a_check.sh", &[], &[0]), step("b_check.sh", &[], &[0])],
    });
    place.write_config(&config(modes));
    let mut call = place.call("apply").env("TOKEN", SECRET).start();
    call.until_exists(&place.at("effects/begun"));
    let agent = call.pid().as_raw_nonzero().get().cast_unsigned();
    let children = || -> Vec<u32> {
        let listed = proc_file(agent, &format!("task/{agent}/children"));
        listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let is_waiting = |pid: &u32| proc_file(*pid, "cmdline").ends_with("\0chroot-exec\0");
    // The next one is started once the first runs.
    let children = loop {
        let found = children();
        if found.len() == 2 && found.iter().filter(|pid| is_waiting(pid)).count() == 1 {
            break found;
        }
        std::thread::yield_now();
    };
    for pid in children.iter().copied().chain([agent]) {
        is_closed_to_others(pid);
    }
    let waiting = children.iter().copied().find(|pid| is_waiting(pid)).unwrap();
    has_one_thread(waiting);
    assert_eq!(proc_file(waiting, "environ"), "", "it is told over its socket alone");
    // To root the step's own environment shows it: what is looked for is there.
    let step = children.into_iter().find(|pid| *pid != waiting).unwrap();
    assert!(proc_file(step, "environ").contains(&format!("TOKEN={SECRET}")));
    fs::write(place.at("effects/go"), "").unwrap();
    assert_eq!(call.end().exit, 0);
}
