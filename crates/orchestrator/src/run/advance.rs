//! Lands a decision: loads the run, decides, and stores run, events, audit row and results in one transaction.
//!
//! Every change of a run goes through here; handlers, deadlines and operators are only callers.

use std::sync::Arc;

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::ids::{Attempt, RunId};
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{ResultRequest, Taken};

use super::decide::{self, Answer, Change, Input, NewEvent, NewRun, OrderKind, Refused};
use super::state::{Now, Run};
use crate::store::{
    NewAudit, NewEventRow, NewResultRow, PackageKey, ResultKind, RunColumns, RunDoc, RunWrite, Store,
    StoreError, StoredRun,
};

/// Tries to land a decision where another process changes the run at the same time. There should be none.
const TRIES_MAX: usize = 3;
/// Room for a run's document; a longer one grows.
const DOCUMENT_BYTES_USUAL: usize = 8 * 1024;

/// Tells the moment for a decision about a run. Called when the decision is made, on the store's writer thread: it
/// must not block.
pub type Clock = Arc<dyn Fn(&RunId) -> Now + Send + Sync>;

/// A decision that has landed.
#[derive(Debug, Clone)]
pub struct Landed {
    /// The run afterwards.
    pub run: Arc<Run>,
    /// Version of the run afterwards: of two of these the higher is the later.
    pub version: u64,
    /// True where the run differs from before.
    pub changed: bool,
    /// What to answer.
    pub answer: Answer,
    /// Its events, as they are stored.
    pub events: Vec<EventView>,
}

/// Why a decision did not land.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// It was refused; nothing changed.
    #[error(transparent)]
    Refused(Refused),
    /// There is no such run. [`Store::run`] tells whether there was one.
    #[error("there is no run {0}")]
    NoRun(RunId),
    /// A new run's id is taken, or was.
    #[error("there is a run {0} already, or there was one")]
    Taken(RunId),
    /// The stored run cannot be read or written as JSON.
    #[error("the stored run {run} cannot be read")]
    Unreadable {
        /// The run.
        run: RunId,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The store failed; whether it landed is known only after a restart where the commit itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a run.
///
/// # Errors
/// [`AdvanceError::Taken`], and those of the store.
pub async fn create(store: &Store, clock: &Clock, new: NewRun) -> Result<Landed, AdvanceError> {
    let id = new.id.clone();
    let run = id.clone();
    let clock = clock.clone();
    let landed = store
        .change_run(id.clone(), move |stored| {
            if stored.is_some() {
                return Err(AdvanceError::Taken(run));
            }
            let now = clock(&run);
            let audit = NewAudit {
                at: now.wall,
                actor: new.by.clone(),
                action: "create_run".into(),
                run: Some(run),
                text: format!("node {}, profile {}", new.node, new.profile.name),
            };
            let change = decide::create(new, now);
            write_of(change, 1, now.wall, Kept { audit: Some(audit), results: Vec::new(), told: false })
        })
        .await;
    match landed {
        Err(StoreError::Exists(_)) => Err(AdvanceError::Taken(id)),
        landed => landed?.map(landed_of),
    }
}

/// Decides what `input` changes of a run, and lands it.
///
/// # Errors
/// [`AdvanceError`].
pub async fn advance(
    store: &Store,
    clock: &Clock,
    run: &RunId,
    input: Input,
) -> Result<Landed, AdvanceError> {
    let input = Arc::new(input);
    for _earlier in 1..TRIES_MAX {
        match try_advance(store, clock, run, &input).await {
            Err(AdvanceError::Store(StoreError::Conflict { .. })) => {}
            landed => return landed,
        }
    }
    try_advance(store, clock, run, &input).await
}

async fn try_advance(
    store: &Store,
    clock: &Clock,
    run: &RunId,
    input: &Arc<Input>,
) -> Result<Landed, AdvanceError> {
    let clock = clock.clone();
    let id = run.clone();
    let input = input.clone();
    let decide = move |stored: Option<&StoredRun>| {
        let Some(stored) = stored else {
            return Err(AdvanceError::NoRun(id));
        };
        let before = read(stored)?;
        let now = clock(&id);
        let change = decide::decide(&before, &input, now).map_err(AdvanceError::Refused)?;
        let kept = Kept {
            audit: audit_of(&input, &id, now.wall),
            results: results_of(&input, &change, now.wall),
            told: stored.restored && matches!(*input, Input::Restored),
        };
        let version = stored.version + u64::from(change.changed);
        write_of(change, version, now.wall, kept)
    };
    store.change_run(run.clone(), decide).await?.map(landed_of)
}

fn landed_of((landing, events): (Landed, Vec<EventView>)) -> Landed {
    Landed { events, ..landing }
}

/// Reads a stored run, where nobody has yet.
///
/// # Errors
/// [`AdvanceError::Unreadable`].
pub fn read(stored: &StoredRun) -> Result<Arc<Run>, AdvanceError> {
    let unreadable = |source| AdvanceError::Unreadable { run: stored.id.clone(), source };
    stored.doc.read(|json| serde_json::from_str(json)).map_err(unreadable)
}

/// What is stored beside the run and its events.
struct Kept {
    audit: Option<NewAudit>,
    results: Vec<NewResultRow>,
    told: bool,
}

/// What is to land of a change, and what to answer once it has: all but the events, which get their numbers by it.
fn write_of(
    change: Change,
    version: u64,
    at: WallMs,
    kept: Kept,
) -> Result<(RunWrite, Landed), AdvanceError> {
    let Change { run, changed, events, answer, result: _, own: _ } = change;
    let run = Arc::new(run);
    let doc = match changed {
        false => None,
        true => {
            let mut json = Vec::with_capacity(DOCUMENT_BYTES_USUAL);
            serde_json::to_writer(&mut json, &*run)
                .map_err(|source| AdvanceError::Unreadable { run: run.id.clone(), source })?;
            let json = String::from_utf8(json).expect("JSON is UTF-8");
            Some((RunDoc::written(json, run.clone()), columns_of(&run, at)))
        }
    };
    let events = events.into_iter().map(|event| event_row(event, at)).collect();
    let Kept { audit, results, told } = kept;
    let write = RunWrite { doc, events, audit, results, tells_restored: told };
    Ok((write, Landed { run, version, changed, answer, events: Vec::new() }))
}

/// The packages of the store that a run uses.
pub fn packages_of(run: &Run) -> impl Iterator<Item = PackageKey> {
    run.profile.stored_packages().map(|used| (used.name.clone(), used.version.clone()))
}

fn columns_of(run: &Run, at: WallMs) -> RunColumns {
    RunColumns {
        node: run.node.clone(),
        profile: run.profile.name.clone(),
        state: run.state(),
        created: run.created,
        updated: at,
        ended: run.ended(),
        owes_notices: run.ended().is_some() && !run.notices.is_empty(),
        boot_token: run.boot_token.clone(),
        run_token: run.claim.as_ref().map(|claim| claim.token.clone()),
        packages: packages_of(run).collect(),
    }
}

fn event_row(event: NewEvent, at: WallMs) -> NewEventRow {
    let NewEvent { kind, actor, text, stage, state } = event;
    NewEventRow { at, kind: kind.to_owned(), actor, text, stage, state }
}

/// The audit row of an operator's part in a change.
fn audit_of(input: &Input, run: &RunId, at: WallMs) -> Option<NewAudit> {
    let (actor, action, text) = match input {
        Input::Order { order, stage, reason, by } => {
            let text = match stage {
                Some(stage) => format!("{stage}: {reason}"),
                None => reason.clone(),
            };
            (by, order_word(*order), text)
        }
        Input::NewBootToken { by, .. } => (by, "new_boot_token", String::new()),
        Input::Claim { .. }
        | Input::Result(_)
        | Input::Heard { .. }
        | Input::Intent(_)
        | Input::Hold { .. }
        | Input::Drains { .. }
        | Input::AttemptWaits(_)
        | Input::ShutsDown { .. }
        | Input::NoticeSettled { .. }
        | Input::Deadline
        | Input::RuntimeEnded(_)
        | Input::Restored => return None,
    };
    Some(NewAudit { at, actor: actor.clone(), action: action.into(), run: Some(run.clone()), text })
}

fn order_word(order: OrderKind) -> &'static str {
    match order {
        OrderKind::Retry => "retry",
        OrderKind::RetryWithWipe => "retry_with_wipe",
        OrderKind::Override => "override",
        OrderKind::Cancel => "cancel",
        OrderKind::Release => "release",
        OrderKind::Abort => "abort",
    }
}

