use std::fs;

use super::super::path_in;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// 2026-07-01T12:00:00Z.
const WALL_MS: i64 = 1_782_907_200_000;
const BOOT_MS: u64 = 100_000;

fn after(ms: u64) -> Now {
    Now { wall_ms: WALL_MS + ms as i64, boot_ms: BOOT_MS + ms }
}

fn write(home: &Path, body: &str) {
    write_whole(&path_in(home), body.as_bytes(), &Options::default()).unwrap();
}

fn is_active(drain: &Drain) -> bool {
    matches!(drain, Drain::Active(_))
}

#[test]
fn a_marker_without_a_time_ages_from_first_sight_over_restarts_of_the_agent() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "{}");
    let look = |boot, ms| Reader::new(home.path(), boot, HOUR).look("epoch", after(ms));
    assert!(is_active(&look("boot", 0).drain));
    let again = look("boot", 3_600_000);
    let Drain::Active(active) = &again.drain else { panic!("{again:?}") };
    assert_eq!(active.age, HOUR);
    // Another boot sees it for the first time, and so does a home that was written anew.
    assert!(is_active(&look("later boot", 3_600_001).drain));
    write(home.path(), "{}");
    assert!(is_active(&look("boot", 3_600_001).drain));
    let lapsed = look("boot", 7_200_002);
    assert!(lapsed.lapses_now && !is_active(&lapsed.drain), "{lapsed:?}");
    let said = look("boot", 7_200_003);
    assert!(!said.lapses_now && !is_active(&said.drain), "{said:?}");
}

#[test]
fn a_marker_that_lapsed_stays_so_when_the_clock_goes_back_until_it_is_written_anew() {
    let home = tempfile::tempdir().unwrap();
    let body = r#"{"requested_at":"2026-07-01T11:59:00Z"}"#;
    write(home.path(), body);
    let mut reader = Reader::new(home.path(), "boot", HOUR);
    assert!(is_active(&reader.look("epoch", after(0)).drain));
    assert!(!home.path().join(FILE_NAME).exists(), "an ordinary drain writes nothing besides");
    assert!(reader.look("epoch", after(3_600_000)).lapses_now);
    let mut next = Reader::new(home.path(), "next boot", HOUR);
    for reader in [&mut reader, &mut next] {
        let back = reader.look("epoch", after(0));
        assert!(matches!(back.drain, Drain::Absent(Absence::Lapsed { .. })) && !back.lapses_now, "{back:?}");
    }
    write(home.path(), body);
    assert!(is_active(&reader.look("epoch", after(0)).drain));
}

#[test]
fn what_cannot_be_kept_is_said_and_counts_for_the_life_of_the_reader() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "{}");
    fs::create_dir(home.path().join(FILE_NAME)).unwrap();
    let mut reader = Reader::new(home.path(), "boot", HOUR);
    let first = reader.look("epoch", after(0));
    assert!(is_active(&first.drain) && first.unkept.is_some(), "{first:?}");
    let second = reader.look("epoch", after(1));
    assert!(second.unkept.is_none(), "nothing changed, nothing is written: {second:?}");
    assert!(reader.look("epoch", after(3_600_001)).lapses_now);
    assert!(!is_active(&reader.peek("epoch", after(3_600_002))));
}

#[test]
fn a_broken_memory_is_none() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "{}");
    for content in
        ["", "[]", "{\"marker\":7}", "{\"marker\":\"a\",\"boot_id\":\"b\",\"first_seen_boot_ms\":-1}"]
    {
        fs::write(home.path().join(FILE_NAME), content).unwrap();
        let looked = Reader::new(home.path(), "boot", HOUR).look("epoch", after(0));
        assert!(is_active(&looked.drain) && looked.unkept.is_none(), "{content}: {looked:?}");
    }
}

#[test]
fn a_marker_of_another_boot_is_not_remembered() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "{\"epoch\":\"other\"}");
    let looked = Reader::new(home.path(), "boot", HOUR).look("epoch", after(0));
    assert!(matches!(looked.drain, Drain::Absent(Absence::OtherEpoch { .. })));
    assert!(!home.path().join(FILE_NAME).exists());
}
