//! Every input against every standing: taken, taken without a change, or refused, and as what.
//!
//! A new standing, reason of a hold, input or refusal does not compile here until it has its place in the table.

use std::collections::BTreeSet;

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused, decide};
use groundcrew_orchestrator::run::state::{HeldFor, Machine, Run, Standing, WaitFor};
use groundcrew_protocol::ids::{ClaimNumber, Sha256Hex};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::Stage;

use crate::bench::*;

/// The columns: where a run can stand.
const COLUMNS: [&str; 14] = [
    "unclaimed",
    "in flight",
    "rebooting",
    "held: verdict",
    "held: silence",
    "held: over deadline",
    "held: crashes",
    "held: claim fight",
    "held: never claimed",
    "held: reboot not seen",
    "completed",
    "cancelled unclaimed",
    "cancelled",
    "in flight, restored",
];

/// `+` taken, `=` taken without a change of the run, and for what is refused: `O` old claim, `U` unknown claim,
/// `E` claimed elsewhere, `S` token spent, `W` wrong token, `N` not claimed, `F` unfit, `X` an order.
const TABLE: &str = "
    claim: the same call                  | + = = = + = = = + = = + = E
    claim: the home started again         | + + + + + + + + + + + + + +
    claim: its machine booted again       | + S + S + S S S + + S + S S
    claim: another machine, boot token    | + S S S S S S S + S S + S S
    claim: another machine, new token     | W W W W W W W W W W W W W W
    claim: a cloned home                  | W E E E + E E E W E E W E E
    claim: no token of the run            | W W W W W W W W W W W W W W
    claim: protocol 0                     | F F F F F F F F F F F F F F
    claim: protocol 99                    | F F F F F F F F F F F F F F
    claim: nothing said                   | F F F F F F F F F F F F F F
    claim: not the node's machine         | M M M M M M M M M M M M M M
    claim: an absurd claim known          | F F F F F F F F F F F F F F
    result: the latest attempt            | N + + = + + = = N + = N + U
    result: an attempt never given out    | N F F F F F F F N F F N F U
    result: a stage of the orchestrator's | N F F F F F F F N F F N F U
    result: a stage that is not there     | N F F F F F F F N F F N F U
    result: an older claim                | N O O O O O O O N O O N O O
    result: a later claim                 | N U U U U U U U N U U N U U
    heard: the claim                      | N = = = + = = = N = = N = U
    heard: an older claim                 | N O O O O O O O N O O N O O
    heard: a later claim                  | N U U U U U U U N U U N U U
    intent: reboot in the latest attempt  | N + + F + F F F N F F N F U
    intent: power-off outside a stage     | N F F F F F F F N F + N + U
    intent: an unknown one                | N F F F F F F F N F F N F U
    intent: under another boot            | N F F F F F F F N F F N F U
    intent: an older claim                | N O O O O O O O N O O N O O
    hold: host keys                       | N X X + X + + + N + X N X U
    hold: an older claim                  | N O O O O O O O N O O N O O
    order: retry                          | X X X + + + + + + + X X X X
    order: retry of a later stage         | X X X X X X X X X X X X X X
    order: override                       | X X X + + + + + X + X X X X
    order: override without a reason      | X X X X X X X X X X X X X X
    order: override of another stage      | X X X X X X X X X X X X X X
    order: cancel                         | + + + + + + + + + + X X X +
    order: release                        | X X X + + + + + + + X X X X
    order: abort                          | + + + + + + + + + + X X X +
    deadline: at once                     | = = = = = = = = = = = = = =
    deadline: a month later               | + + + + + + + + + + = = + +
    runtime ended: the claim's            | = + + + + + + + = + = = = +
    runtime ended: another's              | = = = = = = = = = = = = = =
    attempt: waits for a drain            | = + = = = = = = = = = = = +
    attempt: waits for none               | = = = = = = = = = = = = = =
    drains: none                          | = = = = = = = = = = = = = =
    drains: one is wanted                 | = + + + + + + + = + + = + +
    drains: one is over                   | = + + + + + + + = + + = + +
    new boot token                        | + + + + + + + + + + X X X +
    restored                              | + + + + + + + + + + = = = +
";

