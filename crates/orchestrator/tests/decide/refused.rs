//! Every input against every standing: taken, taken without a change, or refused, and as what.
//!
//! A new standing, reason of a hold, input, refusal, or place that refuses does not compile here until it has its letter,
//! and the letter must occur in the table.

use std::collections::BTreeSet;

use groundcrew_orchestrator::run::decide::{
    HoldSaid, Input, OrderFor, OrderKind, Refused, SpentFor, UnfitFor, decide,
};
use groundcrew_orchestrator::run::state::{DIRECTIVES_MAX, Directive, Machine};
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, Sha256Hex};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimRequest, Command, Intent, Shutdown};

use crate::bench::*;
use crate::standings::{COLUMNS, emptied, reborn_elsewhere, standing};

/// `+` taken, `=` taken without a change of the run, and for what is refused the letter of its place ([`unfit`],
/// [`order`], [`spent`], and [`letter`] for the rest).
const TABLE: &str = "
    claim: the same call                  | + = = = + = = + = = = = = + = = = = + = E
    claim: the home started again         | + + + + + + + + + + + + + + + + + + + + +
    claim: its machine booted again       | + H + H + H H + H H H H S + H + + H + H H
    claim: its home was lost, boot token  | + L L L + L L L L L L L S + L L L L + L L
    claim: another machine, boot token    | + S S S S S S S S S S S S + S S S S + S S
    claim: a token spent by nobody known  | G G G G G G G G G G G G G G G G G G G G G
    claim: another machine, new token     | W W W W W W W W W W W W W W W W W W W W W
    claim: a cloned home                  | W E E E E E E + E E E E E W E E E E W E E
    claim: no token of the run            | W W W W W W W W W W W W W W W W W W W W W
    claim: protocol 0                     | p p p p p p p p p p p p p p p p p p p p p
    claim: protocol 99                    | p p p p p p p p p p p p p p p p p p p p p
    claim: nothing said                   | i i i i i i i i i i i i i i i i i i i i i
    claim: no process named               | s s s s s s s s s s s s s s s s s s s s s
    claim: no run token's hash            | t t t t t t t t t t t t t t t t t t t t t
    claim: not the node's machine         | M M M M M M M M M M M M M M M M M M M M M
    claim: an absurd claim known          | k k k k k k k k k k k k k k k k k k k k k
    result: the latest attempt            | N + + + + = = + + + = = = N a + = = N + U
    result: an attempt never given out    | N a a a a a a a a a a a a N a a a a N a U
    result: a stage of the orchestrator's | N o o o o o o o o o o o o N o o o o N o U
    result: a stage that is not there     | N g g g g g g g g g g g g N g g g g N g U
    result: an older claim                | N O O O O O O O O O O O O N O O O O N O O
    result: a later claim                 | N U U U U U U U U U U U U N U U U U N U U
    heard: the claim                      | N = = = + = = + = = = = = N = = = = N = U
    heard: an older claim                 | N O O O O O O O O O O O O N O O O O N O O
    heard: a later claim                  | N U U U U U U U U U U U U N U U U U N U U
    intent: reboot in the latest attempt  | N + + + + f f + f f f f f N f f f f N f U
    intent: power-off outside a stage     | N z z z z z z z z z z z z N z z z + N + U
    intent: an unknown one                | N u u u u f f u f f f f f N f f f f N f U
    intent: a wipe that nobody allowed    | N w w w w f f w f f f f f N f f f f N f U
    intent: under another boot            | N b b b b f f b f f f f f N f f f f N f U
    intent: an older claim                | N O O O O O O O O O O O O N O O O O N O O
    shuts down: the claim                 | N + + + + + + + + + + + + N + + + + N + U
    shuts down: an older claim            | N O O O O O O O O O O O O N O O O O N O O
    shuts down: a later claim             | N U U U U U U U U U U U U N U U U U N U U
    notice: one that is not due           | = = = = = = = = = = = = = = = = = = = = =
    hold: host keys                       | N l l l l + + l + + + + + N + + + l N l U
    hold: an older claim                  | N O O O O O O O O O O O O N O O O O N O O
    order: retry                          | h h h h h + + + + + + + + + + + + x x x h
    order: retry with a wipe              | h h h h h d d d d d d d d d d d d x x x h
    order: retry of a later stage         | h h h h h n n n n n n n n n n n n x x x h
    order: retry, nothing is answered     | h h h h h m m m m m m m m m m m m x x x h
    order: override                       | h h h h h + + + + + + + + c c + + x x x h
    order: override without a reason      | h h h h h y y y y y y y y y y y y x x x h
    order: override of another stage      | h h h h h q q q q q q q q q q q q x x x h
    order: override, nothing is answered  | h h h h h m m m m m m m m m m m m x x x h
    order: cancel                         | + + + + + + + + + + + + + + + + + x x x +
    order: release                        | h h h h h + + + + + + + + + + + + x x x h
    order: abort                          | + + + + + + + + + + + + + + + + + x x x +
    deadline: at once                     | = = = = = = = = = = = = = = = = = = = = =
    deadline: a month later               | + + + + + + + + + + + + + + + + + = = + +
    runtime ended: the claim's            | = + + + + + + + + + + + + = + + + = = = +
    runtime ended: another's              | = = = = = = = = = = = = = = = = = = = = =
    attempt: waits for a drain            | = + = = = = = = = = = = = = = = = = = = +
    attempt: waits for none               | = = = + = = = = = = = = = = = = = = = = =
    drains: none                          | = = = = = = = = = = = = = = = = = = = = =
    drains: one is wanted                 | = + + + + + + + + + + + + = + + + + = + +
    drains: one is over                   | = + + + + + + + + + + + + = + + + + = + +
    new boot token                        | + + + + + + + + + + + + + + + + + X X X +
    restored                              | + + + + + + + + + + + + + + + + + = = = +
