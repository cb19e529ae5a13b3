//! Steps as real processes: what they print, how they end, and what becomes of them.

mod programs;
mod shell_root;
mod tee_place;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use groundcrew_agent::process::ControlData;
use groundcrew_agent::process::stamper::Label;
use groundcrew_agent::process::tee::{AskError, Helper, Log, Note, WhenAsked};
use programs::{write_program, write_script};
use tee_place::{Place, without_stamps};

fn sink_failures(notes: &[Note]) -> Vec<(&str, &str)> {
    let failures = notes.iter().filter_map(|note| match note {
        Note::SinkFailed { sink, cause, .. } => Some((sink.as_str(), cause.as_str())),
        Note::OutputHeld(_) | Note::OutputClosed(_) | Note::Stuck => None,
    });
    failures.collect()
}

#[test]
fn both_streams_go_to_the_agents_own_and_to_their_logs() {
    let mut place = Place::new();
    let ended =
        place.run("echo \"apply: args=[$*]\"; echo \"apply: to stderr\" >&2; echo GREETING=$GREETING");
    assert_eq!((ended.exit, ended.ended_by_us, ended.not_started, ended.notes), (0, false, None, vec![]));
    let out = "[out]@ apply: args=[one two words]\n[out]@ GREETING=hi\n[out]@ ";
    let err = "[err]@ apply: to stderr\n[err]@ ";
    assert_eq!(place.all(), [out, err, out, err].map(str::to_owned));
}

#[test]
fn an_interrupts_command_is_its_first_line_without_a_stamp() {
    let mut place = Place::new();
    let mut step = place.step("");
    step.argv = ["sh", "-c", "echo x"].map(OsString::from).to_vec();
    step.no_chmod = true;
    let ended = place.run_step(step, true);
    assert_eq!(ended.exit, 0);
    let out = "sh -c echo x\n[out]@ x\n[out]@ ";
    assert_eq!(place.all(), [out, "", out, ""].map(str::to_owned));
}

#[test]
fn an_exit_status_is_the_steps_own_and_a_signal_its_negative_number() {
    let mut place = Place::new();
    for (script, exit) in [
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", -15),
        // Ours is ignored in this process, and must not be in a step.
        ("kill -PIPE $$", -13),
        ("kill -KILL 0", -9),
        ("exec >&- 2>&-; sleep 0.1; exit 3", 3),
    ] {
        let ended = place.run(script);
        assert_eq!((ended.exit, ended.not_started, ended.ended_by_us), (exit, None, false), "{script}");
    }
}

#[test]
fn what_cannot_be_started_is_told_from_a_step_that_fails() {
    let mut place = Place::new();
    let ended = place.run("exit 1");
    assert_eq!((ended.exit, ended.not_started), (1, None));
    let refused = |place: &mut Place, change: &dyn Fn(&mut groundcrew_agent::process::ControlData)| {
        let mut step = place.step("exit 0");
        change(&mut step);
        let ended = place.run_step(step, false);
        assert_eq!(ended.exit, 1);
        let why = ended.not_started.unwrap();
        assert_eq!(place.logs(), ["".to_owned(), format!("[err]@ groundcrew: {why}\n[err]@ ")]);
        why
    };
    let why = refused(&mut place, &|step| step.argv[0] = "/no\nsuch".into());
    assert_eq!(why, "could not start /no\\nsuch: make it executable: No such file or directory (os error 2)");
    let why = refused(&mut place, &|step| step.argv[0] = "/tmp".into());
    assert_eq!(why, "could not start /tmp: make it executable: it is no regular file");
    let why = refused(&mut place, &|step| step.directory = "/no/such".into());
    assert!(why.ends_with(": go to /no/such in the root: No such file or directory (os error 2)"), "{why}");
    let why = refused(&mut place, &|step| (step.argv[0], step.no_chmod) = ("no-such-command".into(), true));
    assert_eq!(why, "could not start no-such-command: No such file or directory (os error 2)");
    let bare = place.path().join("no-interpreter");
    write_script(&bare, "exit 0\n");
    let why = refused(&mut place, &|step| step.argv[0] = bare.clone().into());
    assert!(why.ends_with(": Exec format error (os error 8)"), "{why}");
    let why = refused(&mut place, &|step| step.argv.push("x".repeat(1 << 20).into()));
    assert!(why.ends_with(": Argument list too long (os error 7)"), "{why}");
    let why = refused(&mut place, &|step| step.environment.push(("SECRET".into(), "a\0b".into())));
    assert!(why.ends_with(": \"SECRET\" holds a NUL byte"), "{why}");
}

