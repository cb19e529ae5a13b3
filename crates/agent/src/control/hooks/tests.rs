//! Which hook runs when, and a world in which agents die at every step.

use proptest::prelude::*;

use super::*;

fn command(name: &str) -> HookCommand {
    HookCommand { argv: vec![name.to_owned()], deadline_ms: 60_000 }
}

fn all() -> Hooks {
    Hooks {
        before_drain: Some(command("before")),
        after_drain: Some(command("after")),
        on_completed: Some(command("completed")),
        on_hold: Some(command("hold")),
    }
}

fn desk(hooks: Hooks, kept: Kept) -> Desk {
    Desk::new("r-1".parse().unwrap(), EPOCH.to_owned(), hooks, kept)
}

const EPOCH: &str = "boot:1";

const WALKS: Seen = Seen {
    drains: false,
    is_stages: false,
    is_busy: false,
    is_placed: true,
    place: Place::Walking,
    ends: Ends::No,
};
const DRAINS: Seen = Seen { drains: true, ..WALKS };
const HELD: Seen = Seen { place: Place::At(Which::OnHold), ..WALKS };
const ENDS: Seen = Seen { ends: Ends::Now, ..WALKS };

/// What it does, in short words; a look that it asks for is answered with `seen`.
fn does(desk: &mut Desk, seen: &Seen, now_ms: u64) -> Vec<String> {
    let mut todo = desk.step(seen, now_ms);
    if todo.last() == Some(&Do::Look) {
        todo.pop();
        desk.looked(seen.drains);
        todo.extend(desk.step(seen, now_ms));
    }
    let word = |todo: Do| match todo {
        Do::Keep(Kept { owes: Some(debt), .. }) => format!("owes, drained {}", debt.is_drained),
        Do::Keep(_) => "owes nothing".to_owned(),
        Do::Look => "look".to_owned(),
        Do::Start(_, command) => command.argv[0].clone(),
        Do::End => "end".to_owned(),
    };
    todo.into_iter().map(word).collect()
}

fn succeeds(desk: &mut Desk) {
    assert!(matches!(desk.ended(Ok(()), 0, 0), Some((_, Came::Done(_)))));
}

#[test]
fn the_debt_is_kept_before_the_hook_runs_and_struck_off_after_the_undo() {
    let mut desk = desk(all(), Kept::default());
    assert_eq!(does(&mut desk, &DRAINS, 0), ["owes, drained false", "before"]);
    assert_eq!(desk.active(true), Some(Which::BeforeDrain));
    assert!(does(&mut desk, &DRAINS, 1).is_empty(), "one runs");
    let Some((_, Came::Done(kept))) = desk.ended(Ok(()), 2, 0) else { panic!() };
    assert!(kept.owes.unwrap().is_drained);
    assert_eq!(desk.active(true), None, "the node is drained");
    assert!(does(&mut desk, &DRAINS, 3).is_empty());
    // From the first step of the undo on it is not, whatever comes in between.
    assert_eq!(does(&mut desk, &WALKS, 4), ["owes, drained false", "after"]);
    let Some((which, Came::Done(kept))) = desk.ended(Ok(()), 5, 0) else { panic!() };
    assert_eq!((which, kept.owes), (Which::AfterDrain, None));
    assert!(does(&mut desk, &WALKS, 6).is_empty());
}

#[test]
fn a_before_waits_for_what_is_in_flight_and_counts_as_active_all_the_while() {
    let mut desk = desk(all(), Kept::default());
    let busy = Seen { is_busy: true, ..DRAINS };
    assert!(does(&mut desk, &busy, 0).is_empty());
    assert_eq!(desk.active(true), Some(Which::BeforeDrain));
    assert_eq!(does(&mut desk, &DRAINS, 1).last().unwrap(), "before");
    let Some((_, Came::Failed { why, tries: 1, pause })) = desk.ended(Err("no".to_owned()), 1_000, u32::MAX)
    else {
        panic!()
    };
    assert_eq!((why.as_str(), pause.as_secs()), ("no", 2));
    assert_eq!(desk.active(true), Some(Which::BeforeDrain), "between two tries too");
    assert_eq!(desk.failed(Which::BeforeDrain), Some((1, "no")));
    assert_eq!(desk.wake_ms(), Some(3_000));
    assert!(does(&mut desk, &DRAINS, 2_999).is_empty());
    assert_eq!(does(&mut desk, &DRAINS, 3_000).last().unwrap(), "before");
}

