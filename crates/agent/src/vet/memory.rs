//! The stage Memory: as much of the memory as can be spared is written and read back, and every result verified.
//!
//! `stress-ng --vm N --verify` does it, over what /proc/meminfo says is available less a reserve. Whoever else needs memory
//! meanwhile must not make the kernel end the agent: the test is the first to go ([`guard`]), and one that was ended so is
//! inconclusive, never failed hardware. Nor does a load tell anything that compared nothing ([`methods`]): no more is tested than
//! can be gone through in time, and what was counted must prove that it was.

mod guard;
mod methods;

use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::MemorySettings;
use groundcrew_protocol::wire::LogLevel;

use self::guard::{Cgroup, Protected};
use self::methods::Method;
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
/// Under a Soak no more is tested than can be gone through in this part of the time: reads of disks, and what the GPUs are
/// tested by, take CPUs too.
const SOAK_PART: u64 = 4;
/// Bytes that stress-ng takes for 100 that it tests. Its method `swap`, one of all, keeps 8 bytes for each 64, and the page tables
/// of both have 8 bytes for each 4096: 112.8. Measured with 32 MiB: 34,564 KiB resident by `write64`, 38,708 by `swap`.
const NEEDED_PERCENT: u64 = 113;

/// How much is tested, and what that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    /// Bytes that are written and compared.
    tested: u64,
    /// Bytes that the test may take, with its workers.
    needed: u64,
}

/// Loads the memory and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.memory.clone().unwrap_or_default();
    let mut unreads = Unreads::default();
    let Some(total) = memory::total_bytes(&context.root, &mut unreads) else {
        let why = unreads.into_vec().into_iter().next().map_or_else(String::new, |unread| unread.why);
        return refused(context, format!("nobody says how much memory there is: {why}"));
    };
    let workers = stress_ng::workers(context, settings.workers);
    let method = match Method::of(&settings.method) {
        Ok(method) => method,
        Err(why) => return refused(context, why),
    };
    let size = match size(context, &settings, method, total, workers) {
        Ok(size) => size,
        Err(why) => return refused(context, why),
    };
    let cgroup = Cgroup::make(&context.root, &context.work, size.needed);
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
        options: options(&settings, size.tested),
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
        Ok(loaded) => {
            let killed = guard::ended(before, after, killed);
            done(context, loaded, killed, Tested { method, bytes: size.tested, total, workers })
        }
        Err(why) => refused(context, why),
    }
}

/// What is tested: what is available less the reserve, no more than the profile allows, and no more than can be gone through
/// in the load's time.
fn size(
    context: &StageContext,
    settings: &MemorySettings,
    method: Method,
    total: u64,
    workers: u32,
) -> Result<Size, String> {
    let available = available(&context.root)?;
    let reserve = (total as f64 * settings.reserve_percent / 100.0) as u64;
    let of_workers = u64::from(workers) * WORKER_BYTES;
    let reserve = reserve.max(RESERVE_BYTES_MIN) + of_workers;
    let fits = tested_in(available.saturating_sub(reserve));
    let wanted = settings.size_mib_max.map_or(fits, |most| fits.min(most.saturating_mul(MIB)));
    // Beside other loads its workers have a part of their time.
    let part = if context.spec.soak.is_some() { SOAK_PART } else { 1 };
    let in_time = method.bytes_in(workers, settings.duration / part);
    if wanted < TESTED_BYTES_MIN {
        return Err(format!(
            "{} MiB are available, of which {} MiB are kept in reserve: what is left is no test",
            available / MIB,
            reserve / MIB
        ));
    }
    if in_time < wanted {
        let text = format!(
            "tests {} MiB of {} MiB: {workers} workers by the method {} get through no more in {} s; raise memory.duration",
            in_time / MIB,
            wanted / MIB,
            method.name,
            settings.duration / 1000
        );
        context.say(LogLevel::Warn, text);
    }
    let tested = wanted.min(in_time);
    Ok(Size { tested, needed: needed_for(tested).saturating_add(of_workers) })
}

/// What a test of this much takes, without its workers.
fn needed_for(tested: u64) -> u64 {
    (tested / 100 + 1).saturating_mul(NEEDED_PERCENT)
}

/// The most that a test in this room can test.
fn tested_in(room: u64) -> u64 {
    (room / NEEDED_PERCENT).saturating_sub(1) * 100
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

/// What was tested, of how much.
struct Tested {
    method: Method,
    bytes: u64,
    total: u64,
    workers: u32,
}

/// `killed` is why the test says nothing, where the kernel ran out of memory meanwhile.
fn done(context: &StageContext, loaded: Loaded, killed: Result<(), String>, tested: Tested) -> Done {
    let Tested { method, bytes, total, workers } = tested;
    // Nothing counts of a test that went on without some of its processes, but a wrong result.
    let judged = |observed: Observation| match &killed {
        Err(why) => stress_ng::unreadable(why),
        Ok(()) => observed,
    };
    let miscompares = match loaded.miscompares() {
        found @ Observation::Measured { value: Some(count), .. } if count > 0.0 => found,
        // None were found only where something was compared.
        found @ Observation::Measured { value: Some(_), .. } => judged(loaded.of(|metrics| {
            match method.compared(metrics.bogo_ops, bytes) {
                true => found.clone(),
                false => stress_ng::unreadable(&format!(
                    "stress-ng counts {} operations, and nothing proves by so few that {} MiB were compared: raise memory.duration",
                    metrics.bogo_ops,
                    bytes / MIB
                )),
            }
        })),
        other => judged(other),
    };
    let tested = loaded.of(|metrics| match metrics.rss_kib {
        Some(kib) => {
            // What it has beside that is no tested memory.
            let tested = (kib * 1024.0 * f64::from(workers)).min(bytes as f64);
            Observation::measured(tested / total as f64 * 100.0, "% of the memory")
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of 32 MiB, `swap` had 38,708 KiB where `write64` had 34,564: what it needs beside the tested fits.
    #[test]
    fn what_swap_takes_fits() {
        assert!(needed_for(32 * MIB) >= 32 * MIB + (38_708 - 34_564) * 1024);
    }

    proptest! {
        #[test]
        fn a_test_fits_the_room_it_was_made_for(room in 0u64..1 << 50) {
            let tested = tested_in(room);
            prop_assert!(tested == 0 || needed_for(tested) <= room);
            let with_swap = tested + tested / 8;
            prop_assert!(needed_for(tested) >= with_swap + with_swap / 512);
            prop_assert!(room < 1 << 20 || tested >= room / 100 * 88);
        }
    }
}
