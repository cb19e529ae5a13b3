//! Whose child a process is, and of which group and session, as the kernel's files have it.
//!
//! Read and not asked for: in a container each may have been begun outside of it, which the kernel shows as 0
//! (pid_namespaces(7)), and a process number of the library's cannot be 0.

/// Numbers as this process sees them; 0 for what is out of its sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kin {
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
}

impl Kin {
    /// Our own.
    pub(crate) fn of_us() -> Option<Kin> {
        Kin::of("self")
    }

    /// Of the process with this name in /proc; `None` where there is none.
    pub(crate) fn of(process: &str) -> Option<Kin> {
        Kin::parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// From proc_pid_stat(5): `pid (name) state parent group session …`; a name may hold anything.
    fn parse(stat: &str) -> Option<Kin> {
        let (_name, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(1).map_while(|field| field.parse().ok());
        Some(Kin { parent: fields.next()?, group: fields.next()?, session: fields.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin(parent: i32, group: i32, session: i32) -> Option<Kin> {
        Some(Kin { parent, group, session })
    }

    #[test]
    fn kin_is_found_behind_any_name() {
        assert_eq!(Kin::parse("7 (sh) S 5 7 3 0 -1"), kin(5, 7, 3));
        assert_eq!(Kin::parse("7 (a) S 9 (b) c) R 5 7 3 0"), kin(5, 7, 3));
        assert_eq!(Kin::parse("7 (sh) S 0 0 0 0 -1"), kin(0, 0, 0), "all begun outside of a container");
        assert_eq!(Kin::parse("7 (sh) S 5 7"), None);
        assert_eq!(Kin::parse("7 (sh) S 5 x 3"), None);
        assert_eq!(Kin::parse(""), None);
    }

    #[test]
    fn a_child_of_ours_is_of_our_group_and_session() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (us, its) = (Kin::of_us().unwrap(), Kin::of(&child.id().to_string()).unwrap());
        assert_eq!(its, Kin { parent: i32::try_from(std::process::id()).unwrap(), ..us });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Kin::of(&child.id().to_string()), None);
    }
}
