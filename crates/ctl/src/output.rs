//! What is printed, and for what: a terminal of some width with colours or without, or a file or pipe.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

use crate::error::CLOSED_PIPE;

/// Wider than any line. A pipe gets a row in a line and every reason whole: programs read them by the line, and the log of a
/// build is read where nobody can widen it.
const WIDTH_OF_A_PIPE: usize = u16::MAX as usize;
/// A terminal that says nothing is taken for the oldest.
const WIDTH_UNKNOWN: usize = 80;
const HEIGHT_UNKNOWN: usize = 24;

/// The reader of what is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    /// Characters in a line.
    pub(crate) width: usize,
    /// Lines.
    pub(crate) height: usize,
    /// True where verdicts may be coloured.
    pub(crate) colour: bool,
    /// True for a terminal.
    pub(crate) is_terminal: bool,
}

impl Reader {
    /// The reader of standard output.
    pub(crate) fn of_stdout() -> Reader {
        let out = std::io::stdout();
        let is_terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (mut width, mut height) = (WIDTH_OF_A_PIPE, HEIGHT_UNKNOWN);
        if is_terminal {
            let size = rustix::termios::tcgetwinsize(&out).ok().filter(|size| size.ws_col > 0);
            width = size.map_or(WIDTH_UNKNOWN, |size| usize::from(size.ws_col));
            height = size.map_or(HEIGHT_UNKNOWN, |size| usize::from(size.ws_row).max(1));
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Reader { width, height, colour: is_terminal && !no_color, is_terminal }
    }
}

/// Prints text that ends its own lines.
///
/// # Errors
/// Where nobody reads it any more.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints JSON, or whatever came, with a line end.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let end: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") { b"" } else { b"\n" };
    print_parts(bytes, end)
}

/// Prints what came as it came, to the byte.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_exactly(bytes: &[u8]) -> Result<()> {
    print_parts(bytes, b"")
}

/// Says something on standard error, with a line end. Where nobody reads it, the exit status says it alone: what is being
/// done, above all putting things away, goes on.
pub(crate) fn say_aside(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}

fn print_parts(bytes: &[u8], end: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.write_all(end)).and_then(|()| out.flush()) {
        // Whoever read it has seen enough, as `head` has. We end as a program ends that the signal reaches.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(CLOSED_PIPE.into()),
        printed => printed.context("printing"),
    }
}
