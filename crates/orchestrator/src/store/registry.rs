//! Small things that are looked up by a key: operators' tokens, agents seen, settings.

use groundcrew_protocol::ids::{RandomId, RunId, Sha256Hex};
use groundcrew_protocol::time::WallMs;

use super::{NewAudit, Store, StoreError};

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
    /// Its home.
    pub instance: RandomId,
    /// Its run.
    pub run: RunId,
    /// Day on which it was last heard, counted from 1970-01-01.
    pub seen_day: i64,
    /// The pins that it was last told, and so knows.
    pub pins: Vec<Sha256Hex>,
}

impl Store {
    /// Stores an operator's token.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where the name is taken, also by a revoked one, and those of the database.
    pub async fn add_token(&self, _token: TokenRow, _audit: NewAudit) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// Stores the first token of all, in one step with the question whether there is one. False where there is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_first_token(&self, _token: TokenRow, _audit: NewAudit) -> Result<bool, StoreError> {
        unreachable!("being written")
    }

    /// Revokes a token. False where there is none of that name that was not revoked.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where it is the last one that is good, and those of the database.
    pub async fn revoke_token(&self, _name: &str, _audit: NewAudit) -> Result<bool, StoreError> {
        unreachable!("being written")
    }

    /// All operators' tokens, also revoked ones, by name. There are few; the caller keeps the good ones at hand
    /// and compares in constant time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        unreachable!("being written")
    }

    /// Notes that an agent was heard. Called when its day or its pins changed, not with every heartbeat.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_agent(&self, _agent: AgentSeen) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// Agents heard on `day` or later.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn agents_since(&self, _day: i64) -> Result<Vec<AgentSeen>, StoreError> {
        unreachable!("being written")
    }

    /// A setting that the API keeps here, as the key for holds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn setting(&self, _key: &str) -> Result<Option<String>, StoreError> {
        unreachable!("being written")
    }

    /// Writes a setting; `None` takes it away.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_setting(
        &self,
        _key: &str,
        _value: Option<String>,
        _audit: NewAudit,
    ) -> Result<(), StoreError> {
        unreachable!("being written")
    }
}
