//! Why an input changes nothing. A refusal is a value: it names the place in the decision that made it, and says in a
//! sentence what was found, what was expected and what to do.
//!
//! A place is a variant, so that the table of refused events (`tests/decide/refused.rs`) does not compile without it.

use groundcrew_protocol::ids::{ClaimNumber, NodeName, RunId};
use groundcrew_protocol::time::WallMs;

/// An enum of places, and the list of them all.
macro_rules! places {
    ($(#[$about:meta])* $name:ident { $($(#[$why:meta])* $place:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$why])* $place,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$place),+];
        }
    };
}

places! {
    /// Why a message does not fit its run.
    UnfitFor {
        /// A claim of a protocol that is not spoken here.
        Protocol,
        /// A claim that does not name its home.
        NoInstance,
        /// A claim that does not name its process.
        NoSession,
        /// A claim without the hash of its run token.
        NoTokenHash,
        /// A claim that knows a number far beyond the last one here.
        KnownClaim,
        /// A result of a stage that the run does not have.
        NoSuchStage,
        /// A result of a stage that is the orchestrator's.
        OwnStage,
        /// A result of an attempt that was never given out.
        NoSuchAttempt,
        /// An intent in an attempt that is not in flight.
        NotInFlight,
        /// An intent outside a stage that is no power-off after the end.
        OutsideStage,
        /// An intent to wipe that nobody allowed.
        NoWipeOverride,
        /// An intent of an unknown kind.
        UnknownIntent,
        /// An intent under another boot than the claim's.
        OtherBoot,
    }
}

places! {
    /// Why an order, or what an agent asks for in a hold, makes no sense where the run stands.
    OrderFor {
        /// The run has ended.
        Ended,
        /// An order that needs a held run.
        NotHeld,
        /// The agent has too many orders to answer.
        NoRoom,
        /// A retry of a stage that was not begun, or that no agent does.
        NotBegun,
        /// A retry with a wipe of a stage that writes over no disk, or that no agent would do.
        NoUseOfWipe,
        /// An override without a reason.
        NoReason,
        /// An override of another stage than the one that holds.
        OtherStage,
        /// An override before anything was checked.
        NothingChecked,
        /// An agent that holds while its run does not.
        AgentHoldsAlone,
        /// A new boot token for a run that has ended.
        TokenAfterEnd,
    }
}

places! {
    /// Why a spent boot token is not good again.
    SpentFor {
        /// The claim that spent it is not there.
        ClaimGone,
        /// Another machine than the one that spent it, or one that does not say which it is.
        OtherMachine,
        /// The machine has not booted since.
        NoLaterBoot,
        /// The agent that claimed with it may be alive.
        HeardLately,
    }
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A message of a claim that is no longer the current one.
    #[error("claim {found} of run {run} is past; claim {current} counts now. Stand down and ask again later")]
    OldClaim {
        /// The run.
        run: RunId,
        /// The claim in the message.
        found: ClaimNumber,
        /// The one that counts.
        current: ClaimNumber,
    },
    /// A message of a claim that is higher than any that the store has given out, or of one that has not claimed
    /// again since the store was restored.
    #[error(
        "claim {found} of run {run} is from before the store was restored; here the last is {current}. Claim again"
    )]
    UnknownClaim {
        /// The run.
        run: RunId,
        /// The claim in the message.
        found: ClaimNumber,
        /// The last one known.
        current: ClaimNumber,
    },
    /// A claim while another's is fresh.
    #[error("run {run} is claimed by the agent at {ip} since {since}, which was heard {quiet_ms} ms ago")]
    ClaimedElsewhere {
        /// The run.
        run: RunId,
        /// Where the other one is.
        ip: String,
        /// Since when.
        since: WallMs,
        /// When it was last heard.
        quiet_ms: u64,
        /// Its claim.
        current: ClaimNumber,
    },
    /// A boot token that was used before, from another place or while the claim is alive.
    #[error("the boot token of run {run} is spent ({text}); {}", instead_of_spent(run, *ended))]
    TokenSpent {
        /// The run.
        run: RunId,
        /// Why it is not good again.
        why: SpentFor,
        /// The same for people.
        text: String,
        /// True where the run has ended, and gets no other.
        ended: bool,
        /// Where time alone makes it good again: how long that takes, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// A token that is neither the run's boot token nor its run token.
    #[error("this token is not one of run {run}")]
    WrongToken {
        /// The run.
        run: RunId,
    },
    /// A claim from another machine than the run's node.
    #[error(
        "run {run} is for node {node} ({expected}), and this machine is another ({found}). Start the agent on the right \
         machine; where the node is described wrongly, correct it and make a new run"
    )]
    WrongMachine {
        /// The run.
        run: RunId,
        /// Its node.
        node: NodeName,
        /// What the node is known by.
        expected: String,
        /// What the machine says of itself.
        found: String,
    },
    /// A message for a run that nobody has claimed.
    #[error("run {run} has no claim yet; claim it first")]
    NotClaimed {
        /// The run.
        run: RunId,
    },
    /// A message that does not fit the run.
    #[error("{text}")]
    Unfit {
        /// Why.
        why: UnfitFor,
        /// The same for people.
        text: String,
    },
    /// An order that makes no sense where the run stands.
    #[error("{text}")]
    Order {
        /// Why.
        why: OrderFor,
        /// The same for people.
        text: String,
    },
}

/// What an operator does about a spent boot token.
fn instead_of_spent(run: &RunId, ended: bool) -> String {
    match ended {
        true => "the run has ended, so that it gets no new one: make another run of the node with `groundcrewctl run \
                 create NODE PROFILE`"
            .to_owned(),
        false => format!("make a new one with `groundcrewctl run token {run}`, and start the agent with it"),
    }
}

impl Refused {
    pub(super) fn unfit(why: UnfitFor, text: impl Into<String>) -> Refused {
        Refused::Unfit { why, text: text.into() }
    }

    pub(super) fn order(why: OrderFor, text: impl Into<String>) -> Refused {
        Refused::Order { why, text: text.into() }
    }
}