/// The result rows of a change: the agent's, and those of stages that the orchestrator resolved.
fn results_of(input: &Input, change: &Change, at: WallMs) -> Vec<NewResultRow> {
    let own = |(stage, attempt, judged): &(Stage, Attempt, Judged)| NewResultRow {
        stage: stage.clone(),
        attempt: *attempt,
        kind: ResultKind::Own,
        at,
        request: None,
        judged: Some(judged.clone()),
    };
    let mut rows = Vec::new();
    if let (Some(kept), Input::Result(request)) = (&change.result, input) {
        let (kind, judged) = match &kept.taken {
            Taken::First => (ResultKind::First, kept.judged.clone()),
            Taken::Repeated => (ResultKind::Repeated, None),
            // An unknown word comes from a peer only; whatever it meant, the result does not stand.
            Taken::Late | Taken::Unknown(_) => (ResultKind::Late, None),
        };
        let request: Box<ResultRequest> = request.clone();
        rows.push(NewResultRow {
            stage: request.stage.clone(),
            attempt: kept.attempt,
            kind,
            at,
            request: Some(request),
            judged,
        });
        rows.extend(kept.own.iter().map(own));
    }
    rows.extend(change.own.iter().map(own));
    rows
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::Verdict;
    use groundcrew_protocol::ids::{ClaimNumber, Sha256Hex};
    use groundcrew_protocol::profile::Profile;
    use groundcrew_protocol::stage::State;
    use groundcrew_protocol::wire::ClaimRequest;

    use super::*;
    use crate::store::{RunLookup, StoreOptions};

    fn clock() -> Clock {
        Arc::new(|_run| Now { wall: WallMs(1_000), listened_ms: 10, heard_ms: 10 })
    }

    fn new_run() -> NewRun {
        let profile = serde_json::json!({ "name": "demo", "in_service": true, "stage": [{ "name": "Soak" }, { "name": "Reporting" }] });
        let profile: Profile = serde_json::from_value(profile).unwrap();
        NewRun {
            id: "r-1".parse().unwrap(),
            node: "node-1".parse().unwrap(),
            node_is: Default::default(),
            profile,
            boot_token: Sha256Hex::of(b"boot"),
            by: "ada".into(),
            notify: Vec::new(),
        }
    }

    fn claim() -> Input {
        let request = serde_json::json!({
            "ip": "192.0.2.7", "instance": "0".repeat(32), "session": "1".repeat(32), "home": "durable",
            "token_sha256": Sha256Hex::of(b"run")
        });
        let request: ClaimRequest = serde_json::from_value(request).unwrap();
        let bearer = Sha256Hex::of(b"boot");
        Input::Claim { request: Box::new(request), protocol: 2, bearer, fleet: Vec::new() }
    }

    fn result(claim: u64, summary: &str) -> Input {
        let request = serde_json::json!({
            "claim": claim, "made_under": 1, "stage": "Soak", "attempt": 1, "passed": true, "summary": summary
        });
        Input::Result(serde_json::from_value(request).unwrap())
    }

    async fn store(data: &std::path::Path) -> Store {
        Store::open(data, StoreOptions::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_run_is_made_once_and_its_changes_land_with_all_that_belongs_to_them() {
        let data = tempfile::tempdir().unwrap();
        let (store, clock) = (store(data.path()).await, clock());
        let made = create(&store, &clock, new_run()).await.unwrap();
        let run = made.run.id.clone();
        assert!(matches!(create(&store, &clock, new_run()).await, Err(AdvanceError::Taken(_))));
        let claimed = advance(&store, &clock, &run, claim()).await.unwrap();
        assert!(claimed.changed && claimed.version == made.version + 1);
        let owners = store.token_owners(&Sha256Hex::of(b"run")).await.unwrap();
        assert_eq!(owners[0].run, run);

        // The stage has planned checks that nobody reported: inconclusive, and held.
        let first = advance(&store, &clock, &run, result(1, "fine")).await.unwrap();
        assert_eq!(first.run.state(), State::FailedHolding);
        let again = advance(&store, &clock, &run, result(1, "fine")).await.unwrap();
        let other = advance(&store, &clock, &run, result(1, "other")).await.unwrap();
        for (landed, taken) in [(&first, Taken::First), (&again, Taken::Repeated), (&other, Taken::Repeated)]
        {
            let Answer::Result(answer) = &landed.answer else { panic!("{:?}", landed.answer) };
            assert_eq!((&answer.taken, &answer.next_state), (&taken, &State::FailedHolding));
        }
        let standing = store.results(&run).await.unwrap();
        assert_eq!(standing.len(), 1);
        assert_eq!(standing[0].judged.as_ref().unwrap().verdict, Verdict::Inconclusive);
        assert_eq!(standing[0].claim, ClaimNumber(1));
        let (evidence, dropped) = store.evidence(&run).await.unwrap();
        assert_eq!((evidence.len(), dropped), (1, 0));

        let order = Input::Order {
            order: OrderKind::Override,
            stage: None,
            reason: "known cable".into(),
            by: "ada".into(),
        };
        let ended = advance(&store, &clock, &run, order).await.unwrap();
        assert_eq!(ended.run.state(), State::Completed);
        let actions: Vec<_> =
            store.audit_rows(u64::MAX, 10).await.unwrap().into_iter().map(|row| row.audit.action).collect();
        assert_eq!(actions, ["override", "create_run"]);

        let told: Vec<_> =
            [made, claimed, first, again, other, ended].into_iter().flat_map(|one| one.events).collect();
        assert_eq!(store.events(Some(&run), 0, 100).await.unwrap(), told);
        assert!(store.runs_going(None, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_refused_leaves_no_trace() {
        let data = tempfile::tempdir().unwrap();
        let (store, clock) = (store(data.path()).await, clock());
        let unknown = "r-9".parse().unwrap();
        assert!(matches!(advance(&store, &clock, &unknown, claim()).await, Err(AdvanceError::NoRun(_))));
        let run = create(&store, &clock, new_run()).await.unwrap().run.id.clone();
        advance(&store, &clock, &run, claim()).await.unwrap();
        let RunLookup::Found(before) = store.run(&run).await.unwrap() else { panic!("no run") };
        let events = store.last_event().await.unwrap();
        let old = advance(&store, &clock, &run, result(0, "of an older claim")).await;
        assert!(matches!(old, Err(AdvanceError::Refused(Refused::OldClaim { .. }))), "{old:?}");
        assert_eq!(store.run(&run).await.unwrap(), RunLookup::Found(before));
        assert_eq!(store.last_event().await.unwrap(), events);
        assert!(store.results(&run).await.unwrap().is_empty());
    }
}
