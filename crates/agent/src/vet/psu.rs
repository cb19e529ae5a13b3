//! The stage PSU: every power supply is there and without failure, and the fans turn.
//!
//! Where the machine has a BMC, `ipmitool` asks it ([`bmc`]): the events of a supply's sensor count, because its status stays
//! `ok` when it has failed. Without one the kernel's own sensors tell what they can ([`sensors`]). A BMC that the firmware tells of
//! and the kernel has no way to is neither: nothing is known then.

mod bmc;
mod events;
mod sensors;
mod supplies;

use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{FAN_GOOD, names};

use super::finding::Finding;
use super::json_tool::{Call, Said};
use super::{Done, StageContext, stopped};
use crate::probe::Root;

/// A BMC with hundreds of sensors answers in some ten seconds, and one that is busy takes a minute.
const CALL_TIME: Duration = Duration::from_secs(90);
/// Where the kernel puts its way to a BMC.
const DEVICES: [&str; 3] = ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"];

/// All that the stage looks at.
const CHECKS: [&str; 8] = names::PSU_CHECKS;

/// Where the kernel tells of an IPMI device that the firmware describes (SMBIOS type 38), by its type and number.
const DMI_ENTRIES: &str = "/sys/firmware/dmi/entries";
const DMI_IPMI: &str = "38-";
/// The same by ACPI, whose hardware id for it is IPI0001 (IPMI 2.0, section C3-2).
const ACPI_DEVICES: &str = "/sys/bus/acpi/devices";
const ACPI_IPMI: &str = "IPI0001";

/// A machine's BMC.
pub(super) enum Bmc {
    /// There is a way to it.
    Reachable,
    /// It is there, and this is why nobody can ask it.
    Unreachable(String),
    /// Neither kernel nor firmware knows of one.
    None,
}

/// Looks for one.
pub(super) fn bmc_of(root: &Root) -> Bmc {
    if DEVICES.iter().any(|device| root.exists(device)) {
        return Bmc::Reachable;
    }
    for (folder, begins) in [(DMI_ENTRIES, DMI_IPMI), (ACPI_DEVICES, ACPI_IPMI)] {
        let listed = match root.list(folder) {
            Ok(listed) => listed.unwrap_or_default(),
            Err(error) => {
                return Bmc::Unreachable(format!(
                    "nobody can tell whether there is a BMC: {folder}: {error}"
                ));
            }
        };
        if let Some(name) = listed.iter().find(|name| name.starts_with(begins)) {
            return Bmc::Unreachable(format!(
                "the firmware tells of a BMC ({folder}/{name}), and there is no {}: load the kernel's modules ipmi_si and ipmi_devintf",
                DEVICES[0]
            ));
        }
    }
    Bmc::None
}

/// Asks the BMC or the sensors, and judges what they say.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let mut done = Done::default();
    let findings = look(context, deadline, &mut done.artifacts);
    done.checks = findings.into_iter().map(|finding| finding.judged(context)).collect();
    done.stopped = stopped(context, deadline);
    done
}

/// What they say now.
pub(super) fn look(
    context: &StageContext,
    deadline: Instant,
    artifacts: &mut Vec<(String, Vec<u8>)>,
) -> Vec<Finding> {
    let expected = context.spec.psu.as_ref().and_then(|settings| settings.supplies);
    let ask = |arguments: &[&str]| ipmitool(context, arguments, deadline);
    match bmc_of(&context.root) {
        Bmc::Reachable => bmc::ask(&ask, expected, artifacts),
        Bmc::Unreachable(why) => bmc::all_unreadable(&CHECKS, &why),
        Bmc::None => sensors::read(&context.root),
    }
}

/// How many of these fans turn as they should.
fn fan_count<'f>(fans: impl IntoIterator<Item = &'f Finding>, evidence: &str) -> Finding {
    let is_good = |fan: &&Finding| matches!(&fan.observed, Observation::Found { text } if text == FAN_GOOD);
    let count = Observation::measured(fans.into_iter().filter(is_good).count() as f64, "fans");
    Finding::of(names::FAN_COUNT, None, count, evidence)
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
