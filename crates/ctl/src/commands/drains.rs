//! Drains of nodes: asked for, ended, listed.

use anyhow::Result;
use groundcrew_protocol::drain::{CreateDrain, Drain, DrainList, DrainTarget, EndDrains};
use groundcrew_protocol::ids::NodeName;

use super::Desk;
use crate::arguments::{DrainArguments, UndrainArguments};
use crate::{tables, words};

const DRAINS: &str = "/api/v1/drains";

/// The target that the command line names: exactly one of the two, which the parser sees to.
fn target(node: Option<NodeName>, label: Option<(String, String)>) -> Option<DrainTarget> {
    match (node, label) {
        (Some(node), _) => Some(DrainTarget::Node(node)),
        (None, Some((key, value))) => Some(DrainTarget::Label { key, value }),
        (None, None) => None,
    }
}

/// Asks for a drain.
pub(super) async fn drain(desk: &Desk, asked: DrainArguments) -> Result<()> {
    let DrainArguments { target: which, for_ms, run, reason, quiet } = asked;
    let target = target(which.node, which.label).expect("the parser takes no drain without a target");
    let body = CreateDrain { target, for_ms, run, reason, suppress_notification: quiet };
    let answer = desk.api.post(DRAINS, &body).await?;
    desk.show(&answer, |answer| Ok(tables::drain_asked(&answer.parse::<Drain>()?, words::now())))
}

/// Ends drains.
pub(super) async fn undrain(desk: &Desk, which: UndrainArguments) -> Result<()> {
    let body = match (which.id, target(which.node, which.label)) {
        (Some(id), _) => EndDrains::Id(id),
        (None, target) => EndDrains::Target(target.expect("the parser takes no undrain without a target")),
    };
    let answer = desk.api.post(&format!("{DRAINS}/end"), &body).await?;
    desk.show(&answer, |answer| Ok(tables::drains_ended(&answer.parse::<DrainList>()?)))
}

/// Lists drains.
pub(super) async fn list(desk: &Desk, ended: bool) -> Result<()> {
    let path = if ended { format!("{DRAINS}?ended=true") } else { DRAINS.to_owned() };
    let answer = desk.api.get(&path).await?;
    let text = |answer: &crate::api::Answer| {
        Ok(tables::drains(&answer.parse::<DrainList>()?, &desk.reader, words::now()))
    };
    desk.show(&answer, text)
}