/// The column in which a run belongs, by what it is.
fn column_of(run: &Run) -> &'static str {
    let reboots = run.wait.as_ref().is_some_and(|wait| match wait.what {
        WaitFor::Reboot => true,
        WaitFor::Claim
        | WaitFor::Result
        | WaitFor::Drain
        | WaitFor::Operator
        | WaitFor::Successor
        | WaitFor::Farewell => false,
    });
    match &run.standing {
        Standing::Walking if run.restored => "in flight, restored",
        Standing::Walking if run.claim.is_none() => "unclaimed",
        Standing::Walking if reboots => "rebooting",
        Standing::Walking => "in flight",
        Standing::Held { why, .. } => match why {
            HeldFor::Verdict { .. } => "held: verdict",
            HeldFor::Silence { .. } => "held: silence",
            // Both withdraw the attempt, and are made by different waits alone.
            HeldFor::OverDeadline { .. } | HeldFor::Drained { .. } => "held: over deadline",
            // Both hold for a stage that no agent gets to the end of.
            HeldFor::Crashes { .. } | HeldFor::Stopped { .. } => "held: crashes",
            HeldFor::ClaimFight { .. } => "held: claim fight",
            HeldFor::NeverClaimed { .. } => "held: never claimed",
            // Both wait for the same, and are made in different stages alone.
            HeldFor::RebootNotSeen { .. } | HeldFor::RebootsMissed { .. } => "held: reboot not seen",
        },
        Standing::Completed { .. } => "completed",
        Standing::Cancelled { .. } if run.claim.is_none() => "cancelled unclaimed",
        Standing::Cancelled { .. } => "cancelled",
    }
}

/// A run in a column, its claim fresh, and its agent as it would claim again.
fn standing(column: &str) -> (Bench, groundcrew_protocol::wire::ClaimRequest) {
    let mut request = agent(1);
    let mut bench = match column {
        "unclaimed" | "held: never claimed" | "cancelled unclaimed" => Bench::fresh(),
        _ => Bench::claimed(),
    };
    if bench.run.claim.is_some() {
        bench.heard(1, &[]).unwrap();
    }
    match column {
        "unclaimed" | "in flight" => {}
        "rebooting" => bench.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap(),
        "held: verdict" => {
            bench.report(1, inventory(), 1, Outcome::Fail);
        }
        "held: silence" => bench.pass(SILENCE),
        "held: over deadline" => bench.pass_heard(DEADLINE + SILENCE),
        "held: crashes" => {
            for known in 1..=3 {
                request = restarted(request, known);
                bench.claim_again(&request).unwrap();
                bench.heard(known + 1, &[]).unwrap();
            }
        }
        "held: claim fight" => {
            for known in 1..=3 {
                request = reborn_elsewhere(&request, known);
                bench.now.listened_ms += 30 * SECOND;
                bench.claim_again(&request).unwrap();
                bench.heard(known + 1, &[]).unwrap();
            }
        }
        "held: never claimed" => bench.pass(CLAIM_WITHIN),
        "held: reboot not seen" => {
            bench.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap();
            bench.pass_heard(REBOOT);
        }
        "completed" => {
            for stage in [inventory(), stress(), reboot()] {
                bench.report(1, stage, 1, Outcome::Pass);
            }
        }
        "cancelled unclaimed" | "cancelled" => {
            bench.order(OrderKind::Cancel, None, "").unwrap();
        }
        "in flight, restored" => {
            bench.put(&Input::Restored).unwrap();
        }
        other => panic!("no run for column {other:?}"),
    }
    assert_eq!(column_of(&bench.run), column);
    (bench, request)
}

/// The same home on the next machine.
fn reborn_elsewhere(
    request: &groundcrew_protocol::wire::ClaimRequest,
    known: u64,
) -> groundcrew_protocol::wire::ClaimRequest {
    let mut moved = restarted(request.clone(), known);
    let machine = agent(known + 10);
    (moved.serial, moved.macs, moved.boot_id, moved.ip) =
        (machine.serial, machine.macs, machine.boot_id, machine.ip);
    moved
}

