//! `SKYHOOK_RESOURCE_ID`: which instance of a custom resource, which package, which version.
//!
//! `{customer}-{uuid}-{n}_{package}_{version}`, and of a run of ours `groundcrew-{run}-{retry}_{package}_{version}`.
//! Its parts name folders on the host, so none may lead anywhere: what is not a plain folder name is refused before
//! anything is written. Beside that it is only a text; the banner and the interrupts' flags show it as it is.

use super::quoted::quoted;

/// The longest name of a file or folder on Linux, in bytes (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;
/// The longest id taken, in bytes. An instance alone may have a name of 253 characters in Kubernetes.
const ID_BYTES_MAX: usize = 1024;
/// The environment variable that holds it.
const VARIABLE: &str = "SKYHOOK_RESOURCE_ID";
const FORM: &str = "INSTANCE_PACKAGE_VERSION";

/// A resource id whose parts are plain names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceId {
    text: String,
    package: String,
    version: String,
}

/// A resource id that cannot be used: exit status 1 in every mode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadResourceId {
    /// There is none.
    #[error("{VARIABLE} is not set, expected {FORM}")]
    Unset,
    /// A part is missing, or is no plain name.
    #[error("{VARIABLE}: found {found}, expected {FORM}: {why}")]
    Malformed {
        /// The id, shortened.
        found: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// With more underscores than two nobody can tell which part they belong to.
    #[error(
        "{VARIABLE}: found {found} with {underscores} underscores, expected {FORM} with exactly two: \
         where the package's name begins cannot be told"
    )]
    Ambiguous {
        /// The id, shortened.
        found: String,
        /// How many underscores it has.
        underscores: usize,
    },
}

impl ResourceId {
    /// Takes an id apart; an empty one counts as unset, as the reference's default does.
    ///
    /// # Errors
    /// Unset, malformed (not three parts; a part that is empty, `.`, `..`, too long for a folder, or holds a slash
    /// or a control character), or ambiguous.
    pub fn parse(text: &str) -> Result<ResourceId, BadResourceId> {
        let malformed = |why| BadResourceId::Malformed { found: quoted(text), why };
        if text.is_empty() {
            return Err(BadResourceId::Unset);
        }
        let parts: Vec<&str> = text.split('_').collect();
        let [instance, package, version] = parts[..] else {
            let underscores = parts.len() - 1;
            if underscores > 2 {
                return Err(BadResourceId::Ambiguous { found: quoted(text), underscores });
            }
            return Err(malformed("it has fewer than two underscores"));
        };
        if text.len() > ID_BYTES_MAX {
            return Err(malformed("it is longer than 1024 bytes"));
        }
        if instance.is_empty() {
            return Err(malformed("the instance is empty"));
        }
        for part in [instance, package, version] {
            plain_name(part).map_err(malformed)?;
        }
        if package.len() > NAME_BYTES_MAX || version.len() > NAME_BYTES_MAX {
            return Err(malformed("a package or version of more than 255 bytes names no folder"));
        }
        Ok(ResourceId { text: text.to_owned(), package: package.to_owned(), version: version.to_owned() })
    }

    /// The id as it was given. It may be longer than a folder's name can be.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The package's name in it. Files and logs of steps are named by the package's own config instead.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The package's version in it.
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn plain_name(part: &str) -> Result<(), &'static str> {
    match part {
        "" => Err("a part is empty"),
        "." | ".." => Err("a part is . or .., which names no folder of its own"),
        _ if part.contains('/') => Err("it holds a slash"),
        _ if part.chars().any(char::is_control) => Err("it holds a control character"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INSTANCE: &str = "customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1";

    #[test]
    fn ids_of_operators_and_of_runs_are_read() {
        for (text, package, version) in [
            (format!("{INSTANCE}_sample_1.0.0"), "sample", "1.0.0"),
            ("groundcrew-7f3a-0_tuning_2.0.2-rc.1+b".to_owned(), "tuning", "2.0.2-rc.1+b"),
            ("x_..a_...".to_owned(), "..a", "..."),
            (format!("{}_sample_1.0.0", "n".repeat(300)), "sample", "1.0.0"),
            ("é x_漢_1".to_owned(), "漢", "1"),
        ] {
            let id = ResourceId::parse(&text).unwrap();
            assert_eq!((id.text(), id.package(), id.version()), (&*text, package, version));
        }
    }

    #[test]
    fn what_cannot_be_told_apart_or_names_no_folder_is_refused() {
        let malformed = |text: &str, why| BadResourceId::Malformed { found: quoted(text), why };
        let long = format!("x_{}_1.0.0", "p".repeat(256));
        let longer = format!("{}_p_1.0.0", "x".repeat(ID_BYTES_MAX));
        let dots = "a part is . or .., which names no folder of its own";
        for (text, expected) in [
            ("", BadResourceId::Unset),
            ("sample", malformed("sample", "it has fewer than two underscores")),
            ("x_sample", malformed("x_sample", "it has fewer than two underscores")),
            ("_sample_1", malformed("_sample_1", "the instance is empty")),
            ("x__1", malformed("x__1", "a part is empty")),
            ("x_sample_", malformed("x_sample_", "a part is empty")),
            ("x_.._1", malformed("x_.._1", dots)),
            ("x_sample_.", malformed("x_sample_.", dots)),
            ("../.._sample_1", malformed("../.._sample_1", "it holds a slash")),
            ("x_a/b_1", malformed("x_a/b_1", "it holds a slash")),
            ("x_a\nb_1", malformed("x_a\nb_1", "it holds a control character")),
            (&long, malformed(&long, "a package or version of more than 255 bytes names no folder")),
            (&longer, malformed(&longer, "it is longer than 1024 bytes")),
        ] {
            assert_eq!(ResourceId::parse(text), Err(expected), "{text:?}");
        }
        let error = ResourceId::parse("c-u-1_my_pkg_1.0.0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "SKYHOOK_RESOURCE_ID: found \"c-u-1_my_pkg_1.0.0\" with 3 underscores, expected \
             INSTANCE_PACKAGE_VERSION with exactly two: where the package's name begins cannot be told"
        );
    }

    proptest! {
        #[test]
        fn an_error_is_one_short_line_and_a_name_stays_where_it_is_put(text in "(?s)[a_./\n\u{7f}é-]{0,20}|.{0,2000}") {
            match ResourceId::parse(&text) {
                Ok(id) => for name in [id.package(), id.version()] {
                    let path = std::path::Path::new("/flags").join(name);
                    prop_assert_eq!(path.components().count(), 3);
                    prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(name));
                },
                Err(error) => {
                    let line = error.to_string();
                    prop_assert!(!line.contains('\n') && line.chars().count() < 1500, "{}", line);
                }
            }
        }
    }
}
