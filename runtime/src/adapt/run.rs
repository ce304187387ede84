//! A whole run: the steps of a trainer's schedule, their batches made ahead of use.

use std::{ops::ControlFlow, time::Instant};

use super::{AdaptError, StepReport, Trainer};
use crate::{
    data::{DataError, Prefetcher, TrainLoader},
    network::Network,
};

/// Batches that are made ahead of their use.
pub const PREFETCH: usize = 4;

/// Why a run ends before its last step.
#[derive(Debug)]
pub enum RunError<E> {
    /// A batch could not be made.
    Data(DataError),
    /// A step could not be taken; see [`Trainer::step`] for what is left of the trainer.
    Step(AdaptError),
    /// What the caller's own function gave.
    Caller(E),
}

/// Trains from where `trainer` stands to the end of its schedule, or until `after` breaks. `after` is called after every
/// step, with what the step did and the seconds that it took.
///
/// # Errors
/// See [`RunError`].
pub fn run<E>(
    network: &mut Network,
    trainer: &mut Trainer,
    loader: TrainLoader,
    mut after: impl FnMut(&mut Network, &Trainer, &StepReport, f64) -> Result<ControlFlow<()>, E>,
) -> Result<(), RunError<E>> {
    let steps = trainer.steps()..trainer.options().schedule.total;
    let mut prefetcher = Prefetcher::start(loader, steps, PREFETCH).map_err(RunError::Data)?;
    while let Some(batch) = prefetcher.next() {
        let batch = batch.map_err(RunError::Data)?;
        let clock = Instant::now();
        let result = trainer.step(network, batch.images.view(), &batch.labels);
        let seconds = clock.elapsed().as_secs_f64();
        prefetcher.recycle(batch);
        let report = result.map_err(RunError::Step)?;
        if after(network, trainer, &report, seconds).map_err(RunError::Caller)?.is_break() {
            break;
        }
    }
    Ok(())
}
