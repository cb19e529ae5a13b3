//! Agents, listed.

use anyhow::Result;
use groundcrew_protocol::agent_info::AgentList;

use super::Desk;
use crate::api::Answer;
use crate::{tables, words};

/// Lists agents.
pub(super) async fn list(desk: &Desk) -> Result<()> {
    let answer = desk.api.get("/api/v1/agents").await?;
    let text =
        |answer: &Answer| Ok(tables::agents(&answer.parse::<AgentList>()?, &desk.reader, words::now()));
    desk.show(&answer, text)
}