#[test]
fn pauses_grow_up_to_five_minutes_and_begin_anew_after_a_success() {
    let mut desk = desk(all(), Kept::default());
    let mut now_ms = 0;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(does(&mut desk, &DRAINS, now_ms).last().unwrap(), "before");
        let Some((_, Came::Failed { pause, .. })) = desk.ended(Err(String::new()), now_ms, u32::MAX) else {
            panic!()
        };
        now_ms += u64::try_from(pause.as_millis()).unwrap();
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    does(&mut desk, &DRAINS, now_ms);
    succeeds(&mut desk);
    does(&mut desk, &WALKS, now_ms);
    let Some((_, Came::Failed { tries: 1, pause, .. })) = desk.ended(Err(String::new()), 0, u32::MAX) else {
        panic!()
    };
    assert_eq!(pause.as_secs(), 2);
}

#[test]
fn a_before_that_nobody_needs_any_more_is_ended_and_undone() {
    let mut desk = desk(all(), Kept::default());
    does(&mut desk, &DRAINS, 0);
    assert_eq!(does(&mut desk, &WALKS, 1), ["end"]);
    assert!(does(&mut desk, &WALKS, 2).is_empty(), "once");
    // That it failed is no failure of its own, so the undo follows at once.
    assert!(matches!(desk.ended(Err("told to end".to_owned()), 3, 0), Some((_, Came::Ended(_)))));
    assert_eq!(does(&mut desk, &WALKS, 3).last().unwrap(), "after");
    // An undo is let go on when the next drain comes, and the next `before` follows it.
    assert!(does(&mut desk, &DRAINS, 4).is_empty() && desk.active(true) == Some(Which::AfterDrain));
    succeeds(&mut desk);
    assert_eq!(does(&mut desk, &DRAINS, 5), ["owes, drained false", "before"]);
}

#[test]
fn what_an_agent_left_is_gone_on_with_by_the_next_one() {
    let debt = |is_drained, epoch: &str| Debt {
        is_drained,
        is_stages: false,
        epoch: epoch.to_owned(),
        after: Some(command("as it was then")),
    };
    let owes = |is_drained| Kept { owes: Some(debt(is_drained, EPOCH)), ..Kept::default() };
    let other_boot = Kept { owes: Some(debt(true, "boot:2")), ..Kept::default() };
    let no_undo = Kept { owes: Some(Debt { after: None, ..debt(true, EPOCH) }), ..Kept::default() };
    let hooks = |after: bool| Hooks { after_drain: after.then(|| command("as it is now")), ..all() };
    // kept, seen, is there an `after` in the file: what it does
    let cases: [(Kept, Seen, bool, &[&str]); 9] = [
        (owes(true), DRAINS, true, &[]),
        (owes(false), DRAINS, true, &["owes, drained false", "before"]),
        (owes(false), DRAINS, false, &["owes, drained false", "before"]),
        (owes(true), WALKS, true, &["owes, drained false", "as it is now"]),
        (owes(false), WALKS, true, &["owes, drained false", "as it is now"]),
        (owes(false), WALKS, false, &["owes, drained false", "as it was then"]),
        // What was stopped before a boot may run again after it; this debt is written anew, with the boot.
        (other_boot.clone(), DRAINS, false, &["owes, drained false", "before"]),
        (other_boot, WALKS, false, &["owes, drained false", "as it was then"]),
        (no_undo, WALKS, false, &["owes nothing"]),
    ];
    for (kept, seen, has_after, expected) in cases {
        let text = serde_json::to_vec(&kept).unwrap();
        let mut desk = desk(hooks(has_after), serde_json::from_slice(&text).unwrap());
        assert_eq!(does(&mut desk, &seen, 0), expected, "{kept:?} {seen:?}");
    }
    // Without a file of hooks too.
    let mut desk = desk(Hooks::default(), owes(true));
    assert_eq!(does(&mut desk, &WALKS, 0).last().unwrap(), "as it was then");
}

