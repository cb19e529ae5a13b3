//! Interrupts as stages of a run on a real machine, under an orchestrator on the host: how often the machine really rebooted
//! for each, and that the run went on or was held as it should.
//!
//! The agent is the unit that is shipped, started again by systemd after every boot.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::{NodeView, RunView};
use groundcrew_protocol::stage::State;
use groundcrew_tests::guest::{Guest, Setup, Unit, left_out};
use groundcrew_tests::harness::server::Run;
use groundcrew_tests::harness::{Server, eventually};

use crate::interrupts::{FAKE, calls_of_fake, put_fake};
use crate::reboot::{OVERLAY, expect_no_reboot};

/// The agent's unit, as it is shipped.
const UNIT: &str = include_str!("../../../deploy/systemd/groundcrew.service");
/// What the flags of interrupts lie in.
const FLAGS: &str = "/etc/skyhook/interrupts/flags";
/// Time passes where a test says so, and then by more than a machine may take for its reboot.
const PAST_THE_REBOOT_MS: u64 = 1_900_000;

#[test]
fn a_run_reboots_its_machine_once_for_each_request_and_goes_on() {
    if left_out() {
        return;
    }
    let mut rack = Rack::new("runs");
    a_reboot_inside_a_run_is_proved_by_the_next_boot(&mut rack);
    a_machine_that_forgets_everything_is_not_rebooted_again(&mut rack);
    a_power_cut_inside_a_stage_is_an_unexpected_reset(&mut rack);
    a_stage_that_stops_its_own_agent_is_not_repeated_for_ever(&mut rack);
    a_request_that_systemd_would_ignore_is_refused(&mut rack);
    a_reboot_that_does_not_come_holds(&mut rack);
    an_agent_back_under_the_same_boot_asks_again(&mut rack);
}

/// An orchestrator on the host, and a machine whose agent it is.
pub struct Rack {
    pub server: Server,
    pub guest: Guest,
}

impl Rack {
    pub fn new(name: &str) -> Rack {
        Rack::with(name, Setup::default())
    }

    pub fn with(name: &str, setup: Setup) -> Rack {
        let server = Server::start_with_steps_of(PAST_THE_REBOOT_MS);
        let guest = Guest::boot_with(name, setup);
        guest.put_binary("groundcrew");
        guest.put("/etc/systemd/system/groundcrew.service", 0o644, UNIT.as_bytes());
        guest.ok(&["systemctl", "enable", "--quiet", "groundcrew.service"]);
        guest.sh("sync");
        Rack { server, guest }
    }

    /// Gives the machine a run of these stages, and has its agent start with `settings` besides.
    pub fn begin(&mut self, stages: &str, settings: &str) -> Run {
        let profile = format!("name = \"guest\"\n{stages}");
        let run = self.server.create_run("guest", &profile);
        let url = self.guest.url_of(self.server.url());
        let environment = format!(
            "GROUNDCREW_URL={url}\nGROUNDCREW_RUN={}\nGROUNDCREW_TOKEN={}\nGROUNDCREW_FPR={}\n\
             GROUNDCREW_ALLOW_REBOOT=yes\nGROUNDCREW_ALLOW_SERVICES=yes\nGROUNDCREW_HEARTBEAT_INTERVAL_MS=500\n{settings}",
            run.id,
            run.token.as_str(),
            self.server.fingerprint(),
        );
        self.guest.put("/etc/groundcrew/agent.env", 0o600, environment.as_bytes());
        self.guest.ok(&["systemctl", "restart", "groundcrew.service"]);
        run
    }

    fn boots(&self) -> usize {
        self.guest.boots().len()
    }

    pub fn count(&self, run: &Run, kind: &str) -> usize {
        self.server.count_of(run, kind)
    }

    /// What lies in the folder of the flags of one attempt of an interrupt.
    fn flags(&self, run: &Run, what: &str) -> Vec<String> {
        let folder = format!("{FLAGS}/groundcrew-{}-{what}", run.id);
        let listed = self.guest.run(&["ls", &folder]);
        listed.stdout.lines().map(str::to_owned).collect()
    }
}

