use proptest::prelude::*;
use serde_json::json;

use super::*;

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

fn file(value: Value) -> AgentInfo {
    AgentInfo::of(&fields(value))
}

fn fact(state: RuntimeState) -> RuntimeFact {
    RuntimeFact {
        source: RuntimeSource::Kubernetes,
        life: AgentLife::default(),
        state,
        container_status: String::new(),
        at: WallMs(1_000_000),
    }
}

fn words(phase: &str, status: &str) -> RuntimeFact {
    fact(RuntimeState::of_words(&InfoPhase::from(phase.to_owned()), status))
}

/// Of the document: what runtime and file say, and what both must say afterwards.
#[test]
fn the_document_s_cases() {
    let cases = [
        // (runtime's phase, container status, file's phase, its activity) -> (phase, activity)
        ("ended", "Succeeded (Completed)", "running", "thinking", "stopped", ""),
        ("ended", "Failed (Error)", "running", "thinking", "error", ""),
        ("ended", "", "running", "thinking", "stopped", ""),
        ("stopped", "Succeeded (Completed)", "running", "thinking", "stopped", ""),
        ("error", "Failed (OOMKilled)", "stopped", "", "error", ""),
        ("", "Up 2 hours", "stopped", "", "running", ""),
        ("", "running", "stopped", "", "running", ""),
        ("", "Exited (0) 5 minutes ago", "running", "thinking", "stopped", ""),
        ("", "stopped", "running", "executing", "stopped", ""),
        ("", "Exited (1) 2 seconds ago", "cloning", "idle", "error", ""),
        ("", "exited (1)", "starting", "", "error", ""),
        ("", "Exited (0)", "provisioning", "", "error", ""),
        ("", "Exited (0)", "created", "", "created", ""),
        ("", "Exited (0)", "stopping", "executing", "stopping", "executing"),
        ("", "Exited (0)", "error", "", "error", ""),
        ("", "Up 10 minutes", "running", "thinking", "running", "thinking"),
        ("", "Up 10 minutes", "error", "", "error", ""),
        ("", "Exited (0) 1 hour ago", "stopped", "", "stopped", ""),
        ("running", "Pending (ImagePullBackOff)", "starting", "idle", "starting", "idle"),
        ("a newer word", "Running (Unready)", "stopped", "", "stopped", ""),
    ];
    for (runtime, status, phase, activity, then, then_activity) in cases {
        let case = format!("{runtime} {status} over {phase}/{activity}");
        let mut fields =
            fields(json!({"name": "agent", "phase": phase, "activity": activity, "mine": [1, {"a": null}]}));
        let before = fields.clone();
        let fact = words(runtime, status);
        let change = reconcile(&AgentInfo::of(&fields), &fact);
        if let Some(change) = &change {
            change.apply(&mut fields);
        }
        let expected =
            json!({"name": "agent", "phase": then, "activity": then_activity, "mine": [1, {"a": null}]});
        assert_eq!(Value::Object(fields.clone()).to_string(), expected.to_string(), "{case}");
        assert_eq!(change.is_some(), fields != before, "{case}: a change that changes nothing");
        assert_eq!(
            reconcile(&AgentInfo::of(&fields), &fact),
            None,
            "{case}: a second pass has nothing to do"
        );
    }
}

#[test]
fn a_reason_goes_into_the_detail_and_nothing_else_does() {
    let killed = fact(RuntimeState::Ended {
        ending: Ending::Error,
        exit: Some(Exit::Signal(9)),
        reason: "OOMKilled".to_owned(),
        detail: "OOMKilled: it took more memory than its limit".to_owned(),
    });
    for (before, after) in [
        (
            json!({"phase": "running"}),
            json!({"phase": "error", "detail": "OOMKilled: it took more memory than its limit"}),
        ),
        (
            json!({"detail": {"taskSummary": "x", "message": "old"}, "phase": "running", "activity": "idle"}),
            json!({"detail": {"taskSummary": "x", "message": "OOMKilled: it took more memory than its limit"},
                   "phase": "error", "activity": ""}),
        ),
    ] {
        let mut fields = fields(before);
        reconcile(&AgentInfo::of(&fields), &killed).unwrap().apply(&mut fields);
        assert_eq!(Value::Object(fields).to_string(), after.to_string());
    }
    // An end that has nothing to tell leaves the agent's last words.
    let mut fields = fields(json!({"phase": "running", "detail": "all is done"}));
    reconcile(&AgentInfo::of(&fields), &words("stopped", "Succeeded (Completed)"))
        .unwrap()
        .apply(&mut fields);
    assert_eq!(Value::Object(fields), json!({"phase": "stopped", "detail": "all is done"}));
}

