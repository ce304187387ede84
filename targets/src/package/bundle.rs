//! The bundle, as files.

use std::{fs, path::Path};

use super::{BUNDLE, PackageError, Part, parts::name_of};

/// The file that makes a directory a bundle.
const MANIFEST: &str = "manifest.postcard";
/// What a device writes into a bundle for itself alone (TensorRT's engines).
const CACHE: &str = "cache";

/// Every file of a bundle but what a device keeps there for itself.
///
/// # Errors
/// If it is none, or holds anything but files and directories.
pub fn parts(bundle: &Path) -> Result<Vec<Part>, PackageError> {
    let is_bundle = fs::symlink_metadata(bundle.join(MANIFEST)).is_ok_and(|m| m.is_file());
    if !is_bundle {
        return Err(PackageError::NotABundle { path: bundle.to_owned() });
    }
    let mut parts = Vec::new();
    let mut left = vec![bundle.to_owned()];
    while let Some(directory) = left.pop() {
        let io = |source| PackageError::Io { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(io)?;
            let relative = path.strip_prefix(bundle).unwrap_or(&path);
            if kind.is_dir() {
                if relative != Path::new(CACHE) {
                    left.push(path);
                }
            } else if kind.is_file() {
                let name = name_of(relative, &path)?;
                parts.push(Part::file(format!("{BUNDLE}/{name}"), path));
            } else {
                let what = if kind.is_symlink() { "a link" } else { "a device, a pipe or a socket" };
                return Err(PackageError::Special { path, what });
            }
        }
    }
    Ok(parts)
}
