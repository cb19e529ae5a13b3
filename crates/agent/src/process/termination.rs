//! SIGTERM as a handle that can be waited for with poll(2).

use std::io;
use std::sync::OnceLock;

use super::cancel::Cancel;

static ASKED: OnceLock<Cancel> = OnceLock::new();

/// From now on SIGTERM asks this handle, and no longer ends the process. Every call gives the same handle.
///
/// For a process that is one plain thread, like `groundcrew package`; where tokio runs, it watches signals itself.
///
/// # Errors
/// Where the process has no file descriptor left, or may not handle the signal.
pub fn on_sigterm() -> io::Result<Cancel> {
    on(libc::SIGTERM)
}

/// As [`on_sigterm`], for another signal that ends a process, too.
///
/// # Errors
/// As [`on_sigterm`].
pub fn on(signal: libc::c_int) -> io::Result<Cancel> {
    let handle = match ASKED.get() {
        Some(handle) => handle.clone(),
        None => {
            let handle = Cancel::new()?;
            ASKED.get_or_init(|| handle).clone()
        }
    };
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(libc::c_int) = ask;
    // SAFETY: a zeroed sigaction is a valid one, with an empty mask. `ask` does only what a handler may do, and what it
    // uses was put in its place above and is never removed.
    let done = unsafe {
        (*action.as_mut_ptr()).sa_sigaction = handler as libc::sighandler_t;
        // Calls that know nothing of signals go on; poll(2) returns all the same.
        (*action.as_mut_ptr()).sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, action.as_ptr(), std::ptr::null_mut())
    };
    if done == 0 { Ok(handle) } else { Err(io::Error::last_os_error()) }
}

/// Runs as a signal handler: an atomic store and one write(2), and errno is left as it was.
extern "C" fn ask(_signal: libc::c_int) {
    // SAFETY: the location is this thread's own and always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; nothing else has a reference to it.
    let before = unsafe { *errno };
    if let Some(handle) = ASKED.get() {
        handle.ask();
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}
