//! What a search with two objectives and limits has met, and the best of it.

use std::cmp::Ordering;

use nasbn_models::Path;
use serde::Serialize;

use super::pareto::{self, Point};

/// What is known of a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assessed {
    /// Objective, larger is better. Not a number where there is none; see [`Assessed::is_passed_over`].
    pub score: f64,
    /// Objective, smaller is better.
    pub cost: f64,
    /// By how much the network is over its limits, in any unit that is the same for all: 0 (or less) within them.
    /// Not a number counts as infinitely much.
    pub excess: f64,
}

impl Assessed {
    /// Both objectives.
    pub fn point(&self) -> Point {
        Point { score: self.score, cost: self.cost }
    }

    /// Whether the network is within the limits and has both objectives.
    pub fn is_feasible(&self) -> bool {
        self.excess <= 0.0 && !self.point().is_void()
    }

    /// Whether the network is over the limits and was therefore not scored: no evaluation is counted for it.
    pub fn is_passed_over(&self) -> bool {
        self.score.is_nan() && self.overrun() > 0.0
    }

    /// The excess as a number that is not negative, nor the zero that is.
    fn overrun(&self) -> f64 {
        if self.excess.is_nan() { f64::INFINITY } else { self.excess.max(0.0) + 0.0 }
    }

    /// What ranks come first by: the excess, where one within the limits without objectives is worse than all.
    fn violation(&self) -> f64 {
        if self.overrun() == 0.0 && self.point().is_void() { f64::INFINITY } else { self.overrun() }
    }

    /// Constrained domination (Deb et al. 2002, section VI): of two networks the one nearer to the limits dominates;
    /// of equally near ones, such as any two within them, the one whose point does.
    pub fn dominates(&self, other: &Self) -> bool {
        match self.violation().total_cmp(&other.violation()) {
            Ordering::Less => true,
            Ordering::Equal => self.point().dominates(&other.point()),
            Ordering::Greater => false,
        }
    }
}

/// Fronts by constrained domination, as indices into `assessed`: see [`pareto::fronts`] and [`Assessed::dominates`].
pub fn fronts(assessed: &[Assessed]) -> Vec<Vec<usize>> {
    let mut order: Vec<(f64, usize)> = assessed.iter().enumerate().map(|(i, a)| (a.violation(), i)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut fronts = Vec::new();
    for equal in order.chunk_by(|a, b| a.0 == b.0) {
        let points: Vec<Point> = equal.iter().map(|&(_, i)| assessed[i].point()).collect();
        fronts.extend(pareto::fronts(&points).into_iter().map(|f| f.into_iter().map(|k| equal[k].1).collect()));
    }
    fronts
}

/// A network that was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Canonical path.
    pub path: Path,
    /// What is known of it.
    pub assessed: Assessed,
}

impl Entry {
    /// Both objectives.
    pub fn point(&self) -> Point {
        self.assessed.point()
    }

    /// Less excess first (none is 0), then the cheaper, then by path.
    pub(crate) fn by_nearness(&self, other: &Self) -> Ordering {
        let by_excess = self.assessed.overrun().total_cmp(&other.assessed.overrun());
        let cost = |entry: &Self| if entry.assessed.cost.is_nan() { f64::INFINITY } else { entry.assessed.cost };
        by_excess.then_with(|| pareto::number_order(cost(self), cost(other))).then_with(|| self.path.cmp(&other.path))
    }
}

/// Every network that a search has met, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archive {
    entries: Vec<Entry>,
    evaluations: usize,
}

impl Archive {
    /// An archive of entries whose paths differ.
    pub fn new(entries: Vec<Entry>) -> Self {
        let evaluations = entries.iter().filter(|entry| !entry.assessed.is_passed_over()).count();
        Self { entries, evaluations }
    }

    /// Adds a network that was not met before.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.evaluations += usize::from(!entry.assessed.is_passed_over());
        self.entries.push(entry);
    }

    /// All networks, in the order in which they were met.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many were evaluated: all but those [passed over](Assessed::is_passed_over).
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// The Pareto front of the networks within the limits: the cheapest first, equal ones by path.
    pub fn front(&self) -> Vec<&Entry> {
        front_of(self.feasible().collect())
    }

    /// The networks within the limits that have both objectives.
    pub(crate) fn feasible(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.assessed.is_feasible())
    }

    /// The network of the least excess (0 if one is within the limits); of equal ones the cheapest, then the first
    /// path. None in an empty archive.
    pub fn nearest(&self) -> Option<&Entry> {
        self.nearest_of(|_| true)
    }

    /// The [nearest](Self::nearest) of those that `may` names.
    pub(crate) fn nearest_of(&self, may: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        self.entries.iter().filter(|entry| may(entry)).min_by(|a, b| a.by_nearness(b))
    }

    /// Area that the front dominates down to `reference`: see [`pareto::hypervolume`].
    pub fn hypervolume(&self, reference: Point) -> f64 {
        let points: Vec<Point> = self.feasible().map(Entry::point).collect();
        pareto::hypervolume(&points, reference)
    }
}

