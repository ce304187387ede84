//! Bundles on disk: what `nasbn-export build` writes and the device reads.

pub mod check;
mod confined;
pub mod error;
pub mod read;
#[cfg(feature = "cli")]
pub mod source;
#[cfg(feature = "cli")]
mod staging;
#[cfg(feature = "cli")]
pub mod write;

pub use error::BundleError;
pub use read::Bundle;

/// Directory of the graphs and of the weights that they point into.
pub const GRAPHS: &str = "graphs";
/// Name of the weights' file in [`GRAPHS`]; `location` of the graphs' external data.
pub const WEIGHTS: &str = "weights.safetensors";
/// Directory in which the runtime keeps what it can make again: no part of the bundle, and gone when that is replaced.
pub const CACHE_DIR: &str = "cache";
/// Name of the initial BN parameters' file.
pub const INITIAL: &str = "initial.safetensors";
