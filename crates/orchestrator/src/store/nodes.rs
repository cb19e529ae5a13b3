//! Nodes and profiles.

use groundcrew_protocol::ids::{MacAddress, NodeName, ProfileName};
use groundcrew_protocol::operator::Node;
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::time::WallMs;

use super::{NewAudit, Store, StoreError};

/// A stored profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// Its text, as the operator wrote it (TOML).
    pub text: String,
    /// What it says.
    pub profile: Profile,
    /// When it was last written.
    pub updated: WallMs,
}

impl Store {
    /// Makes or replaces a node.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where another node has one of its MACs, and those of the database.
    pub async fn put_node(&self, _node: Node, _audit: NewAudit) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// A node.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn node(&self, _name: &NodeName) -> Result<Option<Node>, StoreError> {
        unreachable!("being written")
    }

    /// Nodes in order of their names, at most `limit` after `after`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nodes(&self, _after: Option<&NodeName>, _limit: u32) -> Result<Vec<Node>, StoreError> {
        unreachable!("being written")
    }

    /// Nodes with this serial, or with one of these MACs, each once, at most 16.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_nodes(
        &self,
        _serial: Option<&str>,
        _macs: &[MacAddress],
    ) -> Result<Vec<Node>, StoreError> {
        unreachable!("being written")
    }

    /// Deletes a node. False where there is none. Its runs stay.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where a run of it has not ended, and those of the database.
    pub async fn delete_node(&self, _name: &NodeName, _audit: NewAudit) -> Result<bool, StoreError> {
        unreachable!("being written")
    }

    /// Makes or replaces a profile. Runs keep the profile that they were made with.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_profile(
        &self,
        _text: String,
        _profile: Profile,
        _audit: NewAudit,
    ) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// A profile.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn profile(&self, _name: &ProfileName) -> Result<Option<ProfileRow>, StoreError> {
        unreachable!("being written")
    }

    /// The names of all profiles, in order, at most `limit` after `after`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn profiles(
        &self,
        _after: Option<&ProfileName>,
        _limit: u32,
    ) -> Result<Vec<ProfileName>, StoreError> {
        unreachable!("being written")
    }

    /// Deletes a profile. False where there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_profile(&self, _name: &ProfileName, _audit: NewAudit) -> Result<bool, StoreError> {
        unreachable!("being written")
    }
}
