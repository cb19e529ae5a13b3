//! Interrupts as stages: what keeps them from being done. That they are, walks and guests show, where the agent's own
//! program is.

use groundcrew_protocol::profile::{InterruptKind, InterruptSettings};

use super::*;

fn interrupt(kind: &str) -> InterruptSettings {
    InterruptSettings {
        name: "kernel".to_owned(),
        kind: InterruptKind::from(kind.to_owned()),
        drain: false,
        services: vec!["a.service".to_owned()],
        root_mount: "/".to_owned(),
        reboot_ms: None,
    }
}

/// An interrupt on a machine whose mounts are these, and who answers when it asks for leave.
fn asking(kind: &str, mounts: &str, leave: Leave) -> (Stage, Machine) {
    let machine = Machine::empty();
    let proc = machine.root.path("/proc");
    std::fs::create_dir_all(proc.join("self")).unwrap();
    std::fs::create_dir_all(proc.join("thread-self")).unwrap();
    std::fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
    std::fs::write(proc.join("sys/kernel/random/boot_id"), "11111111-1111-4111-8111-111111111111\n").unwrap();
    let boot_id = std::fs::File::open(proc.join("sys/kernel/random/boot_id")).unwrap();
    let mount = crate::interrupt::boot_id::mount_id(&boot_id).unwrap().to_string();
    let mounts = mounts.replace("PROC", &proc.display().to_string()).replace("ITS", &mount);
    std::fs::write(proc.join("thread-self/mountinfo"), mounts).unwrap();
    let mut stage = stage("Interrupt:kernel", &machine.root);
    stage.context.spec.interrupt = Some(interrupt(kind));
    stage.context.interrupts = Ok(Interrupts {
        instance: "groundcrew-r-0".to_owned(),
        attempt: groundcrew_protocol::ids::Attempt(1),
        services: Err("no services here"),
        leave,
    });
    (stage, machine)
}

const PROCFS: &str = "ITS 28 0:21 / PROC rw - proc proc rw\n";
const COVERED: &str = "1 28 0:21 / PROC rw - proc proc rw\n\
                       ITS 1 0:40 /fake PROC/sys/kernel/random/boot_id rw - tmpfs tmpfs rw\n";

fn never() -> Leave {
    Arc::new(|_, _| panic!("it asks for leave"))
}

#[test]
fn an_interrupt_that_may_not_be_done_is_inconclusive_and_says_why() {
    let mut stage = stage("Interrupt:kernel", &Machine::empty().root);
    assert_inconclusive(&run_stage(&stage.context), "told this agent nothing of Interrupt:kernel");
    stage.context.spec.interrupt = Some(interrupt("no_op"));
    assert_inconclusive(&run_stage(&stage.context), INTERRUPTS_REFUSED);
    for kind in ["service_restart", "restart_all_services"] {
        let (stage, _machine) = asking(kind, PROCFS, never());
        assert_inconclusive(&run_stage(&stage.context), "no services here");
    }
    let (stage, _machine) = asking("of_later", PROCFS, never());
    assert_inconclusive(&run_stage(&stage.context), "has no stage Interrupt:kernel");
    // A package's interrupt is the package's as well.
    let (mut stage, _machine) = asking("no_op", PROCFS, never());
    stage.context.spec.name = "Package:kernel/interrupt".into();
    assert_inconclusive(&run_stage(&stage.context), PACKAGES_REFUSED);
}

#[test]
fn a_reboot_that_could_not_be_proved_is_not_asked_for() {
    let (stage, _machine) = asking("node_restart", COVERED, never());
    assert_inconclusive(&run_stage(&stage.context), "tmpfs is mounted over");
    let (stage, machine) = asking("node_restart", PROCFS, never());
    std::fs::remove_file(machine.root.path("/proc/thread-self/mountinfo")).unwrap();
    assert_inconclusive(&run_stage(&stage.context), "a reboot could not be proved, and is not asked for");
}

#[test]
fn a_reboot_without_leave_is_not_asked_for() {
    let (stage, _machine) = asking("node_restart", PROCFS, Arc::new(|_, _| Err("nobody answers".to_owned())));
    assert_inconclusive(&run_stage(&stage.context), "not asked for: nobody answers");
    let (stage, _machine) = asking("node_restart", PROCFS, Arc::new(|_, _| Err("the agent ends".to_owned())));
    stage.context.cancel.ask_because("the agent ends");
    let outcome = run_stage(&stage.context);
    assert!(outcome.cancelled && !outcome.passed);
}

#[test]
fn an_agent_does_not_restart_its_own_unit() {
    let (mut stage, machine) = asking("service_restart", PROCFS, never());
    stage.context.interrupts.as_mut().unwrap().services = Ok(());
    let groups = machine.root.path("/proc/self/cgroup");
    let text = "12:cpu:/\n0::/system.slice/a.service/child\n";
    std::fs::write(&groups, text).unwrap();
    assert_inconclusive(&run_stage(&stage.context), "a.service is this agent's own unit");
    stage.context.spec.interrupt.as_mut().unwrap().services = vec!["b.service".to_owned(), "a".to_owned()];
    assert_inconclusive(&run_stage(&stage.context), "a is this agent's own unit");
}
