//! What can be wrong with a bundle that is read.

use std::path::PathBuf;

use nasbn_models::manifest::{FORMAT_VERSION, MANIFEST_FILE, ManifestError};

use crate::tensors::TensorError;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory holds no manifest.
    #[error("{} is not a nasbn bundle: it holds no {MANIFEST_FILE}", .0.display())]
    NoManifest(PathBuf),
    /// The manifest is larger than any is.
    #[error("{} has {bytes} bytes; no manifest has more than {limit}", path.display())]
    ManifestSize {
        /// The manifest.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest that is read.
        limit: u64,
    },
    /// The manifest is foreign, damaged, newer, or refers to what is not there.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of the manifest that is not there.
    #[error("{} is missing from the bundle", .0.display())]
    Missing(PathBuf),
    /// A link, directory or device where a file should be.
    #[error("{} is {found}, but a bundle holds plain files only", path.display())]
    NotAFile {
        /// The file, or the directory on the way to it.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file of another size than the manifest says.
    #[error("{} has {found} bytes, the manifest says {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// Size in the manifest.
        expected: u64,
    },
    /// A file of the right size with other contents.
    #[error("{} was altered: its SHA-256 is not the one in the manifest", .0.display())]
    Digest(PathBuf),
    /// A graph that is not one of a bundle, or reads what is not in it.
    #[error("{} {problem}", path.display())]
    Graph {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The weights or the initial parameters are not a safetensors file of this supernet.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// A tensor that the supernet has and the file does not, or with another shape.
    #[error("{}: tensor `{name}` {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl BundleError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoManifest(_) => "name the directory that `nasbn-export build --out DIR` wrote",
            Self::Manifest { source: ManifestError::Foreign, .. } => {
                "name the directory that `nasbn-export build --out DIR` wrote"
            }
            Self::Manifest { source: ManifestError::Version { found }, .. } if *found > FORMAT_VERSION => {
                "it was built by a newer version: update this program, or build the bundle again with the \
                 `nasbn-export` of this version"
            }
            Self::Manifest { source: ManifestError::Version { .. }, .. } => {
                "it was built by an older version: build the bundle again with the `nasbn-export` of this version"
            }
            Self::Io { .. } => "check that the bundle is there and may be read by this user",
            Self::Graph { .. } => "do not use a bundle of unknown origin; build it again with `nasbn-export build`",
            Self::NotAFile { .. } => "copy the bundle with `cp -rL`, so that it holds the files themselves",
            Self::ManifestSize { .. }
            | Self::Manifest { .. }
            | Self::Missing(_)
            | Self::Size { .. }
            | Self::Digest(_)
            | Self::Tensors(_)
            | Self::Tensor { .. } => "the bundle is incomplete or was changed: copy it again, or build it again",
        }
    }
}
