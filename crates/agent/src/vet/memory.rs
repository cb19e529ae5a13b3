//! The stage Memory: as much of the memory as can be spared is written and read back, and every result verified.
//!
//! `stress-ng --vm N --verify` does it, over what /proc/meminfo says is available less a reserve. Whoever else needs memory
//! meanwhile must not make the kernel end the agent: the test is the first to go ([`guard`]), and one that was ended so is
//! inconclusive, never failed hardware.

mod guard;

use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::MemorySettings;
use groundcrew_protocol::wire::LogLevel;

use self::guard::{Cgroup, Protected};
use super::stress_ng::parse::Stressor;
use super::stress_ng::{self, Load, Loaded};
use super::{Done, StageContext, refused};
use crate::probe::{Root, Unreads, memory};
use crate::process::tool::Confined;

/// Left to everybody else, whatever the profile says: the agent, the tool itself and the kernel's own needs.
const RESERVE_BYTES_MIN: u64 = 256 << 20;
/// Less than this is no test of a machine's memory.
const TESTED_BYTES_MIN: u64 = 16 << 20;
/// stress-ng itself, beside what it tests, in each worker.
const WORKER_BYTES: u64 = 32 << 20;
const MIB: u64 = 1 << 20;

/// Loads the memory and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.memory.clone().unwrap_or_default();
    let mut unreads = Unreads::default();
    let Some(total) = memory::total_bytes(&context.root, &mut unreads) else {
        let why = unreads.into_vec().into_iter().next().map_or_else(String::new, |unread| unread.why);
        return refused(context, format!("nobody says how much memory there is: {why}"));
    };
    let workers = stress_ng::workers(context, settings.workers);
    let bytes = match size(context, &settings, total, workers) {
        Ok(bytes) => bytes,
        Err(why) => return refused(context, why),
    };
    let cgroup = Cgroup::make(&context.root, bytes + u64::from(workers) * WORKER_BYTES);
    let confined = match &cgroup {
        Ok(cgroup) => Confined { cgroup: Some(cgroup.folder().to_owned()), first_to_go: true },
        Err(why) => {
            context.say(LogLevel::Info, format!("the test gets no cgroup of its own: {why}"));
            Confined { cgroup: None, first_to_go: true }
        }
    };
    let protected = Protected::begin(&context.root);
    if let Err(why) = &protected {
        let text = format!("the agent is not protected from the kernel's OOM killer: {why}");
        context.say(LogLevel::Info, text);
    }
    let load = Load {
        stressor: Stressor::Vm,
        workers,
        options: options(&settings, bytes),
        duration_ms: settings.duration,
        what: "memory",
        confined,
    };
    let before = guard::oom_kills(&context.root);
    let loaded = stress_ng::run(context, &load, deadline, || {});
    let after = guard::oom_kills(&context.root);
    let killed = cgroup.as_ref().map(Cgroup::kills).unwrap_or(Ok(0));
    drop((protected, cgroup));
    match loaded {
        Ok(loaded) => done(context, loaded, guard::ended(before, after, killed), total, workers),
        Err(why) => refused(context, why),
    }
}

/// What is tested: what is available less the reserve, and no more than the profile allows.
fn size(context: &StageContext, settings: &MemorySettings, total: u64, workers: u32) -> Result<u64, String> {
    let available = available(&context.root)?;
    let reserve = (total as f64 * settings.reserve_percent / 100.0) as u64;
    let reserve = reserve.max(RESERVE_BYTES_MIN) + u64::from(workers) * WORKER_BYTES;
    let bytes = available.saturating_sub(reserve);
    let bytes = settings.size_mib_max.map_or(bytes, |most| bytes.min(most.saturating_mul(MIB)));
    if bytes < TESTED_BYTES_MIN {
        return Err(format!(
            "{} MiB are available, of which {} MiB are kept in reserve: what is left is no test",
            available / MIB,
            reserve / MIB
        ));
    }
    Ok(bytes)
}

/// What can be had without anybody's harm: of the machine, and of the cgroup where that has less.
fn available(root: &Root) -> Result<u64, String> {
    let of_machine = memory::available_bytes(root)?;
    Ok(guard::room_of_own_cgroup(root).map_or(of_machine, |room| of_machine.min(room)))
}

fn options(settings: &MemorySettings, bytes: u64) -> Vec<std::ffi::OsString> {
    // stress-ng divides this among its workers; one that is OOM-killed is not to be started again as if nothing were.
    let mut options: Vec<std::ffi::OsString> =
        vec!["--vm-bytes".into(), format!("{}k", bytes / 1024).into(), "--oomable".into()];
    if !settings.method.is_empty() {
        options.extend(["--vm-method".into(), settings.method.clone().into()]);
    }
    options
}

/// `killed` is why the test says nothing, where the kernel ran out of memory meanwhile.
fn done(
    context: &StageContext,
    loaded: Loaded,
    killed: Result<(), String>,
    total: u64,
    workers: u32,
) -> Done {
    // Nothing counts of a test that went on without some of its processes, but a wrong result.
    let judged = |observed: Observation| match &killed {
        Err(why) => stress_ng::unreadable(why),
        Ok(()) => observed,
    };
    let miscompares = match loaded.miscompares() {
        found @ Observation::Measured { value: Some(count), .. } if count > 0.0 => found,
        other => judged(other),
    };
    let tested = loaded.of(|metrics| match metrics.rss_kib {
        Some(kib) => {
            let bytes = kib * 1024.0 * f64::from(workers);
            Observation::measured(bytes / total as f64 * 100.0, "% of the memory")
        }
        None => stress_ng::unreadable("stress-ng does not say how much memory it had (max-rss)"),
    });
    let checks: Vec<Check> = [
        (names::MISCOMPARES, miscompares),
        (names::DURATION, judged(loaded.duration())),
        (names::MEMORY_TESTED, judged(tested)),
    ]
    .into_iter()
    .map(|(name, observed)| context.check(name, observed).with_evidence(loaded.said.clone()))
    .collect();
    let stopped = loaded.finished.stopped;
    Done { checks, stopped, artifacts: loaded.artifacts(), ..Done::default() }
}
