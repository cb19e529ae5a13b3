//! The stage GPU: every NVIDIA GPU on the PCI bus is known to its driver, says nothing bad of itself, and passes a diagnosis.
//!
//! `nvidia-smi` is asked in groups of fields ([`smi`]), so that one that a driver does not have costs its group alone; the
//! kernel's log is searched for the driver's errors ([`xid`]); `dcgmi diag` puts a load on the GPUs ([`dcgm`]). A GPU of another
//! maker is inconclusive by name: this agent has no test of it. Nothing here was seen on hardware yet.

mod dcgm;
mod smi;
mod xid;

use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::inventory::Gpu;
use groundcrew_protocol::plan::{GPU_KNOWN, names};

use self::smi::Row;
use super::finding::Finding;
use super::json_tool::Call;
use super::{Done, StageContext, refused, stopped};
use crate::probe::{Unreads, gpus};

/// The driver answers in seconds, and where a GPU hangs in a minute or not at all.
const CALL_TIME: Duration = Duration::from_secs(120);
/// The longest diagnosis takes some hours; the stage's deadline comes before.
const DIAG_TIME: Duration = Duration::from_secs(24 * 3600);
const NVIDIA: &str = "10de";
const AMD: &str = "1002";

/// Looks at the bus, asks the driver, reads the kernel's log, asks for the diagnosis.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let mut unreads = Unreads::default();
    let on_bus = gpus::read(&context.root, &mut unreads);
    if let Some(unread) = unreads.into_vec().first() {
        return refused(context, format!("the PCI bus could not be read: {}", unread.why));
    }
    let is_of = |gpu: &Gpu, vendor: &str| gpu.vendor == vendor;
    let (ours, others): (Vec<&Gpu>, Vec<&Gpu>) = on_bus
        .iter()
        .filter(|gpu| is_of(gpu, NVIDIA) || (is_of(gpu, AMD) && !gpu.class.starts_with("0300")))
        .partition(|gpu| is_of(gpu, NVIDIA));
    let mut done = Done::default();
    if ours.is_empty() && others.is_empty() {
        let why = "the machine has no GPU on the PCI bus".to_owned();
        done.checks = context.still_owed(&[], &Observation::Absent { why });
        return done;
    }
    let mut findings: Vec<Finding> = others.iter().map(|gpu| of_another_maker(gpu)).collect();
    if !ours.is_empty() {
        let ask = |program: &'static str, arguments: &[&str]| ask(context, program, arguments, deadline);
        findings.extend(of_driver(&ask, &ours, &mut done.artifacts));
        findings.extend(xid::read(&ask, &mut done.artifacts));
        let diag = context.spec.gpu.clone().unwrap_or_default().diag;
        if let Some(level) = diag.level() {
            context.show(0.2, format!("dcgmi diag -r {level}"));
            findings.extend(dcgm::run(context, level, deadline, &mut done.artifacts));
        }
    }
    done.checks = findings.into_iter().map(|finding| finding.judged(context)).collect();
    let why = "no GPU here has a source for it".to_owned();
    let rest = context.still_owed(&done.checks, &Observation::Absent { why });
    done.checks.extend(rest);
    done.stopped = stopped(context, deadline);
    done
}

fn of_another_maker(gpu: &Gpu) -> Finding {
    let why = format!("this agent has no test of the GPU {}:{} at {}", gpu.vendor, gpu.device, gpu.pci);
    Finding {
        name: names::GPU_DRIVER,
        component: Some(gpu.pci.clone()),
        observed: Observation::Unreadable { why },
        evidence: gpus::FOLDER.to_owned(),
    }
}

/// A question to a tool: what it printed, or why it says nothing.
type Ask<'a> = dyn Fn(&'static str, &[&str]) -> Result<Vec<u8>, String> + 'a;

fn ask(
    context: &StageContext,
    program: &'static str,
    arguments: &[&str],
    deadline: Instant,
) -> Result<Vec<u8>, String> {
    let call = Call {
        context,
        program,
        arguments: arguments.iter().map(Into::into).collect(),
        time: CALL_TIME,
        deadline,
        about: program.to_owned(),
    };
    let said = call.run()?;
    match said.exit {
        0 => Ok(said.stdout),
        status => {
            // nvidia-smi complains on its standard output.
            let words = [said.stdout, said.stderr].concat();
            let words = String::from_utf8_lossy(&words).trim().to_owned();
            Err(format!("{} ended with status {status}: {words}", call.command()))
        }
    }
}

/// Each GPU of the bus by what its driver says of it.
fn of_driver(ask: &Ask<'_>, on_bus: &[&Gpu], artifacts: &mut Vec<(String, Vec<u8>)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known: Result<Vec<Row>, String> = smi::query(ask, &smi::IDENTITY, artifacts);
    let component = |pci: &str| {
        let row = known.iter().flatten().find(|row| row.is_at(pci));
        row.and_then(Row::serial).unwrap_or_else(|| pci.to_owned())
    };
    for gpu in on_bus {
        let observed = match (&gpu.driver, &known) {
            (None, _) => Observation::Missing { what: format!("the driver of the GPU at {}", gpu.pci) },
            (Some(_), Err(why)) => Observation::Unreadable { why: why.clone() },
            (Some(_), Ok(rows)) if rows.iter().any(|row| row.is_at(&gpu.pci)) => {
                Observation::Found { text: GPU_KNOWN.to_owned() }
            }
            (Some(driver), Ok(_)) => {
                Observation::Missing { what: format!("the GPU at {} for its driver {driver}", gpu.pci) }
            }
        };
        findings.push(Finding {
            name: names::GPU_DRIVER,
            component: Some(component(&gpu.pci)),
            observed,
            evidence: format!("{}/{}, nvidia-smi", gpus::FOLDER, gpu.pci),
        });
    }
    for group in &smi::GROUPS {
        let rows = smi::query(ask, group, artifacts);
        for gpu in on_bus {
            findings.extend(smi::findings(group, &rows, &gpu.pci, &component(&gpu.pci)));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