/// The kind of an input, so that a new one has no row and does not compile.
fn kind_of(input: &Input) -> &'static str {
    match input {
        Input::Claim { .. } => "claim",
        Input::Result(_) => "result",
        Input::Heard { .. } => "heard",
        Input::Intent(_) => "intent",
        Input::Hold { .. } => "hold",
        Input::Order { order, .. } => match order {
            OrderKind::Retry
            | OrderKind::Override
            | OrderKind::Cancel
            | OrderKind::Release
            | OrderKind::Abort => "order",
        },
        Input::Drains { .. } => "drains",
        Input::AttemptWaits(_) => "attempt",
        Input::Deadline => "deadline",
        Input::RuntimeEnded(_) => "runtime ended",
        Input::NewBootToken { .. } => "new boot token",
        Input::Restored => "restored",
    }
}

fn order_of(row: &str) -> Input {
    let (order, stage, reason) = match row {
        "order: retry" => (OrderKind::Retry, None, ""),
        "order: retry of a later stage" => (OrderKind::Retry, Some(Stage::Reporting), ""),
        "order: override" => (OrderKind::Override, None, "x"),
        "order: override without a reason" => (OrderKind::Override, None, ""),
        "order: override of another stage" => (OrderKind::Override, Some(Stage::Reporting), "x"),
        "order: cancel" => (OrderKind::Cancel, None, ""),
        "order: release" => (OrderKind::Release, None, ""),
        "order: abort" => (OrderKind::Abort, None, ""),
        other => panic!("no input for row {other:?}"),
    };
    Input::Order { order, stage, reason: reason.into(), by: "olga".into() }
}

fn claim_of(row: &str, own: groundcrew_protocol::wire::ClaimRequest, current: u64) -> Input {
    let mut bearer = boot_token();
    let mut protocol = 2;
    let mut request = own.clone();
    match row {
        "claim: the same call" => {
            bearer = if current == 0 { boot_token() } else { own.token_sha256.unwrap() }
        }
        "claim: the home started again" => {
            request = restarted(own.clone(), current);
            bearer = if current == 0 { boot_token() } else { own.token_sha256.unwrap() };
        }
        "claim: its machine booted again" => request = reborn(own, 90),
        "claim: another machine, boot token" => request = agent(2),
        "claim: another machine, new token" => {
            request = agent(2);
            bearer = request.token_sha256.clone().unwrap();
        }
        "claim: a cloned home" => {
            request = reborn_elsewhere(&own, 40);
            request.known_claim = ClaimNumber(current);
            bearer = own.token_sha256.unwrap();
        }
        "claim: no token of the run" => bearer = Sha256Hex::of(b"nothing"),
        "claim: protocol 0" => protocol = 0,
        "claim: protocol 99" => protocol = 99,
        "claim: not the node's machine" => {}
        "claim: nothing said" => request = serde_json::from_str("{}").unwrap(),
        "claim: an absurd claim known" => {
            request = restarted(own.clone(), u64::MAX);
            bearer = if current == 0 { boot_token() } else { own.token_sha256.unwrap() };
        }
        other => panic!("no input for row {other:?}"),
    }
    Input::Claim { request: Box::new(request), protocol, bearer }
}

