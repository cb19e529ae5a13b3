//! Two agents, one orchestrator and a bad network, for many seeds.
//!
//! Faults that were put in on purpose, one at a time, and that some seed among the first 1,000 found: an older claim let
//! in; an attempt started without a note of it on disk, or although that note is there; an attempt not raised after a
//! crash; a repeated or a late result counted; a settled directive not reported again; outcomes not offered again after a
//! restore, or the new generation noted before they are; a spent boot token accepted; an outbox lost on standing
//! down; a hold's key forgotten where it could not be taken out.
//!
//! Faults that it does not see, because the agent recovers from them by claiming again: a directive that is told only
//! once, a stage that does not make way for another attempt. The tables beside the control loop see the latter.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use groundcrew_tests::model::world::{Tally, World};

/// Seeds when nobody says how many.
const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: found {text:?}, expected a whole number")))
}

#[test]
fn every_seed_keeps_what_must_hold() {
    if let Some(seed) = number("GROUNDCREW_MODEL_SEED") {
        return replay(seed);
    }
    let seeds = number("GROUNDCREW_MODEL_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let total = Mutex::new(Tally::default());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let mut world = World::of(seed);
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
                    let broken = match outcome {
                        Ok(Ok(())) => None,
                        Ok(Err(broken)) => Some(broken),
                        Err(_) => Some("it panicked".to_owned()),
                    };
                    add(&mut total.lock().unwrap(), world.tally);
                    if let Some(broken) = broken {
                        failed.lock().unwrap().get_or_insert((seed, broken));
                    }
                }
            });
        }
    });
    let total = *total.lock().unwrap();
    println!("{seeds} seeds: {total:?}");
    let failed = failed.into_inner().unwrap();
    if let Some((seed, broken)) = failed {
        replay_history(seed);
        panic!(
            "seed {seed}: {broken}\nreplay it with GROUNDCREW_MODEL_SEED={seed} cargo test -p groundcrew-tests --test model"
        );
    }
    // The seeds must have seen what they are for.
    assert!(
        total.completed > 0 && total.crashes > 0 && total.resets > 0 && total.restores > 0 && total.lost > 0
    );
    assert!(total.server_deaths > 0);
}

fn add(total: &mut Tally, one: Tally) {
    total.crashes += one.crashes;
    total.resets += one.resets;
    total.server_deaths += one.server_deaths;
    total.restores += one.restores;
    total.lost += one.lost;
    total.stages += one.stages;
    total.steps += one.steps;
    total.completed += one.completed;
}

fn replay_history(seed: u64) -> Option<String> {
    let mut world = World::of(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    for line in &world.history {
        println!("{line}");
    }
    match outcome {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(_) => Some("it panicked".to_owned()),
    }
}

fn replay(seed: u64) {
    if let Some(broken) = replay_history(seed) {
        panic!("seed {seed}: {broken}");
    }
}
