use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::drain_marker::read::Absence;

const EPOCH: &str = "boot:1";
/// 2026-07-01T12:00:00Z.
const NOW_MS: i64 = 1_782_907_200_000;
const MINUTE_MS: i64 = 60_000;

fn at(minutes: i64) -> When<'static> {
    let now = Now { wall_ms: NOW_MS + minutes * MINUTE_MS, boot_ms: (minutes * MINUTE_MS).cast_unsigned() };
    When { epoch: EPOCH, boot_id: "boot", now, max_age: Duration::from_secs(3600) }
}

fn who(name: &str) -> Principal {
    name.parse().unwrap()
}

fn read(home: &Path, when: &When<'_>) -> Option<Active> {
    match judge_here(home, when).1 {
        Drain::Active(active) => Some(*active),
        Drain::Absent(_) => None,
    }
}

fn names_of(active: &Active) -> Vec<&str> {
    active.holders.iter().map(|holder| holder.principal.as_str()).collect()
}

#[test]
fn a_marker_has_the_contracts_fields_in_their_order_and_the_holders_behind() {
    let home = tempfile::tempdir().unwrap();
    let body = begin(home.path(), &who("nas"), true, &at(0)).unwrap();
    let expected = json!({
        "action": "drain", "requested_at": "2026-07-01T12:00:00+00:00", "principal": "nas", "epoch": EPOCH,
        "suppress_notification": true,
        "holders": {"nas": {"requested_at": "2026-07-01T12:00:00+00:00", "suppress_notification": true}},
    });
    assert_eq!(Value::Object(body.clone()).to_string(), expected.to_string());
    let written: Fields = serde_json::from_slice(&fs::read(path_in(home.path())).unwrap()).unwrap();
    assert_eq!(written, body);
}

#[test]
fn two_who_ask_do_not_take_off_each_others_drain() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    begin(home, &who("a"), true, &at(0)).unwrap();
    begin(home, &who("b"), false, &at(10)).unwrap();
    let both = read(home, &at(10)).unwrap();
    assert_eq!((names_of(&both), both.suppress_notification), (vec!["a", "b"], false), "louder wins");
    assert_eq!(
        cancel(home, Whom::One(&who("c")), &at(11)).unwrap(),
        Cancelled::NotAHolder(vec![who("a"), who("b")])
    );
    assert_eq!(cancel(home, Whom::One(&who("b")), &at(11)).unwrap(), Cancelled::StillHeld(vec![who("a")]));
    // Taking b off has renewed nothing of a's.
    let left = read(home, &at(11)).unwrap();
    assert_eq!((names_of(&left), left.principal.as_str()), (vec!["a"], "a"));
    assert_eq!((left.age, left.suppress_notification), (Duration::from_secs(11 * 60), true));
    assert!(read(home, &at(61)).is_none());
    assert_eq!(cancel(home, Whom::One(&who("a")), &at(12)).unwrap(), Cancelled::Gone);
    assert_eq!(cancel(home, Whom::One(&who("a")), &at(12)).unwrap(), Cancelled::NothingThere);
}

#[test]
fn a_plain_cancel_and_a_removal_by_hand_free_all() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for name in ["a", "b", "c"] {
        begin(home, &who(name), false, &at(0)).unwrap();
    }
    assert_eq!(cancel(home, Whom::All, &at(0)).unwrap(), Cancelled::Gone);
    assert!(!path_in(home).exists());
    begin(home, &who("a"), false, &at(0)).unwrap();
    fs::remove_file(path_in(home)).unwrap();
    assert_eq!(cancel(home, Whom::All, &at(0)).unwrap(), Cancelled::NothingThere);
    assert_eq!(cancel(&home.join("absent"), Whom::All, &at(0)).unwrap(), Cancelled::NothingThere);
}

#[test]
fn a_marker_by_others_keeps_its_principal_as_a_holder_and_what_it_says_besides() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(path_in(home), r#"{"principal":"nas","requested_at":"2026-07-01T11:50:00+00:00","ticket":7}"#)
        .unwrap();
    let body = begin(home, &who("a"), false, &at(0)).unwrap();
    assert_eq!(body["ticket"], 7);
    assert_eq!(names_of(&read(home, &at(0)).unwrap()), ["nas", "a"]);
    assert_eq!(cancel(home, Whom::One(&who("a")), &at(0)).unwrap(), Cancelled::StillHeld(vec![who("nas")]));
    assert_eq!(read(home, &at(0)).unwrap().age, Duration::from_secs(600));
    // One that says nothing at all is held by whoever wrote it, who has the contract's default name.
    fs::write(path_in(home), "{").unwrap();
    begin(home, &who("a"), true, &at(0)).unwrap();
    let joined = read(home, &at(0)).unwrap();
    assert_eq!((names_of(&joined), joined.suppress_notification), (vec!["drain-control", "a"], false));
}

