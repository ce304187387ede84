//! Spreading work over threads, without knowing whose threads they are.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::KernelError;

/// Something that can run numbered tasks, perhaps at the same time.
pub trait Parallel {
    /// Runs `body(0)` to `body(tasks - 1)`, each exactly once, in any order, and returns when all are done.
    ///
    /// # Errors
    /// [`KernelError::Pool`] where the pool refuses.
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError>;
}

/// Runs everything on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        (0..tasks).for_each(body);
        Ok(())
    }
}

/// A given number of threads, started anew for each call: for tests and benchmarks.
#[derive(Debug, Clone, Copy)]
pub struct Threads(pub NonZeroUsize);

impl Parallel for Threads {
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                body(task);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.0.get().min(tasks) {
                scope.spawn(work);
            }
            work();
        });
        Ok(())
    }
}

/// Cuts `out` into parts of `part_len` values (the last may be shorter) and hands each, with its number, to `body`.
///
/// A part sits behind its own lock, which nobody else ever wants: that is what lets threads write to disjoint parts of
/// one slice in safe code, for some 20 ns a part. The last parts go first, as a caller that has just swept over the
/// same values left those in the cache.
///
/// # Errors
/// [`KernelError::Pool`] where the pool refuses.
pub fn for_each_part<T: Send>(
    pool: &dyn Parallel,
    out: &mut [T],
    part_len: usize,
    body: &(dyn Fn(usize, &mut [T]) + Sync),
) -> Result<(), KernelError> {
    if out.len() <= part_len {
        body(0, out);
        return Ok(());
    }
    let part_len = part_len.max(1);
    let locked = out.chunks_mut(part_len).map(Mutex::new);
    if locked.len() <= FEW {
        share(pool, &locked.collect::<heapless::Vec<_, FEW>>(), body)
    } else {
        share(pool, &locked.collect::<Vec<_>>(), body)
    }
}

/// Parts up to which the heap is not asked for their locks.
const FEW: usize = 256;

fn share<T: Send>(
    pool: &dyn Parallel,
    parts: &[Mutex<&mut [T]>],
    body: &(dyn Fn(usize, &mut [T]) + Sync),
) -> Result<(), KernelError> {
    pool.run(parts.len(), &|task| {
        let index = parts.len().saturating_sub(task + 1);
        if let Some(part) = parts.get(index) {
            body(index, &mut part.lock().unwrap_or_else(PoisonError::into_inner));
        }
    })
}
