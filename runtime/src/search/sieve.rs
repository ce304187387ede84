//! What is kept of a look at every network: the front, the best scores, a random sample of those within the limits, and the
//! nearest of those beyond them.

use std::collections::HashSet;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    archive::{Archive, Assessed, Entry, fronts},
    pareto::number_order,
};
use nasbn_models::{Path, sample};

/// Networks that are held before all but those worth keeping are dropped.
pub(super) const HELD: usize = 1 << 14;

/// Keeps what matters of networks that are told one after another, whatever their number.
pub(crate) struct Sieve<F> {
    /// Best scores, networks of the sample, and nearest beyond the limits, that are kept.
    keep: usize,
    /// Which networks beyond the limits may be kept.
    may: F,
    held: Vec<Entry>,
    /// Length at which `held` is cut down.
    full: usize,
    sample: Vec<Entry>,
    feasible: u64,
    count: usize,
    rng: ChaCha8Rng,
}

/// What a sieve has kept.
pub(crate) struct Sieved {
    /// Everything that nothing dominates, the best scores within the limits, and the nearest beyond them.
    pub archive: Archive,
    /// Different networks drawn uniformly from those within the limits, in random order.
    pub sample: Vec<Entry>,
    /// Networks that were told.
    pub count: usize,
}

impl<F: Fn(&Path) -> bool> Sieve<F> {
    /// An empty sieve that keeps `keep` best scores, as many random networks, and as many beyond the limits of those that `may`
    /// names.
    pub fn new(keep: usize, may: F, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { keep, may, held: Vec::new(), full: HELD.max(4 * keep), sample: Vec::new(), feasible: 0, count: 0, rng }
    }

    /// Tells a network that was not told before.
    pub fn push(&mut self, entry: Entry) {
        self.count += 1;
        if entry.assessed.is_feasible() {
            self.feasible += 1;
            // Reservoir sampling (Vitter 1985, algorithm R). No more are told than fit 32 bits: a space is listed up to 2^20.
            let place = sample::below(&mut self.rng, u32::try_from(self.feasible).unwrap_or(u32::MAX)) as usize;
            if self.sample.len() < self.keep {
                self.sample.push(entry.clone());
            } else if place < self.keep {
                self.sample[place] = entry.clone();
            }
        }
        self.held.push(entry);
        if self.held.len() >= self.full {
            self.reduce();
            self.full = HELD.max(2 * self.held.len());
        }
    }

    /// What was kept.
    pub fn end(mut self) -> Sieved {
        self.reduce();
        sample::shuffle(&mut self.rng, &mut self.sample);
        self.held.sort_by(|a, b| a.path.cmp(&b.path));
        Sieved { archive: Archive::new(self.held), sample: self.sample, count: self.count }
    }

    fn reduce(&mut self) {
        let assessed: Vec<Assessed> = self.held.iter().map(|entry| entry.assessed).collect();
        let mut kept: HashSet<usize> = fronts(&assessed).into_iter().next().unwrap_or_default().into_iter().collect();
        let mut best: Vec<usize> = (0..self.held.len()).filter(|&i| assessed[i].is_feasible()).collect();
        best.sort_by(|&a, &b| {
            let by_score = number_order(assessed[b].score, assessed[a].score);
            let by_cost = number_order(assessed[a].cost, assessed[b].cost);
            by_score.then(by_cost).then_with(|| self.held[a].path.cmp(&self.held[b].path))
        });
        kept.extend(best.into_iter().take(self.keep));
        let is_beyond = |i: &usize| !assessed[*i].is_feasible() && (self.may)(&self.held[*i].path);
        let mut beyond: Vec<usize> = (0..self.held.len()).filter(is_beyond).collect();
        beyond.sort_by(|&a, &b| self.held[a].by_nearness(&self.held[b]));
        kept.extend(beyond.into_iter().take(self.keep));
        let mut index = 0;
        self.held.retain(|_| {
            index += 1;
            kept.contains(&(index - 1))
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(number: u32, score: f64, cost: f64, excess: f64) -> Entry {
        let path = Path::new(&number.to_be_bytes()).unwrap();
        Entry { path, assessed: Assessed { score, cost, excess } }
    }

    fn even(path: &Path) -> bool {
        path.choices()[3].is_multiple_of(2)
    }

    fn sieved(count: u32, keep: usize, seed: u64) -> (Vec<Entry>, Sieved) {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut value = |n: u32| f64::from(sample::below(&mut rng, n));
        let all: Vec<Entry> =
            (0..count).map(|i| entry(i, value(1000), value(1000), (value(10) - 7.0).max(0.0))).collect();
        let mut sieve = Sieve::new(keep, even, seed, 5);
        all.iter().cloned().for_each(|e| sieve.push(e));
        (all, sieve.end())
    }

    #[test]
    fn the_front_and_the_best_scores_are_those_of_all() {
        for count in [0, 1, 7, 500, 3 * HELD as u32] {
            let (all, sieved) = sieved(count, 20, 1);
            assert_eq!(sieved.count, count as usize);
            // The slow twin keeps everything.
            let whole = Archive::new(all.clone());
            assert_eq!(sieved.archive.front(), whole.front());
            let scores = |archive: &Archive| -> Vec<f64> {
                let mut scores: Vec<f64> = archive.feasible().map(|e| e.assessed.score).collect();
                scores.sort_by(|a, b| b.total_cmp(a));
                scores.truncate(20);
                scores
            };
            assert_eq!(scores(&sieved.archive), scores(&whole));
            // Of those beyond the limits, the nearest that may be kept.
            let beyond = |archive: &Archive| -> Vec<Path> {
                let all = archive.entries().iter().filter(|e| !e.assessed.is_feasible() && even(&e.path));
                let mut all: Vec<&Entry> = all.collect();
                all.sort_by(|a, b| a.by_nearness(b));
                all.into_iter().take(20).map(|e| e.path.clone()).collect()
            };
            assert_eq!(beyond(&sieved.archive), beyond(&whole));
            assert!(sieved.archive.entries().len() < 200);
            assert_eq!(sieved.sample.len(), whole.feasible().count().min(20));
            assert!(sieved.sample.iter().all(|e| e.assessed.is_feasible()));
        }
        // Nothing within the limits: the nearest to them stays.
        let mut sieve = Sieve::new(3, even, 0, 0);
        [5.0, 2.0, 3.0].iter().zip(0..).for_each(|(&excess, i)| sieve.push(entry(i, 1.0, 1.0, excess)));
        let sieved = sieve.end();
        assert_eq!(sieved.archive.nearest().unwrap().assessed.excess, 2.0);
        assert!(sieved.sample.is_empty());
    }

    #[test]
    fn the_sample_is_uniform() {
        // Of 40 networks within the limits 10 are drawn 2000 times: each in a quarter of the draws.
        let mut drawn = [0u32; 40];
        for seed in 0..2000 {
            let mut sieve = Sieve::new(10, even, seed, 5);
            (0..40).for_each(|i| sieve.push(entry(i, 1.0, 1.0, 0.0)));
            let sample = sieve.end().sample;
            assert_eq!(sample.iter().map(|e| &e.path).collect::<HashSet<_>>().len(), 10);
            sample.iter().for_each(|e| drawn[usize::from(e.path.choices()[3])] += 1);
        }
        // Expectation 500, standard deviation 19.4: five of them are allowed.
        assert!(drawn.iter().all(|&n| (403..=597).contains(&n)), "{drawn:?}");
    }
}