#[test]
fn the_legacy_phase_in_a_file_is_shown_by_its_status_and_then_replaced() {
    for (status, shown) in
        [("Succeeded (Completed)", "stopped"), ("Failed (Error)", "error"), ("", "stopped")]
    {
        let file = file(json!({"phase": "ended", "containerStatus": status}));
        assert_eq!(file.shown_phase().unwrap().as_str(), shown);
        let change = reconcile(&file, &words("ended", status)).unwrap();
        assert_eq!(change.phase.as_str(), shown);
    }
}

/// Who is newer: (fact's id, start, claim, epoch) against (file's).
#[test]
fn a_newer_life_of_the_agent_wins_over_an_older_one_s_end() {
    let life = |id: &str, started: i64, claim: u64, epoch: &str| AgentLife {
        runtime_id: (!id.is_empty()).then(|| id.to_owned()),
        started_at: (started > 0).then_some(WallMs(started)),
        claim: (claim > 0).then_some(ClaimNumber(claim)),
        epoch: (!epoch.is_empty()).then(|| epoch.to_owned()),
    };
    let cases = [
        (life("a", 0, 0, ""), life("a", 0, 0, ""), true),
        // Names decide, whatever claims say: the agent may have claimed again in the same pod.
        (life("a", 0, 1, "b:1"), life("a", 0, 2, "b:1"), true),
        (life("a", 0, 0, ""), life("b", 0, 0, ""), false),
        (life("a", 5, 0, ""), life("b", 9, 0, ""), false),
        // The later pod ended before it wrote: the file is the earlier one's, and the agent has ended.
        (life("b", 9, 0, ""), life("a", 5, 0, ""), true),
        (life("", 0, 3, ""), life("", 0, 4, ""), false),
        (life("", 0, 3, ""), life("", 0, 3, ""), true),
        (life("", 0, 4, ""), life("", 0, 3, ""), true),
        (life("a", 0, 3, "b:1"), life("", 0, 3, "c:1"), false),
        (life("a", 0, 3, "b:1"), life("", 0, 3, "b:1"), true),
        (life("a", 0, 0, ""), life("", 0, 3, "b:1"), true),
    ];
    for (of, theirs, covers) in cases {
        assert_eq!(of.covers(&theirs), covers, "{of:?} and {theirs:?}");
        let written = AgentInfo {
            phase: Some(InfoPhase::Running),
            runtime_id: theirs.runtime_id,
            started_at: theirs.started_at,
            claim: theirs.claim,
            epoch: theirs.epoch,
            ..AgentInfo::default()
        };
        let fact = RuntimeFact { life: of, ..words("error", "Failed") };
        assert_eq!(reconcile(&written, &fact).is_some(), covers, "{fact:?}");
    }
}

#[test]
fn a_container_s_end_is_none_of_the_next_one_in_its_pod() {
    let at = |began: i64, id: &str| AgentInfo {
        phase: Some(InfoPhase::Running),
        runtime_id: Some(id.to_owned()),
        started_at: Some(WallMs(began)),
        ..AgentInfo::default()
    };
    let life =
        AgentLife { runtime_id: Some("a".to_owned()), started_at: Some(WallMs(1)), ..AgentLife::default() };
    let ended = RuntimeFact { life, ..words("error", "Failed") };
    // When it ended is known to the second.
    for (began, is_told) in [(0, true), (999, true), (1_000, false), (60_000, false)] {
        let file = at(ended.at.0 + began, "a");
        assert_eq!(reconcile(&file, &ended).is_some(), is_told, "{began}");
        // A process has one end.
        let process = RuntimeFact { source: RuntimeSource::Local, ..ended.clone() };
        assert!(reconcile(&file, &process).is_some());
    }
}

#[test]
fn a_detail_that_is_longer_than_what_is_read_again_is_written_once() {
    let detail = "\u{1f525}".repeat(300);
    let state = RuntimeState::Ended {
        ending: Ending::Error,
        exit: None,
        reason: String::new(),
        detail: detail.clone(),
    };
    let mut fields = fields(json!({"phase": "running"}));
    let change = reconcile(&AgentInfo::of(&fields), &fact(state.clone())).unwrap();
    change.apply(&mut fields);
    assert!(detail.starts_with(fields["detail"].as_str().unwrap()));
    assert_eq!(reconcile(&AgentInfo::of(&fields), &fact(state)), None);
}

