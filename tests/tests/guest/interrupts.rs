//! Interrupts on a real machine: that each is done once, how often the machine really rebooted for it, and what lies on
//! its disk before and after.
//!
//! The agent runs as in a pod: in a mount namespace of its own, in which the machine's whole / is bound to /mnt. One
//! that is to hear of a shutdown is a unit.

use groundcrew_agent::interrupt::Interrupt;
use groundcrew_tests::guest::words::Ended;
use groundcrew_tests::guest::{Call, Guest, Unit, UnitEnd, left_out};

use crate::reboot::{OVERLAY, expect_no_reboot};

/// A reboot that ends nothing: it says on the disk that it was called, then does as the test has it.
pub const FAKE: &str = "/usr/local/sbin/reboot";
/// Where a fake says that it was called.
const CALLS: &str = "/etc/reboot-calls";
/// Kubernetes sets it: the agent then waits for the reboot that it asked for.
const IN_POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
/// A grace that is over at once.
const NO_GRACE: (&str, &str) = ("GROUNDCREW_REBOOT_GRACE_S", "0");
/// A grace that no test outlasts, on a host however slow.
const LONG_GRACE: (&str, &str) = ("GROUNDCREW_REBOOT_GRACE_S", "86400");

#[test]
fn requests_that_reboot_nothing_leave_nothing_behind_and_a_power_cut_counts_as_the_reboot() {
    if left_out() {
        return;
    }
    let mut guest = Guest::boot("interrupts");
    guest.put_binary("groundcrew");
    a_request_that_systemd_would_ignore_is_not_made(&guest);
    services_are_restarted_once_each(&guest);
    a_reboot_that_never_comes_is_asked_for_so_often_and_no_more(&guest);
    a_power_cut_before_the_command_counts_as_the_reboot(&mut guest);
}

#[test]
fn a_machine_reboots_once_for_one_request() {
    if left_out() {
        return;
    }
    let guest = Guest::boot("interrupts-reboot");
    guest.put_binary("groundcrew");
    a_bound_root_is_rebooted_once(&guest);
    a_slow_shutdown_is_waited_for(&guest);
}

/// One resource id on a machine.
struct Request<'a> {
    guest: &'a Guest,
    id: String,
    interrupt: Interrupt,
    /// The root mount, and what makes it.
    root: &'static str,
}

/// How a call ended.
struct Called {
    exit: Ended,
    stdout: String,
    stderr: String,
}

/// What lies beside a reboot's flag.
#[derive(Debug, PartialEq)]
struct Record {
    state: String,
    boot_id: String,
    asks: u64,
}

impl<'a> Request<'a> {
    fn new(guest: &'a Guest, package: &str, interrupt: Interrupt) -> Request<'a> {
        let id = format!("customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_{package}_1.0.0");
        Request { guest, id, interrupt, root: "/mnt" }
    }

    fn argv(&self) -> Vec<String> {
        // A root mount that the test has made is there already.
        let script = match self.root {
            "/mnt" => "mount --rbind / /mnt; exec groundcrew package interrupt \"$@\"",
            _ => "exec groundcrew package interrupt \"$@\"",
        };
        ["unshare", "--mount", "sh", "-euc", script, "sh", self.root, "/", &self.interrupt.serialise()]
            .map(str::to_owned)
            .into()
    }

    fn environment<'b>(&'b self, more: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        let own = [("SKYHOOK_RESOURCE_ID", self.id.as_str()), ("COPY_RESOLV", "false")];
        own.into_iter().chain(more.iter().copied()).collect()
    }

    /// Calls the agent, and waits for its end.
    fn call(&self, settings: &[(&str, &str)]) -> Called {
        let argv = self.argv();
        let call = Call::new(&argv.iter().map(String::as_str).collect::<Vec<_>>());
        let call =
            self.environment(settings).into_iter().fold(call, |call, (name, value)| call.env(name, value));
        let finished = self.guest.try_call(&call).expect("nothing reboots under it");
        Called { exit: finished.ended, stdout: finished.stdout, stderr: finished.stderr }
    }

    /// Calls the agent as a service.
    fn start(&self, unit: &str, settings: &[(&str, &str)]) {
        let argv = self.argv();
        let service = Unit::new(unit, &argv.iter().map(String::as_str).collect::<Vec<_>>());
        let environment = self.environment(settings);
        self.guest
            .start_unit(&environment.into_iter().fold(service, |unit, (name, value)| unit.env(name, value)));
    }

    /// Where a command's flag is. What is in the root mount is the machine's own.
    fn path_of(&self, command: usize) -> String {
        let root = if self.root == "/mnt" { "" } else { self.root };
        let kind = self.interrupt.kind();
        format!("{root}/etc/skyhook/interrupts/flags/{}/{kind}_{command}.complete", self.id)
    }

