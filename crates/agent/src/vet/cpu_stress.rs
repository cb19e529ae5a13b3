//! The stage CPUStress: every CPU computes, every result is verified.
//!
//! `stress-ng --cpu N --verify` does it (`stress_ng`). The kernel's throttling counters are compared before and after,
//! frequencies sampled meanwhile.

mod frequency;
mod throttle;

use std::ffi::OsString;
use std::time::Instant;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::names;

use self::frequency::Frequencies;
use super::stress_ng::parse::Stressor;
use super::stress_ng::{self, Load, unreadable};
use super::{Done, StageContext, refused};
use crate::process::tool::Confined;

/// Loads the CPUs and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.cpu_stress.clone().unwrap_or_default();
    let workers = stress_ng::workers(context, settings.workers);
    let method: Vec<OsString> = match settings.method.as_str() {
        "" => Vec::new(),
        method => vec!["--cpu-method".into(), method.into()],
    };
    let load = Load {
        stressor: Stressor::Cpu,
        workers,
        options: method,
        duration_ms: settings.duration,
        what: "CPUs",
        confined: Confined::default(),
    };
    let mut frequencies = Frequencies::default();
    let before = throttle::snapshot(&context.root);
    let loaded = stress_ng::run(context, &load, deadline, || frequencies.sample(&context.root));
    let after = throttle::snapshot(&context.root);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(why) => return refused(context, why),
    };
    let (throttling, counters) = throttle::compare(&before, &after, loaded.finished.elapsed);
    let (frequency, samples) = frequencies.observed(workers as usize);
    let rate = loaded.of(|metrics| match metrics.rate > 0.0 {
        true => Observation::measured(metrics.rate, "bogo-ops/s"),
        false => unreadable("stress-ng did not finish a single operation"),
    });
    // Counters and samples are the kernel's, but of a load that nobody can vouch for they say nothing.
    let under_load = |observed: Observation| match (&loaded.judged, &observed) {
        (Err(why), Observation::Measured { .. }) => unreadable(why),
        (Ok(_), _) | (Err(_), _) => observed,
    };
    let said = || loaded.said.clone();
    let checks = [
        (names::MISCOMPARES, loaded.miscompares(), said()),
        (names::RATE, rate, said()),
        (names::DURATION, loaded.duration(), said()),
        (names::THROTTLING, under_load(throttling), counters),
        (names::FREQUENCY, under_load(frequency), samples),
    ]
    .into_iter()
    .map(|(name, observed, evidence)| context.check(name, observed).with_evidence(evidence))
    .collect();
    let stopped = loaded.finished.stopped;
    Done { checks, artifacts: loaded.artifacts(), stopped, inventory: None }
}
