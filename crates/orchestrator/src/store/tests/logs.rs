use groundcrew_protocol::wire::LogGap;
use proptest::prelude::*;

use super::*;

async fn all_lines(store: &Store, run: &RunId, stage: Option<&Stage>, limit: usize) -> Vec<LogLine> {
    let mut lines = Vec::new();
    let mut after = LogCursor::default();
    loop {
        let page = store.logs().read(run, stage, after, limit).await.unwrap();
        assert!(page.lines.len() <= limit);
        lines.extend(page.lines);
        if page.at_end {
            return lines;
        }
        assert!(page.next > after, "a page that is not the last moves on");
        after = page.next;
    }
}

#[tokio::test]
async fn a_chunk_is_stored_once_and_other_content_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    let logs = store.logs();
    assert_eq!(logs.append(chunk(&run, 1, 0, &["a"])).await.unwrap(), Taken::First);
    let mut later_claim = chunk(&run, 1, 0, &["a"]);
    later_claim.claim = ClaimNumber(2);
    later_claim.at = WallMs(99);
    assert_eq!(logs.append(later_claim).await.unwrap(), Taken::Repeated);
    assert_eq!(logs.append(chunk(&run, 1, 0, &["b"])).await.unwrap(), Taken::OtherContent);
    let mut closing = chunk(&run, 1, 0, &["a"]);
    closing.closes = true;
    assert_eq!(logs.append(closing).await.unwrap(), Taken::OtherContent);
    // The same numbers of another stream or run are other chunks.
    assert_eq!(logs.append(chunk(&run, 2, 0, &["c"])).await.unwrap(), Taken::First);
    assert_eq!(logs.append(chunk(&run_id("r-2"), 1, 0, &["d"])).await.unwrap(), Taken::First);
    let lines: Vec<String> =
        all_lines(&store, &run, None, 100).await.into_iter().map(|line| line.text).collect();
    assert_eq!(lines, ["a", "c"]);
}

#[tokio::test]
async fn the_same_chunk_many_times_at_once_is_first_once() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, run) = (store.clone(), run.clone());
            let text = if number % 4 == 3 { "other" } else { "same" };
            tokio::spawn(async move { store.logs().append(chunk(&run, 1, 0, &[text])).await.unwrap() })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        first += usize::from(task.await.unwrap() == Taken::First);
    }
    assert_eq!(first, 1);
    assert_eq!(all_lines(&store, &run, None, 100).await.len(), 1);
}

#[tokio::test]
async fn sensors_are_stored_once() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    let (first, second, third) = tokio::join!(
        store.append_sensors(batch(&run, 0, 41.0)),
        store.append_sensors(batch(&run, 0, 41.0)),
        store.append_sensors(batch(&run, 0, 42.0)),
    );
    assert_eq!(
        [first.unwrap(), second.unwrap(), third.unwrap()],
        [Taken::First, Taken::Repeated, Taken::OtherContent]
    );
    assert_eq!(store.append_sensors(batch(&run, 1, 43.5)).await.unwrap(), Taken::First);
    let values: Vec<f64> = store.sensors(&run).await.unwrap().iter().map(|sample| sample.value).collect();
    assert_eq!(values, [41.0, 43.5]);
}

