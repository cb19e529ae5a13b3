//! A profile on this machine's disk, before it is sent anywhere.

use std::path::Path;

use anyhow::{Context, Result};
use groundcrew_protocol::profile::Profile;

/// Reads a profile and understands it, so that a mistake is named without asking anybody.
pub(crate) fn read_profile(file: &Path) -> Result<(String, Profile)> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading the profile {}", file.display()))?;
    let profile = Profile::parse(&text).with_context(|| format!("the profile {}", file.display()))?;
    Ok((text, profile))
}
