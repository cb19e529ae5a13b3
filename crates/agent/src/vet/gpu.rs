//! The stage GPU: every NVIDIA GPU on the PCI bus is known to its driver, passes a diagnosis that puts a load on it, and says
//! nothing bad of itself before, under and after that load.
//!
//! `nvidia-smi` is asked in groups of fields ([`smi`]), so that one that a driver does not have costs its group alone; the
//! kernel's log is searched for the driver's errors ([`xid`]); `dcgmi diag` puts a load on the GPUs ([`dcgm`]). What was read at
//! several times is one check, the worst of them ([`worst`]). So is the state of the links between GPUs ([`nvlink`]); what these
//! count, and those between machines ([`infiniband`]), is compared before and after. A GPU of another maker is inconclusive by name: this agent has no
//! test of it, and where the profile asks for none its driver and its link are enough. Nothing here was seen on hardware yet.

mod dcgm;
mod infiniband;
mod nvlink;
mod smi;
mod xid;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::inventory::Gpu;
use groundcrew_protocol::plan::{GPU_KNOWN, names};
use groundcrew_protocol::profile::GpuDiag;

use self::dcgm::Diagnosis;
use self::smi::{Group, Row};
use super::finding::Finding;
use super::json_tool::Call;
use super::{Done, StageContext, refused, stopped, worst};
use crate::probe::{Root, Unreads, gpus};

/// The driver answers in seconds, and where a GPU hangs in a minute or not at all.
const CALL_TIME: Duration = Duration::from_secs(120);
/// The longest diagnosis takes some hours; the stage's deadline comes before.
const DIAG_TIME: Duration = Duration::from_secs(24 * 3600);
/// Time between two looks at GPUs under load: the shortest test of a diagnosis lasts longer.
const SAMPLE_PAUSE: Duration = Duration::from_secs(5);

/// Looks at the bus, asks the driver and the kernel's log, puts a load on the GPUs, and asks again.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let mut unreads = Unreads::default();
    let on_bus = gpus::read(&context.root, &mut unreads);
    if let Some(unread) = unreads.into_vec().first() {
        return refused(context, format!("the PCI bus could not be read: {}", unread.why));
    }
    let (ours, others): (Vec<&Gpu>, Vec<&Gpu>) =
        on_bus.iter().filter(|gpu| gpu.computes()).partition(|gpu| gpu.is_nvidias());
    let settings = context.spec.gpu.clone().unwrap_or_default();
    let ports = infiniband::read(&context.root);
    let mut done = Done::default();
    let of_others = |gpu: &&Gpu| of_another_maker(&context.root, gpu, &settings.diag);
    let mut findings: Vec<Finding> = others.iter().flat_map(of_others).collect();
    if !ours.is_empty() {
        findings.extend(nvidia(context, &ours, deadline, &mut done.artifacts));
    } else if let Ok(log) = xid::log(&|program, arguments| ask(context, program, arguments, deadline)) {
        // One that fell off the bus is on it no more: its driver wrote so.
        let named = xid::findings(None, Ok(log), &mut done.artifacts).into_iter();
        findings.extend(named.filter(|finding| finding.component.is_some()));
    }
    findings.extend(infiniband::findings(
        &ports,
        &infiniband::read(&context.root),
        settings.infiniband_ports_min.is_some(),
    ));
    done.checks = findings.into_iter().map(|finding| finding.judged(context)).collect();
    if context.owes(names::GPUS) {
        let there: Vec<&str> = ours.iter().chain(&others).map(|gpu| gpu.pci.as_str()).collect();
        let count = Observation::measured(there.len() as f64, "GPUs");
        done.checks.push(context.check(names::GPUS, count).with_evidence(there.join(", ")));
    }
    let why = match on_bus.iter().any(Gpu::computes) {
        true => "no GPU here has a source for it".to_owned(),
        false => "the machine has no GPU on the PCI bus".to_owned(),
    };
    let rest = context.still_owed(&done.checks, &Observation::Absent { why });
    done.checks.extend(rest);
    done.stopped = stopped(context, deadline);
    done
}

/// A GPU and what it is called.
struct Named<'a> {
    gpu: &'a Gpu,
    /// Its serial, else its address.
    component: String,
    /// Its number by the driver.
    index: Option<String>,
}

type Artifacts = Vec<(String, Vec<u8>)>;