fn interrupt(name: &str, settings: &str) -> String {
    format!("[[stage]]\nname = \"Interrupt:{name}\"\n[[interrupt]]\nname = \"{name}\"\n{settings}\n")
}

fn stage<'v>(view: &'v RunView, name: &str) -> &'v groundcrew_protocol::operator::StageView {
    let found = view.stages.iter().find(|stage| stage.stage.to_string() == name);
    found.unwrap_or_else(|| panic!("{name} is no stage of {view:#?}"))
}

fn a_reboot_inside_a_run_is_proved_by_the_next_boot(rack: &mut Rack) {
    // Its stop lasts until the test has seen enough.
    let stop = "#!/bin/sh\nuntil [ -e /run/enough ]; do sleep 0.2; done\n";
    rack.guest.put("/usr/local/sbin/slow-stop", 0o755, stop.as_bytes());
    let slow = Unit::new("slow", &["sleep", "infinity"]);
    rack.guest
        .start_unit(&slow.property("ExecStop=/usr/local/sbin/slow-stop").property("TimeoutStopSec=900"));
    let first = rack.guest.boot_id();
    assert_eq!(rack.boots(), 1);
    let stages = "[[stage]]\nname = \"Inventory\"\n".to_owned()
        + &interrupt("kernel", "type = \"node_restart\"")
        + &interrupt("after", "type = \"no_op\"");
    let run = rack.begin(&stages, "");

    // The agent has had its SIGTERM, and did not hold the shutdown up: it ended at once, in order.
    eventually("the agent's end", || {
        (rack.guest.unit_state("groundcrew.service") == "inactive").then_some(())
    });
    let shown = |property: &str| {
        let property = format!("--property={property}");
        rack.guest.ok(&["systemctl", "show", &property, "--value", "groundcrew.service"]).trim().to_owned()
    };
    assert_eq!((shown("Result").as_str(), shown("ExecMainStatus").as_str()), ("success", "0"));
    assert_eq!(rack.guest.unit_state("slow.service"), "deactivating");
    let flags = ["node_restart_0.complete", "node_restart_0.complete.boot"];
    assert_eq!(rack.flags(&run, "0-1_interrupt-kernel_0"), flags);
    let view = rack.server.view(&run);
    assert_eq!(view.summary.state, State::At("Interrupt:kernel".into()));
    // Run and node show that it reboots, since when and until when, and under which boot that was asked for.
    let rebooting = view.summary.rebooting.clone().expect("it waits for a reboot");
    assert_eq!(
        (rebooting.run.clone(), rebooting.stage.to_string().as_str()),
        (run.id.clone(), "Interrupt:kernel")
    );
    assert_eq!((rebooting.boot_id.as_str(), rebooting.attempt.0, rebooting.missed), (first.as_str(), 1, 0));
    assert_eq!(rebooting.until.0 - rebooting.asked.0, i64::try_from(limits::REBOOT_DEADLINE_MS).unwrap());
    let node = || rack.server.get::<NodeView>("/api/v1/nodes/guest").rebooting;
    assert_eq!(node(), Some(rebooting));
    assert_eq!((rack.count(&run, "intent"), rack.count(&run, "reboot_proved")), (1, 0));
    // What a reboot may lose was taken in before it.
    assert_eq!(stage(&view, "Inventory").verdict.map(Verdict::goes_on), Some(true));

    let _told_or_lost =
        rack.guest.try_call(&groundcrew_tests::guest::Call::new(&["sh", "-c", ": >/run/enough"]));
    let second = rack.guest.wait_for_next_boot(&first);
    let view = rack.server.wait_for_state(&run, State::Completed);
    let kernel = stage(&view, "Interrupt:kernel");
    assert_eq!((kernel.attempts, kernel.verdict), (1, Some(Verdict::Pass)));
    assert_eq!(stage(&view, "Interrupt:after").verdict, Some(Verdict::Pass));
    assert_eq!((view.summary.rebooting, node()), (None, None));
    assert_eq!((rack.count(&run, "intent"), rack.count(&run, "reboot_proved")), (1, 1));
    assert_eq!((rack.count(&run, "claimed"), rack.count(&run, "crashed")), (2, 0));
    assert_eq!(rack.flags(&run, "0-1_interrupt-kernel_0"), flags);
    assert_eq!(rack.guest.boots(), [first, second]);
    expect_no_reboot(&rack.guest, 2);
}

