//! The stage PSU: every power supply is there and without failure, and the fans turn.
//!
//! Where the machine has a BMC, `ipmitool` asks it ([`bmc`]): the events of a supply's sensor count, because its status stays
//! `ok` when it has failed. Without one the kernel's own sensors tell what they can ([`sensors`]).

mod bmc;
mod sensors;

use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation};

use super::json_tool::{Call, Said};
use super::{Done, StageContext, stopped};
use crate::probe::Root;

/// A BMC with hundreds of sensors answers in some ten seconds, and one that is busy takes a minute.
const CALL_TIME: Duration = Duration::from_secs(120);
/// Where the kernel puts its way to a BMC.
const DEVICES: [&str; 3] = ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"];

/// What was seen of a component, or of all of them.
struct Finding {
    name: &'static str,
    component: Option<String>,
    observed: Observation,
    evidence: String,
}

impl Finding {
    fn of(name: &'static str, component: Option<&str>, observed: Observation, evidence: &str) -> Finding {
        Finding { name, component: component.map(str::to_owned), observed, evidence: evidence.to_owned() }
    }
}

/// True where the machine has a way to a BMC.
pub(super) fn has_bmc(root: &Root) -> bool {
    DEVICES.iter().any(|device| root.exists(device))
}

/// Asks the BMC or the sensors, and judges what they say.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let mut done = Done::default();
    let findings = if has_bmc(&context.root) {
        bmc::ask(&|arguments: &[&str]| ipmitool(context, arguments, deadline), &mut done.artifacts)
    } else {
        sensors::read(&context.root)
    };
    done.checks = findings
        .into_iter()
        .map(|finding| {
            let Finding { name, component, observed, evidence } = finding;
            Check::of(name, component.as_deref(), observed, context.limit(name)).with_evidence(evidence)
        })
        .collect();
    done.stopped = stopped(context, deadline);
    done
}

/// One question to the BMC.
pub(super) fn ipmitool(
    context: &StageContext,
    arguments: &[&str],
    deadline: Instant,
) -> Result<Said, String> {
    let call = Call {
        context,
        program: "ipmitool",
        arguments: arguments.iter().map(Into::into).collect(),
        time: CALL_TIME,
        deadline,
        about: "ipmitool".to_owned(),
    };
    context.show(0.1, format!("asks the BMC: {}", arguments.join(" ")));
    call.run()
}

#[cfg(test)]
mod tests;