";

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
            | OrderKind::RetryWithWipe
            | OrderKind::Override
            | OrderKind::Cancel
            | OrderKind::Release
            | OrderKind::Abort => "order",
        },
        Input::Drains { .. } => "drains",
        Input::AttemptWaits(_) => "attempt",
        Input::Deadline => "deadline",
        Input::ShutsDown { .. } => "shuts down",
        Input::NoticeSettled { .. } => "notice",
        Input::RuntimeEnded(_) => "runtime ended",
        Input::NewBootToken { .. } => "new boot token",
        Input::Restored => "restored",
    }
}

fn shuts_down(claim: u64) -> Input {
    let (said, fleet) = (Shutdown::default(), vec!["ops".parse().unwrap()]);
    Input::ShutsDown { claim: ClaimNumber(claim), said, fleet }
}

fn order_of(row: &str) -> Input {
    let (order, stage, reason) = match row {
        "order: retry" | "order: retry, nothing is answered" => (OrderKind::Retry, None, ""),
        "order: retry with a wipe" => (OrderKind::RetryWithWipe, None, ""),
        "order: retry of a later stage" => (OrderKind::Retry, Some(Stage::Reporting), ""),
        "order: override" | "order: override, nothing is answered" => (OrderKind::Override, None, "x"),
        "order: override without a reason" => (OrderKind::Override, None, ""),
        "order: override of another stage" => (OrderKind::Override, Some(Stage::Reporting), "x"),
        "order: cancel" => (OrderKind::Cancel, None, ""),
        "order: release" => (OrderKind::Release, None, ""),
        "order: abort" => (OrderKind::Abort, None, ""),
        other => panic!("no input for row {other:?}"),
    };
    Input::Order { order, stage, reason: reason.into(), by: "olga".into() }
}

fn claim_of(row: &str, bench: &mut Bench, own: ClaimRequest) -> Input {
    let current = bench.run.claims.0;
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
        "claim: its home was lost, boot token" => request = emptied(own),
        "claim: another machine, boot token" => request = agent(2),
        // No input makes such a run; a store that somebody changed by hand might hold it.
        "claim: a token spent by nobody known" => {
            (bench.run.claim, bench.run.boot_token_spent) = (None, true);
            request = agent(2);
        }
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
        "claim: not the node's machine" => {
            bench.run.node_is = Machine { serial: Some("another".into()), macs: Vec::new() };
        }
        "claim: nothing said" => request = serde_json::from_str("{}").unwrap(),
        "claim: no process named" => request.session = None,
        "claim: no run token's hash" => request.token_sha256 = None,
        "claim: an absurd claim known" => {
            request = restarted(own.clone(), u64::MAX);
            bearer = if current == 0 { boot_token() } else { own.token_sha256.unwrap() };
        }
        other => panic!("no input for row {other:?}"),
    }
    Input::Claim { request: Box::new(request), protocol, bearer, fleet: Vec::new() }
}

