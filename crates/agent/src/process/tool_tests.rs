//! Real children: well-behaved, stubborn, noisy and orphaned ones.

use std::io::{BufRead, BufReader};
use std::sync::Mutex;

use super::*;
use groundcrew_protocol::limits::LOG_LINE_BYTES_MAX;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Stands in for the subcommand, with two system tools: a session of its own, a byte, exec.
pub(crate) fn stand_in() -> Launcher {
    let wait_and_become = "read go && exec \"$@\" </dev/null";
    let arguments = ["sh", "-c", wait_and_become, "sh"].map(OsString::from);
    Launcher::other(find("setsid", PATH.as_ref()).unwrap(), arguments.to_vec())
}

/// The subcommand itself: this test binary runs it, in the test [`as_launcher`].
fn real() -> Launcher {
    let own = std::process::id().to_string();
    let name = "process::tool::tests::as_launcher";
    let arguments = ["-q", "--ignored", "--exact", "--nocapture", name, "--", &own].map(OsString::from);
    Launcher::other(std::env::current_exe().unwrap(), arguments.to_vec())
}

#[test]
#[ignore = "started by other tests as their launcher"]
fn as_launcher() {
    let arguments: Vec<OsString> =
        std::env::args_os().skip_while(|argument| argument != "--").skip(1).collect();
    super::super::launcher::run_tool(&arguments);
    std::process::exit(126);
}

fn shell(script: &str) -> Tool {
    Tool {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: Vec::new(),
        search_path: PATH.into(),
        deadline: Duration::from_secs(60),
        term_patience: TERM_PATIENCE,
        stdout_bytes_max: 1000,
        stderr_bytes_max: 1000,
        leftovers: Leftovers::Ended,
        confined: Confined::default(),
    }
}

/// Runs a tool, calling `on_line` for its lines.
fn run_with(
    tool: &Tool,
    launcher: &Launcher,
    children: &ChildRecords,
    cancel: &Cancel,
    on_line: impl Fn(Output, &str) + Send + Sync + 'static,
) -> (Result<Finished, ToolError>, Vec<(Output, String)>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&said);
    let lines: Lines = Arc::new(move |output, line| {
        on_line(output, &line);
        kept.lock().unwrap().push((output, line));
    });
    let result = run(tool, &Surroundings { launcher, children, cancel, lines });
    let said = said.lock().unwrap().clone();
    (result, said)
}

fn run_plain(tool: &Tool) -> (Finished, Vec<(Output, String)>) {
    let cancel = Cancel::new().unwrap();
    let (result, said) = run_with(tool, &stand_in(), &ChildRecords::in_memory(), &cancel, |_, _| {});
    (result.unwrap(), said)
}

fn is_gone(pid: i32) -> bool {
    proc_stat::read(pid).is_none_or(|process| process.is_dead())
}

