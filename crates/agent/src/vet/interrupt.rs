//! The stages `Interrupt:NAME` and `Package:NAME/interrupt`: what `groundcrew package interrupt` does, once for a run and
//! each retry by an operator, and a reboot only with the orchestrator's leave.
//!
//! ```text
//!   boot id, chroot ──▶ leave: outbox and spool acknowledged, intent acknowledged ──▶ the package agent asks ──▶ SIGTERM
//!        │ no                  │ no                                                        │ fails       │ does not come
//!        ▼                     ▼                                                           ▼             ▼
//!      the outcome says why: the run is held. That the machine rebooted is never said    the orchestrator's deadline
//!      here: its next claim proves it.                                                   holds the run and ends the stage
//! ```

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{COMMANDS_DONE, names};
use groundcrew_protocol::profile::{InterruptKind, InterruptSettings};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::LogLevel;

use super::package_agent::{Call, Called};
use super::{Done, Interrupts, StageContext, package, refused, unknown};
use crate::control::core::Asked;
use crate::errors::chain;
use crate::interrupt::{Interrupt, boot_id, systemd_chroot};
use crate::package::session::{folder_of_root, open_root};
use crate::process::tool::{Ending, Stopped};

/// The line with which the package agent says that a command failed.
const FAILED: &str = "INTERRUPT FAILED: ";
/// Where commands run beneath the root mount.
const FOLDER: &str = "/";
/// The version in the resource id of an interrupt that is no package's.
const VERSION: &str = "0";
/// A command that fails while the machine goes down may do so for that reason: the agent's own SIGTERM follows within this.
const SIGTERM_PATIENCE: Duration = Duration::from_secs(5);
/// How much longer than the run's limit a stage waits for the reboot that it has asked for. The orchestrator, whose limit it
/// is, speaks first; this is for one that cannot be reached meanwhile.
const REBOOT_SLACK: Duration = Duration::from_secs(60);

/// Does an interrupt.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let Some(settings) = &context.spec.interrupt else {
        return refused(
            context,
            format!("the run's profile told this agent nothing of {}", context.spec.name),
        );
    };
    let Some(interrupt) = interrupt(settings) else {
        return unknown(context);
    };
    let interrupts = match allowed(context, &interrupt) {
        Ok(interrupts) => interrupts,
        Err(why) => return refused(context, why.to_owned()),
    };
    if let Some(why) = ends_its_own_agent(context, &interrupt) {
        return refused(context, why);
    }
    if interrupt == Interrupt::NodeRestart {
        return reboot(context, settings, interrupts, deadline);
    }
    let call = call(context, settings, &interrupt, &interrupts.instance);
    match call.make(context, deadline) {
        Ok(called) => {
            let observed = called.observed(context, COMMANDS_DONE);
            done(context, names::COMMANDS, observed, called)
        }
        Err(why) => refused(context, why),
    }
}

/// The interrupt in the package agent's words; `None` for a type that this version does not know.
fn interrupt(settings: &InterruptSettings) -> Option<Interrupt> {
    match settings.kind {
        InterruptKind::NoOp => Some(Interrupt::NoOp),
        InterruptKind::NodeRestart => Some(Interrupt::NodeRestart),
        InterruptKind::RestartAllServices => Some(Interrupt::RestartAllServices),
        InterruptKind::ScriptInterrupt => Some(Interrupt::ScriptInterrupt),
        InterruptKind::ServiceRestart => {
            Some(Interrupt::ServiceRestart { services: settings.services.clone() })
        }
        InterruptKind::Unknown(_) => None,
    }
}

/// What it is done with, or why it is not. Whether a reboot is allowed, the leave for it says.
fn allowed<'c>(context: &'c StageContext, interrupt: &Interrupt) -> Result<&'c Interrupts, &'static str> {
    let interrupts = context.interrupts.as_ref().map_err(|why| *why)?;
    if matches!(context.spec.name, Stage::Package { .. }) {
        context.packages.as_ref().map_err(|why| *why)?;
    }
    match interrupt {
        Interrupt::ServiceRestart { .. } | Interrupt::RestartAllServices => interrupts.services?,
        Interrupt::NoOp | Interrupt::NodeRestart | Interrupt::ScriptInterrupt => {}
    }
    Ok(interrupts)
}

