//! Places at which a test may kill the process, to see what a crash leaves behind.
//!
//! A crate names its places once with [`fault_points!`](crate::fault_points) and passes them with [`point`].
//! With the feature `faults`, and the environment variable `GROUNDCREW_FAULT=NAME[:COUNT]`, the process ends
//! by SIGKILL when it comes to that place for the COUNT-th time (the first, unless said). Without the feature
//! every call here is empty and compiles to nothing.
//!
//! Only a declared point can be passed, and every declaration is in its crate's `ALL`: a test that walks `ALL`
//! cannot miss a new one.

/// The environment variable that arms one point. Children inherit it: a test whose process runs itself again
/// has to count on that.
pub const VARIABLE: &str = "GROUNDCREW_FAULT";

/// The environment variable, for tests alone, by which every folder counts as one on a disk: a test's may lie in memory or on a
/// container's overlay.
pub const ON_DISK: &str = "GROUNDCREW_FAULT_ON_DISK";

/// True where a test has every folder count as one on a disk.
#[inline(always)]
pub fn counts_as_disk() -> bool {
    cfg!(feature = "faults") && std::env::var_os(ON_DISK).is_some()
}

/// A place at which the process may be killed. Made by [`fault_points!`](crate::fault_points) alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point(&'static str);

impl Point {
    /// For [`fault_points!`](crate::fault_points).
    #[doc(hidden)]
    pub const fn declared(name: &'static str) -> Self {
        Self(name)
    }

    /// The name by which `GROUNDCREW_FAULT` knows the point.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// Declares a crate's fault points as constants, and `ALL`, the list of them in the order of declaration.
#[macro_export]
macro_rules! fault_points {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)+) => {
        $($(#[$doc])* pub const $constant: $crate::fault::Point = $crate::fault::Point::declared($name);)+
        /// Every fault point of this crate.
        pub const ALL: &[$crate::fault::Point] = &[$($constant),+];
    };
}

/// Ends the process here by SIGKILL if a test has armed this point. Panics if `GROUNDCREW_FAULT` is set to
/// something that cannot be read, because a test that kills nothing would pass for the wrong reason.
#[inline(always)]
pub fn point(point: Point) {
    #[cfg(feature = "faults")]
    armed::reached(point);
    #[cfg(not(feature = "faults"))]
    let _ = point;
}

/// How much of a write of `bytes` bytes to make before passing `point`: half of it if the point is armed, so
/// that a torn write can be had, and otherwise all of it.
#[inline(always)]
pub fn cut(point: Point, bytes: usize) -> usize {
    #[cfg(feature = "faults")]
    if armed::is_armed(point) {
        return bytes / 2;
    }
    let _ = point;
    bytes
}

#[cfg(feature = "faults")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Point, VARIABLE};

    #[derive(Debug)]
    struct Armed {
        name: String,
        /// Which passage of the point ends the process, from 1.
        nth: u64,
        passed: AtomicU64,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let value = std::env::var_os(VARIABLE)?;
            let parsed = value.to_str().and_then(parse);
            Some(parsed.unwrap_or_else(|| panic!("{VARIABLE}={value:?}: expected NAME or NAME:COUNT from 1")))
        };
        ARMED.get_or_init(read).as_ref()
    }

    fn parse(value: &str) -> Option<Armed> {
        let (name, nth) = match value.split_once(':') {
            Some((name, count)) => (name, count.parse().ok()?),
            None => (value, 1),
        };
        let valid = !name.is_empty() && nth > 0;
        valid.then(|| Armed { name: name.to_owned(), nth, passed: AtomicU64::new(0) })
    }

    pub(super) fn is_armed(point: Point) -> bool {
        armed().is_some_and(|armed| armed.name == point.name())
    }

    pub(super) fn reached(point: Point) {
        let Some(armed) = armed().filter(|armed| armed.name == point.name()) else { return };
        if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.nth {
            kill_process(getpid(), Signal::KILL).expect("a process may always signal itself");
            unreachable!("SIGKILL is delivered before kill(2) returns to its own process");
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_value_names_a_point_and_which_passage_of_it() {
            let read = |value| parse(value).map(|armed| (armed.name, armed.nth));
            assert_eq!(read("whole.created"), Some(("whole.created".to_owned(), 1)));
            assert_eq!(read("whole.created:7"), Some(("whole.created".to_owned(), 7)));
            for bad in ["", ":1", "whole.created:", "whole.created:0", "whole.created:x", "a:1:2"] {
                assert_eq!(read(bad), None, "{bad:?} was taken");
            }
        }
    }
}
