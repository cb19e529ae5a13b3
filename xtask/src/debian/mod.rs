//! What is made of Debian's packages: parts in `target/guest`, each made when it is missing or its recipe has changed. The
//! recipe of a part is the source of what makes it, so that no change of that leaves an old part in use.

pub mod bootstrap;
pub mod tools;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::cargo;
use crate::packages::{self, Need};

/// The folder of all parts. Another `cargo xtask` waits for it, and then finds made what this one has made.
pub struct Kit {
    folder: PathBuf,
    _held: File,
}

impl Kit {
    /// Opens it, in the target folder.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn open() -> Result<Kit> {
        let folder = cargo::target_folder()?.join("guest");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let lock = folder.join("lock");
        let held = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
        flock(&held, FlockOperation::LockExclusive).with_context(|| format!("locking {}", lock.display()))?;
        Ok(Kit { folder, _held: held })
    }

    /// QEMU, a kernel and what images are made with, unpacked.
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub fn tools(&self) -> Result<PathBuf> {
        Ok(self.part("tools", "", tools::make)?.join("root"))
    }

    /// A part of that name, which `make` fills where it is not there yet. Its recipe is what stands here, besides how packages and
    /// the tools are unpacked.
    ///
    /// # Errors
    /// When this is not root, or apt's mirrors do not give what is needed.
    pub fn part(&self, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let recipe = [bootstrap::RECIPE, tools::RECIPE, recipe].concat();
        part(&self.folder, name, &recipe, make)
    }

    /// Lets it go. Where it is.
    pub fn into_folder(self) -> PathBuf {
        self.folder
    }
}

/// A folder that `make` fills, unless it was filled by this recipe before. It appears whole or not at all.
fn part(folder: &Path, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = folder.join(name);
    if fs::read_to_string(place.join("recipe")).is_ok_and(|made_by| made_by == recipe) {
        return Ok(place);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "preparing the guests takes root, to unpack a system with its owners; run as root, or leave the guests out \
         with `cargo xtask test --no-vm`"
    );
    packages::ensure(Need::Guest)?;
    eprintln!("preparing {}", place.display());
    let new = folder.join(format!("{name}.new"));
    remove(&new)?;
    fs::create_dir(&new).with_context(|| format!("making {}", new.display()))?;
    make(&new)?;
    fs::write(new.join("recipe"), recipe).context("writing the recipe")?;
    remove(&place)?;
    fs::rename(&new, &place).with_context(|| format!("putting {} into place", place.display()))?;
    Ok(place)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The one thing that lies in a folder.
pub fn only_entry(folder: &Path) -> Result<String> {
    let names = entries(folder)?;
    ensure!(names.len() == 1, "{} holds {names:?} instead of one kernel", folder.display());
    Ok(names[0].clone())
}

/// The names of what lies in a folder.
pub fn entries(folder: &Path) -> Result<Vec<String>> {
    let saying = || format!("listing {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(saying)? {
        names.push(entry.with_context(saying)?.file_name().into_string().ok().with_context(saying)?);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_same_recipe_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir(folder.join("tools")).unwrap();
        fs::write(folder.join("tools/recipe"), "one").unwrap();
        let place = part(folder, "tools", "one", |_| panic!("it was made again")).unwrap();
        assert_eq!(place, folder.join("tools"));
    }
}