/// A live image: home and flags are in memory, and gone with the boot. What the orchestrator keeps is what keeps it from
/// rebooting again.
fn a_machine_that_forgets_everything_is_not_rebooted_again(rack: &mut Rack) {
    let before = rack.guest.boot_id();
    rack.guest.sh(&format!("mount -t tmpfs tmpfs {FLAGS}"));
    let stages = interrupt("kernel", "type = \"node_restart\"") + &interrupt("after", "type = \"no_op\"");
    let run = rack.begin(&stages, "GROUNDCREW_HOME=/run/live\n");
    rack.guest.wait_for_next_boot(&before);
    let view = rack.server.wait_for_state(&run, State::Completed);
    assert_eq!(view.home, Some(groundcrew_protocol::wire::HomeKind::Volatile));
    assert_eq!(stage(&view, "Interrupt:kernel").attempts, 1);
    assert_eq!((rack.count(&run, "intent"), rack.count(&run, "reboot_proved")), (1, 1));
    assert_eq!(rack.flags(&run, "0-1_interrupt-kernel_0"), [""; 0], "the machine remembers nothing");
    expect_no_reboot(&rack.guest, 3);
}

fn a_power_cut_inside_a_stage_is_an_unexpected_reset(rack: &mut Rack) {
    // A start that lasts, so that the stage is in flight.
    let unit = "[Service]\nType=oneshot\nExecStart=sh -c ': >/run/begun; exec sleep infinity'\n";
    rack.guest.put("/etc/systemd/system/lasting.service", 0o644, unit.as_bytes());
    let settings = "type = \"service_restart\"\nservices = [\"lasting.service\"]";
    let run = rack.begin(&interrupt("lasting", settings), "");
    eventually("the stage's command", || rack.guest.read("/run/begun"));
    rack.guest.cut_power();
    rack.guest.power_on();
    let view = rack.server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(rack.count(&run, "unexpected_reset"), 1);
    assert!(view.summary.reason.contains("unexpected_reset"), "{}", view.summary.reason);
    assert_eq!(stage(&view, "Interrupt:lasting").attempts, 2, "it was gone on with, and could not pass");
    assert_eq!((rack.count(&run, "intent"), rack.count(&run, "reboot_proved")), (0, 0));
    rack.server.order(&run, "override", "the power was cut by hand");
    rack.server.wait_for_state(&run, State::Completed);
    expect_no_reboot(&rack.guest, 4);
}

