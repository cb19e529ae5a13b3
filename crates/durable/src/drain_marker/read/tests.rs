use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const EPOCH: &str = "0f3c1d52-9a77-4be1-8b0d-2f7c5a1e9d34:4711";
/// 2026-07-01T12:00:00Z.
const NOW_MS: i64 = 1_782_907_200_000;
const HOUR: Duration = Duration::from_secs(3600);

fn marker(body: &[u8]) -> Found {
    let home = tempfile::tempdir().unwrap();
    fs::write(path_in(home.path()), body).unwrap();
    look(home.path())
}

fn against(known_for: Duration) -> Against<'static> {
    Against { epoch: EPOCH, wall_ms: NOW_MS, known_for, max_age: HOUR }
}

fn drain(body: &[u8]) -> Drain {
    judge(&marker(body), &against(Duration::ZERO))
}

fn active(body: &[u8]) -> Active {
    match drain(body) {
        Drain::Active(active) => *active,
        Drain::Absent(absence) => panic!("{:?}: {absence:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn the_contracts_own_marker_is_read_field_by_field() {
    let body = json!({
        "action": "drain", "requested_at": "2026-07-01T11:59:50.123456+00:00", "principal": "nas",
        "epoch": EPOCH, "suppress_notification": true,
    });
    let read = active(body.to_string().as_bytes());
    assert_eq!(read.principal.as_str(), "nas");
    assert_eq!(read.requested_at.as_deref(), Some("2026-07-01T11:59:50.123456+00:00"));
    assert_eq!(read.age, Duration::from_millis(9_877));
    assert_eq!((read.epoch, read.suppress_notification, read.defect), (EpochMatch::Same, true, None));
    assert_eq!(read.holders.len(), 1);
    assert_eq!(read.holders[0].principal.as_str(), "nas");
}

#[test]
fn what_is_malformed_drains_and_says_why() {
    for (body, why) in [
        (&b""[..], "no JSON object"),
        (b"{", "no JSON object"),
        (b"{\"epoch\":\"other\"", "no JSON object"),
        (b"[{\"epoch\":\"other\"}]", "JSON that is no object"),
        (b"null", "JSON that is no object"),
        (b"\"drain\"", "JSON that is no object"),
        (b"{\"epoch\":\"other\xff\"}", "no UTF-8"),
        (b"\xef\xbb\xbf{\"epoch\":\"other\"}", "no JSON object"),
    ] {
        let read = active(body);
        assert!(read.defect.as_ref().is_some_and(|defect| defect.contains(why)), "{body:?}: {read:?}");
        assert_eq!((read.epoch, read.suppress_notification), (EpochMatch::MarkerHasNone, false));
        assert_eq!(read.principal, Principal::default());
    }
    let large = [b"{\"epoch\":\"other\",\"x\":\"", &vec![b'x'; 70_000][..], b"\"}"].concat();
    assert!(active(&large).defect.is_some_and(|defect| defect.contains("65536")));
}

#[test]
fn only_a_definite_mismatch_of_epochs_is_absent() {
    let with = |epoch: &str| format!("{{\"epoch\":{epoch}}}").into_bytes();
    let own = format!("\"{EPOCH}\"");
    for (epoch, is_active) in [
        (own.as_str(), true),
        ("null", true),
        ("\"\"", true),
        // What the contract's language takes for false is no epoch.
        ("0", true),
        ("0.0", true),
        ("false", true),
        ("[]", true),
        ("{}", true),
        // Another type is another epoch.
        ("7", false),
        ("true", false),
        ("[\"a\"]", false),
        ("{\"a\":1}", false),
        ("\"0f3c1d52-9a77-4be1-8b0d-2f7c5a1e9d34:4712\"", false),
        ("\"0f3c1d52-9a77-4be1-8b0d-2f7c5a1e9d34:\"", false),
        ("\" \"", false),
    ] {
        let found = drain(&with(epoch));
        assert_eq!(matches!(found, Drain::Active(_)), is_active, "{epoch}: {found:?}");
        let unknown = Against { epoch: "", ..against(Duration::ZERO) };
        let unknown = judge(&marker(&with(epoch)), &unknown);
        assert!(
            matches!(&unknown, Drain::Active(active) if active.epoch == EpochMatch::OwnUnknown),
            "{epoch}: an agent that does not know its own epoch calls no marker stale: {unknown:?}"
        );
    }
}

#[test]
fn quiet_is_only_what_is_explicitly_true() {
    for (flag, quiet) in
        [("true", true), ("false", false), ("1", false), ("\"true\"", false), ("null", false), ("[1]", false)]
    {
        let body = format!("{{\"suppress_notification\":{flag}}}");
        assert_eq!(active(body.as_bytes()).suppress_notification, quiet, "{flag}");
    }
    let stale = drain(b"{\"epoch\":\"other\",\"suppress_notification\":true}");
    assert!(matches!(stale, Drain::Absent(Absence::OtherEpoch { .. })), "{stale:?}");
}

#[test]
fn a_time_that_can_be_trusted_ages_the_marker_and_another_counts_from_first_sight() {
    // requested_at, and the age where it is trusted.
    for (at, trusted_s) in [
        ("2026-07-01T11:59:00Z", Some(60)),
        ("2026-07-01T13:59:00+02:00", Some(60)),
        ("2026-07-01T04:29:00-07:30", Some(60)),
        ("2026-07-01 11:59:00Z", Some(60)),
        ("2026-07-01T11:00:00Z", Some(3600)),
        // A writer whose clock is a little ahead.
        ("2026-07-01T12:01:00Z", Some(0)),
        ("2026-07-01T12:01:01Z", None),
        // Without a zone nobody knows when that was.
        ("2026-07-01T11:59:00", None),
        ("2026-07-01", None),
        ("1970-01-01T00:00:07Z", None),
        ("2019-12-31T23:59:59Z", None),
        ("2100-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        let found = marker(json!({"requested_at": at, "epoch": EPOCH}).to_string().as_bytes());
        let age = |known_for| match judge(&found, &against(known_for)) {
            Drain::Active(active) => active.age,
            Drain::Absent(absence) => panic!("{at}: {absence:?}"),
        };
        let known_for = Duration::from_secs(7);
        assert_eq!(age(known_for), trusted_s.map_or(known_for, Duration::from_secs), "{at}");
        let late = judge(&found, &against(HOUR + Duration::from_millis(1)));
        let lapsed = matches!(late, Drain::Absent(Absence::Lapsed { .. }));
        assert_eq!(lapsed, trusted_s.is_none(), "{at}: {late:?}");
    }
    let old = drain(json!({"requested_at": "2026-07-01T10:59:59Z", "principal": "p"}).to_string().as_bytes());
    let Drain::Absent(Absence::Lapsed { age, principal }) = old else { panic!("{old:?}") };
    assert_eq!((age, principal.as_str()), (Duration::from_secs(3601), "p"));
    for at in [json!(NOW_MS), json!(null), json!(["2026-07-01T11:59:00Z"])] {
        let found = marker(json!({"requested_at": at}).to_string().as_bytes());
        assert!(matches!(judge(&found, &against(HOUR)), Drain::Active(_)), "{at}");
    }
}

#[test]
fn what_is_no_readable_regular_file_drains_and_an_empty_home_does_not() {
    let home = tempfile::tempdir().unwrap();
    let path = path_in(home.path());
    assert_eq!(look(home.path()), Found::Nothing);
    assert_eq!(look(Path::new("/nowhere/at/all")), Found::Nothing);
    assert_eq!(look(Path::new("/dev/null/home")), Found::Nothing);
    let mut identities = Vec::new();
    let mut drains = |found: Found| {
        let Found::Marker(marker) = &found else { panic!("{found:?}") };
        assert!(marker.defect.is_some() && marker.body.is_empty(), "{marker:?}");
        identities.push(marker.identity.clone());
        assert!(matches!(judge(&found, &against(Duration::ZERO)), Drain::Active(_)));
    };
    symlink("/nowhere", &path).unwrap();
    drains(look(home.path()));
    fs::remove_file(&path).unwrap();
    // A reader that opened it as a file would wait for a writer.
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    drains(look(home.path()));
    fs::remove_file(&path).unwrap();
    let _socket = UnixListener::bind(&path).unwrap();
    drains(look(home.path()));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    drains(look(home.path()));
    assert_eq!(identities.len(), 4);
}

#[test]
fn every_writing_is_another_marker_and_every_reading_of_it_the_same() {
    let home = tempfile::tempdir().unwrap();
    let identity = || match look(home.path()) {
        Found::Marker(marker) => marker.identity,
        other => panic!("{other:?}"),
    };
    let write = || crate::whole::write_whole(&path_in(home.path()), b"{}", &Default::default()).unwrap();
    write();
    let first = identity();
    assert_eq!(identity(), first);
    // The new file is made while the old one still stands, and so has another inode.
    write();
    assert_ne!(identity(), first);
}

#[test]
fn holders_are_named_and_one_that_lapsed_asks_no_more() {
    let holder = |at: &str, quiet| json!({"requested_at": at, "suppress_notification": quiet});
    let body = json!({
        "requested_at": "2026-07-01T11:59:00Z", "principal": "b", "suppress_notification": false,
        "holders": {
            "gone": holder("2026-07-01T10:00:00Z", true), "a": holder("2026-07-01T11:30:00Z", true),
            "b": holder("2026-07-01T11:59:00Z", false), "c": 7,
        },
    });
    let read = active(body.to_string().as_bytes());
    let names: Vec<&str> = read.holders.iter().map(|holder| holder.principal.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(read.holders[0].suppress_notification && !read.holders[1].suppress_notification);
    for holders in
        [json!([]), json!({}), json!(null), json!("a"), json!({"x": holder("2026-07-01T10:00:00Z", true)})]
    {
        let body = json!({"principal": "p", "holders": holders}).to_string();
        assert_eq!(active(body.as_bytes()).holders[0].principal.as_str(), "p", "{holders}");
    }
}

/// JSON that resembles a marker.
fn near_markers() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("0".to_owned()),
        Just("1e400".to_owned()),
        Just(format!("{EPOCH:?}")),
        Just("\"other\"".to_owned()),
        Just("\"2026-07-01T11:59:00Z\"".to_owned()),
        Just("\"-262143-01-01T00:00:00Z\"".to_owned()),
        Just("[[]]".to_owned()),
        Just("{\"a\":{\"requested_at\":7}}".to_owned()),
        ".{0,20}".prop_map(|text| format!("{text:?}")),
    ];
    let name = prop_oneof![
        Just("action"),
        Just("requested_at"),
        Just("principal"),
        Just("epoch"),
        Just("suppress_notification"),
        Just("holders")
    ];
    let fields = prop::collection::vec((name, value), 0..8);
    (fields, any::<Option<prop::sample::Index>>()).prop_map(|(fields, cut)| {
        let inner: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let mut bytes = format!("{{{}}}", inner.join(",")).into_bytes();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

/// The contract in the words of its own language: stale only with an epoch that counts as true and is another.
fn definitely_stale(bytes: &[u8]) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(bytes) else { return false };
    let Some(epoch) = fields.get("epoch") else { return false };
    let falsy =
        [json!(null), json!(""), json!(0), json!(0.0), json!(-0.0), json!(false), json!([]), json!({})];
    !falsy.contains(epoch) && *epoch != json!(EPOCH)
}

fn check(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let found = match parse(bytes) {
        Ok(body) => Marker { body, defect: None, identity: Identity::from_text("1") },
        Err(defect) => {
            Marker { body: Fields::new(), defect: Some(defect), identity: Identity::from_text("1") }
        }
    };
    let found = Found::Marker(found);
    // Before anything can lapse only the epoch counts.
    let young = Against { max_age: Duration::MAX, ..against(Duration::ZERO) };
    let drains = matches!(judge(&found, &young), Drain::Active(_));
    prop_assert_eq!(drains, !definitely_stale(bytes), "{:?}", String::from_utf8_lossy(bytes));
    if let Drain::Active(active) = judge(&found, &young) {
        prop_assert!(!active.holders.is_empty());
    }
    // Whatever it says, in the end it lapses.
    let late = Against { wall_ms: i64::MAX, ..against(HOUR + Duration::from_secs(1)) };
    prop_assert!(matches!(judge(&found, &late), Drain::Absent(_)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_drain_unless_they_are_definitely_stale(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn anything_like_a_marker_drains_unless_it_is_definitely_stale(bytes in near_markers()) {
        check(&bytes)?;
    }

    #[test]
    fn any_bytes_in_the_file_are_read_as_their_parse(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let Found::Marker(found) = marker(&bytes) else { panic!("nothing found") };
        prop_assert_eq!(found.defect.is_none(), parse(&bytes).is_ok());
    }
}
