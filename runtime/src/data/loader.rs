//! Training batches: the one of any step, without those before it.

use std::sync::Arc;

use nasbn_models::sample;

use super::augment::Change;
use super::batch::{Batch, check_enough, check_size};
use super::dataset::{Dataset, Part};
use super::error::DataError;
use super::rng::{self, Purpose};

/// How training batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images of a batch.
    pub batch: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Random crops, and mirror images where the data allows them.
    pub augment: bool,
}

/// Draws training batches. Step `s` is batch `s % steps_per_epoch` of epoch `s / steps_per_epoch`: each
/// epoch is a new order of all training images, and what does not fill a batch at its end is left out.
///
/// The batch of a step depends on data, options and step alone: order by (seed, epoch), crop and mirror
/// image by (seed, epoch, place in the epoch).
#[derive(Clone, Debug)]
pub struct TrainLoader {
    data: Arc<Dataset>,
    options: LoaderOptions,
    /// Epoch of `order`.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl TrainLoader {
    /// A loader over the training part of `data`.
    ///
    /// # Errors
    /// [`DataError::TooFewImages`] where there are fewer images than a batch; [`DataError::Option`] for a
    /// batch of 0.
    pub fn new(data: Arc<Dataset>, options: LoaderOptions) -> Result<Self, DataError> {
        check_size(options.batch)?;
        let request = format!("batch of {}", options.batch);
        check_enough(Part::Train, data.split(Part::Train), options.batch, request)?;
        Ok(Self { data, options, epoch: None, order: Vec::new() })
    }

    /// Batches of an epoch, at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        ((self.data.split(Part::Train).len() / self.options.batch) as u64).max(1)
    }

    /// The data that batches are drawn from.
    pub const fn data(&self) -> &Arc<Dataset> {
        &self.data
    }

    /// The options it was made with.
    pub const fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// Fills `batch` with the images of training step `step` (counted from 0 over all epochs); allocates
    /// only where `batch` has another shape, or a new epoch begins.
    ///
    /// # Errors
    /// None that [`TrainLoader::new`] has not ruled out.
    pub fn fill(&mut self, step: u64, batch: &mut Batch) -> Result<(), DataError> {
        let (epoch, within) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        if self.epoch != Some(epoch) {
            self.order.clear();
            self.order.extend(0..self.data.split(Part::Train).len());
            sample::shuffle(&mut rng::stream(self.options.seed, Purpose::Shuffle, epoch, 0), &mut self.order);
            self.epoch = Some(epoch);
        }
        let first = within as usize * self.options.batch;
        let indices = self.order.get(first..first + self.options.batch).unwrap_or_default();
        let (spec, flip, options) = (self.data.spec(), self.data.flip(), self.options);
        let change = |n: usize| {
            if !options.augment {
                return Change::default();
            }
            let mut rng = rng::stream(options.seed, Purpose::Augment, epoch, (first + n) as u64);
            Change::draw(&mut rng, spec.height, spec.width, flip)
        };
        self.data.fill_batch(Part::Train, indices, batch, change)
    }

    /// The batch of training step `step` in buffers of its own.
    ///
    /// # Errors
    /// As [`TrainLoader::fill`].
    pub fn batch(&mut self, step: u64) -> Result<Batch, DataError> {
        let mut batch = Batch::default();
        self.fill(step, &mut batch)?;
        Ok(batch)
    }
}