    fn flag(&self, command: usize) -> Option<String> {
        self.guest.read(&self.path_of(command))
    }

    fn record(&self) -> Option<Record> {
        let text = self.guest.read(&format!("{}.boot", self.path_of(0)))?;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["flag"].as_str(), self.flag(0).as_deref().or(json["flag"].as_str()));
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Some(Record { state: text("state"), boot_id: text("boot_id"), asks: json["asks"].as_u64().unwrap() })
    }

    fn skipped(&self, command: usize) -> String {
        let kind = self.interrupt.kind();
        format!("Skipping interrupt {kind}_{command} because it was already run for {}\n", self.id)
    }
}

impl Called {
    fn expect(&self, exit: i32, stdout: &str, stderr: &str) {
        let Called { exit: found, stdout: out, stderr: err } = self;
        assert_eq!(*found, Ended::Exit(exit), "{out}{err}");
        assert!(out.contains(stdout), "{out:?} does not have {stdout:?}");
        assert!(err.contains(stderr), "{err:?} does not have {stderr:?}");
    }
}

fn record(state: &str, boot_id: &str, asks: u64) -> Option<Record> {
    Some(Record { state: state.to_owned(), boot_id: boot_id.to_owned(), asks })
}

/// Puts a `reboot` before systemd's own.
pub fn put_fake(guest: &Guest, then: &str) {
    guest.put(FAKE, 0o755, format!("#!/bin/sh\necho x >>{CALLS}\nsync {CALLS}\n{then}\n").as_bytes());
}

pub fn calls_of_fake(guest: &Guest) -> usize {
    guest.read(CALLS).map_or(0, |text| text.lines().count())
}

fn a_request_that_systemd_would_ignore_is_not_made(guest: &Guest) {
    guest.sh(OVERLAY);
    let request = Request { root: "/run/o/root", ..Request::new(guest, "ignored", Interrupt::NodeRestart) };
    let inodes = guest.sh("chroot /run/o/root stat -L -c 'device %d, inode %i' / /proc/1/root");
    let (root, init) = inodes.trim().split_once('\n').unwrap();
    let called = request.call(&[]);
    called.expect(1, "", "node_restart_0: not asked for: systemd would ignore the request");
    called.expect(1, "", &format!("/ of the root mount /run/o/root ({root}) is not /proc/1/root ({init})"));
    assert!(!called.stdout.contains("Running in chroot") && !called.stderr.contains("Running in chroot"));
    assert_eq!((request.flag(0), request.record()), (None, None));
    expect_no_reboot(guest, 1);
}

fn services_are_restarted_once_each(guest: &Guest) {
    guest.put("/etc/systemd/system/well.service", 0o644, b"[Service]\nExecStart=sleep infinity\n");
    let mended = b"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=test -e /run/mended\n";
    guest.put("/etc/systemd/system/ailing.service", 0o644, mended);
    guest.ok(&["systemctl", "start", "well.service"]);
    let life = || guest.ok(&["systemctl", "show", "--property=InvocationID", "--value", "well.service"]);
    let shown = || guest.ok(&["systemctl", "show", "--property=Description", "--value", "well.service"]);
    let first = life();
    // systemd reads this only where it is told to.
    let unit = b"[Unit]\nDescription=read again\n[Service]\nExecStart=sleep infinity\n";
    guest.put("/etc/systemd/system/well.service", 0o644, unit);
    let services = ["well.service", "ailing.service"].map(str::to_owned).into();
    let request = Request::new(guest, "services", Interrupt::ServiceRestart { services });
    let flags = || [request.flag(0), request.flag(1), request.flag(2)];
    assert_eq!(flags(), [None, None, None]);

    let failed = "INTERRUPT FAILED: ['systemctl', 'restart', 'ailing.service'] return_code: 1\n";
    request.call(&[]).expect(1, failed, "");
    assert_eq!(shown().trim(), "read again");
    let second = life();
    assert_ne!(second, first, "it was restarted");
    assert_eq!(guest.unit_state("ailing.service"), "failed");
    let [reloaded, restarted, missing] = flags();
    assert!(reloaded.is_some() && restarted.is_some() && missing.is_none());

    guest.sh(": >/run/mended");
    let called = request.call(&[]);
    called.expect(0, &(request.skipped(0) + &request.skipped(1) + "systemctl restart ailing.service\n"), "");
    assert_eq!(guest.unit_state("ailing.service"), "active");
    assert_eq!(life(), second, "it was not restarted again");
    let done = flags();
    assert_eq!((&done[0], &done[1]), (&reloaded, &restarted));
    assert!(done[2].is_some());

    let all = request.skipped(0) + &request.skipped(1) + &request.skipped(2);
    request.call(&[]).expect(0, &all, "");
    assert_eq!((life(), flags()), (second, done));
    expect_no_reboot(guest, 1);
}

