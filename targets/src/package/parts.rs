//! Files that a package is made of.

use std::path::{Component, Path, PathBuf};

use super::PackageError;

/// Where a file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file.
    File(PathBuf),
    /// A text.
    Text(String),
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path in the package, with `/`.
    pub path: String,
    /// Its bytes.
    pub contents: Contents,
    /// Whether it is a program.
    pub executable: bool,
}

impl Part {
    /// A file as it is.
    pub fn file(path: impl Into<String>, from: PathBuf) -> Self {
        Self { path: path.into(), contents: Contents::File(from), executable: false }
    }

    /// A text.
    pub fn text(path: impl Into<String>, text: String) -> Self {
        Self { path: path.into(), contents: Contents::Text(text), executable: false }
    }

    /// A program.
    pub fn program(path: impl Into<String>, contents: Contents) -> Self {
        Self { path: path.into(), contents, executable: true }
    }
}

/// A path as it stands in a package: relative, with `/`, and with nothing in its names that `sha256sum` or a shell would
/// take for something else.
///
/// # Errors
/// [`PackageError::Name`], with `whole`.
pub fn name_of(relative: &Path, whole: &Path) -> Result<String, PackageError> {
    let refused = |reason| PackageError::Name { path: whole.to_owned(), reason };
    let mut names = Vec::new();
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(refused("it leads out of its directory")) };
        let name = name.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
        if name.chars().any(|c| c.is_control() || c == '\\') {
            return Err(refused("it holds a control character or a backslash"));
        }
        names.push(name);
    }
    if names.is_empty() { Err(refused("it is empty")) } else { Ok(names.join("/")) }
}
