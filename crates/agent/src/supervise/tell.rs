//! Tells what happens, for whoever has no agent at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use groundcrew_protocol::wire::{LogLevel, LogLine};

use crate::console::Console;
use crate::spool::LineSender;
use crate::stamp::stamp;

/// Tells something: on the console, and as a framing line to the orchestrator for as long as the run is not over.
pub(super) fn tell(
    console: &Console,
    lines: &LineSender,
    is_over: &AtomicBool,
    level: LogLevel,
    text: String,
) {
    console.say(level.clone(), &text);
    if is_over.load(Ordering::Relaxed) {
        return;
    }
    lines.send_line(LogLine { ts: stamp(), level, stage: None, text });
}

/// Tells as the agent does, for whoever has no agent at hand.
pub(super) fn teller(
    console: &Console,
    lines: &LineSender,
    is_over: &Arc<AtomicBool>,
) -> impl Fn(LogLevel, String) + Send + Sync + use<> {
    let (console, lines, is_over) = (console.clone(), lines.clone(), is_over.clone());
    move |level, text| tell(&console, &lines, &is_over, level, text)
}