#[test]
fn an_agent_that_cannot_start_itself_says_why() {
    let mut place = Place::with_helper(Helper::other("/proc/no/such/exe"));
    let ended = place.run("exit 0");
    assert_eq!(ended.exit, 1);
    let why = ended.not_started.unwrap();
    assert!(why.contains("starts steps through /proc/no/such/exe, and /proc is not mounted"), "{why}");
    assert_eq!(place.logs()[1], format!("[err]@ groundcrew: {why}\n[err]@ "));
}

/// A helper that first writes its process id to a file, and the ids of those that it has started so far. Two that start
/// beside each other may write theirs in either order.
fn helper_that_counts(folder: &Path) -> (Helper, impl Fn(usize) -> Vec<i32>) {
    let (program, list) = (folder.join("helper"), folder.join("started"));
    let script = format!("echo $$ >>{}\nexec {} \"$@\"", list.display(), env!("CARGO_BIN_EXE_groundcrew"));
    write_program(&program, &script);
    let started = move |at_least| loop {
        let text = std::fs::read_to_string(&list).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let ids: Vec<i32> = whole.lines().map(|line| line.parse().unwrap()).collect();
        if ids.len() >= at_least {
            return ids;
        }
        std::thread::yield_now();
    };
    (Helper::other(program), started)
}

/// The process id that a step wrote to its log as its only line.
fn said_pid(log: &str) -> i32 {
    let line = log.strip_prefix("[out]@ ").and_then(|rest| rest.strip_suffix("\n[out]@ "));
    line.unwrap_or_else(|| panic!("{log}")).parse().unwrap()
}

#[test]
fn the_next_steps_process_is_started_while_a_step_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (helper, started) = helper_that_counts(folder.path());
    let mut place = Place::with_helper(helper);
    // The first step ends only once the process of the second is there.
    let list = folder.path().join("started");
    let wait = format!("while [ $(wc -l <{}) -lt 2 ]; do :; done; echo $$", list.display());
    place.run_before_another(&wait);
    let first = place.logs();
    assert_eq!(place.run("echo $$").exit, 0);
    let mut ids = started(2);
    assert_eq!(ids.len(), 2);
    let mut steps = [said_pid(&first[0]), said_pid(&place.logs()[0])];
    assert_ne!(steps[0], steps[1]);
    ids.sort_unstable();
    steps.sort_unstable();
    assert_eq!(steps, *ids);
}

#[test]
fn a_process_that_waited_and_is_gone_is_replaced_and_one_that_is_not_needed_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (helper, started) = helper_that_counts(folder.path());
    let mut place = Place::with_helper(helper);
    place.run_before_another("echo $$");
    let first = said_pid(&place.logs()[0]);
    let waiting = started(2).into_iter().find(|pid| *pid != first).unwrap();
    let waiting = rustix::process::Pid::from_raw(waiting).unwrap();
    let handle = rustix::process::pidfd_open(waiting, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(waiting, rustix::process::Signal::KILL).unwrap();
    let ended = rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN);
    assert_eq!(rustix::event::poll(&mut [ended], None).unwrap(), 1);
    assert_eq!(place.run_before_another("exit 3").exit, 3);
    let ids = started(4);
    assert_eq!(ids.len(), 4);
    drop(place);
    // They were reaped, too.
    for pid in ids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}

#[test]
fn a_step_runs_only_once_it_is_written_down() {
    let mut place = Place::new();
    let mark = place.path().join("ran");
    let step = place.step(&format!("touch {}", mark.display()));
    let ended = place.run_recorded(step.clone(), &mut |_pid| Err(std::io::Error::other("disk gone")));
    assert!(ended.not_started.unwrap().ends_with("that it runs: disk gone"));
    assert!(!mark.exists());
    let mut pid = 0;
    let looked_for = mark.clone();
    place.run_recorded(place.step("touch ran; echo $$"), &mut |started| {
        assert!(!looked_for.exists());
        pid = started;
        Ok(())
    });
    assert!(mark.exists());
    assert_eq!(place.logs()[0], format!("[out]@ {pid}\n[out]@ "));
}