#[test]
fn an_agent_s_fresh_word_of_its_end_stands_against_a_container_that_still_runs() {
    let running = fact(RuntimeState::Running);
    let said = |before_ms: i64| AgentInfo {
        phase: Some(InfoPhase::Stopped),
        last_seen: Some(WallMs(running.at.0 - before_ms)),
        ..AgentInfo::default()
    };
    assert_eq!(reconcile(&said(SETTLE_MS as i64 - 1), &running), None);
    assert_eq!(reconcile(&said(SETTLE_MS as i64), &running).unwrap().phase, InfoPhase::Running);
}

#[test]
fn what_is_put_is_read_again_and_what_others_wrote_stays() {
    let info = AgentInfo {
        phase: Some(InfoPhase::Running),
        activity: Some(InfoActivity::Executing),
        detail: Some("50 %".to_owned()),
        runtime: Some("local".to_owned()),
        runtime_id: Some("b:1:2".to_owned()),
        run: Some("r-1".parse().unwrap()),
        stage: Some(Stage::CpuStress),
        attempt: Some(Attempt(2)),
        claim: Some(ClaimNumber(3)),
        epoch: Some("b:1".to_owned()),
        session: Some(RandomId::from_bytes([7; 16])),
        pid: Some(12),
        pid_start: Some(99),
        started_at: Some(WallMs(1_763_728_000_123)),
        last_seen: Some(WallMs(1_763_728_001_456)),
        last_seen_up_ms: Some(77),
        container_status: None,
    };
    let mut fields = fields(json!({"zeta": 1, "phase": "stopped", "alpha": {"b": 2}}));
    info.put(&mut fields);
    assert_eq!(AgentInfo::of(&fields), info);
    assert_eq!(fields.keys().take(3).collect::<Vec<_>>(), ["zeta", "phase", "alpha"]);
    AgentInfo { phase: Some(InfoPhase::Stopped), ..AgentInfo::default() }.put(&mut fields);
    assert_eq!(Value::Object(fields), json!({"zeta": 1, "phase": "stopped", "alpha": {"b": 2}}));
}

#[test]
fn a_field_of_another_shape_is_unknown_and_hides_no_other() {
    let odd = file(json!({"phase": 7, "activity": [], "detail": 1, "claim": "3", "pid": -1, "run": "A_B",
        "last_seen": "soon", "epoch": "e:1", "session": "short", "attempt": 4_294_967_296_u64}));
    assert_eq!(odd, AgentInfo { epoch: Some("e:1".to_owned()), ..AgentInfo::default() });
    let long = file(json!({"detail": "ä".repeat(2_000)}));
    assert_eq!(long.detail.unwrap().len(), TEXT_BYTES_MAX);
}

#[test]
fn staleness_is_judged_by_the_boot_then_the_process_then_the_time() {
    let info = |last_seen: i64, up_ms: u64| AgentInfo {
        phase: Some(InfoPhase::Running),
        epoch: Some("boot-a:5".to_owned()),
        pid: Some(12),
        last_seen: Some(WallMs(last_seen)),
        last_seen_up_ms: Some(up_ms),
        ..AgentInfo::default()
    };
    let clocks = |wall: i64, up_ms: u64, epoch: &str, lives| Clocks {
        wall: WallMs(wall),
        up_ms: Some(up_ms),
        epoch: epoch.to_owned(),
        lives,
    };
    let fresh = |age_ms| Staleness::Fresh { age_ms };
    let why = |found: Staleness| match found {
        Staleness::Stale { why, .. } => why,
        other => panic!("{other:?} is not stale"),
    };
    // A wall clock that was set does not matter on the same boot.
    let judged = staleness(&info(9_000_000, 1_000), &clocks(1_000, 31_000, "boot-a:5", Some(true)));
    assert_eq!(judged, fresh(30_000));
    let judged = staleness(&info(0, 1_000), &clocks(1_000, 31_001, "boot-a:5", Some(true)));
    assert_eq!(why(judged), "it was written 30 s ago, expected: every 10 s while it runs");
    let judged = staleness(&info(0, 1_000), &clocks(1_000, 1_500, "boot-a:5", Some(false)));
    assert_eq!(why(judged), "its process 12 is gone and did not say so");
    // Of another container's process nobody here can say anything.
    assert_eq!(staleness(&info(0, 1_000), &clocks(1_000, 1_500, "boot-a:9", Some(false))), fresh(500));
    let judged = staleness(&info(0, 1_000), &clocks(1_000, 1_500, "boot-b:5", Some(true)));
    assert_eq!(why(judged), "it was written under another boot of a machine");
    // Without a boot to compare, the wall clock counts.
    assert_eq!(staleness(&info(1_000, 7), &clocks(31_000, 9, "", None)), fresh(30_000));
    assert_eq!(
        why(staleness(&info(9_000, 7), &clocks(1_000, 9, "", None))),
        "its time lies 8 s ahead of this clock"
    );
    let never = AgentInfo { phase: Some(InfoPhase::Running), ..AgentInfo::default() };
    assert_eq!(why(staleness(&never, &Clocks::default())), "it does not say when it was written");
    let ended = AgentInfo { phase: Some(InfoPhase::Error), ..info(0, 0) };
    assert_eq!(staleness(&ended, &clocks(i64::MAX, u64::MAX, "boot-b:1", None)), Staleness::Final);
}