fn a_reboot_that_never_comes_is_asked_for_so_often_and_no_more(guest: &Guest) {
    put_fake(guest, "exit 0");
    let boot = guest.boot_id();
    let request = Request::new(guest, "fake", Interrupt::NodeRestart);
    let limit = ("GROUNDCREW_REBOOT_LIMIT", "2");
    let wait = ("GROUNDCREW_REBOOT_WAIT_S", "1");
    assert_eq!((request.flag(0), request.record()), (None, None));
    // Outside of a pod nobody waits, and the exit status is the reference's.
    request.call(&[LONG_GRACE, limit]).expect(0, "\nreboot\n", "");
    let flag = request.flag(0);
    assert!(flag.is_some());
    assert_eq!((request.record(), calls_of_fake(guest)), (record("asked", &boot, 1), 1));
    let pending = "under this boot; the machine has not rebooted yet";
    request.call(&[LONG_GRACE, limit]).expect(0, &request.skipped(0), pending);
    request.call(&[LONG_GRACE, limit, wait]).expect(1, &request.skipped(0), "s ago, not seen yet");
    assert_eq!((request.flag(0), request.record()), (flag.clone(), record("asked", &boot, 1)));

    request.call(&[NO_GRACE, limit]).expect(1, "", "(1 of 2 times) and the machine never rebooted");
    assert_eq!((request.flag(0), calls_of_fake(guest)), (None, 1));
    request.call(&[LONG_GRACE, limit, wait]).expect(1, "\nreboot\n", "s ago, not seen yet");
    assert!(request.flag(0).is_some_and(|again| Some(again) != flag));
    assert_eq!((request.record(), calls_of_fake(guest)), (record("asked", &boot, 2), 2));
    request.call(&[NO_GRACE, limit]).expect(1, "", "(2 of 2 times) and the machine never rebooted");
    for _pass in 0..2 {
        let called = request.call(&[NO_GRACE, limit]);
        called.expect(1, "", "node_restart_0: asked for 2 times and no reboot was proved");
        called.expect(1, "", &format!("then remove /mnt{}.boot to begin anew", request.path_of(0)));
        assert_eq!((request.flag(0), calls_of_fake(guest)), (None, 2));
    }
    guest.ok(&["rm", &format!("{}.boot", request.path_of(0))]);
    request.call(&[LONG_GRACE, limit]).expect(0, "\nreboot\n", "");
    assert_eq!((request.record(), calls_of_fake(guest)), (record("asked", &boot, 1), 3));
    expect_no_reboot(guest, 1);
}