#[test]
fn a_marker_that_no_longer_counts_is_replaced_with_its_holders() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    begin(home, &who("old"), true, &When { epoch: "boot:0", ..at(0) }).unwrap();
    begin(home, &who("a"), true, &at(1)).unwrap();
    assert_eq!(names_of(&read(home, &at(1)).unwrap()), ["a"]);
    begin(home, &who("b"), true, &at(90)).unwrap();
    assert_eq!(names_of(&read(home, &at(90)).unwrap()), ["b"]);
    // A cancel takes one away that no longer counts, and says that no drain was on.
    let later = When { epoch: "boot:2", ..at(91) };
    assert_eq!(cancel(home, Whom::One(&who("x")), &later).unwrap(), Cancelled::NothingThere);
    assert!(!path_in(home).exists());
}

#[test]
fn a_renewal_keeps_a_marker_alive_and_never_makes_one() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let lapsed = |renewed: Renewed| match renewed {
        Renewed::Lapsed(drain) => drain,
        Renewed::Fresh(_) => panic!("it was renewed"),
    };
    let none = lapsed(renew(home, None, &at(0)).unwrap());
    assert_eq!(none, Drain::Absent(Absence::NoMarker));
    begin(home, &who("a"), true, &at(0)).unwrap();
    begin(home, &who("b"), true, &at(0)).unwrap();
    assert_eq!(renew(home, Some(&who("a")), &at(50)).unwrap(), Renewed::Fresh(who("a")));
    let then = read(home, &at(100)).unwrap();
    assert_eq!((names_of(&then), then.age), (vec!["a"], Duration::from_secs(50 * 60)), "b has not renewed");
    assert!(matches!(lapsed(renew(home, Some(&who("b")), &at(100)).unwrap()), Drain::Active(_)));
    assert_eq!(renew(home, None, &at(100)).unwrap(), Renewed::Fresh(who("a")));
    let late = lapsed(renew(home, None, &at(161)).unwrap());
    assert!(matches!(late, Drain::Absent(Absence::Lapsed { .. })), "{late:?}");
    assert!(read(home, &at(161)).is_none());
}

/// The agent, which keeps since when it knows the marker.
fn sees(home: &Path, minutes: i64) -> Drain {
    let when = at(minutes);
    Reader::new(home, when.boot_id, when.max_age).look(EPOCH, when.now).drain
}

#[test]
fn a_marker_without_a_time_that_lapsed_is_brought_back_by_nobody() {
    for text in
        ["{}", r#"{"requested_at":"1970-01-01T00:00:00Z"}"#, r#"{"requested_at":"2100-01-01T00:00:00Z"}"#]
    {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let lapsed = || {
            fs::write(path_in(home), text).unwrap();
            assert!(matches!(sees(home, 0), Drain::Active(_)) && matches!(sees(home, 61), Drain::Absent(_)));
        };
        lapsed();
        let renewed = renew(home, None, &at(62)).unwrap();
        assert!(matches!(renewed, Renewed::Lapsed(Drain::Absent(Absence::Lapsed { .. }))), "{renewed:?}");
        assert!(matches!(sees(home, 62), Drain::Absent(_)), "{text}");
        begin(home, &who("a"), true, &at(62)).unwrap();
        assert_eq!(names_of(&read(home, &at(62)).unwrap()), ["a"], "{text}");
        lapsed();
        let cancelled = cancel(home, Whom::One(&who("a")), &at(62)).unwrap();
        assert_eq!((cancelled, path_in(home).exists()), (Cancelled::NothingThere, false), "{text}");
    }
}

#[test]
fn a_holder_without_a_time_is_renewed_by_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(path_in(home), "{}").unwrap();
    sees(home, 0);
    for minutes in [30, 45, 60] {
        begin(home, &who("a"), false, &at(minutes)).unwrap();
        assert_eq!(names_of(&read(home, &at(minutes)).unwrap()), ["drain-control", "a"]);
        assert_eq!(
            cancel(home, Whom::One(&who("a")), &at(minutes)).unwrap(),
            Cancelled::StillHeld(vec![who("drain-control")])
        );
    }
    begin(home, &who("a"), false, &at(61)).unwrap();
    assert_eq!(names_of(&read(home, &at(61)).unwrap()), ["a"]);
}

#[test]
fn a_renewal_without_a_name_keeps_up_one_who_asks_and_no_dead_one() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    begin(home, &who("dead"), false, &at(0)).unwrap();
    begin(home, &who("a"), false, &at(1)).unwrap();
    for minutes in [20, 40, 60] {
        assert_eq!(renew(home, None, &at(minutes)).unwrap(), Renewed::Fresh(who("a")));
    }
    assert_eq!(names_of(&read(home, &at(61)).unwrap()), ["a"], "the dead one has lapsed");
    begin(home, &Principal::default(), false, &at(62)).unwrap();
    begin(home, &who("b"), false, &at(63)).unwrap();
    assert_eq!(renew(home, None, &at(64)).unwrap(), Renewed::Fresh(Principal::default()));
    // Whoever wrote last is no holder any more.
    fs::write(
        path_in(home),
        r#"{"principal":"x","requested_at":"2026-07-01T13:04:00Z","holders":{
            "a":{"requested_at":"2026-07-01T13:02:00Z"},"b":{"requested_at":"2026-07-01T13:03:00Z"}}}"#,
    )
    .unwrap();
    assert_eq!(renew(home, None, &at(65)).unwrap(), Renewed::Fresh(who("b")));
}

