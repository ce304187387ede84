//! Images and labels: reading the sources that `--data` names, and making batches of them.
//!
//! [`load`] reads a [`DataSource`] into a [`Dataset`]: bytes of the bundle's image size, kept in memory.
//! From there on everything is a pure function of (data, seed, step): [`TrainLoader`] makes the batch of
//! any training step without replaying those before it, [`Prefetcher`] does the same on a background
//! thread, [`Dataset::batches`] walks a part in order for evaluation, and [`Dataset::fixed_batches`]
//! picks class-balanced batches for statistics and indicators.

mod augment;
mod batch;
mod cifar;
mod dataset;
mod decode;
mod digits;
mod error;
mod fit;
mod folder;
mod list;
mod listing;
mod loader;
mod normalise;
mod options;
mod prefetch;
mod queue;
mod resize;
mod rng;
mod source;
mod stratify;

pub use batch::{Batch, Batches};
pub use dataset::{About, Dataset, Part, Split};
pub use error::{DataError, Skipped};
pub use list::BatchList;
pub use loader::{LoaderOptions, TrainLoader};
pub use normalise::Normaliser;
pub use options::{ImageSpec, LoadOptions};
pub use prefetch::Prefetcher;
pub use queue::Waits;
pub use source::{DataSource, SOURCE_FORMS};

/// Reads `source` into memory, every image brought to `spec`.
///
/// Images that had to be left out are logged as a warning and listed in [`Dataset::skipped`].
///
/// # Errors
/// [`DataError`] says which file or folder is wrong, and what would be right; nothing larger than
/// `options.max_bytes` is allocated for images, and no picture's own claims are trusted with memory.
pub fn load(source: &DataSource, spec: &ImageSpec, options: &LoadOptions) -> Result<Dataset, DataError> {
    spec.check()?;
    options.check()?;
    let data = match source {
        DataSource::Cifar10(dir) => cifar::load(&cifar::TEN, dir, spec, options),
        DataSource::Cifar100(dir) => cifar::load(&cifar::HUNDRED, dir, spec, options),
        DataSource::Images(dir) => folder::load(dir, spec, options),
        DataSource::Digits => digits::load(spec),
    }?;
    for skipped in data.skipped() {
        log::warn!("left out {skipped}");
    }
    Ok(data)
}

#[cfg(test)]
mod tests;