fn a_power_cut_before_the_command_counts_as_the_reboot(guest: &mut Guest) {
    let boot = guest.boot_id();
    put_fake(guest, "exit 0");
    let before = calls_of_fake(guest);
    // From here on nothing comes onto the disk that nobody syncs.
    guest.sh("mount -o remount,commit=900 /; sync
        echo 0 >/proc/sys/vm/dirty_writeback_centisecs; echo 90000 >/proc/sys/vm/dirty_expire_centisecs");
    let request = Request::new(guest, "cut", Interrupt::NodeRestart);
    // The agent is killed between flag and command, and nothing is done between its end and the machine's.
    let killed = request.call(&[IN_POD, ("GROUNDCREW_FAULT", "interrupt.flagged")]);
    assert_eq!(killed.exit, Ended::Signal(9), "{}{}", killed.stdout, killed.stderr);
    let flag = request.flag(0);
    assert!(flag.is_some());
    assert_eq!((request.record(), calls_of_fake(guest)), (record("intended", &boot, 1), before));
    guest.sh("echo lost >/etc/unsynced");
    guest.cut_power();
    guest.power_on();
    assert!(
        guest.read("/etc/unsynced").is_none_or(|text| text.is_empty()),
        "the cut takes what is not synced"
    );

    let request = Request::new(guest, "cut", Interrupt::NodeRestart);
    assert_eq!(guest.boots().len(), 2);
    assert_eq!((request.flag(0), request.record()), (flag.clone(), record("intended", &boot, 1)));
    // It is proven: neither asked for nor waited for.
    request.call(&[IN_POD]).expect(0, &request.skipped(0), "");
    assert_eq!(calls_of_fake(guest), before);
    guest.ok(&["rm", FAKE]);
    let called = request.call(&[IN_POD, NO_GRACE]);
    called.expect(0, &request.skipped(0), "");
    assert!(!called.stderr.contains("rebooted yet"), "{}", called.stderr);
    assert_eq!((request.flag(0), request.record()), (flag, record("intended", &boot, 1)));
    // Another request of the boot before, which was asked for and never came, is proven by the same power cut.
    let other = Request::new(guest, "fake", Interrupt::NodeRestart);
    other.call(&[IN_POD]).expect(0, &other.skipped(0), "");
    expect_no_reboot(guest, 2);
}

fn a_bound_root_is_rebooted_once(guest: &Guest) {
    let first = guest.boot_id();
    let request = Request::new(guest, "bound", Interrupt::NodeRestart);
    assert_eq!((request.flag(0), request.record()), (None, None));
    request.start("bound", &[IN_POD]);
    let second = guest.wait_for_next_boot(&first);
    // It waited for the signal that the reboot sent it.
    assert_eq!(guest.unit_end("bound"), Some(exited_with_0()));
    let flag = request.flag(0);
    assert!(flag.is_some());
    assert_eq!(request.record(), record("asked", &first, 1));
    assert_eq!(guest.boots(), [first.clone(), second.clone()]);

    for settings in [&[][..], &[IN_POD], &[NO_GRACE]] {
        let called = request.call(settings);
        called.expect(0, &request.skipped(0), "");
        assert!(!called.stderr.contains("rebooted yet"), "{}", called.stderr);
    }
    assert_eq!((request.flag(0), request.record()), (flag, record("asked", &first, 1)));
    assert_eq!(guest.boots(), [first, second]);
    expect_no_reboot(guest, 2);
}

fn a_slow_shutdown_is_waited_for(guest: &Guest) {
    let before = guest.boot_id();
    // Its stop lasts until the test has seen enough.
    let stop = "#!/bin/sh\nuntil [ -e /run/enough ]; do sleep 0.2; done\n";
    guest.put("/usr/local/sbin/slow-stop", 0o755, stop.as_bytes());
    let slow = Unit::new("slow", &["sleep", "infinity"]);
    guest.start_unit(&slow.property("ExecStop=/usr/local/sbin/slow-stop").property("TimeoutStopSec=900"));
    let request = Request::new(guest, "slow", Interrupt::NodeRestart);
    request.start("asked", &[IN_POD]);
    // SIGTERM has come, and the agent did not hold the shutdown up.
    assert_eq!(guest.wait_for_unit_end("asked"), exited_with_0());
    assert_eq!(guest.unit_state("slow.service"), "deactivating");
    let flag = request.flag(0);
    assert!(flag.is_some());
    assert_eq!(request.record(), record("asked", &before, 1));

    // The grace is over and the machine is still up, but on its way down: nothing is asked again, nothing taken off.
    assert_eq!(guest.run(&["systemctl", "is-system-running"]).stdout.trim(), "stopping");
    request.call(&[NO_GRACE]).expect(0, &request.skipped(0), "the machine has not rebooted yet");
    let wait = ("GROUNDCREW_REBOOT_WAIT_S", "1");
    request.call(&[NO_GRACE, wait]).expect(1, &request.skipped(0), "s ago, not seen yet");
    assert_eq!((request.flag(0), request.record()), (flag.clone(), record("asked", &before, 1)));
    assert_eq!(guest.boots().len(), 2);

    // What an agent that was killed between its request and the note of it leaves is asked for again, by the next one.
    let note = format!("{}.boot", request.path_of(0));
    guest.ok(&["sed", "-i", r#"s/"state":"asked"/"state":"intended"/"#, &note]);
    assert_eq!(request.record(), record("intended", &before, 1));
    request.call(&[NO_GRACE]).expect(0, "\nreboot\n", "");
    assert_eq!((request.flag(0), request.record()), (flag.clone(), record("asked", &before, 1)));

    let _told_or_lost = guest.try_call(&Call::new(&["sh", "-c", ": >/run/enough"]));
    let after = guest.wait_for_next_boot(&before);
    assert_eq!((request.flag(0), request.record()), (flag.clone(), record("asked", &before, 1)));
    request.call(&[NO_GRACE]).expect(0, &request.skipped(0), "");
    request.call(&[IN_POD]).expect(0, &request.skipped(0), "");
    assert_eq!(request.flag(0), flag);
    assert_eq!(guest.boots().len(), 3);
    assert_eq!(guest.boot_id(), after);
    expect_no_reboot(guest, 3);
}

fn exited_with_0() -> UnitEnd {
    let [result, code, status] = ["success", "exited", "0"].map(str::to_owned);
    UnitEnd { result, code, status }
}
