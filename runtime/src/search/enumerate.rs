//! The exact Pareto front of a space that is small enough to look at all of it.

use nasbn_models::{Path, Supernet, canonical::CanonicalTable};

use super::{
    ENUMERABLE,
    archive::{Archive, Assessed, Entry},
    sieve::Sieve,
};

/// Every connected canonical path of a space, in lexicographic order.
pub(crate) fn networks(supernet: &Supernet) -> impl Iterator<Item = Path> {
    let canonical = CanonicalTable::new(supernet);
    supernet.paths().filter(move |path| canonical.is_canonical(path) && supernet.is_connected(path))
}

/// The networks that no other dominates by [`Assessed::dominates`], in lexicographic order: the Pareto front within
/// the limits, or those of the least excess where none is within them. `assess` gets every connected canonical path
/// once. None if there are more than 2^20 paths.
pub fn exact(supernet: &Supernet, mut assess: impl FnMut(&Path) -> Assessed) -> Option<Archive> {
    if supernet.path_count() > ENUMERABLE {
        return None;
    }
    let mut sieve = Sieve::new(0, |_| false, 0, 0);
    for path in networks(supernet) {
        let assessed = assess(&path);
        sieve.push(Entry { path, assessed });
    }
    Some(sieve.end().archive)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::sieve::HELD, *};
    use crate::testing::chain;

    /// A score and a cost with ties, a limit that some networks exceed, and some without a score.
    fn assess(path: &Path) -> Assessed {
        let sum = |factor: usize, modulus: usize| {
            path.choices().iter().enumerate().map(|(i, &c)| (i * factor + usize::from(c) * 5) % modulus).sum::<usize>()
        };
        let score = if sum(1, 3) == 7 { f64::NAN } else { sum(3, 7) as f64 };
        Assessed { score, cost: sum(5, 11) as f64, excess: sum(2, 4) as f64 - 11.0 }
    }

    #[test]
    fn the_exact_front_is_what_nothing_dominates() {
        // Enough networks that the best are told apart more than once.
        let supernet = chain(9);
        assert!(supernet.path_count() > HELD as u128);
        let all: Vec<Entry> = supernet.paths().map(|path| Entry { assessed: assess(&path), path }).collect();
        let found = exact(&supernet, assess).unwrap();
        let feasible: Vec<&Entry> = all.iter().filter(|e| e.assessed.is_feasible()).collect();
        assert!(feasible.len() > 100 && feasible.len() < all.len() / 2, "{}", feasible.len());
        let free = |e: &&Entry| !feasible.iter().any(|other| other.assessed.dominates(&e.assessed));
        let right: Vec<Entry> = feasible.iter().copied().filter(free).cloned().collect();
        assert_eq!(found.entries(), right);
        assert!(right.len() > 5, "{}", right.len());
        assert_eq!(found.front(), Archive::new(all).front());
    }

    #[test]
    fn beyond_all_limits_the_least_excess_is_left() {
        let supernet = chain(5);
        let over = |path: &Path| Assessed { excess: 1.0 + assess(path).cost, ..assess(path) };
        let found = exact(&supernet, over).unwrap();
        let least = supernet.paths().map(|path| over(&path).excess).fold(f64::INFINITY, f64::min);
        assert!(!found.entries().is_empty() && found.entries().iter().all(|e| e.assessed.excess == least));
        assert!(found.front().is_empty());
        assert_eq!(found.nearest().unwrap().assessed.excess, least);
    }

    #[test]
    fn a_space_too_large_to_list_has_no_exact_front() {
        assert!(exact(&chain(13), assess).is_none());
    }
}
