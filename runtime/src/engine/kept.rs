//! Which sessions are kept, where not all of them may be.

use std::num::NonZeroUsize;

/// Which of some numbered things are kept, and how lately each was used.
#[derive(Debug)]
pub(super) struct Kept {
    /// When each was last used; none of what is not kept.
    used: Vec<Option<u64>>,
    count: usize,
    clock: u64,
    limit: Option<NonZeroUsize>,
}

impl Kept {
    /// None of `things` is kept yet, and all of them may be.
    pub(super) fn new(things: usize) -> Self {
        Self { used: vec![None; things], count: 0, clock: 0, limit: None }
    }

    /// From now on no more than `limit` are to be kept: the caller asks [`Kept::excess`] which ones go.
    pub(super) fn bound(&mut self, limit: NonZeroUsize) {
        self.limit = Some(limit);
    }

    /// How many are kept.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Notes that one is used now, and kept if it was not.
    pub(super) fn using(&mut self, thing: usize) {
        self.clock += 1;
        self.count += usize::from(self.used[thing].replace(self.clock).is_none());
    }

    /// What must go before `coming` more are kept: the least recently used, which counts as gone; none once there is room.
    pub(super) fn excess(&mut self, coming: usize) -> Option<usize> {
        self.limit.filter(|limit| self.count + coming > limit.get())?;
        let used = self.used.iter().enumerate().filter_map(|(thing, used)| used.map(|used| (used, thing)));
        let (_, oldest) = used.min()?;
        self.used[oldest] = None;
        self.count -= 1;
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::sample;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// The slow, obviously right twin: a list, the last used at its end.
    fn twin(list: &mut Vec<usize>, thing: usize, limit: usize) -> Vec<usize> {
        let mut gone = Vec::new();
        match list.iter().position(|&kept| kept == thing) {
            Some(place) => _ = list.remove(place),
            None => {
                while list.len() + 1 > limit {
                    gone.push(list.remove(0));
                }
            }
        }
        list.push(thing);
        gone
    }

    #[test]
    fn the_least_recently_used_goes() {
        const THINGS: usize = 9;
        for limit in 1..=THINGS + 1 {
            let mut rng = ChaCha8Rng::seed_from_u64(limit as u64);
            let (mut kept, mut list, mut lost) = (Kept::new(THINGS), Vec::new(), 0);
            kept.bound(NonZeroUsize::new(limit).unwrap());
            for _ in 0..500 {
                let thing = sample::below(&mut rng, THINGS as u32) as usize;
                let is_kept = list.contains(&thing);
                let gone: Vec<usize> = std::iter::from_fn(|| if is_kept { None } else { kept.excess(1) }).collect();
                kept.using(thing);
                assert_eq!(gone, twin(&mut list, thing, limit), "limit {limit}");
                assert_eq!(kept.count(), list.len());
                lost += gone.len();
            }
            assert_eq!(lost == 0, limit >= THINGS, "limit {limit}");
        }
    }

    #[test]
    fn a_bound_that_comes_late_makes_room_at_once() {
        let mut kept = Kept::new(5);
        [3, 1, 4, 0, 3].into_iter().for_each(|thing| kept.using(thing));
        assert_eq!((kept.excess(1), kept.count()), (None, 4));
        kept.bound(NonZeroUsize::new(2).unwrap());
        assert_eq!([kept.excess(0), kept.excess(0), kept.excess(0)], [Some(1), Some(4), None]);
        assert_eq!(kept.count(), 2);
    }
}