#[test]
fn the_undo_of_a_stages_drain_waits_until_it_is_known_where_the_run_goes_on() {
    let own = Seen { is_stages: true, ..DRAINS };
    let lost = Seen { is_placed: false, ..WALKS };
    let mut desk = desk(all(), Kept::default());
    does(&mut desk, &own, 0);
    succeeds(&mut desk);
    assert!(does(&mut desk, &lost, 1).is_empty() && desk.waits_for_place());
    // The next stage drains too: nothing was undone, and nothing has to be done.
    assert!(does(&mut desk, &own, 2).is_empty());
    assert_eq!(does(&mut desk, &WALKS, 3).last().unwrap(), "after");
    succeeds(&mut desk);
    // A drain that somebody else asked for is undone at once.
    does(&mut desk, &DRAINS, 4);
    succeeds(&mut desk);
    assert_eq!(does(&mut desk, &lost, 5).last().unwrap(), "after");
}

#[test]
fn a_hold_and_an_end_have_their_hook_once_and_each_next_hold_its_own() {
    let mut desk = desk(all(), Kept::default());
    assert_eq!(does(&mut desk, &HELD, 0), ["hold"]);
    let Some((_, Came::Done(kept))) = desk.ended(Ok(()), 0, 0) else { panic!() };
    assert!(does(&mut desk, &HELD, 1).is_empty());
    // An agent that is started again, and knows not yet where the run stands, does not begin anew.
    let mut desk = super::Desk::new("r-1".parse().unwrap(), EPOCH.to_owned(), all(), kept.clone());
    assert!(does(&mut desk, &Seen { place: Place::Unknown, ..WALKS }, 0).is_empty());
    assert!(does(&mut desk, &HELD, 0).is_empty());
    assert_eq!(does(&mut desk, &WALKS, 1), ["owes nothing"]);
    assert_eq!(does(&mut desk, &HELD, 2), ["hold"]);
    succeeds(&mut desk);
    let completed = Seen { place: Place::At(Which::OnCompleted), ..WALKS };
    assert_eq!(does(&mut desk, &completed, 3).last().unwrap(), "completed");
    // The same home in another run.
    let mut other = super::Desk::new("r-2".parse().unwrap(), EPOCH.to_owned(), all(), kept);
    assert_eq!(does(&mut other, &HELD, 0), ["hold"]);
}

/// Both cordon the node, and the undo of a drain takes it off for both.
#[test]
fn a_drain_of_a_held_node_ends_with_the_hook_of_the_hold() {
    let mut desk = desk(all(), Kept::default());
    assert_eq!(does(&mut desk, &HELD, 0), ["hold"]);
    succeeds(&mut desk);
    does(&mut desk, &Seen { drains: true, ..HELD }, 1);
    succeeds(&mut desk);
    assert_eq!(does(&mut desk, &HELD, 2).last().unwrap(), "after");
    succeeds(&mut desk);
    assert_eq!(does(&mut desk, &HELD, 3), ["hold"]);
    succeeds(&mut desk);
    assert!(does(&mut desk, &HELD, 4).is_empty(), "once");
}

#[test]
fn what_is_owed_comes_before_the_hook_of_a_hold_and_nothing_new_starts_in_a_drain() {
    let mut desk = desk(all(), Kept::default());
    does(&mut desk, &DRAINS, 0);
    succeeds(&mut desk);
    assert!(does(&mut desk, &Seen { drains: true, ..HELD }, 1).is_empty());
    assert_eq!(does(&mut desk, &HELD, 2).last().unwrap(), "after");
    succeeds(&mut desk);
    // A marker that comes while the hook is registered holds it up.
    assert_eq!(desk.step(&HELD, 3), [Do::Look]);
    assert_eq!(desk.active(false), Some(Which::OnHold));
    desk.looked(true);
    assert_eq!(desk.active(false), None);
    assert_eq!(does(&mut desk, &Seen { drains: true, ..HELD }, 4), ["owes, drained false", "before"]);
}