#[test]
fn a_step_gets_its_environment_whole_and_nothing_else() {
    let mut place = Place::new();
    let mut step = place.step("");
    step.argv = vec!["env".into(), "-0".into()];
    step.no_chmod = true;
    step.environment = vec![
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("ML".into(), "line1\nB=injected\nline3".into()),
        ("EMPTY".into(), "".into()),
    ];
    place.run_step(step, false);
    let out = "[out]@ PATH=/usr/bin:/bin\0ML=line1\n[out]@ B=injected\n[out]@ line3\0EMPTY=\0";
    assert_eq!(place.logs()[0], out);
}

#[test]
fn no_descriptor_of_ours_reaches_a_step() {
    let mut place = Place::new();
    // Not marked to be closed by exec: what somebody left open for us.
    let leaked = rustix::io::dup(File::open("/etc/passwd").unwrap()).unwrap();
    place.run("readlink /proc/$$/fd/0; ls -v /proc/$$/fd; cut -d ' ' -f 5 /proc/$$/stat; echo $$");
    let log = place.logs()[0].replace("[out]@ ", "");
    let lines: Vec<&str> = log.lines().collect();
    // The shell has its own script open as one more, out of the way.
    assert_eq!(lines[..5], ["/dev/null", "0", "1", "2", "10"]);
    assert_eq!(lines.len(), 7, "{lines:?}");
    let [.., group, own] = lines.as_slice() else { panic!() };
    assert_eq!(group, own, "a process group of its own");
    drop(leaked);
}

