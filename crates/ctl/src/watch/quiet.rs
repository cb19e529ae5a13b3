//! Keeps a terminal from writing `^C` between the bars: it would end up in the last column, wrap, and shift everything
//! that is drawn afterwards by a line.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::kin::Kin;

/// Control characters are not echoed while this lives. Where a kill keeps it from being put back, the terminal does
/// everything as before, but for writing `^C`.
pub(super) struct QuietTerminal {
    before: Option<Termios>,
}

impl QuietTerminal {
    /// Asks the terminal of standard output, if it is one and we are in its foreground: others must leave it alone.
    pub(super) fn ask() -> QuietTerminal {
        let out = std::io::stdout();
        let ours = Kin::of_us().map(|us| us.group);
        let is_ours = tcgetpgrp(&out).is_ok_and(|group| Some(group.as_raw_nonzero().get()) == ours);
        let Some(before) = is_ours.then(|| tcgetattr(&out).ok()).flatten() else {
            return QuietTerminal { before: None };
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHOCTL);
        // What is lost where this fails is beauty.
        let is_quiet = tcsetattr(&out, OptionalActions::Now, &quiet).is_ok();
        QuietTerminal { before: is_quiet.then_some(before) }
    }
}

impl Drop for QuietTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _lost = tcsetattr(std::io::stdout(), OptionalActions::Now, before);
        }
    }
}
