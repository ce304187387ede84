//! Training batches made ahead of time by a background thread.

use std::ops::Range;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use super::batch::Batch;
use super::error::DataError;
use super::loader::TrainLoader;
use super::queue::{Giver, Taker, Waits, queue};

/// A [`TrainLoader`] on a thread of its own, a bounded number of batches ahead.
///
/// Hand used batches back with [`Prefetcher::recycle`], and there are never more than two beside those that wait: after as many
/// steps neither thread asks for memory any more, whichever of them waits for the other. The batches are those of the loader, bit
/// for bit. Dropping it ends the thread.
#[derive(Debug)]
pub struct Prefetcher {
    steps: Range<u64>,
    /// `None` only while dropping.
    ready: Option<Taker<Result<Batch, DataError>>>,
    /// Neither end of it ever waits, which would take memory.
    used: SyncSender<Batch>,
    worker: Option<JoinHandle<()>>,
}

impl Prefetcher {
    /// Starts making the batches of `steps`, at most `depth` (at least 1) waiting to be taken.
    ///
    /// # Errors
    /// [`DataError::Io`] where the system grants no thread.
    pub fn start(loader: TrainLoader, steps: Range<u64>, depth: usize) -> Result<Self, DataError> {
        let depth = depth.max(1);
        let (made, ready) = queue(depth);
        // One is being made and one used while the others wait: with so many from the beginning, one is always free.
        let batches = depth.saturating_add(2);
        let (used, free) = mpsc::sync_channel(batches);
        for _ in 0..batches {
            // There is room for all of them.
            let _ = used.try_send(Batch::default());
        }
        let range = steps.clone();
        let worker = thread::Builder::new()
            .name("nasbn-data".into())
            .spawn(move || work(loader, range, &made, &free))
            .map_err(DataError::io("start a thread for", "the training data"))?;
        Ok(Self { steps, ready: Some(ready), used, worker: Some(worker) })
    }

    /// Gives buffers back for a later batch.
    pub fn recycle(&self, batch: Batch) {
        // After the last step nobody wants it any more, and of those made by others there may be too many.
        let _ = self.used.try_send(batch);
    }

    /// How often this thread has waited for a batch so far, and the background thread for room.
    pub fn waits(&self) -> Waits {
        self.ready.as_ref().map(Taker::waits).unwrap_or_default()
    }
}

impl Iterator for Prefetcher {
    type Item = Result<Batch, DataError>;

    /// The next step's batch, waiting for it if need be; `None` after the last.
    ///
    /// # Errors
    /// What [`TrainLoader::fill`] gave, or [`DataError::LoaderStopped`]; nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.steps.next()?;
        let received = self.ready.as_ref().and_then(Taker::take);
        let result =
            received.unwrap_or_else(|| Err(DataError::LoaderStopped { before: format!("the batch of step {step}") }));
        if result.is_err() {
            self.steps = 0..0;
        }
        Some(result)
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Nobody takes any more: the worker ends when it has made another.
        drop(self.ready.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn work(mut loader: TrainLoader, steps: Range<u64>, made: &Giver<Result<Batch, DataError>>, free: &Receiver<Batch>) {
    for step in steps {
        let mut batch = free.try_recv().unwrap_or_default();
        let result = loader.fill(step, &mut batch).map(|()| batch);
        let failed = result.is_err();
        if !made.give(result) || failed {
            return;
        }
    }
}