#[tokio::test]
async fn gaps_are_told() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    put(&store, &run, "0", None).await;
    let logs = store.logs();
    for seq in [0, 1, 4] {
        logs.append(chunk(&run, 1, seq, &["x"])).await.unwrap();
    }
    let mut marked = chunk(&run, 1, 7, &["y"]);
    marked.gap = Some(LogGap { chunks: 2, bytes: 512, why: "the spool was full".into() });
    logs.append(marked).await.unwrap();
    let gaps = logs.gaps(&run, false).await.unwrap();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps[0].contains("chunks 2 to 3 are missing"), "{gaps:?}");
    assert!(gaps[1].contains("2 chunks (512 bytes)") && gaps[1].contains("the spool was full"), "{gaps:?}");

    // A later claim with another stream: nothing more comes of the first.
    let mut next = chunk(&run, 2, 0, &["z"]);
    next.claim = ClaimNumber(2);
    logs.append(next).await.unwrap();
    let gaps = logs.gaps(&run, false).await.unwrap();
    assert!(gaps.len() == 3 && gaps[2].contains("without its closing mark"), "{gaps:?}");

    put(&store, &run, "1", Some(50)).await;
    assert_eq!(logs.gaps(&run, false).await.unwrap().len(), 4);
    assert_eq!(logs.gaps(&run, true).await.unwrap().len(), 3, "the last stream may still be closed");
    for (number, seq) in [(1, 8), (2, 1)] {
        let mut closing = chunk(&run, number, seq, &[]);
        closing.closes = true;
        logs.append(closing).await.unwrap();
    }
    assert_eq!(logs.gaps(&run, false).await.unwrap().len(), 2);
    store.append_sensors(batch(&run, 3, 1.0)).await.unwrap();
    let gaps = logs.gaps(&run, false).await.unwrap();
    assert!(gaps.len() == 4 && gaps[2].contains("sensors") && gaps[2].contains("chunks 0 to 2"), "{gaps:?}");

    // What the agent says of its readings is told as what it says of its lines.
    let mut marked = batch(&run, 6, 1.0);
    marked.gap = Some(LogGap { chunks: 2, bytes: 96, why: "the spool was full of readings".into() });
    assert_eq!(store.append_sensors(marked.clone()).await.unwrap(), Taken::First);
    assert_eq!(store.append_sensors(marked.clone()).await.unwrap(), Taken::Repeated);
    let unmarked = SensorBatch { gap: None, ..marked };
    assert_eq!(store.append_sensors(unmarked).await.unwrap(), Taken::OtherContent);
    let gaps = logs.gaps(&run, false).await.unwrap();
    let told = "2 chunks (96 bytes) were let go before chunk 6: the spool was full of readings";
    assert!(gaps.len() == 5 && gaps[3].starts_with("sensors") && gaps[3].contains(told), "{gaps:?}");
}

#[tokio::test]
async fn a_garbled_frame_is_an_error_that_names_it() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let run = run_id("r-1");
    store.logs().append(chunk(&run, 1, 0, &["a line of some length, a line of some length"])).await.unwrap();
    let path = data.path().join("logs/1.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let error = store.logs().read(&run, None, LogCursor::default(), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }) && error.to_string().contains("1.seg"), "{error}");
}

const STAGES: [Option<&str>; 3] = [None, Some("CPUStress"), Some("SMART")];

#[derive(Debug, Clone)]
struct Sent {
    stream: u8,
    seq: u64,
    lines: Vec<(usize, String)>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let line = (0..STAGES.len(), "[a-zé\\n\"]{0,12}");
    (0..3_u8, 0..6_u64, prop::collection::vec(line, 0..12)).prop_map(|(stream, seq, lines)| Sent {
        stream,
        seq,
        lines,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is sent, repeated or contradicted: what reads back is what a plain list of first chunks holds.
    #[test]
    fn reading_gives_what_a_plain_model_holds(all in prop::collection::vec(sent(), 1..40), limit in 1..30_usize, reopen in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let data = tempfile::tempdir().unwrap();
            let mut store = open(data.path()).await;
            let run = run_id("r-1");
            let mut model: Vec<Sent> = Vec::new();
            for (number, one) in all.iter().enumerate() {
                if reopen && number == all.len() / 2 {
                    store.close().await.unwrap();
                    store = open(data.path()).await;
                }
                let mut chunk = chunk(&run, one.stream, one.seq, &[]);
                chunk.lines = one.lines.iter().map(|(stage, text)| line(STAGES[*stage], text)).collect();
                let known = model.iter().find(|known| known.stream == one.stream && known.seq == one.seq);
                let expected = match known {
                    None => Taken::First,
                    Some(known) if known.lines == one.lines => Taken::Repeated,
                    Some(_other) => Taken::OtherContent,
                };
                assert_eq!(store.logs().append(chunk).await.unwrap(), expected);
                if expected == Taken::First {
                    model.push(one.clone());
                }
            }
            for stage in STAGES.map(|stage| stage.map(Stage::from)) {
                let expected: Vec<LogLine> = model
                    .iter()
                    .flat_map(|known| &known.lines)
                    .map(|(stage, text)| line(STAGES[*stage], text))
                    .filter(|line| stage.is_none() || line.stage == stage)
                    .collect();
                assert_eq!(all_lines(&store, &run, stage.as_ref(), limit).await, expected);
                let tail = store.logs().tail(&run, stage.as_ref(), limit).await.unwrap();
                assert_eq!(tail, expected[expected.len().saturating_sub(limit)..]);
            }
        });
    }
}