#[test]
fn an_agent_that_ends_ends_its_hook_and_starts_none() {
    let mut desk = desk(all(), Kept::default());
    assert!(does(&mut desk, &Seen { ends: Ends::Now, ..DRAINS }, 0).is_empty());
    does(&mut desk, &DRAINS, 0);
    assert_eq!(does(&mut desk, &Seen { ends: Ends::Now, ..DRAINS }, 1), ["end"]);
    desk.ended(Err(String::new()), 2, 0);
    assert!(does(&mut desk, &Seen { ends: Ends::Now, ..DRAINS }, 3).is_empty());
    assert!(does(&mut desk, &ENDS, 3).is_empty());
    assert_eq!(desk.ended(Ok(()), 4, 0), None, "none runs");
}

#[test]
fn an_agent_that_nobody_comes_after_undoes_what_is_owed_and_starts_nothing_else() {
    let last = |seen: Seen| Seen { ends: Ends::Undone, ..seen };
    let mut desk = desk(all(), Kept::default());
    assert!(does(&mut desk, &last(HELD), 0).is_empty() && !desk.keeps_up(&last(HELD)));
    does(&mut desk, &DRAINS, 0);
    assert_eq!(does(&mut desk, &last(DRAINS), 1), ["end"], "a drain's hook is ended");
    desk.ended(Err(String::new()), 2, 0);
    // A drain that holds on is not undone, and is not waited for.
    assert!(does(&mut desk, &last(DRAINS), 3).is_empty() && !desk.keeps_up(&last(DRAINS)) && desk.owes());
    assert!(!desk.keeps_up(&ENDS) && !desk.keeps_up(&WALKS), "others come after");
    let mut now_ms = 4;
    for _ in 0..3 {
        assert!(desk.keeps_up(&last(WALKS)));
        assert_eq!(does(&mut desk, &last(WALKS), now_ms).last().unwrap(), "after");
        assert!(does(&mut desk, &last(WALKS), now_ms).is_empty(), "it is let go on");
        desk.ended(Err(String::new()), now_ms, 0);
        now_ms += 600_000;
    }
    assert!(!desk.keeps_up(&last(WALKS)) && desk.owes());
    does(&mut desk, &last(WALKS), now_ms);
    succeeds(&mut desk);
    assert!(!desk.owes() && !desk.keeps_up(&last(WALKS)));
}

#[test]
fn the_power_waits_for_a_drain_and_for_a_hook_but_not_for_one_that_fails_for_ever() {
    let mut desk = desk(all(), Kept::default());
    let completed = Seen { place: Place::At(Which::OnCompleted), ..WALKS };
    assert!(desk.keeps_power(&completed) && !desk.keeps_power(&WALKS));
    let mut drained = self::desk(all(), Kept::default());
    does(&mut drained, &DRAINS, 0);
    succeeds(&mut drained);
    assert!(drained.keeps_power(&DRAINS), "no hook is left to run, and the drain holds");
    let mut now_ms = 0;
    for _ in 0..3 {
        assert!(desk.keeps_power(&completed));
        does(&mut desk, &completed, now_ms);
        assert!(desk.keeps_power(&completed), "it runs");
        desk.ended(Err(String::new()), now_ms, 0);
        now_ms += 600_000;
    }
    assert!(!desk.keeps_power(&completed));
}

#[test]
fn a_node_without_hooks_does_nothing() {
    let mut desk = desk(Hooks::default(), Kept::default());
    for seen in [WALKS, DRAINS, HELD, ENDS] {
        assert!(does(&mut desk, &seen, 0).is_empty() && desk.active(seen.drains).is_none());
    }
}

/// What may happen to a node.
#[derive(Debug, Clone)]
enum Turn {
    Drain(bool),
    Busy(bool),
    Place(u8),
    Hook(bool),
    Wait(u64),
    /// The agent dies, with its hook wherever that was, and another one starts.
    Dies,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        3 => any::<bool>().prop_map(Turn::Drain),
        1 => any::<bool>().prop_map(Turn::Busy),
        2 => (0..4_u8).prop_map(Turn::Place),
        4 => any::<bool>().prop_map(Turn::Hook),
        2 => (0..400_000_u64).prop_map(Turn::Wait),
        1 => Just(Turn::Dies),
    ];
    prop::collection::vec(turn, 0..60)
}

