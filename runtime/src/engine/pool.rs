//! Values that several may hold, in places that are used again.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

type Free<V> = RefCell<Vec<Rc<Slot<V>>>>;

/// Places of values. One that is free is taken before memory is asked for, so that a step like those before it asks for none.
#[derive(Debug)]
pub(super) struct Pool<V>(Rc<Free<V>>);

/// Place of one value.
#[derive(Debug)]
struct Slot<V> {
    /// None while it is free.
    value: Option<V>,
    pool: Weak<Free<V>>,
}

/// A value, held by as many as hold a clone; it is dropped with the last of them.
#[derive(Debug)]
pub(super) struct Shared<V>(
    /// None only while it is dropped.
    Option<Rc<Slot<V>>>,
);

impl<V> Pool<V> {
    /// No place yet.
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(Vec::new())))
    }

    /// A value that can be shared.
    pub(super) fn share(&self, value: V) -> Shared<V> {
        let mut free = self.0.borrow_mut().pop();
        if let Some(slot) = free.as_mut().and_then(Rc::get_mut) {
            slot.value = Some(value);
            return Shared(free);
        }
        Shared(Some(Rc::new(Slot { value: Some(value), pool: Rc::downgrade(&self.0) })))
    }
}

impl<V> Shared<V> {
    /// The value; none only while it is dropped.
    pub(super) fn get(&self) -> Option<&V> {
        self.0.as_ref()?.value.as_ref()
    }

    /// The value, if nobody else holds it.
    pub(super) fn get_mut(&mut self) -> Option<&mut V> {
        Rc::get_mut(self.0.as_mut()?)?.value.as_mut()
    }
}

impl<V> Clone for Shared<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Drop for Shared<V> {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else { return };
        let Some(slot) = Rc::get_mut(&mut place) else { return };
        slot.value = None;
        if let Some(free) = slot.pool.upgrade() {
            free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use nasbn_models::sample;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// What a pool's places were ever made of is counted by the twin, a plain [`Rc`] a value.
    #[test]
    fn values_live_as_long_as_reference_counting_says() {
        let (pool, alive) = (Pool::new(), Rc::new(()));
        let count = || Rc::strong_count(&alive) - 1;
        let (mut shared, mut twins) = (Vec::new(), Vec::new());
        let mut most = 0;
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut below = |n: usize| sample::below(&mut rng, n as u32) as usize;
        for step in 0..1000_usize {
            match (below(10), shared.len()) {
                (0..5, _) | (_, 0) => {
                    shared.push(pool.share((step, Rc::clone(&alive))));
                    twins.push(Rc::new(step));
                }
                (5..7, length) => {
                    let index = below(length);
                    shared.push(shared[index].clone());
                    twins.push(Rc::clone(&twins[index]));
                }
                (_, length) => {
                    for gone in (0..length).rev().take(if length > 40 { 30 } else { 1 }) {
                        let index = below(gone + 1);
                        drop((shared.swap_remove(index), twins.swap_remove(index)));
                    }
                }
            }
            let mut distinct: Vec<usize> = twins.iter().map(|twin| **twin).collect();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(count(), distinct.len(), "step {step}");
            assert!(shared.iter().zip(&twins).all(|(shared, twin)| shared.get().is_some_and(|(v, _)| *v == **twin)));
            most = most.max(count());
            assert!(pool.0.borrow().len() + count() <= most, "places are used again");
        }
        assert!(most > 10);
        drop(pool);
        drop(shared);
        assert_eq!(count(), 0, "values outlive their pool, and are dropped all the same");
    }

    #[test]
    fn only_who_holds_it_alone_may_change_it() {
        let pool = Pool::new();
        let mut one = pool.share(1);
        let other = one.clone();
        assert_eq!(one.get_mut(), None);
        drop(other);
        assert_eq!(one.get_mut().map(|value| std::mem::replace(value, 2)), Some(1));
        assert_eq!(one.get(), Some(&2));
    }
}
