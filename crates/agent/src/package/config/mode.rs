//! The modes of the package agent.

use std::fmt;

/// What a call of the package agent is for. All but `interrupt` have steps in a package's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Takes the package off.
    Uninstall,
    /// Checks that it is off.
    UninstallCheck,
    /// Brings the host from another version to this one.
    Upgrade,
    /// Checks that.
    UpgradeCheck,
    /// Puts the package on.
    Apply,
    /// Checks that it is on.
    ApplyCheck,
    /// Takes changed config files into use.
    Config,
    /// Checks that.
    ConfigCheck,
    /// A reboot or a restart of services. Steps that a config lists under it are checked and never run.
    Interrupt,
    /// What follows an interrupt.
    PostInterrupt,
    /// Checks that.
    PostInterruptCheck,
}

impl Mode {
    /// Every mode, in the order in which the reference lists them.
    pub const ALL: [Mode; 11] = [
        Mode::Uninstall,
        Mode::UninstallCheck,
        Mode::Upgrade,
        Mode::UpgradeCheck,
        Mode::Apply,
        Mode::ApplyCheck,
        Mode::Config,
        Mode::ConfigCheck,
        Mode::Interrupt,
        Mode::PostInterrupt,
        Mode::PostInterruptCheck,
    ];

    /// Its name on a command line and in a config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uninstall => "uninstall",
            Self::UninstallCheck => "uninstall-check",
            Self::Upgrade => "upgrade",
            Self::UpgradeCheck => "upgrade-check",
            Self::Apply => "apply",
            Self::ApplyCheck => "apply-check",
            Self::Config => "config",
            Self::ConfigCheck => "config-check",
            Self::Interrupt => "interrupt",
            Self::PostInterrupt => "post-interrupt",
            Self::PostInterruptCheck => "post-interrupt-check",
        }
    }

    /// The mode of a name, in the letters as they are.
    pub fn parse(name: &str) -> Option<Mode> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode that checks this one's work; none for checks and `interrupt`.
    pub fn check(self) -> Option<Mode> {
        match self {
            Self::Uninstall => Some(Self::UninstallCheck),
            Self::Upgrade => Some(Self::UpgradeCheck),
            Self::Apply => Some(Self::ApplyCheck),
            Self::Config => Some(Self::ConfigCheck),
            Self::PostInterrupt => Some(Self::PostInterruptCheck),
            Self::UninstallCheck
            | Self::UpgradeCheck
            | Self::ApplyCheck
            | Self::ConfigCheck
            | Self::Interrupt
            | Self::PostInterruptCheck => None,
        }
    }

    /// Whether it checks another mode's work.
    pub fn is_check(self) -> bool {
        Self::ALL.into_iter().any(|mode| mode.check() == Some(self))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_named_after_what_it_checks() {
        let mut checks = 0;
        for mode in Mode::ALL {
            assert_eq!(Mode::parse(mode.name()), Some(mode));
            assert_eq!(mode.is_check(), mode.name().ends_with("-check"));
            if let Some(check) = mode.check() {
                checks += 1;
                assert_eq!(check.name(), format!("{mode}-check"));
            }
        }
        assert_eq!(checks, 5);
        assert_eq!(Mode::parse("APPLY"), None);
    }
}