/// The input of a row for a run.
fn input_of(row: &str, bench: &mut Bench, own: groundcrew_protocol::wire::ClaimRequest) -> Input {
    let current = bench.run.claims.0;
    let boot_id = own.boot_id.clone().unwrap();
    let result = |bench: &Bench, claim: u64, stage: Stage, attempt: u32| {
        Input::Result(Box::new(bench.outcome(claim, stage, attempt, Outcome::Pass)))
    };
    let heard = |claim: u64| Input::Heard { claim: ClaimNumber(claim), directives: Vec::new() };
    let hold =
        |claim: u64| Input::Hold { claim: ClaimNumber(claim), host_keys: vec!["ssh-ed25519 A".into()] };
    let latest = bench.run.stages[0].attempts_made.0;
    let intent = |claim: u64, kind: &str, in_stage: bool| groundcrew_protocol::wire::Intent {
        claim: ClaimNumber(claim),
        stage: in_stage.then(inventory),
        attempt: groundcrew_protocol::ids::Attempt(if in_stage { latest } else { 0 }),
        kind: kind.to_owned().into(),
        boot_id: boot_id.clone(),
        disks: Vec::new(),
    };
    match row {
        "result: the latest attempt" => result(bench, current, inventory(), latest.max(1)),
        "result: an attempt never given out" => result(bench, current, inventory(), latest + 1),
        "result: a stage of the orchestrator's" => result(bench, current, Stage::Reporting, 1),
        "result: a stage that is not there" => result(bench, current, "Later".into(), 1),
        "result: an older claim" => result(bench, current.saturating_sub(1), inventory(), 1),
        "result: a later claim" => result(bench, current + 1, inventory(), 1),
        "heard: the claim" => heard(current),
        "heard: an older claim" => heard(current.saturating_sub(1)),
        "heard: a later claim" => heard(current + 1),
        "intent: reboot in the latest attempt" => Input::Intent(intent(current, "reboot", true)),
        "intent: power-off outside a stage" => Input::Intent(intent(current, "poweroff", false)),
        "intent: an unknown one" => Input::Intent(intent(current, "melt", true)),
        "intent: under another boot" => {
            let intent = intent(current, "reboot", true);
            Input::Intent(groundcrew_protocol::wire::Intent { boot_id: boot(99), ..intent })
        }
        "intent: an older claim" => Input::Intent(intent(current.saturating_sub(1), "reboot", true)),
        "hold: host keys" => hold(current),
        "hold: an older claim" => hold(current.saturating_sub(1)),
        "attempt: waits for a drain" => Input::AttemptWaits(true),
        "attempt: waits for none" => Input::AttemptWaits(false),
        "drains: none" => drains(&[], &[]),
        "drains: one is wanted" => drains(&["d-1"], &[]),
        "drains: one is over" => drains(&[], &["d-1"]),
        "deadline: at once" => Input::Deadline,
        "deadline: a month later" => {
            bench.now.listened_ms += 30 * 24 * HOUR;
            Input::Deadline
        }
        "runtime ended: the claim's" => end_of(own.runtime.unwrap(), "1"),
        "runtime ended: another's" => end_of(AgentRuntime::pod("another"), "1"),
        "new boot token" => Input::NewBootToken { token: Sha256Hex::of(b"new"), by: "olga".into() },
        "restored" => Input::Restored,
        row if row.starts_with("claim: ") => {
            if row == "claim: not the node's machine" {
                bench.run.node_is = Machine { serial: Some("another".into()), macs: Vec::new() };
            }
            claim_of(row, own, current)
        }
        row => order_of(row),
    }
}

fn letter(bench: &Bench, input: &Input) -> char {
    match decide(&bench.run, input, bench.now) {
        Ok(change) if change.run == bench.run => '=',
        Ok(_) => '+',
        Err(Refused::OldClaim { .. }) => 'O',
        Err(Refused::UnknownClaim { .. }) => 'U',
        Err(Refused::ClaimedElsewhere { .. }) => 'E',
        Err(Refused::WrongMachine { .. }) => 'M',
        Err(Refused::TokenSpent { .. }) => 'S',
        Err(Refused::WrongToken { .. }) => 'W',
        Err(Refused::NotClaimed { .. }) => 'N',
        Err(Refused::Unfit(_)) => 'F',
        Err(Refused::Order(_)) => 'X',
    }
}

#[test]
fn every_input_against_every_standing() {
    let mut wrong = Vec::new();
    let mut found_table = String::from("\n");
    let (mut letters, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for line in TABLE.trim().lines() {
        let (row, expected) = line.split_once('|').unwrap();
        let row = row.trim();
        let expected: Vec<char> = expected.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(expected.len(), COLUMNS.len(), "{row}");
        let mut found_row = Vec::new();
        for (column, expected) in COLUMNS.iter().zip(expected) {
            let (mut bench, own) = standing(column);
            let input = input_of(row, &mut bench, own);
            let found = letter(&bench, &input);
            letters.insert(found);
            kinds.insert(kind_of(&input));
            found_row.push(found.to_string());
            if found != expected {
                wrong.push(format!("{row}, {column}: found {found}, expected {expected}"));
            }
        }
        found_table.push_str(&format!("    {row:<37} | {}\n", found_row.join(" ")));
    }
    assert!(wrong.is_empty(), "{}\n{found_table}", wrong.join("\n"));
    assert_eq!(letters, "+=OUEMSWNFX".chars().collect(), "every refusal has a place in the table");
    assert_eq!(kinds.len(), 12, "every input has a row");
}
