//! What runtimes know of agents: the record of it where an agent's own file cannot be reached, and what a restart
//! begins with everywhere.
//!
//! Those who look at a runtime write here, and only what has changed; whoever shows agents reads.

use groundcrew_protocol::agent_info::{RuntimeFact, RuntimeSource, RuntimeState};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// An agent of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentKey {
    /// The runtime.
    pub source: RuntimeSource,
    /// Where it lies there; empty where the runtime has no such thing.
    pub namespace: String,
    /// What it is called there.
    pub name: String,
}

/// What a runtime knows of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFact {
    /// The agent.
    pub key: AgentKey,
    /// Its run, where that is known.
    #[serde(default)]
    pub run: Option<RunId>,
    /// The machine that it runs on, as the runtime calls it.
    #[serde(default)]
    pub node: Option<String>,
    /// What is known.
    pub fact: RuntimeFact,
}

impl AgentFact {
    fn ended(&self) -> Option<WallMs> {
        match self.fact.state {
            RuntimeState::Ended { .. } => Some(self.fact.at),
            RuntimeState::Deferring
            | RuntimeState::Waiting { .. }
            | RuntimeState::Running
            | RuntimeState::Halted => None,
        }
    }
}

impl Store {
    /// Stores what is known of some agents in one write. Each replaces what was known of the same agent.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_facts(&self, facts: Vec<AgentFact>) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        let rows =
            facts.into_iter().map(|fact| Ok((super::text::to_json("a fact of an agent", &fact)?, fact)));
        let rows: Vec<(String, AgentFact)> = rows.collect::<Result<_, StoreError>>()?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    for (doc, fact) in &rows {
                        sqlx::query(
                            "INSERT OR REPLACE INTO agent_facts (source, namespace, name, ended, doc) \
                             VALUES (?, ?, ?, ?, ?)",
                        )
                        .bind(fact.key.source.as_str())
                        .bind(&fact.key.namespace)
                        .bind(&fact.key.name)
                        .bind(fact.ended().map(|at| at.0))
                        .bind(doc)
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("storing what is known of agents"))?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// What is known of all agents, in order of runtime, namespace and name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn facts(&self) -> Result<Vec<AgentFact>, StoreError> {
        let docs: Vec<String> =
            sqlx::query_scalar("SELECT doc FROM agent_facts ORDER BY source, namespace, name")
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading what is known of agents"))?;
        docs.iter().map(|doc| super::text::from_json("a fact of an agent", doc)).collect()
    }

    /// Forgets agents that their runtime knows no more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_facts(&self, keys: Vec<AgentKey>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    for key in &keys {
                        sqlx::query(
                            "DELETE FROM agent_facts WHERE source = ? AND namespace = ? AND name = ?",
                        )
                        .bind(key.source.as_str())
                        .bind(&key.namespace)
                        .bind(&key.name)
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("forgetting agents"))?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Forgets agents that ended before `before`, and says how many.
    pub(super) async fn sweep_facts(&self, before: i64) -> Result<u64, StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM agent_facts WHERE ended < ?")
                        .bind(before)
                        .execute(connection)
                        .await
                        .map(|done| done.rows_affected())
                        .map_err(StoreError::database("forgetting agents"))
                })
            })
            .await
    }
}
