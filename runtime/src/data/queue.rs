//! A queue of bounded length between two threads, which asks for memory once, when it is made.
//!
//! A channel of the standard library takes some when a thread waits for the first time, so that when it does depends on which
//! thread is the faster.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// How often each end has waited so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// The end that gives, as there was no room.
    pub to_give: u64,
    /// The end that takes, as there was nothing.
    pub to_take: u64,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Whether one of the ends is gone.
    closed: bool,
    waits: Waits,
}

#[derive(Debug)]
struct Queue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    /// Something was put in, or an end is gone.
    given: Condvar,
    /// Something was taken out, or an end is gone.
    taken: Condvar,
}

impl<T> Queue<T> {
    /// What a thread left that panicked is whole: nothing here panics between two changes.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().closed = true;
        self.given.notify_all();
        self.taken.notify_all();
    }
}

/// The end that things are put into. Dropping it lets the other take what there is, and no more.
#[derive(Debug)]
pub(super) struct Giver<T>(Arc<Queue<T>>);

/// The end that things are taken from. Dropping it lets nothing more be put in.
#[derive(Debug)]
pub(super) struct Taker<T>(Arc<Queue<T>>);

/// A queue that holds `capacity` things at most, 1 at least.
pub(super) fn queue<T>(capacity: usize) -> (Giver<T>, Taker<T>) {
    let capacity = capacity.max(1);
    let state = State { items: VecDeque::with_capacity(capacity), closed: false, waits: Waits::default() };
    let queue = Queue { capacity, state: Mutex::new(state), given: Condvar::new(), taken: Condvar::new() };
    let queue = Arc::new(queue);
    (Giver(Arc::clone(&queue)), Taker(queue))
}

impl<T> Giver<T> {
    /// Puts something in, once there is room for it; whether the other end is still there to take it.
    pub(super) fn give(&self, item: T) -> bool {
        let mut state = self.0.state();
        while state.items.len() >= self.0.capacity && !state.closed {
            state.waits.to_give += 1;
            state = self.0.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.items.push_back(item);
        drop(state);
        self.0.given.notify_one();
        true
    }
}

impl<T> Taker<T> {
    /// Takes what was put in first, once there is something; none if nothing will come any more.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.0.state();
        while state.items.is_empty() && !state.closed {
            state.waits.to_take += 1;
            state = self.0.given.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let item = state.items.pop_front();
        drop(state);
        self.0.taken.notify_one();
        item
    }

    /// How often each end has waited.
    pub(super) fn waits(&self) -> Waits {
        self.0.state().waits
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;

    #[test]
    fn everything_comes_in_order_whoever_waits() {
        const COUNT: u32 = 1000;
        for capacity in [0, 1, 3] {
            let (giver, taker) = queue(capacity);
            let gives = thread::spawn(move || (0..COUNT).all(|i| giver.give(i)));
            // It waits once the queue is full, for nothing is taken until then.
            while taker.waits().to_give == 0 {
                thread::yield_now();
            }
            let taken: Vec<u32> = std::iter::from_fn(|| taker.take()).collect();
            assert!(taken.into_iter().eq(0..COUNT), "{capacity}");
            assert!(gives.join().unwrap());
        }
    }

    #[test]
    fn an_end_that_is_gone_ends_the_wait_of_the_other() {
        let (giver, taker) = queue::<u8>(1);
        let takes = thread::spawn(move || taker.take());
        drop(giver);
        assert_eq!(takes.join().unwrap(), None);
        let (giver, taker) = queue(1);
        assert!(giver.give(1));
        let gives = thread::spawn(move || giver.give(2));
        while taker.waits().to_give == 0 {
            thread::yield_now();
        }
        drop(taker);
        assert!(!gives.join().unwrap());
        // What was put in before is still there.
        let (giver, taker) = queue(2);
        assert!(giver.give(7));
        drop(giver);
        assert_eq!((taker.take(), taker.take()), (Some(7), None));
    }
}