/// The input of a row for a run.
fn input_of(row: &str, bench: &mut Bench, own: ClaimRequest) -> Input {
    let current = bench.run.claims.0;
    let boot_id = own.boot_id.clone().unwrap();
    let result = |bench: &Bench, claim: u64, stage: Stage, attempt: u32| {
        Input::Result(Box::new(bench.outcome(claim, stage, attempt, Outcome::Pass)))
    };
    let heard = |claim: u64| Input::Heard { claim: ClaimNumber(claim), directives: Vec::new() };
    let said = HoldSaid { host_keys: vec!["ssh-ed25519 A".into()], user: None };
    let hold = |claim: u64| Input::Hold { claim: ClaimNumber(claim), said: said.clone(), key: None };
    let here = bench.run.stages[0].spec.name.clone();
    let latest = bench.run.stages[0].attempts_made.0;
    let intent = |claim: u64, kind: &str, in_stage: bool| Intent {
        claim: ClaimNumber(claim),
        stage: in_stage.then(|| here.clone()),
        attempt: Attempt(if in_stage { latest } else { 0 }),
        kind: kind.to_owned().into(),
        boot_id: boot_id.clone(),
        disks: Vec::new(),
    };
    match row {
        "result: the latest attempt" => result(bench, current, here.clone(), latest.max(1)),
        "result: an attempt never given out" => result(bench, current, here.clone(), latest + 1),
        "result: a stage of the orchestrator's" => result(bench, current, Stage::Reporting, 1),
        "result: a stage that is not there" => result(bench, current, "Later".into(), 1),
        "result: an older claim" => result(bench, current.saturating_sub(1), here.clone(), 1),
        "result: a later claim" => result(bench, current + 1, here.clone(), 1),
        "heard: the claim" => heard(current),
        "heard: an older claim" => heard(current.saturating_sub(1)),
        "heard: a later claim" => heard(current + 1),
        "intent: reboot in the latest attempt" => Input::Intent(intent(current, "reboot", true)),
        "intent: power-off outside a stage" => Input::Intent(intent(current, "poweroff", false)),
        "intent: an unknown one" => Input::Intent(intent(current, "melt", true)),
        "intent: a wipe that nobody allowed" => Input::Intent(intent(current, "wipe", true)),
        "intent: under another boot" => {
            let intent = intent(current, "reboot", true);
            Input::Intent(Intent { boot_id: boot(99), ..intent })
        }
        "intent: an older claim" => Input::Intent(intent(current.saturating_sub(1), "reboot", true)),
        "shuts down: the claim" => shuts_down(current),
        "shuts down: an older claim" => shuts_down(current.saturating_sub(1)),
        "shuts down: a later claim" => shuts_down(current + 1),
        "notice: one that is not due" => {
            Input::NoticeSettled { number: 1, sink: "ops".parse().unwrap(), outcome: Ok(()) }
        }
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
        row if row.starts_with("claim: ") => claim_of(row, bench, own),
        row => {
            if row.ends_with(", nothing is answered") {
                bench.run.directives = (1..).map(directive).take(DIRECTIVES_MAX).collect();
            }
            order_of(row)
        }
    }
}

/// An order that the agent has not answered.
fn directive(number: u64) -> Directive {
    let (id, command) = (DirectiveId(number), Command::Drain);
    Directive { id, command, stage: None, attempt: Attempt(0), said: None, drain: None }
}

fn unfit(why: UnfitFor) -> char {
    match why {
        UnfitFor::Protocol => 'p',
        UnfitFor::NoInstance => 'i',
        UnfitFor::NoSession => 's',
        UnfitFor::NoTokenHash => 't',
        UnfitFor::KnownClaim => 'k',
        UnfitFor::NoSuchStage => 'g',
        UnfitFor::OwnStage => 'o',
        UnfitFor::NoSuchAttempt => 'a',
        UnfitFor::NotInFlight => 'f',
        UnfitFor::OutsideStage => 'z',
        UnfitFor::NoWipeOverride => 'w',
        UnfitFor::UnknownIntent => 'u',
        UnfitFor::OtherBoot => 'b',
    }
}

fn order(why: OrderFor) -> char {
    match why {
        OrderFor::Ended => 'x',
        OrderFor::NotHeld => 'h',
        OrderFor::NoRoom => 'm',
        OrderFor::NotBegun => 'n',
        OrderFor::NoUseOfWipe => 'd',
        OrderFor::NoReason => 'y',
        OrderFor::OtherStage => 'q',
        OrderFor::NothingChecked => 'c',
        OrderFor::AgentHoldsAlone => 'l',
        OrderFor::TokenAfterEnd => 'X',
    }
}

fn spent(why: SpentFor) -> char {
    match why {
        SpentFor::ClaimGone => 'G',
        SpentFor::OtherMachine => 'S',
        SpentFor::NoLaterBoot => 'L',
        SpentFor::HeardLately => 'H',
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
        Err(Refused::TokenSpent { why, .. }) => spent(why),
        Err(Refused::WrongToken { .. }) => 'W',
        Err(Refused::NotClaimed { .. }) => 'N',
        Err(Refused::Unfit { why, .. }) => unfit(why),
        Err(Refused::Order { why, .. }) => order(why),
    }
}

/// Every letter that there is.
fn alphabet() -> BTreeSet<char> {
    let places = UnfitFor::ALL.iter().map(|why| unfit(*why));
    let places = places.chain(OrderFor::ALL.iter().map(|why| order(*why)));
    let places: Vec<char> =
        places.chain(SpentFor::ALL.iter().map(|why| spent(*why))).chain("+=OUEMWN".chars()).collect();
    let letters: BTreeSet<char> = places.iter().copied().collect();
    assert_eq!(letters.len(), places.len(), "no two places have one letter: {places:?}");
    letters
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
    assert_eq!(letters, alphabet(), "every place that refuses occurs in the table");
    assert_eq!(kinds.len(), 14, "every input has a row");
}
