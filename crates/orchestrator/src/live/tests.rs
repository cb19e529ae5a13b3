//! What is known for the moment, with a clock that is moved by hand.

use std::time::Duration;

use groundcrew_protocol::ids::TokenText;
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::wire::ClaimRequest;

use super::*;
use crate::run::decide::{Answer, Input, NewRun, OrderKind, create, decide};

const MINUTE_MS: u64 = 60_000;

fn now(listened_ms: u64) -> Now {
    Now { wall: WallMs(1_000), listened_ms, heard_ms: listened_ms }
}

fn new_run() -> Run {
    let profile = "name = \"p\"\n[[stage]]\nname = \"Soak\"\ndeadline = \"5h\"\n";
    let new = NewRun {
        id: "r-1".parse().unwrap(),
        node: "n1".parse().unwrap(),
        node_is: Default::default(),
        profile: Profile::parse(profile).unwrap(),
        boot_token: TokenText::boot([1; 32]).sha256(),
        by: "ann".to_owned(),
        notify: Vec::new(),
    };
    create(new, now(0)).run
}

fn claimed(run: &Run) -> Run {
    let request = format!(
        r#"{{"instance": "{}", "session": "{}", "token_sha256": "{}"}}"#,
        "a".repeat(32),
        "b".repeat(32),
        TokenText::run([2; 32]).sha256()
    );
    let request: ClaimRequest = serde_json::from_str(&request).unwrap();
    let bearer = TokenText::boot([1; 32]).sha256();
    let input = Input::Claim { request: Box::new(request), protocol: 2, bearer, fleet: Vec::new() };
    let change = decide(run, &input, now(0)).unwrap();
    assert!(matches!(change.answer, Answer::Claim(_)));
    change.run
}

fn live(kept_ms: u64) -> Live {
    Live::new(ListenClock::start(kept_ms, Instant::now()), Generation(1), vec![Sha256Hex::of(b"a")], 1_000)
}

/// Lets time pass that is watched: a tick each second.
fn pass(live: &Live, from: Instant, seconds: u64) -> Instant {
    for second in 1..=seconds {
        assert_eq!(live.clock.tick(from + Duration::from_secs(second)), clock::Tick::InTime);
    }
    from + Duration::from_secs(seconds)
}

fn beat(text: &str) -> Heartbeat {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_run_is_due_when_its_wait_is_over_and_not_before() {
    let run = new_run();
    let day_ms = 24 * 60 * MINUTE_MS;
    let early = live(day_ms - 1_000);
    early.update(&run, 1);
    assert_eq!(early.due(), []);
    let late = live(day_ms);
    late.update(&run, 1);
    assert_eq!(late.due(), [run.id]);
}

#[test]
fn silence_is_due_after_its_limit_and_a_start_begins_it_anew() {
    let run = claimed(&new_run());
    let live = live(0);
    let known = live.update(&run, 1);
    let start = Instant::now();
    let at = pass(&live, start, 29);
    assert_eq!(live.agent_word(&known).as_deref(), Some("claimed"));
    let at = pass(&live, at, 2);
    assert_eq!(live.agent_word(&known).as_deref(), Some("offline"));
    assert_eq!(live.due(), [], "offline holds nothing");
    let at = pass(&live, at, 900);
    assert_eq!(live.due(), std::slice::from_ref(&run.id));
    assert!(live.now(&run.id).quiet_ms() >= 15 * MINUTE_MS);
    assert_eq!(live.last_heard(&known), None);
    live.hear(&known);
    assert!(live.last_heard(&known).is_some());
    assert_eq!(live.due(), []);
    pass(&live, at, 890);
    // An hour in which nobody listened does not make the silence longer: it begins anew.
    let later = at + Duration::from_secs(890 + 3_600);
    assert!(matches!(live.clock.tick(later), clock::Tick::Anew { .. }));
    pass(&live, later, 890);
    assert_eq!(live.due(), []);
    pass(&live, later + Duration::from_secs(890), 20);
    assert_eq!(live.due(), [run.id]);
}

#[test]
fn a_claim_that_was_made_before_this_start_was_not_heard_since() {
    let run = claimed(&new_run());
    let live = live(0);
    // Reading the runs at a start takes its time.
    live.clock.step(300);
    let known = live.update(&run, 1);
    assert_eq!(live.last_heard(&known), None);
    live.hear(&known);
    assert!(live.last_heard(&known).is_some());
}

#[test]
fn a_later_version_stands_whatever_comes_after_it() {
    let (first, second) = (new_run(), claimed(&new_run()));
    let live = live(0);
    let known = live.update(&second, 2);
    live.update(&first, 1);
    assert_eq!(known.state().version, 2);
    assert!(known.state().claim.is_some());
    let (boot, run) = (TokenText::boot([1; 32]), TokenText::run([2; 32]));
    assert_eq!(known.bearer(&TokenDigest::of(boot.as_str())), Bearer::Boot);
    assert_eq!(known.bearer(&TokenDigest::of(run.as_str())), Bearer::Agent);
    assert_eq!(known.bearer(&TokenDigest::of("gcr_other")), Bearer::Stranger);
}

#[test]
fn a_heartbeat_is_decided_when_it_changes_something_and_otherwise_answered() {
    let run = claimed(&new_run());
    let live = live(0);
    let known = live.update(&run, 1);
    let current = beat(r#"{"claim": 1}"#);
    assert_eq!(live.beat(&known, &current), Beat::Decide, "the claim has not spoken");
    assert_eq!(live.beat(&known, &beat(r#"{"claim": 2}"#)), Beat::Decide, "the claim is another");
    let heard =
        decide(&run, &Input::Heard { claim: ClaimNumber(1), directives: Vec::new() }, now(0)).unwrap();
    live.update(&heard.run, 2);
    assert!(matches!(live.beat(&known, &current), Beat::Answer(_)));
    live.announce(Generation(1), vec![Sha256Hex::of(b"a"), Sha256Hex::of(b"b")]);
    assert_eq!(live.beat(&known, &current), Beat::Prepare);
    let told = live.answer(&known, &heard.run);
    assert!(std::str::from_utf8(&told).unwrap().contains(Sha256Hex::of(b"b").as_str()));
    assert_eq!(live.beat(&known, &current), Beat::Answer(told));
    let order =
        Input::Order { order: OrderKind::Cancel, stage: None, reason: String::new(), by: "ann".into() };
    let cancelled = decide(&heard.run, &order, now(0)).unwrap().run;
    live.update(&cancelled, 3);
    let report = format!(
        r#"{{"claim": 1, "directives": [{{"id": {}, "outcome": "doing"}}]}}"#,
        cancelled.directives[0].id
    );
    assert_eq!(live.beat(&known, &beat(&report)), Beat::Decide);
    let gone = beat(r#"{"claim": 1, "directives": [{"id": 99, "outcome": "done"}]}"#);
    assert!(matches!(live.beat(&known, &gone), Beat::Answer(_)), "nobody waits for that one");
}

#[test]
fn what_an_agent_says_of_itself_is_cut_at_a_characters_edge() {
    let run = claimed(&new_run());
    let live = live(0);
    let known = live.update(&run, 1);
    let long = Heartbeat { activity: "ä".repeat(400), ..beat(r#"{"claim": 1}"#) };
    live.beat(&known, &long);
    let said = known.state().said.clone().unwrap();
    assert_eq!(said.activity.len(), SAID_BYTES_MAX);
    let seen = live.to_note(&known).unwrap();
    known.state().note(&seen);
    assert_eq!(live.to_note(&known), None);
}
