//! A disk that does not answer, under the drain marker alone: the thread that reads the marker is held as a read that never
//! comes back would hold it, and everything else goes on.

use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Server, eventually};

use crate::drain_commands::drain;
use crate::profiles::LOAD_THEN_HELD;

/// A thread of another process that gets no further until this is dropped.
struct HeldThread(i32);

impl HeldThread {
    /// The thread of that name.
    fn of(pid: i32, name: &str) -> HeldThread {
        let is_it = |tid: &i32| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
        let mut numbers = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let tid = numbers.find(is_it).unwrap_or_else(|| panic!("process {pid} has no thread {name}"));
        // SAFETY: neither request takes a pointer; the thread is another process's, and only stopped by them.
        let asked = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) == 0
        };
        assert!(asked, "holding a thread: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: `status` is a place for the answer.
        let stopped = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        assert_eq!(stopped, tid, "{}", std::io::Error::last_os_error());
        HeldThread(tid)
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // SAFETY: no pointer is taken; it lets go of what `of` took hold of, from the same thread.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

#[test]
fn a_marker_that_cannot_be_read_holds_up_no_heartbeat_and_no_stage_for_ever() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_HELD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let held = HeldThread::of(machine.agent().pid(), "drain");
    // Heartbeats come as before.
    let mut heard = server.view(&run).last_heard;
    for _ in 0..10 {
        heard = eventually("a heartbeat", || Some(server.view(&run).last_heard).filter(|now| *now != heard));
    }
    // Whoever asks is told that nobody knows.
    let output = drain(&machine.home(), &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&status["drain"]["is_fresh"], &status["active_agents"]),
        (&false.into(), &1.into()),
        "{status}"
    );
    // The next stage waits for the read for its time, and then goes by what was last seen.
    machine.load.pass();
    machine.agent().wait_for_line("the drain marker could not be read in time");
    let view = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!((&view.stages[1].stage, view.stages[1].attempts), (&Stage::Network, 1));
    // Once the disk answers again, the marker counts again.
    drop(held);
    std::fs::write(machine.home().join(".drain_request.json"), "{}").unwrap();
    machine.agent().wait_for_line("drains, asked for by drain-control");
    assert!(machine.stop().success());
}
