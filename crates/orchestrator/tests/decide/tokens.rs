//! The boot token and the run token.

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused};
use groundcrew_protocol::ids::{ClaimNumber, Sha256Hex};

use crate::bench::*;

fn is_spent(answer: Result<groundcrew_protocol::wire::ClaimAnswer, Refused>) -> bool {
    match answer {
        Err(Refused::TokenSpent { .. }) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

#[test]
fn no_other_token_is_good_for_anything() {
    let wrong = Sha256Hex::of(b"something");
    let mut bench = Bench::fresh();
    assert!(matches!(bench.claim_as(&agent(1), 2, &wrong), Err(Refused::WrongToken { .. })));
    // A run token that no claim has made known.
    assert!(matches!(bench.claim_again(&agent(1)), Err(Refused::WrongToken { .. })));
    bench.claim(&agent(1)).unwrap();
    // Not even for the very call that was answered.
    for protocol in [1, 2] {
        assert!(matches!(bench.claim_as(&agent(1), protocol, &wrong), Err(Refused::WrongToken { .. })));
    }
}

#[test]
fn a_claim_of_protocol_2_names_instance_session_and_token() {
    type Strip = fn(&mut groundcrew_protocol::wire::ClaimRequest);
    let strips: [(&str, Strip); 3] = [
        ("instance", |request| request.instance = None),
        ("session", |request| request.session = None),
        ("token_sha256", |request| request.token_sha256 = None),
    ];
    for (field, strip) in strips {
        let mut request = agent(1);
        strip(&mut request);
        match Bench::fresh().claim(&request) {
            Err(Refused::Unfit { text, .. }) => assert!(text.contains(field), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_spent_boot_token_is_good_again_only_for_a_later_boot_of_the_machine_that_the_run_waits_for() {
    // Silent for three intervals, the same machine, another boot: good, and told.
    let silent = || {
        let mut bench = Bench::claimed();
        bench.heard(1, &[]).unwrap();
        bench.now.listened_ms += 30 * SECOND;
        bench
    };
    let mut bench = silent();
    assert_eq!(bench.claim(&reborn(agent(1), 90)).unwrap().claim, ClaimNumber(2));
    assert!(bench.told("boot_token_reused") && !bench.told("hands_changed"));

    // A reboot was asked for: good at once.
    let mut bench = Bench::claimed();
    bench.report(1, inventory(), 1, Outcome::Pass);
    bench.report(1, stress(), 1, Outcome::Pass);
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    assert_eq!(bench.claim(&reborn(agent(1), 90)).unwrap().claim, ClaimNumber(2));
    assert!(bench.told("boot_token_reused") && bench.told("reboot_proved"));

    // Not silent for long enough.
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    bench.now.listened_ms += 29_999;
    assert!(is_spent(bench.claim(&reborn(agent(1), 90))));

    // The same boot, or nobody knows which.
    assert!(is_spent(silent().claim(&reborn(agent(1), 1))));
    let mut request = reborn(agent(1), 90);
    request.boot_id = None;
    assert!(is_spent(silent().claim(&request)));

    // Another machine: by its serial, by its addresses, or because it does not say which it is.
    let rows: [(&str, Option<String>, Vec<_>); 5] = [
        ("another serial", agent(2).serial, agent(1).macs),
        ("another address", agent(1).serial, agent(2).macs),
        ("no serial", None, agent(1).macs),
        ("no address", agent(1).serial, Vec::new()),
        ("nothing", None, Vec::new()),
    ];
    for (what, serial, macs) in rows {
        let mut request = reborn(agent(1), 90);
        request.serial = serial;
        request.macs = macs;
        assert!(is_spent(silent().claim(&request)), "{what}");
    }
    // One address more or less is still the machine.
    let mut request = reborn(agent(1), 90);
    request.macs.extend(agent(2).macs);
    assert!(!is_spent(silent().claim(&request)));
    // So is its serial in other letters.
    let mut request = reborn(agent(1), 90);
    request.serial = Some(" Serial-1 ".to_owned());
    assert!(!is_spent(silent().claim(&request)));

    // A machine that never said which it is cannot be told from another.
    let mut nobody = agent(1);
    nobody.serial = None;
    nobody.macs = Vec::new();
    let mut bench = Bench::fresh();
    bench.claim(&nobody).unwrap();
    bench.now.listened_ms += HOUR;
    assert!(is_spent(bench.claim(&reborn(nobody, 90))));
}

#[test]
fn only_where_time_alone_makes_a_spent_token_good_again_it_is_said_when() {
    let left_ms = |bench: &mut Bench, request: &groundcrew_protocol::wire::ClaimRequest| {
        let before = bench.run.clone();
        let refused = bench.claim(request).unwrap_err();
        assert_eq!(bench.run, before);
        match refused {
            Refused::TokenSpent { retry_after_ms, .. } => retry_after_ms,
            other => panic!("{other}"),
        }
    };
    for (quiet_ms, expected) in [(0, 30_000), (12_000, 18_000), (29_999, 1)] {
        let mut bench = Bench::claimed();
        bench.heard(1, &[]).unwrap();
        bench.now.listened_ms += quiet_ms;
        assert_eq!(left_ms(&mut bench, &reborn(agent(1), 90)), Some(expected));
        // Another machine, or the same boot: no time mends that.
        assert_eq!(left_ms(&mut bench, &reborn(agent(2), 90)), None);
        assert_eq!(left_ms(&mut bench, &reborn(agent(1), 1)), None);
        // And it is true.
        bench.now.listened_ms += expected;
        bench.claim(&reborn(agent(1), 90)).unwrap();
    }
}

#[test]
fn a_refused_token_changes_nothing_and_says_how_to_make_a_new_one() {
    let mut bench = Bench::claimed();
    let before = bench.run.clone();
    let refused = bench.claim(&agent(2)).unwrap_err();
    assert!(refused.to_string().contains("run token r-1"), "{refused}");
    assert_eq!(bench.run, before);
}

#[test]
fn a_new_boot_token_takes_the_place_of_the_old_one() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    let token = Sha256Hex::of(b"second");
    bench.put(&Input::NewBootToken { token: token.clone(), by: "olga".into() }).unwrap();
    assert!(bench.told("token_reissued"));
    assert_eq!(
        (bench.run.claim.as_ref().unwrap().number, bench.run.boot_token_spent),
        (ClaimNumber(1), false)
    );
    assert!(matches!(bench.claim(&restarted(agent(2), 0)), Err(Refused::WrongToken { .. })));
    // The agent that has the claim goes on with its own token, and does not use the new one up.
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    bench.heard(2, &[]).unwrap();
    assert!(!bench.run.boot_token_spent);
    // Another machine waits for the claim to fall silent, then it is the machine that spent the token.
    assert!(matches!(bench.claim_as(&agent(2), 2, &token), Err(Refused::ClaimedElsewhere { .. })));
    assert!(!bench.run.boot_token_spent);
    bench.now.listened_ms += 30 * SECOND;
    bench.claim_as(&agent(2), 2, &token).unwrap();
    assert!(bench.run.boot_token_spent);
    bench.now.listened_ms += 30 * SECOND;
    assert!(is_spent(bench.claim_as(&reborn(agent(1), 91), 2, &token)));
    bench.claim_as(&reborn(agent(2), 90), 2, &token).unwrap();
}

#[test]
fn an_ended_run_gets_no_new_boot_token() {
    let mut bench = Bench::claimed();
    bench.order(OrderKind::Cancel, None, "").unwrap();
    let input = Input::NewBootToken { token: Sha256Hex::of(b"x"), by: "olga".into() };
    assert!(matches!(bench.put(&input), Err(Refused::Order { .. })));
    // So nobody who comes with the spent one is told to make one.
    let refused = bench.claim(&agent(2)).unwrap_err().to_string();
    assert!(refused.contains("run create") && !refused.contains("run token"), "{refused}");
}
