//! On an installed system a stage that loads the machine needs the profile's leave, and a run that lacks it says so at once.

use groundcrew_orchestrator::run::decide::{OrderFor, OrderKind, Refused};
use groundcrew_orchestrator::run::state::{HeldFor, Standing};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimRequest, HomeKind};

use crate::bench::*;

/// An inventory, then a load; with this at the top of the profile and in the load.
fn bench(top: &str, stage: &str) -> Bench {
    let text = format!(
        "name = \"p\"\n{top}\n[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"CPUStress\"\n{stage}\n"
    );
    Bench::new(Profile::parse(&text).unwrap())
}

/// An agent that says this of its machine and its home.
fn says(installed: Option<bool>, home: Option<HomeKind>) -> ClaimRequest {
    let mut request = agent(1);
    (request.installed, request.home) = (installed, home);
    request
}

fn lacking(drains: bool) -> HeldFor {
    HeldFor::InService { stage: Stage::CpuStress, drains }
}

#[test]
fn a_load_needs_leave_where_the_system_is_installed() {
    let durable = || Some(HomeKind::Durable);
    let volatile = || Some(HomeKind::Volatile);
    for (top, stage, installed, home, wanted) in [
        ("", "", Some(true), durable(), Some(lacking(false))),
        // What the agent says of the machine counts, and not what has become of its home.
        ("", "", Some(true), volatile(), Some(lacking(false))),
        ("", "", Some(false), volatile(), None),
        ("", "", Some(false), durable(), None),
        // An older agent says its home alone, and one of protocol 1 not even that.
        ("", "", None, durable(), Some(lacking(false))),
        ("", "", None, volatile(), None),
        ("", "", None, None, None),
        ("in_service = true", "", Some(true), durable(), None),
        ("in_service = true", "", None, durable(), None),
        ("", "in_service = true", Some(true), durable(), None),
        ("", "drain = true", Some(true), durable(), None),
        ("", "drain = true", None, durable(), Some(lacking(true))),
        ("in_service = true", "drain = true", None, durable(), None),
    ] {
        let mut bench = bench(top, stage);
        bench.claim(&says(installed, home.clone())).unwrap();
        let held = match &bench.run.standing {
            Standing::Held { why, .. } => Some(why.clone()),
            Standing::Walking => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(held, wanted, "{top:?} {stage:?} {installed:?} {home:?}");
        // Nothing of the run was begun: no stage is to have run for hours before it shows.
        assert_eq!(bench.run.stages[0].attempts.is_empty(), wanted.is_some());
    }
}

#[test]
fn the_reason_names_the_stage_and_the_ways_out() {
    let reason = lacking(false).describe(&inventory());
    for part in ["CPUStress", "in_service = true", "drain = true", "live image"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(lacking(true).describe(&inventory()).contains("bring it up to date"));
}

#[test]
fn a_run_without_leave_goes_on_from_a_live_image_and_by_no_override() {
    let mut bench = bench("", "");
    bench.claim(&says(Some(true), Some(HomeKind::Durable))).unwrap();
    let refused = bench.order(OrderKind::Override, None, "let it").unwrap_err();
    assert!(matches!(refused, Refused::Order { why: OrderFor::NothingChecked, .. }), "{refused:?}");
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.why(), &lacking(false), "a retry asks the same agent again");

    let mut live = reborn(agent(1), 2);
    live.installed = Some(false);
    bench.pass(120 * SECOND);
    bench.claim(&live).unwrap();
    assert_eq!(bench.why(), &lacking(false), "a hold ends by an operator's word");
    bench.order(OrderKind::Retry, None, "it is in the live image now").unwrap();
    assert_eq!(bench.run.standing, Standing::Walking);
    bench.report(2, inventory(), 1, Outcome::Pass);
    bench.report(2, stress(), 1, Outcome::Pass);
    assert!(matches!(bench.run.standing, Standing::Completed { .. }));
}

/// What is behind the run needs no leave any more: a load that was borne in the live image, and only a look at the installed
/// system after it.
#[test]
fn only_what_is_to_come_is_asked_for() {
    let text = "name = \"p\"\n[[stage]]\nname = \"CPUStress\"\n[[stage]]\nname = \"Inventory\"\n";
    let mut bench = Bench::new(Profile::parse(text).unwrap());
    bench.claim(&says(Some(false), Some(HomeKind::Volatile))).unwrap();
    bench.report(1, stress(), 1, Outcome::Pass);
    let mut installed = reborn(agent(1), 2);
    installed.installed = Some(true);
    bench.pass(120 * SECOND);
    bench.claim(&installed).unwrap();
    assert_eq!(bench.run.standing, Standing::Walking);
    assert_eq!(bench.run.at, 1);
}
