//! What can happen to a run: the events that the property test draws from.

use groundcrew_orchestrator::run::decide::OrderKind;
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;

use crate::bench::*;

/// Something that can happen.
#[derive(Debug, Clone)]
pub enum Op {
    Claim {
        home: usize,
        bearer: usize,
        answer_lost: bool,
        old: bool,
    },
    Restart(usize),
    Reboot(usize),
    LoseHome(usize),
    Clone {
        from: usize,
        to: usize,
    },
    /// The first home and a copy of it take the claim from each other.
    Fight,
    Report {
        home: usize,
        claim_off: i64,
        stage: usize,
        attempt_off: i64,
        current: bool,
        outcome: Outcome,
    },
    Heard {
        home: usize,
        claim_off: i64,
        reports: Vec<(u64, u8)>,
    },
    /// The agent says that it shuts down; of its answer, drained and quiet are a bit each.
    ShutsDown {
        home: usize,
        claim_off: i64,
        said: u8,
    },
    /// A sink was told of a notice, or was not.
    Settle {
        back: u64,
        sink: usize,
        told: bool,
    },
    Intent {
        home: usize,
        kind: usize,
        current: bool,
    },
    Hold {
        home: usize,
    },
    Order {
        order: OrderKind,
        stage: Option<usize>,
        reason: bool,
    },
    /// The pod of a home's agent ends, for the first or the second time.
    End {
        home: usize,
        end: u8,
    },
    NewBootToken(u8),
    /// Of four drains those that are wanted and those that hold, a bit each.
    Drains {
        wanted: u8,
        held: u8,
    },
    /// The agent says that its attempt waits for the end of a drain, or that it does so no more.
    AttemptWaits(bool),
    Backup,
    Restore,
    Pass {
        span_ms: u64,
        looks: bool,
    },
}

/// The stages that are the agent's.
pub fn stages() -> Vec<Stage> {
    vec![inventory(), reboot(), stress()]
}

/// Anything, what is usual more often.
pub fn any_op() -> impl Strategy<Value = Op> {
    let home = 0..3usize;
    let off = prop_oneof![6 => Just(0i64), 1 => -2..=2i64];
    let outcome = prop_oneof![4 => Just(Outcome::Pass), 1 => Just(Outcome::Fail), 1 => Just(Outcome::Gap), 1 => Just(Outcome::Nothing)];
    let order = prop_oneof![
        6 => Just(OrderKind::Retry), 4 => Just(OrderKind::Override), 1 => Just(OrderKind::Cancel),
        1 => Just(OrderKind::Release), 1 => Just(OrderKind::Abort), 1 => Just(OrderKind::RetryWithWipe),
    ];
    let span = prop_oneof![
        4 => 0..60_000u64, 3 => Just(30 * SECOND), 3 => Just(SILENCE), 2 => Just(DEADLINE + SILENCE),
        1 => Just(REBOOT), 1 => Just(HOLD),
    ];
    prop_oneof![
        8 => (home.clone(), 0..4usize, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(home, bearer, answer_lost, old)| Op::Claim { home, bearer, answer_lost, old }),
        2 => home.clone().prop_map(Op::Restart),
        2 => home.clone().prop_map(Op::Reboot),
        1 => home.clone().prop_map(Op::LoseHome),
        1 => (home.clone(), home.clone()).prop_map(|(from, to)| Op::Clone { from, to }),
        1 => Just(Op::Fight),
        10 => (home.clone(), off.clone(), 0..3usize, off.clone(), prop::bool::weighted(0.8), outcome).prop_map(
            |(home, claim_off, stage, attempt_off, current, outcome)| Op::Report {
                home, claim_off, stage, attempt_off, current, outcome
            }
        ),
        3 => (home.clone(), off.clone(), 0..4u8)
            .prop_map(|(home, claim_off, said)| Op::ShutsDown { home, claim_off, said }),
        2 => (0..3u64, 0..3usize, any::<bool>()).prop_map(|(back, sink, told)| Op::Settle { back, sink, told }),
        3 => (home.clone(), off, prop::collection::vec((0..6u64, 0..5u8), 0..3))
            .prop_map(|(home, claim_off, reports)| Op::Heard { home, claim_off, reports }),
        3 => (home.clone(), 0..4usize, prop::bool::weighted(0.9))
            .prop_map(|(home, kind, current)| Op::Intent { home, kind, current }),
        1 => home.prop_map(|home| Op::Hold { home }),
        5 => (order, prop::option::weighted(0.3, 0..4usize), prop::bool::weighted(0.9))
            .prop_map(|(order, stage, reason)| Op::Order { order, stage, reason }),
        3 => (0..3usize, 1..3u8).prop_map(|(home, end)| Op::End { home, end }),
        1 => (0..3u8).prop_map(Op::NewBootToken),
        1 => (0..16u8, 0..16u8).prop_map(|(wanted, held)| Op::Drains { wanted, held }),
        2 => any::<bool>().prop_map(Op::AttemptWaits),
        1 => Just(Op::Backup),
        1 => Just(Op::Restore),
        5 => (span, prop::bool::weighted(0.8)).prop_map(|(span_ms, looks)| Op::Pass { span_ms, looks }),
    ]
}