/// Why services are not restarted, where the agent's own unit is among them: its stop would end this very stage before it
/// was known to be done, and each agent after it would begin anew. What stops the agent in other ways is counted by the
/// orchestrator.
fn ends_its_own_agent(context: &StageContext, interrupt: &Interrupt) -> Option<String> {
    let Interrupt::ServiceRestart { services } = interrupt else {
        return None;
    };
    // Where it cannot be read, or names no unit, nobody can tell; the count is left.
    let groups = std::fs::read_to_string(context.root.path("/proc/self/cgroup")).unwrap_or_default();
    let own = services.iter().find(|service| is_unit_of(service, &groups))?;
    Some(format!(
        "{own} is this agent's own unit: restarting it would end this stage before it is done; restart it outside of a run, \
         or reboot the machine (node_restart)"
    ))
}

/// True where a process in these control groups belongs to the service.
fn is_unit_of(service: &str, groups: &str) -> bool {
    const SUFFIX: &str = ".service";
    let name = service.strip_suffix(SUFFIX).unwrap_or(service);
    let of_unit = |part: &str| part.strip_suffix(SUFFIX) == Some(name);
    groups.lines().any(|line| line.split('/').any(of_unit))
}

fn call(context: &StageContext, settings: &InterruptSettings, interrupt: &Interrupt, instance: &str) -> Call {
    let root = settings.root_mount.as_str();
    let package = context.spec.package.as_ref();
    let (id, mut environment) = match package {
        Some(package) => {
            (format!("{instance}_{}_{}", package.name, package.version), package::environment(package))
        }
        // No package has this name and version.
        None => (format!("{instance}_interrupt-{}_{VERSION}", settings.name), Vec::new()),
    };
    // As the agent itself was told: where its root is no chroot, the one that systemd sees may be.
    let told = std::env::var_os(systemd_chroot::IGNORE);
    environment.extend(told.map(|value| (systemd_chroot::IGNORE.into(), value)));
    // The stage itself waits for the reboot, and nothing that is run here resolves names.
    for (name, value) in
        [("SKYHOOK_RESOURCE_ID", id.as_str()), ("GROUNDCREW_REBOOT_WAIT_S", "0"), ("COPY_RESOLV", "false")]
    {
        environment.push((name.into(), value.into()));
    }
    let arguments = ["package", "interrupt", root, FOLDER, &interrupt.serialise()];
    Call {
        what: format!("{} of {}", interrupt.kind(), settings.name),
        arguments: arguments.map(OsString::from).to_vec(),
        environment,
        search_path: package
            .map_or_else(|| context.search_path.clone(), |package| package::search_path(context, package)),
        failed: FAILED,
        artifacts: "interrupt",
    }
}

fn done(context: &StageContext, check: &str, observed: Observation, called: Called) -> Done {
    let check = context.check(check, observed).with_evidence(called.evidence());
    Done { checks: vec![check], artifacts: called.artifacts, stopped: called.stopped, inventory: None }
}

