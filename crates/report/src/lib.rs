//! Renders a report: as one HTML page that needs nothing else, and as lines for a terminal.
//!
//! Pure: it makes text of a [`Report`](groundcrew_protocol::report::Report) and writes no file. Everything in a report
//! may come from a machine that nobody trusts yet: the page escapes it and runs no script, and no control character
//! reaches the terminal.

mod hardware;
mod html;
mod plot;
mod text;
mod words;

#[cfg(test)]
mod sample;

pub use html::render_html;
pub use text::render_text;
pub use words::sign;
