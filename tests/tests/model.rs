//! Two agents, one orchestrator and a bad network, for many seeds.
//!
//! `src/model/MUTATIONS.md` says which faults, put in on purpose, it was seen to find, and which not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use groundcrew_orchestrator::store::{LogChunk, LogCursor, Store, StoreOptions, Taken};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::wire::LogLine;
use groundcrew_tests::model::folder;
use groundcrew_tests::model::{tally::Tally, world::World};

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
                    *total.lock().unwrap() += world.tally;
                    if let Some(broken) = broken {
                        let mut failed = failed.lock().unwrap();
                        // The lowest of those that fail at once, so that the same one is named each time.
                        if failed.as_ref().is_none_or(|(known, _)| seed < *known) {
                            *failed = Some((seed, broken));
                        }
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
    assert!(total.server_deaths > 0 && total.reboots > 0 && total.proved > 0 && total.missed > 0);
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

/// Seeds whose chunks are given to the real store as well.
const STORED_SEEDS: u64 = 24;

/// The model's store of logs is one of values: SQLite and segment files take the same chunks in the same way, and give
/// back the same lines in the same order.
#[test]
fn the_real_store_takes_chunks_of_log_as_the_models_does() {
    let data = folder::make();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut chunks, mut others) = (0, 0);
    runtime.block_on(async {
        let store = Store::open(data.path(), StoreOptions::default()).await.unwrap();
        for seed in 0..STORED_SEEDS {
            let mut world = World::of(seed);
            world.run().unwrap();
            let run: RunId = format!("r-{seed}").parse().unwrap();
            let mut expected = Vec::new();
            for (chunk, taken) in world.traffic() {
                let chunk = LogChunk { run: run.clone(), ..chunk.clone() };
                if *taken == Taken::First {
                    expected.extend(chunk.lines.clone());
                }
                others += u32::from(*taken == Taken::OtherContent);
                chunks += 1;
                let number = chunk.seq;
                assert_eq!(store.logs().append(chunk).await.unwrap(), *taken, "seed {seed}, chunk {number}");
            }
            assert_eq!(all_lines(&store, &run).await, expected, "seed {seed}");
        }
        store.close().await.unwrap();
    });
    assert!(chunks > 100 && others > 0, "{chunks} chunks, {others} of other content");
}

async fn all_lines(store: &Store, run: &RunId) -> Vec<LogLine> {
    let (mut lines, mut after) = (Vec::new(), LogCursor::default());
    loop {
        let page = store.logs().read(run, None, after, 1_000).await.unwrap();
        lines.extend(page.lines);
        if page.at_end {
            return lines;
        }
        after = page.next;
    }
}