/// Asks for a reboot. What comes back says why it did not come; where it comes, nobody is here to say so.
fn reboot(
    context: &StageContext,
    settings: &InterruptSettings,
    interrupts: &Interrupts,
    deadline: Instant,
) -> Done {
    let rebooted = |observed: Observation| Done {
        checks: vec![context.check(names::REBOOTED, observed)],
        ..Done::default()
    };
    let boot = match boot_id::read(&context.root.path("/proc")) {
        Ok(boot) => boot,
        Err(error) => {
            let why = format!("{}: a reboot could not be proved, and is not asked for", chain(&error));
            return rebooted(Observation::Unreadable { why });
        }
    };
    let instance = format!("{}-{}", interrupts.instance, interrupts.attempt);
    let call = call(context, settings, &Interrupt::NodeRestart, &instance);
    if let Some(why) = would_ignore(&settings.root_mount, &call) {
        return rebooted(Observation::Found { text: format!("not asked for: {why}") });
    }
    context.show(0.0, "rebooting: waits until the orchestrator knows of it");
    if let Err(why) = (interrupts.leave)(Asked::Reboot, deadline) {
        return match context.cancel.is_asked() {
            true => stopped(context),
            false => rebooted(Observation::Unreadable { why: format!("not asked for: {why}") }),
        };
    }
    let asked = Instant::now();
    let called = match call.make(context, deadline) {
        Ok(called) => called,
        Err(why) => return rebooted(Observation::Unreadable { why: format!("not asked for: {why}") }),
    };
    let is_asked = called.ending == Ending::Exited(0) && called.stopped.is_none();
    context.show(0.5, "rebooting");
    let asked = is_asked.then_some(asked);
    let until = sigterm_until(asked, settings.reboot_ms, deadline, Instant::now());
    if called.stopped.is_none() && context.cancel.wait(until.saturating_duration_since(Instant::now())) {
        return Done { artifacts: called.artifacts, ..stopped(context) };
    }
    let observed = if let Some(asked) = asked {
        let seconds = asked.elapsed().as_secs();
        let text = format!("the boot id is {boot} still, {seconds} s after the reboot was asked for");
        context.say(LogLevel::Error, text.clone());
        Observation::Found { text }
    } else {
        called.observed(context, "asked for")
    };
    done(context, names::REBOOTED, observed, called)
}

/// How long the stage stays for the SIGTERM of its reboot. Its own deadline is for the asking: one that was asked for may take
/// as long as the run lets it.
fn sigterm_until(asked: Option<Instant>, reboot_ms: Option<u64>, deadline: Instant, now: Instant) -> Instant {
    match (asked, reboot_ms) {
        (Some(asked), Some(limit_ms)) => asked + Duration::from_millis(limit_ms) + REBOOT_SLACK,
        (Some(_), None) => deadline,
        (None, _) => deadline.min(now + SIGTERM_PATIENCE),
    }
}

/// The stage was asked to end: by the SIGTERM of the reboot, or by somebody else.
fn stopped(context: &StageContext) -> Done {
    let why = context.stopped_text(Stopped::Cancelled);
    Done { stopped: Some(Stopped::Cancelled), ..refused(context, why) }
}

/// Why systemd would do nothing with the request that this call makes, where it would.
fn would_ignore(root_mount: &str, call: &Call) -> Option<String> {
    let root_mount = Path::new(root_mount);
    // A root that cannot be opened is the package agent's to refuse, in its own words.
    let told = call.environment.iter().find(|(name, _)| name == systemd_chroot::IGNORE);
    let given = systemd_chroot::Given {
        search_path: Some(&call.search_path),
        directory: Path::new(FOLDER),
        ignore_chroot: told.map(|(_, value)| value.as_os_str()),
    };
    systemd_chroot::would_ignore(&open_root(root_mount).ok()?, folder_of_root(root_mount), given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_that_was_asked_for_may_take_longer_than_its_stage() {
        let asked = Instant::now();
        let after = |seconds| asked + Duration::from_secs(seconds);
        let (deadline, now) = (after(420), after(10));
        for (what, was_asked, reboot_ms, expected) in [
            ("the run's limit, from the request on", true, Some(1_800_000), after(1_860)),
            ("an orchestrator that does not say", true, None, deadline),
            ("one that failed may do so because the machine goes down", false, Some(1_800_000), after(15)),
            ("the same, and nobody says how long", false, None, after(15)),
        ] {
            let asked = was_asked.then_some(asked);
            assert_eq!(sigterm_until(asked, reboot_ms, deadline, now), expected, "{what}");
        }
        assert_eq!(sigterm_until(None, None, after(12), now), after(12), "the deadline is soon");
    }
}
