//! Man pages: programs for devices have none in them, so they come from the `nasbn` of this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{PROGRAM, PackageError, Part, parts::name_of};

/// Where they are in a package.
const MAN: &str = "man/man1";

/// The pages in `from`, or those that the `nasbn` beside this program, or else below `target_dir`, writes.
///
/// # Errors
/// [`PackageError::Manual`] if there are none.
pub fn parts(from: Option<&Path>, target_dir: &Path) -> Result<Vec<Part>, PackageError> {
    if let Some(directory) = from {
        return pages(directory, |path| Ok(super::parts::Contents::File(path.to_owned())));
    }
    let mut failure = PackageError::Manual { reason: "no `nasbn` is built for this machine".to_owned() };
    for program in host_programs(target_dir) {
        match written_by(&program) {
            Ok(parts) => return Ok(parts),
            // It may be one that was built without them.
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Every `nasbn` for this machine: beside this program, or of a build.
fn host_programs(target_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
    let builds = ["release", "quick", "debug"].map(|profile| target_dir.join(profile).join(PROGRAM));
    beside.into_iter().chain(builds).filter(|path| path.is_file())
}

/// The pages that a program writes.
fn written_by(program: &Path) -> Result<Vec<Part>, PackageError> {
    let failed = |reason: String| PackageError::Manual { reason: format!("{} man: {reason}", program.display()) };
    let directory = tempfile::tempdir().map_err(|e| failed(e.to_string()))?;
    let ran = Command::new(program).args(["man", "--quiet", "--out"]).arg(directory.path()).output();
    let ran = ran.map_err(|e| failed(e.to_string()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(failed(if said.is_empty() { ran.status.to_string() } else { said }));
    }
    pages(directory.path(), |path| {
        let text = fs::read_to_string(path).map_err(|source| PackageError::Io { path: path.to_owned(), source })?;
        Ok(super::parts::Contents::Text(text))
    })
}

/// The files of a directory that are man pages of section 1.
fn pages(
    directory: &Path,
    contents: impl Fn(&Path) -> Result<super::parts::Contents, PackageError>,
) -> Result<Vec<Part>, PackageError> {
    let io = |source| PackageError::Io { path: directory.to_owned(), source };
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "1") && path.is_file() {
            let name = name_of(Path::new(path.file_name().unwrap_or_default()), &path)?;
            parts.push(Part { path: format!("{MAN}/{name}"), contents: contents(&path)?, executable: false });
        }
    }
    if parts.iter().any(|part| part.path == format!("{MAN}/{PROGRAM}.1")) {
        return Ok(parts);
    }
    Err(PackageError::Manual { reason: format!("{} holds no {PROGRAM}.1", directory.display()) })
}
