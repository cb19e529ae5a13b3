//! What an agent in a hold says, and the key that is made for it.

use groundcrew_orchestrator::run::decide::{HoldSaid, Input, OrderKind, Refused};
use groundcrew_orchestrator::run::state::HoldKey;
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::stage::State;

use crate::bench::*;

fn hold(host_keys: Vec<String>, user: Option<&str>, key: Option<HoldKey>) -> Input {
    let said = HoldSaid { host_keys, user: user.map(str::to_owned) };
    Input::Hold { claim: ClaimNumber(1), said, key }
}

fn made(number: u8) -> HoldKey {
    HoldKey::Made { public: format!("ssh-ed25519 A{number}"), sealed: format!("{number}") }
}

fn failed(why: &str) -> HoldKey {
    HoldKey::Failed { why: why.to_owned() }
}

#[test]
fn host_keys_are_kept_in_a_hold_and_bounded() {
    let key = "ssh-ed25519 AAAA".to_owned();
    let mut bench = Bench::held();
    bench.put(&hold(vec![key.clone(), "with\nline".into(), "k".repeat(4_096)], Some("root"), None)).unwrap();
    assert_eq!(bench.run.host_keys, std::slice::from_ref(&key));
    assert_eq!(bench.run.hold_user.as_deref(), Some("root"));
    assert!(!bench.put(&hold(vec![key.clone()], Some("root"), None)).unwrap().changed);
    for bad in ["-oProxyCommand=id", "", "a b", "a\nb", &"u".repeat(65)] {
        bench.put(&hold(vec![key.clone()], Some(bad), None)).unwrap();
        assert_eq!(bench.run.hold_user, None, "{bad:?}");
    }
    bench.put(&hold(vec![key.clone(); 100], None, None)).unwrap();
    assert_eq!(bench.run.host_keys.len(), 8);
    // An agent that was held for its silence is not in a hold: what it speaks of has gone on.
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    assert!(matches!(bench.put(&hold(vec![key], None, Some(made(1)))), Err(Refused::Order { .. })));
    assert_eq!(bench.run.hold_key, None);
}

#[test]
fn the_first_key_of_a_hold_stands_and_a_failure_is_told_once() {
    let mut bench = Bench::held();
    let ask = |key| hold(Vec::new(), None, key);
    assert!(!bench.put(&ask(None)).unwrap().changed);
    assert!(bench.put(&ask(Some(failed("no file")))).unwrap().changed);
    assert!(bench.told("hold_key_failed"));
    assert!(!bench.put(&ask(Some(failed("no file")))).unwrap().changed);
    assert!(bench.put(&ask(Some(failed("another file")))).unwrap().changed);
    assert!(bench.put(&ask(Some(made(1)))).unwrap().changed && bench.told("hold_key_made"));
    for later in [None, Some(made(2)), Some(failed("no file"))] {
        assert!(!bench.put(&ask(later)).unwrap().changed);
        assert_eq!(bench.run.hold_key, Some(made(1)));
    }
}

#[test]
fn a_key_is_destroyed_however_its_hold_ends() {
    let ask = || hold(Vec::new(), None, Some(made(1)));
    for order in
        [OrderKind::Retry, OrderKind::Override, OrderKind::Cancel, OrderKind::Release, OrderKind::Abort]
    {
        let mut bench = Bench::held();
        bench.put(&ask()).unwrap();
        bench.order(order, None, "looked at it").unwrap();
        assert_eq!(bench.run.hold_key, None, "{order:?}");
        assert_ne!(bench.run.state(), State::FailedHolding, "{order:?}");
    }
    let mut bench = Bench::held();
    bench.put(&ask()).unwrap();
    let limit_ms = bench.run.profile.limits.hold;
    bench.pass_heard(limit_ms + 1);
    assert_eq!((bench.run.state(), &bench.run.hold_key), (State::Cancelled, &None), "nobody decided in time");
    // The next hold of the run has another key.
    let mut bench = Bench::held();
    bench.put(&ask()).unwrap();
    bench.order(OrderKind::Retry, None, "").unwrap();
    bench.report(1, inventory(), 2, Outcome::Fail);
    assert_eq!((bench.run.state(), &bench.run.hold_key), (State::FailedHolding, &None));
    bench.put(&hold(Vec::new(), None, Some(made(2)))).unwrap();
    assert_eq!(bench.run.hold_key, Some(made(2)));
}
