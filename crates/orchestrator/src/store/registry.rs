//! Small things that are looked up by a key: operators' tokens, agents seen, settings.

use groundcrew_protocol::ids::{RandomId, RunId, Sha256Hex};
use groundcrew_protocol::time::WallMs;

use sqlx::sqlite::SqliteConnection;

use super::{NewAudit, Store, StoreError, events, text};

/// An operator's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The operator's name.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: Sha256Hex,
    /// When it was made.
    pub created: WallMs,
    /// When it was revoked.
    pub revoked: Option<WallMs>,
}

/// An agent that was heard, and which certificates it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSeen {
    /// Its home, or what stays of an agent whose home does not.
    pub instance: RandomId,
    /// Its run.
    pub run: RunId,
    /// Day on which it was last heard, counted from 1970-01-01.
    pub seen_day: i64,
    /// The pins that it was last told, and so knows.
    pub pins: Vec<Sha256Hex>,
}

impl Store {
    /// Stores an operator's token. The name of a revoked one is free again; who had it when stands in the audit trail.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where the name has a good token, and those of the database.
    pub async fn add_token(&self, token: TokenRow, audit: NewAudit) -> Result<(), StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    if !insert_token(connection, &token, false).await? {
                        let name = &token.name;
                        return Err(StoreError::Exists(format!(
                            "there is a good token named {name}; revoke it first, or give another name"
                        )));
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await
    }

    /// Stores the first token of all, in one step with the question whether there is one. False where there is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_first_token(&self, token: TokenRow, audit: NewAudit) -> Result<bool, StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    if !insert_token(connection, &token, true).await? {
                        return Ok(false);
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await.map(|()| true)
                })
            })
            .await
    }

    /// Revokes a token. False where there is none of that name that was not revoked.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where it is the last one that is good, and those of the database.
    pub async fn revoke_token(&self, name: &str, audit: NewAudit) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let failed = StoreError::database("revoking a token");
                    let good: Vec<String> =
                        sqlx::query_scalar("SELECT name FROM tokens WHERE revoked IS NULL")
                            .fetch_all(&mut *connection)
                            .await
                            .map_err(&failed)?;
                    if !good.contains(&name) {
                        return Ok(false);
                    }
                    if good.len() == 1 {
                        return Err(StoreError::InUse(format!(
                            "{name} is the last token that is good; make another one first"
                        )));
                    }
                    sqlx::query("UPDATE tokens SET revoked = ? WHERE name = ?")
                        .bind(audit.at.0)
                        .bind(&name)
                        .execute(&mut *connection)
                        .await
                        .map_err(&failed)?;
                    events::insert_audits(connection, [&audit].into_iter()).await.map(|()| true)
                })
            })
            .await
    }

    /// All operators' tokens, also revoked ones, by name. There are few; the caller keeps the good ones at hand
    /// and compares in constant time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<(String, String, i64, Option<i64>)> =
            sqlx::query_as("SELECT name, sha256, created, revoked FROM tokens ORDER BY name")
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading tokens"))?;
        rows.into_iter()
            .map(|(name, sha256, created, revoked)| {
                let sha256 = text::parse("the hash of a token", &sha256)?;
                Ok(TokenRow { name, sha256, created: WallMs(created), revoked: revoked.map(WallMs) })
            })
            .collect()
    }

    /// Notes that an agent was heard. Called when its day or its pins changed, not with every heartbeat.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_agent(&self, agent: AgentSeen) -> Result<(), StoreError> {
        let pins = text::to_json("an agent's pins", &agent.pins)?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let put = "INSERT INTO agents (instance, run, seen_day, pins) VALUES (?, ?, ?, ?) \
                               ON CONFLICT (instance) DO UPDATE SET run = excluded.run, \
                               seen_day = excluded.seen_day, pins = excluded.pins";
                    sqlx::query(put)
                        .bind(agent.instance.as_str())
                        .bind(agent.run.as_str())
                        .bind(agent.seen_day)
                        .bind(pins)
                        .execute(connection)
                        .await
                        .map(|_done| ())
                        .map_err(StoreError::database("noting an agent"))
                })
            })
            .await
    }

    /// Agents heard on `day` or later.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn agents_since(&self, day: i64) -> Result<Vec<AgentSeen>, StoreError> {
        let rows: Vec<(String, String, i64, String)> = sqlx::query_as(
            "SELECT instance, run, seen_day, pins FROM agents WHERE seen_day >= ? ORDER BY instance",
        )
        .bind(day)
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("reading agents"))?;
        rows.into_iter()
            .map(|(instance, run, seen_day, pins)| {
                let instance = text::parse("an agent's instance", &instance)?;
                let run = text::parse("an agent's run", &run)?;
                Ok(AgentSeen { instance, run, seen_day, pins: text::from_json("an agent's pins", &pins)? })
            })
            .collect()
    }

    /// A setting that the API keeps here, as the key for holds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM settings WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading a setting"))
    }

    /// The settings whose key begins so, by their keys.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settings_under(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT key, value FROM settings WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key")
            .bind(prefix)
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading settings"))
    }

    /// Writes a setting; `None` takes it away.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_setting(
        &self,
        key: &str,
        value: Option<String>,
        audit: NewAudit,
    ) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let query = match value {
                        Some(value) => {
                            sqlx::query("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)")
                                .bind(key)
                                .bind(value)
                        }
                        None => sqlx::query("DELETE FROM settings WHERE key = ?").bind(key),
                    };
                    query
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("storing a setting"))?;
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await
    }
}

/// Stores a token unless its name is taken, or with `only_first` unless there is any. False where it was not stored.
async fn insert_token(
    connection: &mut SqliteConnection,
    token: &TokenRow,
    only_first: bool,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO tokens (name, sha256, created, revoked) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS \
         (SELECT 1 FROM tokens WHERE ?5 OR (name = ?1 AND revoked IS NULL)) \
         ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, created = excluded.created, revoked = NULL",
    )
    .bind(&token.name)
    .bind(token.sha256.as_str())
    .bind(token.created.0)
    .bind(token.revoked.map(|at| at.0))
    .bind(only_first)
    .execute(connection)
    .await
    .map_err(StoreError::database("storing a token"))?;
    Ok(done.rows_affected() == 1)
}
