//! The bundle, as files.

use std::path::Path;

use nasbn_export::bundle::{
    Bundle,
    check::{CheckError, check},
};
use nasbn_models::manifest::MANIFEST_FILE;

use super::{BUNDLE, PackageError, Part};

/// The files of a bundle that is whole, as `nasbn-export check` has it: its manifest and what that names.
///
/// # Errors
/// [`PackageError::Bundle`].
pub fn parts(bundle: &Path) -> Result<Vec<Part>, PackageError> {
    let opened = Bundle::open(bundle).map_err(CheckError::from)?;
    check(&opened)?;
    // The manifest's names are relative and plain: it is refused otherwise.
    let names = opened.manifest().files.iter().map(|file| file.name.as_str()).chain([MANIFEST_FILE]);
    Ok(names.map(|name| Part::file(format!("{BUNDLE}/{name}"), bundle.join(name))).collect())
}