#[test]
fn a_process_left_behind_is_waited_for_and_then_read_on() {
    let mut place = Place::new();
    // One for each time: who opens a fifo again may meet the writer of before, and read its end.
    let [fifo, second_fifo] = ["fifo", "second_fifo"].map(|name| place.path().join(name));
    for fifo in [&fifo, &second_fifo] {
        rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    let ended = place.run("(read go <fifo; echo late; read go <second_fifo; echo later) & echo done; exit 4");
    assert_eq!(ended.exit, 4);
    assert_eq!(ended.notes, [Note::OutputHeld(Label::Out), Note::OutputHeld(Label::Err)]);
    let first = place.log_path(Label::Out);
    assert_eq!(without_stamps(&first), "[out]@ done\n");
    // It goes on while a later step runs, which ends only when it has seen that.
    std::fs::write(&fifo, "go\n").unwrap();
    let ended = place.run(&format!("while ! grep -q late {}; do sleep 0.01; done", first.display()));
    assert_eq!((ended.exit, ended.notes.len()), (0, 0));
    assert_eq!(without_stamps(&first), "[out]@ done\n[out]@ late\n");
    // And between steps. The write returns once the process has taken it; its end is what is waited for.
    std::fs::write(&second_fifo, "go\n").unwrap();
    while !without_stamps(&first).ends_with("later\n[out]@ ") {
        place.tee.drain();
    }
}

#[test]
fn one_that_prints_without_end_is_waited_for_no_longer() {
    let mut place = Place::new();
    let ended = place.run("yes & echo $! >pid; exit 0");
    assert_eq!(ended.exit, 0);
    assert!(ended.notes.contains(&Note::OutputHeld(Label::Out)));
    place.tee.drain();
    let pid: i32 = std::fs::read_to_string(place.path().join("pid")).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it was left running");
}

#[test]
fn asked_to_end_a_step_has_its_grace_and_then_gets_sigterm() {
    let mut place = Place::with_grace(Duration::from_millis(200));
    let ended = place.run_and_ask("sleep 1000 & touch begun; wait");
    assert_eq!((ended.exit, ended.ended_by_us), (-15, true));
    assert_eq!(ended.notes, []);
    let mut place = Place::with_grace(Duration::from_millis(200));
    let ended = place.run_and_ask("trap 'echo bye; exit 9' TERM; touch begun; while :; do sleep 0.01; done");
    assert_eq!((ended.exit, ended.ended_by_us), (9, true));
    assert_eq!(place.logs()[0], "[out]@ bye\n[out]@ ");
    // One that ends by itself in its grace has just ended.
    let mut place = Place::with_grace(Duration::from_secs(600));
    let ended = place.run_and_ask("touch begun; sleep 0.3; exit 0");
    assert_eq!((ended.exit, ended.ended_by_us), (0, false));
}

#[test]
fn a_command_may_have_a_grace_of_its_own() {
    let mut place = Place::with_grace(Duration::from_secs(600));
    let ended = place.run_and_ask_with_grace("touch begun; exec sleep 1000", Duration::ZERO);
    assert_eq!((ended.exit, ended.ended_by_us), (-15, true));
}

#[test]
fn who_ignores_sigterm_is_killed_with_its_group() {
    let mut place = Place::with_grace(Duration::ZERO);
    let ended = place.run_and_ask("trap '' TERM; sleep 1000 & touch begun; while :; do sleep 0.1; done");
    assert_eq!((ended.exit, ended.ended_by_us), (-9, true));
    // The sleep held the output: it is gone too.
    assert_eq!(ended.notes, []);
}

#[test]
fn an_output_that_nobody_reads_does_not_keep_the_agent_from_ending() {
    let (unread, out) = std::io::pipe().unwrap();
    // Before it is asked to end it has printed what, once stamped, is more than a pipe takes.
    let mut place = Place::with_stdout(out.into(), Duration::from_millis(100));
    let ended = place.run_and_ask("yes | head -c 40000; touch begun; exec yes");
    assert_eq!((ended.exit, ended.ended_by_us), (-15, true));
    let failures = sink_failures(&ended.notes);
    let cause = "nobody read it for 5 s after the agent was asked to end";
    assert_eq!(failures, [("stdout", cause)]);
    // The log has all that was printed: lines like these, and no other.
    let log = place.logs()[0].clone();
    assert!(log.len() > 65_536 && log.starts_with("[out]@ y\n[out]@ y\n"));
    drop(unread);
}

#[test]
fn a_closed_stdout_stops_neither_step_nor_log_and_is_said_once() {
    let (reader, out) = std::io::pipe().unwrap();
    drop(reader);
    let mut place = Place::with_stdout(out.into(), Duration::ZERO);
    let ended = place.run("echo a; echo b; exit 5");
    assert_eq!(ended.exit, 5);
    assert_eq!(sink_failures(&ended.notes), [("stdout", "Broken pipe (os error 32)")]);
    assert_eq!(place.logs()[0], "[out]@ a\n[out]@ b\n[out]@ ");
    let ended = place.run("echo again");
    assert_eq!((ended.exit, ended.notes), (0, vec![]));
}

#[test]
fn a_full_disk_stops_neither_step_nor_stdout_and_is_said_once() {
    let mut place = Place::new();
    let full = || Some(Log::new(File::options().write(true).open("/dev/full").unwrap(), "/var/log/full.log"));
    let step = place.step("i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done");
    let ended = place.run_logged(step, full(), None);
    assert_eq!(ended.exit, 0);
    let expected = [("the log /var/log/full.log", "No space left on device (os error 28)")];
    assert_eq!(sink_failures(&ended.notes), expected);
    let out = place.stdout();
    assert_eq!(out.lines().count(), 2001);
    assert!(out.contains("\n[out]@ 1999\n"));
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let (mut reader, out) = std::io::pipe().unwrap();
    let mut place = Place::with_stdout(out.into(), Duration::ZERO);
    let reading = std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 777]);
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&piece[..count]),
            }
        }
    });
    place.run("i=0; while [ $i -lt 20000 ]; do echo \"line $i\"; i=$((i+1)); done");
    let logged = std::fs::read(place.log_path(Label::Out)).unwrap();
    drop(place);
    assert!(logged == reading.join().unwrap());
    assert!(logged.len() > 700_000);
}

/// A gigabyte without a line end, in a process of its own so that its memory is its own.
#[test]
fn a_gigabyte_without_a_line_end_leaves_memory_flat() {
    let name = "as_agent_of_a_long_line";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["-q", "--ignored", "--exact", "--nocapture", name])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let grown =
        said.lines().find_map(|line| line.split_once("grown by ")?.1.strip_suffix(" kB")).expect(&said);
    let grown: u64 = grown.parse().unwrap();
    assert!(grown < 2000, "{grown} kB");
}

