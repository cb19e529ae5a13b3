//! Measurements, not tests: `cargo test --release -p groundcrew-orchestrator --lib measure -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

/// Callers at a time: connections of a busy server.
const CALLERS: usize = 256;

async fn many<F: Future<Output = ()> + Send + 'static>(each: impl Fn(usize) -> F) {
    let tasks: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(each(caller))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Beside the machine's temporary folder, which may be in memory: the folder that the build uses.
fn folder() -> tempfile::TempDir {
    let target = std::env::current_exe().unwrap();
    tempfile::tempdir_in(target.parent().unwrap()).unwrap()
}

#[ignore = "a measurement: prints changes of runs per second"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_per_second() {
    const ROUNDS: usize = 80;
    let data = folder();
    let store = open(data.path()).await;
    let doc = format!("\"{}\"", "x".repeat(6_000));
    let (shared, doc) = (store.clone(), Arc::new(doc));
    let began = Instant::now();
    many(move |caller| {
        let (store, doc) = (shared.clone(), doc.clone());
        async move {
            let run = run_id(&format!("r-{caller}"));
            for _round in 0..ROUNDS {
                put(&store, &run, &doc, None).await;
            }
        }
    })
    .await;
    let rate = (CALLERS * ROUNDS) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} changes of runs per second, {CALLERS} callers, documents of 6 kB, an event each");

    let shared = store.clone();
    let began = Instant::now();
    many(move |caller| {
        let store = shared.clone();
        async move {
            for round in 0..ROUNDS {
                let key = format!("{caller}-{round}");
                let insert = "INSERT INTO settings (key, value) VALUES (?, 'x')";
                let inserted = store.inner.writer.small(move |connection| {
                    Box::pin(async move {
                        let done = sqlx::query(insert).bind(key).execute(connection).await;
                        done.map(|_done| ()).map_err(StoreError::database("inserting"))
                    })
                });
                inserted.await.unwrap();
            }
        }
    })
    .await;
    let rate = (CALLERS * ROUNDS) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} group-committed inserts of one small row per second, each in a savepoint");
}

#[ignore = "a measurement: prints lines of log per second"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_per_second() {
    const ROUNDS: u64 = 40;
    const LINES: usize = 600;
    let data = folder();
    let store = open(data.path()).await;
    let shared = store.clone();
    let began = Instant::now();
    many(move |caller| {
        let store = shared.clone();
        async move {
            let run = run_id(&format!("r-{caller}"));
            for seq in 0..ROUNDS {
                let text = |number: usize| {
                    let word = (caller * 7_919 + number * 104_729 + seq as usize * 31) % 999_983;
                    format!("stress-ng: info: [{word:06}] worker {number:04} did {:010} bogo operations of {:>40}", word * 17, seq)
                };
                let mut chunk = chunk(&run, 1, seq, &[]);
                chunk.lines = (0..LINES).map(|number| line(Some("CPUStress"), &text(number))).collect();
                assert_eq!(store.logs().append(chunk).await.unwrap(), Taken::First);
            }
        }
    })
    .await;
    let lines = CALLERS as f64 * ROUNDS as f64 * LINES as f64;
    let seconds = began.elapsed().as_secs_f64();
    let stored: u64 =
        crate::store::logs::segment::list(&data.path().join("logs")).unwrap().iter().map(|one| one.1).sum();
    println!(
        "{:.0} lines of about 100 bytes per second, making them included; {:.1} bytes stored for each",
        lines / seconds,
        stored as f64 / lines
    );
}