#[test]
fn holders_have_a_limit_and_what_is_no_file_is_refused_whole() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for number in 0..HOLDERS_MAX {
        begin(home, &who(&format!("{number}-{}", "x".repeat(200))), true, &at(0)).unwrap();
    }
    assert!(matches!(begin(home, &who("one more"), true, &at(0)), Err(Error::TooManyHolders { .. })));
    assert_eq!(read(home, &at(0)).unwrap().holders.len(), HOLDERS_MAX, "the largest marker is still read");
    // Whoever holds it already may ask again.
    begin(home, &who(&format!("7-{}", "x".repeat(200))), true, &at(1)).unwrap();
    fs::remove_file(path_in(home)).unwrap();
    fs::create_dir(path_in(home)).unwrap();
    assert!(matches!(begin(home, &who("a"), true, &at(0)), Err(Error::NotAFile { found: "a folder", .. })));
    assert!(cancel(home, Whom::All, &at(0)).is_err());
}

/// What askers do to the marker, in any order.
#[derive(Debug, Clone)]
enum Step {
    Begin(u8, bool),
    Renew(u8),
    Cancel(u8),
    CancelAll,
    ByHand,
    Minutes(i64),
    Reboot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8, any::<bool>()).prop_map(|(who, quiet)| Step::Begin(who, quiet)),
        2 => (0..4_u8).prop_map(Step::Renew),
        3 => (0..4_u8).prop_map(Step::Cancel),
        1 => Just(Step::CancelAll),
        1 => Just(Step::ByHand),
        3 => (1..40_i64).prop_map(Step::Minutes),
        1 => Just(Step::Reboot),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The model: who asked in this boot, when, how quietly; who has not within the hour asks no more.
    #[test]
    fn any_order_of_askers_leaves_those_who_ask(steps in steps()) {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let mut model: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        let (mut minute, mut boot) = (0, 0);
        for step in steps {
            let epoch = format!("boot:{boot}");
            let when = When { epoch: &epoch, ..at(minute) };
            let name = |number: u8| who(&format!("p{number}"));
            match step {
                Step::Begin(number, quiet) => {
                    begin(home, &name(number), quiet, &when).unwrap();
                    model.insert(name(number).to_string(), (minute, quiet));
                }
                Step::Renew(number) => {
                    let renewed = renew(home, Some(&name(number)), &when).unwrap();
                    let fresh = renewed == Renewed::Fresh(name(number));
                    let known = model.get_mut(name(number).as_str());
                    prop_assert_eq!(fresh, known.is_some());
                    if let Some((at, _)) = known { *at = minute; }
                }
                Step::Cancel(number) => {
                    let known = model.remove(name(number).as_str()).is_some();
                    let expected = match (known, model.is_empty()) {
                        (true, true) => Cancelled::Gone,
                        (false, true) => Cancelled::NothingThere,
                        (true, false) => Cancelled::StillHeld(Vec::new()),
                        (false, false) => Cancelled::NotAHolder(Vec::new()),
                    };
                    let found = match cancel(home, Whom::One(&name(number)), &when).unwrap() {
                        Cancelled::StillHeld(_) => Cancelled::StillHeld(Vec::new()),
                        Cancelled::NotAHolder(_) => Cancelled::NotAHolder(Vec::new()),
                        other => other,
                    };
                    prop_assert_eq!(found, expected);
                }
                Step::CancelAll => {
                    cancel(home, Whom::All, &when).unwrap();
                    model.clear();
                }
                Step::ByHand => {
                    let removed = fs::remove_file(path_in(home));
                    prop_assert!(removed.is_ok() || model.is_empty());
                    model.clear();
                }
                Step::Minutes(minutes) => minute += minutes,
                Step::Reboot => { boot += 1; model.clear(); }
            }
            model.retain(|_, (at, _)| minute - *at <= 60);
            let epoch = format!("boot:{boot}");
            let active = read(home, &When { epoch: &epoch, ..at(minute) });
            let mut names: Vec<String> = active.iter().flat_map(names_of).map(str::to_owned).collect();
            names.sort();
            prop_assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
            if let Some(active) = active {
                // A lapsed holder who wanted noise is heard until the next writing, which is the louder side.
                prop_assert!(!active.suppress_notification || model.values().all(|(_, quiet)| *quiet));
            }
        }
    }
}