fn pids(text: &[u8]) -> Vec<i32> {
    String::from_utf8_lossy(text).split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn status_and_both_streams_come_back() {
    let (finished, said) = run_plain(&shell("echo out; echo err >&2; cat; exit 3"));
    assert_eq!((finished.ending, finished.stopped), (Ending::Exited(3), None));
    assert_eq!(finished.stdout.bytes, b"out\n");
    assert_eq!(finished.stderr.bytes, b"err\n");
    assert!(said.contains(&(Output::Stdout, "out".into())) && said.contains(&(Output::Stderr, "err".into())));
    assert!(finished.open_output.is_none());
}

#[test]
fn nothing_is_inherited_from_our_environment() {
    let mut tool = shell("env; readlink /proc/self/fd/0");
    tool.environment = vec![("LC_ALL".into(), "C".into())];
    tool.stdout_bytes_max = 100_000;
    let (finished, said) = run_plain(&tool);
    assert!(!finished.stdout.truncated());
    let names: Vec<&str> = said.iter().filter_map(|(_, line)| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"LC_ALL") && names.contains(&sweep::COOKIE_VARIABLE), "{names:?}");
    assert!(!names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
    assert_eq!(said.last().unwrap().1, "/dev/null");
}

#[test]
fn a_deadline_ends_it() {
    let mut tool = shell("sleep 1000 & sleep 1000");
    tool.deadline = Duration::from_millis(200);
    let (finished, _) = run_plain(&tool);
    assert_eq!((finished.ending, finished.stopped), (Ending::Signalled(15), Some(Stopped::TimedOut)));
}

#[test]
fn who_ignores_sigterm_is_killed() {
    let cancel = Cancel::new().unwrap();
    let from_line = cancel.clone();
    // The stop comes once the signal is ignored for certain, which no deadline could tell.
    let tool = shell("trap '' TERM; echo $$; while :; do sleep 1000; done");
    let ask = move |_, _: &str| from_line.ask();
    let (result, said) = run_with(&tool, &stand_in(), &ChildRecords::in_memory(), &cancel, ask);
    let finished = result.unwrap();
    assert_eq!((finished.ending, finished.stopped), (Ending::Signalled(9), Some(Stopped::Cancelled)));
    assert!(is_gone(said[0].1.parse().unwrap()));
}

#[test]
fn a_cancel_ends_it() {
    let cancel = Cancel::new().unwrap();
    let from_line = cancel.clone();
    let tool = shell("echo begun; sleep 1000");
    let ask = move |_, _: &str| from_line.ask();
    let (result, _) = run_with(&tool, &stand_in(), &ChildRecords::in_memory(), &cancel, ask);
    let finished = result.unwrap();
    assert_eq!((finished.ending, finished.stopped), (Ending::Signalled(15), Some(Stopped::Cancelled)));
}

#[test]
fn what_it_leaves_running_is_ended_whichever_session_it_is_in() {
    let script = "sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & \
                  while [ \"$(wc -l <\"$0\")\" != 2 ]; do :; done";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let mut tool = shell(&format!("exec >{}; {script}", file.display()));
    tool.arguments.push(file.clone().into());
    let (finished, _) = run_plain(&tool);
    assert_eq!(finished.ending, Ending::Exited(0));
    assert_eq!(finished.leftovers_ended, 2);
    let left = pids(&std::fs::read(&file).unwrap());
    assert!(left.len() == 2 && left.iter().all(|pid| is_gone(*pid)), "{left:?}");
}

#[test]
fn a_daemon_that_may_stay_holds_the_output_and_nobody_up() {
    let mut tool = shell("sleep 1000 & echo $!");
    tool.leftovers = Leftovers::Left;
    let (finished, said) = run_plain(&tool);
    assert_eq!(finished.ending, Ending::Exited(0));
    assert!(finished.open_output.is_some());
    assert!(said.last().unwrap().1.contains("holds its output open"), "{said:?}");
    let daemon = pids(&finished.stdout.bytes)[0];
    assert!(!is_gone(daemon));
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn endless_output_without_a_line_end_is_bounded() {
    let (finished, said) = run_plain(&shell("head -c 100000000 /dev/zero | tr '\\0' x"));
    assert_eq!(finished.stdout.bytes_seen, 100_000_000);
    assert_eq!(finished.stdout.bytes.len(), 1000);
    assert!(finished.stdout.truncated());
    assert_eq!(said.len(), 1);
    assert!(said[0].1.len() <= LOG_LINE_BYTES_MAX && said[0].1.ends_with("more bytes cut]"));
}

#[test]
fn closing_its_output_early_is_not_its_end() {
    let (finished, _) = run_plain(&shell("exec >&- 2>&-; sleep 0.2; exit 7"));
    assert_eq!(finished.ending, Ending::Exited(7));
}

#[test]
fn killing_its_own_group_is_its_own_end() {
    let (finished, _) = run_plain(&shell("kill -KILL 0"));
    assert_eq!((finished.ending, finished.stopped), (Ending::Signalled(9), None));
}

#[test]
fn a_missing_program_says_where_it_was_looked_for() {
    let mut tool = shell("");
    tool.program = "no-such-tool".into();
    let cancel = Cancel::new().unwrap();
    let (result, _) = run_with(&tool, &stand_in(), &ChildRecords::in_memory(), &cancel, |_, _| {});
    let said = result.unwrap_err().to_string();
    assert_eq!(said, format!("no-such-tool is not installed (looked in {PATH})"));
}

#[test]
fn what_cannot_be_written_down_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let children = ChildRecords::in_home(&folder.path().join("no-home"));
    let tool = shell(&format!("touch {}", mark.display()));
    let (result, _) = run_with(&tool, &stand_in(), &children, &Cancel::new().unwrap(), |_, _| {});
    assert!(matches!(result, Err(ToolError::Record { .. })), "{result:?}");
    assert!(!mark.exists());
}

#[test]
fn it_is_written_down_while_it_runs_and_not_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let children = ChildRecords::in_home(home.path());
    let at_line = Arc::new(Mutex::new(Vec::new()));
    let (kept, path) = (Arc::clone(&at_line), home.path().to_owned());
    let seen_mark = home.path().join("seen");
    let may_end = seen_mark.clone();
    let look = move |_, line: &str| {
        let pid: i32 = line.parse().unwrap();
        let left = super::super::child_record::read_left(&path).unwrap();
        kept.lock().unwrap().push((pid, proc_stat::read(pid).unwrap(), left));
        std::fs::write(&may_end, "").unwrap();
    };
    let script = format!("echo $$; until [ -e {} ]; do sleep 0.01; done", seen_mark.display());
    let tool = shell(&script);
    let (result, _) = run_with(&tool, &stand_in(), &children, &Cancel::new().unwrap(), look);
    assert_eq!(result.unwrap().ending, Ending::Exited(0));
    let (pid, seen, left) = at_line.lock().unwrap().remove(0);
    assert_eq!((left[0].pid, left[0].start), (pid, seen.start));
    assert_eq!(seen.session, pid);
    assert_eq!(super::super::child_record::read_left(home.path()).unwrap(), []);
}

