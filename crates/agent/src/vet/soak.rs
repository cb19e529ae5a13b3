//! The stage Soak: CPUs, memory, disks and GPUs bear their loads together, and supplies and fans are looked at meanwhile.
//!
//! Each part is the stage of its own, with its own tools and its own judge; this one starts them at the same moment, gives the
//! names of their checks the part's prefix, and asks the BMC or the sensors every so often ([`psu`]). What was seen at several
//! times is one check, the worst of them ([`worst`]). Half of the CPUs compute and the other half write and read back memory, so
//! that neither takes the other's time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::SoakPart;

use super::{Done, StageContext, cpu_stress, gpu, memory, psu, refused, stopped, storage, stress_ng, worst};

/// The longest time between two looks at supplies and fans: a BMC with hundreds of sensors takes a while to answer.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Time between two words on progress.
const SHOW_PAUSE: Duration = Duration::from_secs(1);

/// A stage that bears a load.
type Load = fn(&StageContext, Instant) -> Done;

const LOADS: [(SoakPart, Load); 4] = [
    (SoakPart::Cpu, cpu_stress::run),
    (SoakPart::Memory, memory::run),
    (SoakPart::Storage, storage::run),
    (SoakPart::Gpu, gpu::run),
];

/// Puts the loads on, looks at what feeds and cools them, and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    match together(context, deadline) {
        Ok(done) => done,
        Err(why) => refused(context, why),
    }
}

fn together(context: &StageContext, deadline: Instant) -> Result<Done, String> {
    let looks = of_part(context, SoakPart::Psu)?;
    let mut loads = Vec::new();
    for (part, load) in LOADS {
        loads.push((part, load, of_part(context, part)?));
    }
    let all = std::thread::scope(|scope| {
        let (running, ended) = channel::<()>();
        let start = |(part, load, context): (SoakPart, Load, StageContext)| {
            let running = running.clone();
            let thread = scope.spawn(move || {
                // It goes with this thread, however that ends.
                let _running = running;
                load(&context, deadline)
            });
            (part, thread)
        };
        let threads: Vec<_> = loads.into_iter().map(start).collect();
        drop(running);
        let mut all = vec![(SoakPart::Psu, look(context, &looks, &ended, deadline))];
        for (part, thread) in threads {
            all.push((part, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        }
        all
    });
    let mut done = Done { stopped: stopped(context, deadline), ..Done::default() };
    for (part, of_part) in all {
        let named = |name: &str| format!("{}{name}", part.prefix());
        done.checks.extend(of_part.checks.into_iter().map(|of| Check { name: named(&of.name), ..of }));
        done.artifacts.extend(of_part.artifacts.into_iter().map(|(name, bytes)| (named(&name), bytes)));
    }
    Ok(done)
}

/// A part, as its own stage sees it: with a folder of its own, and its checks by their own names.
fn of_part(context: &StageContext, part: SoakPart) -> Result<StageContext, String> {
    let prefix = part.prefix();
    let work = context.work.join(prefix.trim_end_matches('.'));
    std::fs::create_dir_all(&work).map_err(|error| format!("make the folder {}: {error}", work.display()))?;
    let mut spec = part.spec(&context.spec);
    let cpus = stress_ng::workers(context, 0);
    if let Some(settings) = &mut spec.cpu_stress {
        settings.workers = (cpus / 2).max(1);
    }
    if let Some(settings) = &mut spec.memory {
        settings.workers = cpus.div_ceil(2);
    }
    let plan = context.whole_plan().into_iter().filter_map(|mut planned| {
        planned.name = planned.name.strip_prefix(prefix)?.to_owned();
        Some(planned)
    });
    Ok(StageContext { spec, plan: plan.collect(), work, progress: Arc::new(|_| {}), ..context.clone() })
}

/// Asks for supplies and fans while loads run, and shows how far they are.
fn look(context: &StageContext, looks: &StageContext, ended: &Receiver<()>, deadline: Instant) -> Done {
    let duration = Duration::from_millis(context.spec.soak.clone().unwrap_or_default().duration);
    let pause = (duration / 2).min(LOOK_PAUSE_MAX);
    let (mut seen, mut artifacts) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut next = began + pause;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SHOW_PAUSE.min(pause)) {
        let past = began.elapsed();
        let text = format!("all under load, {} s of {} s", past.min(duration).as_secs(), duration.as_secs());
        context.show(past.as_secs_f64() / duration.as_secs_f64(), text);
        if Instant::now() >= next {
            artifacts.clear();
            let now = psu::look(looks, deadline, &mut artifacts);
            worst::merge(&mut seen, now, &|name| looks.limit(name));
            next = Instant::now() + pause;
        }
    }
    let mut checks: Vec<Check> = seen.into_iter().map(|finding| finding.judged(looks)).collect();
    let why = "the loads ended before supplies and fans were looked at".to_owned();
    checks.extend(looks.still_owed(&checks, &Observation::Unreadable { why }));
    Done { checks, artifacts, ..Done::default() }
}