fn any_state() -> impl Strategy<Value = RuntimeState> {
    let ending = prop_oneof![Just(Ending::Stopped), Just(Ending::Error)];
    prop_oneof![
        Just(RuntimeState::Deferring),
        Just(RuntimeState::Waiting { reason: "ImagePullBackOff".to_owned() }),
        Just(RuntimeState::Running),
        Just(RuntimeState::Halted),
        (ending, prop_oneof!["[a-z]{0,4}", ".{0,400}"]).prop_map(|(ending, detail)| RuntimeState::Ended {
            ending,
            exit: None,
            reason: String::new(),
            detail,
        }),
    ]
}

fn any_life() -> impl Strategy<Value = AgentLife> {
    let id = prop::option::of(prop::sample::select(vec!["a".to_owned(), "b".to_owned()]));
    let epoch = prop::option::of(prop::sample::select(vec!["e:1".to_owned(), "e:2".to_owned()]));
    let claim = prop::option::of((1_u64..4).prop_map(ClaimNumber));
    let started = prop::option::of((1_i64..4).prop_map(WallMs));
    (id, started, claim, epoch).prop_map(|(runtime_id, started_at, claim, epoch)| AgentLife {
        runtime_id,
        started_at,
        claim,
        epoch,
    })
}

proptest! {
    /// Whatever stands there: a change is made once, changes nothing but what it names, and where the fact covers the
    /// file an end always stands afterwards.
    #[test]
    fn one_pass_is_enough_and_an_end_of_this_life_stands(
        phase in "created|provisioning|cloning|starting|running|stopping|stopped|error|ended|new",
        activity in prop::option::of("idle|executing|thinking|"),
        (life, theirs) in (any_life(), any_life()),
        state in any_state(),
        seen in prop::option::of(990_000_i64..1_010_000),
    ) {
        let mut fields = fields(json!({"other": [1], "phase": phase}));
        let said = AgentInfo {
            phase: Some(InfoPhase::from(phase)),
            activity: activity.filter(|word| !word.is_empty()).map(InfoActivity::from),
            runtime_id: theirs.runtime_id,
            started_at: theirs.started_at,
            claim: theirs.claim,
            epoch: theirs.epoch,
            last_seen: seen.map(WallMs),
            ..AgentInfo::default()
        };
        said.put(&mut fields);
        let before = fields.clone();
        let fact = RuntimeFact { life: life.clone(), ..fact(state) };
        let covers = life.covers(&AgentLife::of(&said));
        if let Some(change) = reconcile(&said, &fact) {
            prop_assert!(covers);
            change.apply(&mut fields);
            let mut known = said.clone();
            change.apply_to(&mut known);
            prop_assert_eq!(&known, &AgentInfo::of(&fields));
        }
        for (name, value) in &before {
            if !["phase", "activity", "detail"].contains(&name.as_str()) {
                prop_assert_eq!(fields.get(name), Some(value));
            }
        }
        prop_assert_eq!(reconcile(&AgentInfo::of(&fields), &fact), None);
        if let (RuntimeState::Ended { ending, .. }, true) = (&fact.state, covers) {
            let after = AgentInfo::of(&fields);
            prop_assert_eq!((after.phase, after.activity), (Some(ending.phase()), None));
        }
    }
}