#[test]
fn the_subcommand_makes_a_session_and_becomes_the_program() {
    let tool = shell("echo $$; cut -d ' ' -f 6 /proc/self/stat; readlink /proc/self/fd/0; exit 5");
    let (result, said) = {
        let cancel = Cancel::new().unwrap();
        run_with(&tool, &real(), &ChildRecords::in_memory(), &cancel, |_, _| {})
    };
    assert_eq!(result.unwrap().ending, Ending::Exited(5));
    // What the test harness says comes first.
    let said: Vec<&str> = said.iter().map(|(_, line)| line.as_str()).collect();
    let [.., own, session, input] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((own, *input), (session, "/dev/null"));
}

/// An agent that is going to be killed: it runs a tool that starts two more.
#[test]
#[ignore = "started by other tests as an agent to kill"]
fn as_agent() {
    let home = std::env::var_os("GROUNDCREW_TEST_HOME").unwrap();
    let children = ChildRecords::in_home(Path::new(&home));
    let tool = shell("setsid sleep 1000 & sleep 1000 & echo \"pids $$ $! ok\"; wait");
    let print = |_, line: &str| println!("{line}");
    let _ = run_with(&tool, &real(), &children, &Cancel::new().unwrap(), print);
}

#[test]
fn what_a_killed_agent_left_running_is_swept() {
    let home = tempfile::tempdir().unwrap();
    let name = "process::tool::tests::as_agent";
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["-q", "--ignored", "--exact", "--nocapture", name])
        .env("GROUNDCREW_TEST_HOME", home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(agent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = said.skip_while(|line| !line.starts_with("pids ")).map(|line| line.to_owned()).next().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let (tool, left): (i32, i32) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let handle = pidfd_open(Pid::from_raw(tool).unwrap(), PidfdFlags::empty()).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // The tool itself dies with its agent, at once and by the kernel's hand.
    poll(&mut [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)], None).unwrap();
    assert!(!is_gone(left));
    let swept = sweep::sweep(home.path()).unwrap();
    assert_eq!(swept, sweep::Swept { ended: vec![("sh".into(), 2)], stuck: Vec::new() });
    assert!(is_gone(left));
    assert_eq!(sweep::sweep(home.path()).unwrap(), sweep::Swept::default());
}

#[test]
fn a_sweep_leaves_other_processes_alone() {
    let home = tempfile::tempdir().unwrap();
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(other.id()).unwrap();
    let stat = proc_stat::read(pid).unwrap();
    let record =
        |start, boot_id| ChildRecord { pid, start, boot_id, cookie: "0".repeat(32), program: "sleep".into() };
    let another_boot = "00000000-0000-4000-8000-000000000000".parse().ok();
    for record in [record(stat.start - 1, sweep::boot_id()), record(stat.start, another_boot)] {
        ChildRecords::in_home(home.path()).add(record).unwrap();
        assert_eq!(sweep::sweep(home.path()).unwrap(), sweep::Swept::default());
        assert!(!is_gone(pid));
    }
    ChildRecords::in_home(home.path()).add(record(stat.start, sweep::boot_id())).unwrap();
    assert_eq!(sweep::sweep(home.path()).unwrap().ended, [("sleep".to_owned(), 1)]);
    other.wait().unwrap();
}

#[test]
fn a_program_is_confined_before_it_runs() {
    let cgroup = tempfile::tempdir().unwrap();
    let confined = Confined { cgroup: Some(cgroup.path().to_owned()), first_to_go: true };
    let tool = Tool { confined, ..shell("cat /proc/self/oom_score_adj; echo $$") };
    let (finished, _) = run_plain(&tool);
    let said = String::from_utf8(finished.stdout.bytes).unwrap();
    let (score, pid) = said.trim().split_once('\n').unwrap();
    assert_eq!(score, "1000");
    assert_eq!(std::fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap(), pid);
    // One that cannot be is not run.
    let nowhere = Confined { cgroup: Some(cgroup.path().join("none")), first_to_go: false };
    let tool = Tool { confined: nowhere, ..tool };
    let cancel = Cancel::new().unwrap();
    let (result, _) = run_with(&tool, &stand_in(), &ChildRecords::in_memory(), &cancel, |_, _| {});
    assert!(matches!(result, Err(ToolError::Start { .. })));
}
