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
    let (failed, total) = search(seeds, World::of);
    println!("{seeds} seeds: {total:?}");
    if let Some(seed) = failed {
        panic!("{}", told(seed, World::of).expect("a seed fails each time"));
    }
    // The seeds must have seen what they are for.
    assert!(
        total.completed > 0 && total.crashes > 0 && total.resets > 0 && total.restores > 0 && total.lost > 0
    );
    assert!(total.drains > 0 && total.told_idle > 0 && total.waited > 0 && total.hooks > 0);
    assert!(total.server_deaths > 0 && total.reboots > 0 && total.proved > 0 && total.missed > 0);
}

/// Runs the worlds of so many seeds: one that fails, and what all led to.
fn search(seeds: u64, world_of: impl Fn(u64) -> World + Sync) -> (Option<u64>, Tally) {
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<u64>> = Mutex::new(None);
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
                    let mut world = world_of(seed);
                    let broken = run(&mut world);
                    *total.lock().unwrap() += world.tally;
                    if broken.is_some() {
                        let mut failed = failed.lock().unwrap();
                        // The lowest of those that fail at once, so that the same one is named each time.
                        *failed = Some(failed.map_or(seed, |known: u64| known.min(seed)));
                    }
                }
            });
        }
    });
    let failed = *failed.lock().unwrap();
    (failed, *total.lock().unwrap())
}

/// Runs a world. What did not hold in it.
fn run(world: &mut World) -> Option<String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(_) => Some("it panicked".to_owned()),
    }
}

/// What is told of a seed that fails: its history, what did not hold at the end of it, and how to see it again.
fn told(seed: u64, world_of: impl Fn(u64) -> World) -> Option<String> {
    let mut world = world_of(seed);
    let broken = run(&mut world)?;
    let history = world.history.join("\n");
    Some(format!(
        "{history}\nseed {seed}: {broken}\nreplay it with GROUNDCREW_MODEL_SEED={seed} cargo test -p groundcrew-tests \
         --test model"
    ))
}

fn replay(seed: u64) {
    match told(seed, World::of) {
        Some(told) => panic!("{told}"),
        None => println!("seed {seed}: all holds"),
    }
}

/// A seed says all: whatever it led to once, it leads to again.
#[test]
fn a_seed_has_one_history() {
    for seed in 0..20 {
        let (mut first, mut second) = (World::of(seed), World::of(seed));
        assert_eq!((run(&mut first), run(&mut second)), (None, None), "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
        assert_eq!(first.tally.steps, second.tally.steps, "seed {seed}");
        assert!(first.history.len() > 10, "seed {seed}: {:?}", first.history);
    }
}

#[test]
fn a_seed_that_fails_tells_its_history_and_how_to_see_it_again() {
    const FAILS: u64 = 5;
    const STEP: u64 = 200;
    let world_of = |seed| match seed {
        FAILS => World::of(seed).breaking_at(STEP),
        _ => World::of(seed),
    };
    let (failed, _total) = search(8, world_of);
    assert_eq!(failed, Some(FAILS));
    let told = told(FAILS, world_of).unwrap();
    assert!(told.contains("GROUNDCREW_MODEL_SEED=5 cargo test"), "{told}");
    let (history, broken) = told.split_once("\nseed 5: ").unwrap();
    assert!(broken.starts_with("step 200 breaks"), "{broken}");
    // From the first line on, as the whole world has it, and no further than the step.
    let mut whole = World::of(FAILS);
    assert_eq!(run(&mut whole), None);
    let told: Vec<&str> = history.lines().collect();
    assert!(told.len() > 10 && told.len() < whole.history.len(), "{} lines", told.len());
    assert_eq!(told, whole.history[..told.len()]);
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