/// A node, its disk, and the workloads on it.
struct World {
    desk: Desk,
    disk: Kept,
    seen: Seen,
    now_ms: u64,
    /// What a `before` may have done and no `after` has undone.
    is_cordoned: bool,
    /// The hook of a hold was done, and no `after` since.
    is_kept_off: bool,
    runs: Option<Which>,
}

impl World {
    fn turn(&mut self, turn: &Turn) {
        match *turn {
            Turn::Drain(drains) => self.seen.drains = drains,
            Turn::Busy(is_busy) => self.seen.is_busy = is_busy,
            Turn::Place(place) => {
                let places =
                    [Place::Unknown, Place::Walking, Place::At(Which::OnHold), Place::At(Which::OnCompleted)];
                self.seen.place = places[usize::from(place)];
            }
            Turn::Wait(ms) => self.now_ms += ms,
            Turn::Dies => {
                self.runs = None;
                self.desk = desk(all(), self.disk.clone());
            }
            Turn::Hook(succeeds) => {
                if let Some(which) = self.runs.take() {
                    let done = if succeeds { Ok(()) } else { Err(String::new()) };
                    match which {
                        Which::AfterDrain if succeeds => {
                            (self.is_cordoned, self.is_kept_off) = (false, false)
                        }
                        Which::OnHold if succeeds => self.is_kept_off = true,
                        Which::AfterDrain | Which::OnHold | Which::BeforeDrain | Which::OnCompleted => {}
                    }
                    if let Some((_, Came::Done(kept))) = self.desk.ended(done, self.now_ms, 7) {
                        self.disk = kept;
                    }
                }
            }
        }
        self.settle();
    }

    /// Lets the desk do what it does now; an action is asked of it in its order.
    fn settle(&mut self) {
        for _ in 0..4 {
            let todo = self.desk.step(&self.seen, self.now_ms);
            let looks = todo.last() == Some(&Do::Look);
            for one in todo {
                self.perform(one);
            }
            if looks {
                self.desk.looked(self.seen.drains);
            }
        }
    }

    fn perform(&mut self, one: Do) {
        match one {
            Do::Keep(kept) => self.disk = kept,
            Do::Look | Do::End => {}
            Do::Start(which, _) => {
                assert_eq!(self.runs.replace(which), None, "one hook at a time");
                if which == Which::BeforeDrain {
                    assert!(self.seen.drains && !self.seen.is_busy);
                    assert!(self.disk.owes.is_some(), "the debt is on the disk before the hook runs");
                    self.is_cordoned = true;
                } else {
                    assert!(!self.seen.drains, "nothing new starts in a drain");
                }
            }
        }
    }
}

proptest! {
    /// Whoever dies when: what was done is undone in the end, and a drain counts as such only where it was done.
    #[test]
    fn what_was_done_is_undone_in_the_end_whoever_dies(turns in turns()) {
        let mut world = World {
            desk: desk(all(), Kept::default()),
            disk: Kept::default(),
            seen: WALKS,
            now_ms: 0,
            is_cordoned: false,
            is_kept_off: false,
            runs: None,
        };
        for turn in &turns {
            world.turn(turn);
            prop_assert!(!world.is_cordoned || world.disk.owes.is_some(), "done, and nobody knows");
            let says_drained = world.seen.drains && world.desk.active(true).is_none();
            prop_assert!(!says_drained || world.is_cordoned, "idle is said before the hook was done");
        }
        // Everything that fails works in the end: a node that is held is kept off, whatever was drained and undone.
        world.seen = HELD;
        for _ in 0..6 {
            world.turn(&Turn::Wait(400_000));
            world.turn(&Turn::Hook(true));
        }
        prop_assert!(world.is_kept_off && world.disk.owes.is_none(), "held, and open to workloads");
        // And nobody asks any more.
        world.seen = Seen { drains: false, is_busy: false, place: Place::Walking, ..WALKS };
        for _ in 0..6 {
            world.turn(&Turn::Wait(400_000));
            world.turn(&Turn::Hook(true));
        }
        prop_assert!(!world.is_cordoned && world.disk.owes.is_none() && world.runs.is_none());
    }
}
