//! Places that results go to, looked at before anything is computed.

use std::{
    env, fs, io,
    os::unix::fs::FileTypeExt,
    path::{Component, Path, PathBuf},
};

use super::Failure;
use crate::atomic;

/// Refuses a file that could not be written.
pub fn file(path: &Path) -> Result<(), Failure> {
    atomic::check(path).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => {
            Failure::usage(format!("{} is a directory, a file is wanted", path.display())).hint("name a file in it")
        }
        _ => Failure::file(path, &error),
    })
}

/// Refuses a directory that could not be made or written to.
pub fn directory(path: &Path) -> Result<(), Failure> {
    // The nearest that is there: what is below it can be made if it takes files.
    let present = path.ancestors().find(|above| above.as_os_str().is_empty() || above.exists());
    let present = present.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !present.is_dir() {
        return Err(Failure::usage(format!("{} is a file, a directory is wanted", present.display()))
            .hint("name a directory; it is made if it is not there"));
    }
    atomic::check(&present.join("result")).map_err(|error| Failure::file(path, &error))
}

/// A directory for results. What this run has made of it goes again in the end, unless something stands in it then.
#[must_use]
pub struct Directory(Vec<PathBuf>);

impl Directory {
    /// Makes the directory at `path`, and those above it, where they are not there.
    pub fn make(path: &Path) -> Result<Self, Failure> {
        let new = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let directory = Self(new.map(Path::to_owned).collect());
        fs::create_dir_all(path).map_err(|error| Failure::file(path, &error))?;
        Ok(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The innermost first; one that holds anything is not removed.
        self.0.iter().for_each(|made| drop(fs::remove_dir(made)));
    }
}

/// Refuses an output that is an input or another output: `inputs` and `outputs` are options with their files.
pub fn apart(inputs: &[(&str, &Path)], outputs: &[(&str, &Path)]) -> Result<(), Failure> {
    for (i, &(option, path)) in outputs.iter().enumerate() {
        let Some(place) = place(path) else { continue };
        let same = |other: &&(&str, &Path)| self::place(other.1).as_ref() == Some(&place);
        if let Some((other, _)) = inputs.iter().chain(&outputs[..i]).find(same) {
            return Err(Failure::usage(format!("{other} and {option} are the same file, {}", path.display()))
                .hint(format!("name another file with {option}")));
        }
    }
    Ok(())
}

/// Refuses an output among the files of a bundle, which are all that the bundle's manifest knows of.
pub fn outside(bundle: &Path, option: &str, path: &Path) -> Result<(), Failure> {
    let inside =
        fs::canonicalize(bundle).ok().zip(place(path)).is_some_and(|(bundle, place)| place.starts_with(bundle));
    if inside {
        return Err(Failure::usage(format!("{option} {} is inside the bundle {}", path.display(), bundle.display()))
            .hint("name a place beside the bundle, whose files are its own"));
    }
    Ok(())
}

/// Where a file is or would be, links followed; none of a device or pipe, which keeps nothing, nor of `-`.
fn place(path: &Path) -> Option<PathBuf> {
    let stream = |kind: fs::FileType| kind.is_char_device() || kind.is_fifo() || kind.is_socket();
    if path.as_os_str() == "-" || fs::metadata(path).is_ok_and(|present| stream(present.file_type())) {
        return None;
    }
    let mut place = env::current_dir().unwrap_or_default();
    for part in path.components() {
        match part {
            // Nothing before it is a link any more.
            Component::ParentDir => _ = place.pop(),
            part => place.push(part),
        }
        // What is not there yet is made where it is named.
        place = fs::canonicalize(&place).unwrap_or(place);
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_file_is_known_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "").unwrap();
        std::os::unix::fs::symlink(&a, &b).unwrap();
        let around = dir.path().join("new");
        let again = dir.path().join(".").join("new");
        let refused = |inputs: &[(&str, &Path)], outputs: &[(&str, &Path)]| {
            apart(inputs, outputs).map_err(|failure| failure.message().to_owned()).err().unwrap_or_default()
        };
        assert!(refused(&[("--scores", &a)], &[("--out", &b)]).starts_with("--scores and --out are the same file"));
        let both = refused(&[], &[("--out", &around), ("--plot", &again)]);
        assert!(both.starts_with("--out and --plot are the same file"), "{both}");
        let null = Path::new("/dev/null");
        assert_eq!(refused(&[("--scores", &a)], &[("--out", &around), ("--plot", null), ("--more", null)]), "");
    }

    #[test]
    fn what_is_to_be_made_in_a_bundle_is_known_however_deep_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::create_dir_all(file("bundle/graphs")).unwrap();
        std::os::unix::fs::symlink(file("bundle"), file("link")).unwrap();
        let inside = |name: &str| outside(&file("bundle"), "--out", &file(name)).is_err();
        for name in [
            "bundle",
            "bundle/out",
            "bundle/new/deeper/out",
            "link/new/deeper/out",
            "new/../bundle/out",
            "new/../link/new/deeper",
            "bundle/new/../new/out",
            "bundle/graphs/../new/deeper",
            "link/graphs/new/../..",
            "bundle/new/..",
        ] {
            assert!(inside(name), "{name}");
        }
        for name in ["out", "new/deeper", "bundles/new/deeper", "bundle/../new/deeper", "link/new/../../new", "link/.."]
        {
            assert!(!inside(name), "{name}");
        }
        assert!(outside(dir.path(), "--out", Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn directories_that_a_run_has_made_go_again_if_they_hold_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("one"), dir.path().join("one/two"));
        drop(Directory::make(&inner).unwrap());
        assert!(!outer.exists());
        fs::create_dir(&outer).unwrap();
        drop(Directory::make(&inner).unwrap());
        drop(Directory::make(&outer).unwrap());
        assert!(outer.exists() && !inner.exists(), "only what it has made");
        let made = Directory::make(&inner).unwrap();
        fs::write(inner.join("result"), "").unwrap();
        drop(made);
        assert!(inner.join("result").exists());
        assert!(Directory::make(&inner.join("result/below")).is_err());
    }

    #[test]
    fn places_that_cannot_be_written_to_are_told_by_name_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::write(&taken, "").unwrap();
        let below = dir.path().join("one/two");
        directory(&below).unwrap();
        directory(dir.path()).unwrap();
        for path in [taken.clone(), taken.join("below")] {
            let failure = directory(&path).unwrap_err();
            assert!(failure.message().ends_with("taken is a file, a directory is wanted"), "{}", failure.message());
        }
        assert!(file(dir.path()).unwrap_err().message().ends_with("is a directory, a file is wanted"));
        assert!(file(&below).unwrap_err().message().contains("No such file"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