fn a_stage_that_stops_its_own_agent_is_not_repeated_for_ever(rack: &mut Rack) {
    let life = |rack: &Rack| {
        rack.guest.ok(&["systemctl", "show", "--property=InvocationID", "--value", "groundcrew.service"])
    };
    let restart =
        |unit: &str| interrupt("it", &format!("type = \"service_restart\"\nservices = [\"{unit}\"]"));
    let run = rack.begin(&restart("groundcrew"), "");
    let started = life(rack);
    let view = rack.server.wait_for_state(&run, State::FailedHolding);
    let why = "groundcrew is this agent's own unit";
    assert!(view.summary.reason.contains(why), "{}", view.summary.reason);
    assert_eq!(life(rack), started, "it was not restarted");
    rack.server.order(&run, "cancel", "");

    // One that takes the agent with it is not known beforehand.
    rack.guest.put("/etc/systemd/system/base.service", 0o644, b"[Service]\nExecStart=sleep infinity\n");
    let follows = "/etc/systemd/system/groundcrew.service.d/follows.conf";
    rack.guest.put(follows, 0o644, b"[Unit]\nPartOf=base.service\nAfter=base.service\n");
    rack.guest.ok(&["systemctl", "daemon-reload"]);
    let run = rack.begin(&restart("base.service"), "");
    let view = rack.server.wait_for_state(&run, State::FailedHolding);
    assert!(view.summary.reason.contains("stopped in order 3 times"), "{}", view.summary.reason);
    assert_eq!((rack.count(&run, "stopped"), rack.count(&run, "crashed")), (3, 0));
    assert_eq!(rack.count(&run, "claimed"), 4);
    rack.server.order(&run, "cancel", "");
    rack.guest.ok(&["rm", follows]);
    rack.guest.ok(&["systemctl", "daemon-reload"]);
    expect_no_reboot(&rack.guest, 4);
}

fn a_request_that_systemd_would_ignore_is_refused(rack: &mut Rack) {
    rack.guest.sh(OVERLAY);
    let run = rack.begin(&interrupt("kernel", "type = \"node_restart\"\nroot_mount = \"/run/o/root\""), "");
    let view = rack.server.wait_for_state(&run, State::FailedHolding);
    let why = "not asked for: systemd would ignore the request";
    assert!(view.summary.reason.contains(why), "{}", view.summary.reason);
    // Nothing was asked for, of the orchestrator neither.
    assert_eq!((rack.count(&run, "intent"), view.summary.rebooting), (0, None));
    rack.server.order(&run, "cancel", "");
    expect_no_reboot(&rack.guest, 4);
}

fn a_reboot_that_does_not_come_holds(rack: &mut Rack) {
    put_fake(&rack.guest, "exit 0");
    let before = calls_of_fake(&rack.guest);
    let run = rack.begin(&interrupt("kernel", "type = \"node_restart\""), "");
    eventually("the request", || (calls_of_fake(&rack.guest) == before + 1).then_some(()));
    rack.server.pass_time();
    let view = rack.server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(view.summary.reason, "a reboot was asked for and not seen within 30m");
    assert_eq!((rack.count(&run, "intent"), rack.count(&run, "reboot_proved")), (1, 0));
    // The agent has heard of it, and asks for nothing more.
    eventually("the end of the stage", || rack.server.view(&run).directives.is_empty().then_some(()));
    assert_eq!(calls_of_fake(&rack.guest), before + 1);
    rack.server.order(&run, "cancel", "");
    rack.server.wait_for_state(&run, State::Cancelled);
    expect_no_reboot(&rack.guest, 4);
}

fn an_agent_back_under_the_same_boot_asks_again(rack: &mut Rack) {
    let boot = rack.guest.boot_id();
    let before = calls_of_fake(&rack.guest);
    let run = rack.begin(&interrupt("kernel", "type = \"node_restart\""), "");
    eventually("the request", || (calls_of_fake(&rack.guest) == before + 1).then_some(()));
    // The second request is heard.
    put_fake(&rack.guest, "exec /usr/sbin/reboot");
    rack.guest.ok(&["systemctl", "restart", "groundcrew.service"]);
    rack.guest.wait_for_next_boot(&boot);
    let view = rack.server.wait_for_state(&run, State::Completed);
    let kernel = stage(&view, "Interrupt:kernel");
    assert_eq!((kernel.attempts, kernel.verdict), (2, Some(Verdict::Pass)));
    assert_eq!((rack.count(&run, "reboot_missed"), rack.count(&run, "reboot_proved")), (1, 1));
    assert_eq!(calls_of_fake(&rack.guest), before + 2, "asked twice under one boot, which reboots once");
    rack.guest.ok(&["rm", FAKE]);
    expect_no_reboot(&rack.guest, 5);
}
