//! The ONNX Runtime library: which versions are pinned, and how one is put under the target directory.

mod catalog;
mod error;
mod fetch;
mod provision;

pub use catalog::{Holder, Library, Manager, Package, PinnedFile, choose, choose_for, host_triple, pinned};
pub use error::ProvisionError;
pub use fetch::{Fetcher, NPM, PYTHON, PackageManagers};
pub use provision::{Provisioned, provision, provision_with_notices};

/// Directory below the target directory: `onnxruntime/<triple>/<version>/libonnxruntime.so`.
/// `nasbn` looks for it beside itself and in every directory above.
pub const PROVISIONED_DIR: &str = "onnxruntime";
/// File name of a provisioned library.
pub const LIBRARY_FILE: &str = "libonnxruntime.so";
/// File name of the licences of what a provisioned library is made of, beside it.
pub const NOTICES_FILE: &str = "ThirdPartyNotices.txt";