/// What NVIDIA's GPUs say before, under and after a load.
fn nvidia(
    context: &StageContext,
    on_bus: &[&Gpu],
    deadline: Instant,
    artifacts: &mut Artifacts,
) -> Vec<Finding> {
    let ask = |program: &'static str, arguments: &[&str]| ask(context, program, arguments, deadline);
    let limit = |name: &str| context.limit(name);
    let gpus = named(&smi::query(&ask, &smi::IDENTITY, &mut Vec::new()), on_bus);
    let (mut seen, mut diagnosed, mut log) = (Vec::new(), Vec::new(), None);
    let settings = context.spec.gpu.clone().unwrap_or_default();
    let nvlinks_min = settings.nvlinks_min;
    let mut before = Vec::new();
    let links = nvlink::Said::of(&ask, &mut before);
    if let Some(diagnosis) = Diagnosis::of(&context.spec) {
        worst::merge(&mut seen, of_driver(&ask, &gpus, &mut before), &limit);
        worst::merge(&mut seen, links.state(&gpus, nvlinks_min), &limit);
        log = xid::log(&ask).ok();
        context.show(0.2, diagnosis.command());
        let look = || {
            let sample = of_groups(&ask, &gpus, smi::under_load(), &mut Vec::new());
            worst::merge(&mut seen, sample, &limit);
        };
        diagnosed = sampled(look, || dcgm::run(context, &diagnosis, &gpus, deadline, artifacts));
    } else {
        seen.extend(gpus.iter().map(|gpu| {
            let why = "no load was put on it, and a link that rests goes slow".to_owned();
            let observed = Observation::Absent { why };
            Finding::of(names::GPU_PCIE_SPEED, Some(&gpu.component), observed, "")
        }));
    }
    artifacts.extend(before.into_iter().map(|(name, bytes)| (format!("before-{name}"), bytes)));
    worst::merge(&mut seen, of_driver(&ask, &gpus, artifacts), &limit);
    let after = nvlink::Said::of(&ask, artifacts);
    worst::merge(&mut seen, after.state(&gpus, nvlinks_min), &limit);
    seen.extend(after.grown_since(&links, &gpus));
    seen.extend(diagnosed);
    seen.extend(xid::findings(log, xid::log(&ask), artifacts));
    seen
}

/// Puts a load on the GPUs, and looks at them meanwhile: once at least, and every so often.
fn sampled<T>(mut look: impl FnMut() + Send, load: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (over, ended) = channel::<()>();
        let looks = scope.spawn(move || {
            look();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SAMPLE_PAUSE) {
                look();
            }
        });
        let loaded = load();
        drop(over);
        looks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        loaded
    })
}

/// What can be said of a GPU that this agent has no test of: that it has its driver, and the lanes of its link. That is enough
/// where the profile asks for no load.
fn of_another_maker(root: &Root, gpu: &Gpu, diag: &GpuDiag) -> Vec<Finding> {
    let folder = format!("{}/{}", gpus::FOLDER, gpu.pci);
    let of = |name, observed| Finding::of(name, Some(&gpu.pci), observed, &folder);
    let driver = match (&gpu.driver, diag) {
        (None, _) => {
            Observation::Missing { what: format!("the driver of the GPU {} at {}", gpu.kind(), gpu.pci) }
        }
        (Some(_), GpuDiag::None) => Observation::Found { text: GPU_KNOWN.to_owned() },
        (
            Some(_),
            GpuDiag::Quick | GpuDiag::Medium | GpuDiag::Long | GpuDiag::Extended | GpuDiag::Unknown(_),
        ) => Observation::Unreadable {
            why: format!("this agent has no test of the GPU {} at {}", gpu.kind(), gpu.pci),
        },
    };
    let lanes =
        |file: &str| root.detail(&format!("{folder}/{file}")).and_then(|text| text.parse::<u32>().ok());
    let width = match (lanes("current_link_width"), lanes("max_link_width")) {
        (Some(now), Some(most)) if most > 0 => {
            Observation::measured(f64::from(now) / f64::from(most) * 100.0, "% of the lanes")
        }
        (Some(_) | None, Some(_) | None) => {
            Observation::Absent { why: "the kernel does not say the lanes of its link".to_owned() }
        }
    };
    vec![of(names::GPU_DRIVER, driver), of(names::GPU_PCIE_WIDTH, width)]
}

/// A question to a tool: what it printed, or why it says nothing.
type Ask<'a> = dyn Fn(&'static str, &[&str]) -> Result<Vec<u8>, String> + Sync + 'a;

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

/// What each GPU of the bus is called, by what the driver says of it.
fn named<'a>(known: &Result<Vec<Row>, String>, on_bus: &[&'a Gpu]) -> Vec<Named<'a>> {
    let name = |gpu: &&'a Gpu| {
        let row = known.iter().flatten().find(|row| row.is_at(&gpu.pci));
        let component = row.and_then(Row::serial).unwrap_or_else(|| gpu.pci.clone());
        Named { gpu, component, index: row.and_then(Row::index) }
    };
    on_bus.iter().map(name).collect()
}

/// Each GPU of the bus by what its driver says of it now.
fn of_driver(ask: &Ask<'_>, gpus: &[Named<'_>], artifacts: &mut Artifacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known: Result<Vec<Row>, String> = smi::query(ask, &smi::IDENTITY, artifacts);
    for Named { gpu, component, .. } in gpus {
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
        let evidence = format!("{}/{}, nvidia-smi", gpus::FOLDER, gpu.pci);
        findings.push(Finding::of(names::GPU_DRIVER, Some(component), observed, &evidence));
    }
    findings.extend(of_groups(ask, gpus, smi::GROUPS.iter(), artifacts));
    findings
}

/// What groups of fields say of each GPU.
fn of_groups<'g>(
    ask: &Ask<'_>,
    gpus: &[Named<'_>],
    groups: impl Iterator<Item = &'g Group>,
    artifacts: &mut Artifacts,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for group in groups {
        let rows = smi::query(ask, group, artifacts);
        for named in gpus {
            findings.extend(smi::findings(group, &rows, &named.gpu.pci, &named.component));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
