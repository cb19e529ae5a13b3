//! Where a run can stand, and how it comes there: the columns of the table of refused events.
//!
//! A new standing, reason of a hold or wait does not compile here until it has its column.

use groundcrew_orchestrator::run::decide::{Input, OrderKind};
use groundcrew_orchestrator::run::state::{HeldFor, Run, Standing, WaitFor};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::ClaimRequest;

use crate::bench::*;

/// The columns.
pub const COLUMNS: [&str; 21] = [
    "unclaimed",
    "in flight",
    "rebooting",
    "waits for a drain",
    "waits for a successor",
    "held: verdict",
    "held: the spec",
    "held: silence",
    "held: over deadline",
    "held: drained",
    "held: crashes",
    "held: stopped",
    "held: claim fight",
    "held: never claimed",
    "held: in service",
    "held: reboot not seen",
    "held: reboots missed",
    "completed",
    "cancelled unclaimed",
    "cancelled",
    "in flight, restored",
];

/// The column in which a run belongs, by what it is.
fn column_of(run: &Run) -> &'static str {
    match &run.standing {
        Standing::Walking if run.restored => "in flight, restored",
        Standing::Walking => match run.wait.as_ref().unwrap().what {
            WaitFor::Claim => "unclaimed",
            WaitFor::Result => "in flight",
            WaitFor::Reboot => "rebooting",
            WaitFor::Drain => "waits for a drain",
            WaitFor::Successor => "waits for a successor",
            WaitFor::Operator | WaitFor::Farewell => panic!("a run on its way: {:?}", run.wait),
        },
        Standing::Held { why, .. } => match why {
            HeldFor::Verdict { .. } if run.stage().spec.name == Stage::SpecValidate => "held: the spec",
            HeldFor::Verdict { .. } => "held: verdict",
            HeldFor::Silence { .. } => "held: silence",
            HeldFor::OverDeadline { .. } => "held: over deadline",
            HeldFor::Drained { .. } => "held: drained",
            HeldFor::Crashes { .. } => "held: crashes",
            HeldFor::Stopped { .. } => "held: stopped",
            HeldFor::ClaimFight { .. } => "held: claim fight",
            HeldFor::NeverClaimed { .. } => "held: never claimed",
            HeldFor::InService { .. } => "held: in service",
            HeldFor::RebootNotSeen { .. } => "held: reboot not seen",
            HeldFor::RebootsMissed { .. } => "held: reboots missed",
        },
        Standing::Completed { .. } => "completed",
        Standing::Cancelled { .. } if run.claim.is_none() => "cancelled unclaimed",
        Standing::Cancelled { .. } => "cancelled",
    }
}

/// The run of a column before its first claim.
fn fresh(column: &str) -> Bench {
    match column {
        "held: the spec" => {
            let mut profile = profile(&["Inventory", "SpecValidate", "CPUStress"], "stay");
            profile.expected.cpu.model = Some("Good CPU".into());
            Bench::new(profile)
        }
        "held: stopped" | "held: reboots missed" => {
            Bench::new(profile(&["Interrupt:reboot", "CPUStress"], "stay"))
        }
        _ => Bench::fresh(),
    }
}

/// A run in a column, its claim fresh, and its agent as it would claim again.
pub fn standing(column: &str) -> (Bench, ClaimRequest) {
    let mut request = agent(1);
    let mut bench = fresh(column);
    request.installed = (column == "held: in service").then_some(true);
    match column {
        "unclaimed" | "held: never claimed" | "cancelled unclaimed" => {}
        _ => {
            bench.claim(&request).unwrap();
            bench.heard(1, &[]).unwrap();
        }
    }
    match column {
        "unclaimed" | "in flight" | "held: in service" => {}
        "rebooting" => bench.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap(),
        "waits for a drain" => assert!(bench.put(&Input::AttemptWaits(true)).unwrap().changed),
        "waits for a successor" => {
            assert!(bench.put(&end_of(request.runtime.clone().unwrap(), "0")).unwrap().changed);
        }
        "held: verdict" => {
            bench.report(1, inventory(), 1, Outcome::Fail);
        }
        // Without an inventory nothing can be compared with what is expected.
        "held: the spec" => {
            bench.report(1, inventory(), 1, Outcome::Pass);
        }
        "held: silence" => bench.pass(SILENCE),
        "held: over deadline" => bench.pass_heard(DEADLINE + SILENCE),
        "held: drained" => {
            bench.put(&Input::AttemptWaits(true)).unwrap();
            bench.pass_heard(HOLD);
        }
        "held: crashes" | "held: claim fight" | "held: stopped" | "held: reboots missed" => {
            for known in 1..=3 {
                come_again(&mut bench, column, &mut request, known);
                bench.heard(u64::from(known) + 1, &[]).unwrap();
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

/// Claims once more, for the `known`th time, in a way that holds the run at the third.
fn come_again(bench: &mut Bench, column: &str, request: &mut ClaimRequest, known: u32) {
    let here = bench.run.stages[0].spec.name.clone();
    *request = match column {
        "held: claim fight" => reborn_elsewhere(request, u64::from(known)),
        _ => restarted(request.clone(), u64::from(known)),
    };
    request.stopped = None;
    match column {
        "held: crashes" => {}
        "held: claim fight" => bench.now.listened_ms += 30 * SECOND,
        "held: stopped" => request.stopped = Some(of(here, known)),
        "held: reboots missed" => {
            bench.intent(u64::from(known), "reboot", Some((here, known)), 1).unwrap();
        }
        other => panic!("nobody comes again in column {other:?}"),
    }
    bench.claim_again(request).unwrap();
}

/// The same home on the next machine.
pub fn reborn_elsewhere(request: &ClaimRequest, known: u64) -> ClaimRequest {
    let mut moved = restarted(request.clone(), known);
    let machine = agent(known + 10);
    (moved.serial, moved.macs, moved.boot_id, moved.ip) =
        (machine.serial, machine.macs, machine.boot_id, machine.ip);
    moved
}

/// The same machine under the same boot, its home lost.
pub fn emptied(mut request: ClaimRequest) -> ClaimRequest {
    let boot_id = request.boot_id.clone();
    request = reborn(request, 91);
    request.boot_id = boot_id;
    request.session = Some(id(91_000));
    request
}