/// The Pareto front of entries: the cheapest first, equal ones by path.
pub(crate) fn front_of(mut entries: Vec<&Entry>) -> Vec<&Entry> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let points: Vec<Point> = entries.iter().map(|entry| entry.point()).collect();
    pareto::front(&points).into_iter().map(|i| entries[i]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nasbn_models::sample::below;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// Networks with few different values, some of them strange.
    fn archive(count: u32, rng: &mut ChaCha8Rng) -> Archive {
        let mut value = || match below(rng, 9) {
            0 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0][below(rng, 4) as usize],
            v => f64::from(v / 2) - 1.0,
        };
        let mut assessed = || Assessed { score: value(), cost: value(), excess: value() };
        let path = |i: u32| Path::new(&[(i % 256) as u8, (i / 256) as u8]).unwrap();
        Archive::new((0..count).rev().map(|i| Entry { path: path(i), assessed: assessed() }).collect())
    }

    #[test]
    fn constrained_fronts_are_those_of_the_definition() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for case in 0..300 {
            let archive = archive(case % 30, &mut rng);
            let assessed: Vec<Assessed> = archive.entries().iter().map(|e| e.assessed).collect();
            let mut left: Vec<usize> = (0..assessed.len()).collect();
            for mut front in fronts(&assessed) {
                front.sort_unstable();
                let free = |&i: &usize| !left.iter().any(|&j| assessed[j].dominates(&assessed[i]));
                assert_eq!(front, left.iter().copied().filter(free).collect::<Vec<_>>(), "{assessed:?}");
                left.retain(|i| !front.contains(i));
            }
            assert!(left.is_empty());
        }
    }

    #[test]
    fn excess_comes_first_and_what_has_no_score_within_the_limits_last() {
        let of = |score, cost, excess| Assessed { score, cost, excess };
        let nan = f64::NAN;
        let falling = [
            of(2.0, 1.0, -3.0),
            of(1.0, 1.0, 0.0),
            of(9.0, 0.0, 0.1),
            of(nan, 0.0, 0.1),
            of(9.0, 0.0, 0.2),
            of(nan, nan, 0.3),
            of(9.0, 0.0, nan),
            of(nan, 1.0, 0.0),
        ];
        for (i, a) in falling.iter().enumerate() {
            for (j, b) in falling.iter().enumerate() {
                assert_eq!(a.dominates(b), i < j, "{a:?} {b:?}");
            }
        }
        let told: Vec<_> = falling.iter().map(|a| (a.is_feasible(), a.is_passed_over())).collect();
        let [good, over, passed, void] = [(true, false), (false, false), (false, true), (false, false)];
        assert_eq!(told, [good, good, over, passed, over, passed, over, void]);
    }

    #[test]
    fn an_archive_tells_its_front_its_nearest_and_its_evaluations() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for case in 0..100 {
            let archive = archive(case, &mut rng);
            let entries = archive.entries();
            let feasible: Vec<&Entry> = entries.iter().filter(|e| e.assessed.is_feasible()).collect();
            let mut right: Vec<&Entry> = feasible.clone();
            right.retain(|e| !feasible.iter().any(|o| o.point().dominates(&e.point())));
            right.sort_by(|a, b| {
                a.assessed.cost.partial_cmp(&b.assessed.cost).unwrap().then_with(|| a.path.cmp(&b.path))
            });
            assert_eq!(archive.front(), right);
            let passed = entries.iter().filter(|e| e.assessed.is_passed_over()).count();
            assert_eq!(archive.evaluations(), entries.len() - passed);
            let excess = |e: &Entry| match e.assessed.excess {
                over if over.is_nan() => f64::INFINITY,
                over if over > 0.0 => over,
                _ => 0.0,
            };
            let least = entries.iter().map(excess).reduce(f64::min);
            let nearest = archive.nearest();
            assert_eq!(nearest.is_none(), entries.is_empty());
            if let (Some(nearest), Some(least)) = (nearest, least) {
                assert_eq!(excess(nearest), least);
                let cheaper = |e: &&Entry| excess(e) == least && e.assessed.cost < nearest.assessed.cost;
                assert_eq!(entries.iter().find(cheaper), None);
            }
        }
    }
}
