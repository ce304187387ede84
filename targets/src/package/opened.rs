//! Reading a package that was made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    DESCRIPTION, Description, PROGRAM_PATH, PackageError, RUN, SUMS,
    archive::{self, Member},
    parts::name_of,
    stage,
};

/// A package whose files are those that were packed.
#[derive(Clone, Debug)]
pub struct Opened {
    directory: PathBuf,
    members: Vec<Member>,
    /// What it is for.
    pub description: Description,
    /// Size of its files together.
    pub bytes: u64,
}

/// Opens a package and checks the digest of each of its files. Other files in the directory are none of its own.
///
/// # Errors
/// [`PackageError::NotAPackage`], [`PackageError::Damaged`], or [`PackageError::Io`].
pub fn open(directory: &Path) -> Result<Opened, PackageError> {
    let no_package = |reason: String| PackageError::NotAPackage { path: directory.to_owned(), reason };
    let read = |name: &str| fs::read_to_string(directory.join(name)).map_err(|e| no_package(format!("{name}: {e}")));
    let sums = read(SUMS)?;
    let description =
        serde_json::from_str(&read(DESCRIPTION)?).map_err(|e| no_package(format!("{DESCRIPTION}: {e}")))?;
    let mut members = vec![Member { path: SUMS.to_owned(), executable: false }];
    let mut bytes = sums.len() as u64;
    for (digest, name) in names(&sums, directory)? {
        let path = directory.join(name);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
        if !is_file {
            return Err(no_package(format!("it holds no file {name}")));
        }
        let (found, size) = stage::measure(&path).map_err(|source| PackageError::Io { path: path.clone(), source })?;
        if found != digest {
            return Err(PackageError::Damaged { path });
        }
        bytes += size;
        members.push(Member { path: name.to_owned(), executable: [PROGRAM_PATH, RUN].contains(&name) });
    }
    members.sort();
    if let Some(missing) = [PROGRAM_PATH, RUN].into_iter().find(|name| !members.iter().any(|m| m.path == *name)) {
        return Err(no_package(format!("{SUMS} does not name {missing}")));
    }
    Ok(Opened { directory: directory.to_owned(), members, description, bytes })
}

/// Digest and name of each file that the text of a `SHA256SUMS` in `directory` names.
///
/// # Errors
/// [`PackageError::NotAPackage`] or [`PackageError::Name`].
pub fn names<'a>(sums: &'a str, directory: &Path) -> Result<Vec<(&'a str, &'a str)>, PackageError> {
    let parse = |(number, line): (usize, &'a str)| {
        let odd = || PackageError::NotAPackage {
            path: directory.to_owned(),
            reason: format!("{SUMS}, line {}, is not `SHA-256  path`", number + 1),
        };
        let (digest, name) = line.split_once("  ").ok_or_else(odd)?;
        let whole = digest.len() == 64 && name_of(Path::new(name), &directory.join(name))? == name;
        if whole { Ok((digest, name)) } else { Err(odd()) }
    };
    sums.lines().enumerate().map(parse).collect()
}

impl Opened {
    /// Number of its files.
    pub fn files(&self) -> usize {
        self.members.len()
    }

    /// Writes it as a tar archive with its files below `top`.
    ///
    /// # Errors
    /// If a file cannot be read or `out` cannot be written.
    pub fn tar<W: std::io::Write>(&self, top: &str, out: W) -> std::io::Result<W> {
        archive::tar(&self.directory, &self.members, top, out)
    }
}