#[test]
#[ignore = "started by another test as an agent of its own"]
fn as_agent_of_a_long_line() {
    let null = || OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    let mut place = Place::with_stdout(null(), Duration::ZERO);
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    place.run("echo warm");
    let before = peak();
    let step = place.step("exec head -c 1G /dev/zero");
    let ended = place.run_logged(step, Some(Log::new(null().into(), "/dev/null")), None);
    assert_eq!(ended.exit, 0);
    println!("grown by {} kB", peak() - before);
}

/// Entering a root needs privileges. `unshare -r` gives them to anybody.
#[test]
fn a_root_is_entered_and_nothing_outside_is_touched() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: run it under `unshare -r`");
    let mut place = Place::new();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    shell_root::add_program(&root, shell_root::SHELL);
    // Outside and inside have a file of the same name; the symlink, absolute, means the one inside.
    let name = place.path().join("step.sh");
    let inside = root.join(name.strip_prefix("/").unwrap());
    for (path, text) in [(&name, "outside"), (&inside, "inside")] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_script(path, &format!("#!/bin/sh\necho {text} $(pwd); [ -e /proc ] || echo no proc\n"));
    }
    std::os::unix::fs::symlink(&name, root.join("link.sh")).unwrap();
    std::fs::create_dir(root.join("opt")).unwrap();
    let mut step = place.step("");
    (step.argv, step.root, step.directory) = (vec!["/link.sh".into()], Some(root), "/opt".into());
    let ended = place.run_step(step, false);
    assert_eq!((ended.exit, ended.not_started), (0, None), "{:?}", place.logs());
    assert_eq!(place.logs(), ["[out]@ inside /opt\n[out]@ no proc\n[out]@ ", ""].map(str::to_owned));
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
    };
    assert_eq!((mode(&inside), mode(&name)), (0o755, 0o644));
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_answer_is_what_is_printed_whatever_the_exit_status() {
    let place = Place::new();
    let ask = |script: &str| place.tee.ask(&place.step(script), HOUR, WhenAsked::GiveUp);
    assert_eq!(ask("echo stopping; echo not this >&2; exit 1").as_deref(), Ok("stopping\n"));
    assert_eq!(ask("exit 0").as_deref(), Ok(""));
    // Neither is waited for: a pipe that is full, and one that something left behind holds open.
    assert_eq!(ask("head -c 300000 /dev/zero | tr '\\0' x").map(|answer| answer.len()), Ok(4096));
    assert_eq!(ask("head -c 300000 /dev/zero >&2; echo x").as_deref(), Ok("x\n"));
    assert_eq!(ask("sleep 5 & echo x").as_deref(), Ok("x\n"));
    assert_eq!(place.stdout(), "", "nothing is handed on");
    let none = ControlData { argv: vec!["no-such-command".into()], no_chmod: true, ..place.step("") };
    let why = place.tee.ask(&none, HOUR, WhenAsked::GiveUp).unwrap_err().to_string();
    assert_eq!(why, "could not start no-such-command: No such file or directory (os error 2)");
}

#[test]
fn who_gives_no_answer_in_time_is_killed_with_its_group() {
    let mut place = Place::new();
    let patience = Duration::from_millis(300);
    let script = place.step("trap '' TERM; sleep 1000 & echo $! >pid; echo early; wait; wait");
    // The patience begins before the script does: on a busy machine it may not have come so far.
    let pid = loop {
        assert_eq!(place.tee.ask(&script, patience, WhenAsked::GiveUp), Err(AskError::TooLate(patience)));
        let pid = std::fs::read_to_string(place.path().join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<u32>() {
            break pid;
        }
    };
    // Whoever is its parent now may not have waited for it yet.
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    while !state().is_empty() && !state().contains(") Z ") {
        std::thread::yield_now();
    }
    let answer = place.asked_once_begun(|place| {
        let script = place.step("touch begun; exec sleep 1000");
        place.tee.ask(&script, HOUR, WhenAsked::GiveUp)
    });
    assert_eq!(answer, Err(AskError::Cancelled));
}
