//! New networks: at random, at the ends of the costs, or from two parents. Each is canonical and connected, and none
//! is given twice.

use std::collections::HashSet;

use nasbn_models::{Form, MAX_CHOICES, Path, Supernet, canonical::CanonicalTable, cost::CostTable, sample};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::ENUMERABLE;

/// Draws that are tried for one new network before the list of all is looked through, or nothing is given.
const TRIES: usize = 200;

/// A source of new networks.
pub(crate) struct Breeder<'a> {
    supernet: &'a Supernet,
    canonical: CanonicalTable,
    rng: ChaCha8Rng,
    known: HashSet<Path>,
    /// Paths that were not yet looked at for want of luck, if the space is small enough to list them.
    rest: Option<Box<dyn Iterator<Item = Path> + 'a>>,
}

impl<'a> Breeder<'a> {
    /// A source that knows no network yet, on a stream of its own of the seed.
    pub fn new(supernet: &'a Supernet, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let listed = supernet.path_count() <= ENUMERABLE;
        let rest = listed.then(|| Box::new(supernet.paths()) as Box<dyn Iterator<Item = Path> + 'a>);
        Self { supernet, canonical: CanonicalTable::new(supernet), rng, known: HashSet::new(), rest }
    }

    /// The network of a path, if it is connected and new.
    fn claim(&mut self, path: &Path) -> Option<Path> {
        let path = self.canonical.of(path);
        let new = self.supernet.is_connected(&path) && !self.known.contains(&path);
        new.then(|| {
            self.known.insert(path.clone());
            path
        })
    }

    /// A random network; none if all are known, or too many to find one that is not.
    pub fn random(&mut self) -> Option<Path> {
        for _ in 0..TRIES {
            let path = sample::uniform(self.supernet, &mut self.rng);
            if let Some(path) = self.claim(&path) {
                return Some(path);
            }
        }
        while let Some(path) = self.rest.as_mut()?.next() {
            if let Some(path) = self.claim(&path) {
                return Some(path);
            }
        }
        None
    }

    /// The networks of the operators of fewest and of most multiply-accumulates in every choice, absent ones aside, as
    /// far as they are new.
    pub fn ends(&mut self) -> Vec<Path> {
        let supernet = self.supernet;
        let costs = CostTable::new(supernet);
        let Some(base) = Path::new(&vec![0; supernet.choices.len().min(MAX_CHOICES)]) else { return Vec::new() };
        let [mut least, mut most] = [base.clone(), base.clone()];
        for (i, choice) in supernet.choices.iter().enumerate().take(MAX_CHOICES) {
            let mut with = base.clone();
            let mut priced: Vec<(bool, u64, u8)> = Vec::new();
            for (candidate, &operator) in (0..).zip(&choice.candidates) {
                with.choices_mut()[i] = candidate;
                let absent = supernet.operators[usize::from(operator)].form == Form::Absent;
                priced.push((absent, costs.cost(&with).macs, candidate));
            }
            let first = priced.iter().min();
            let last = priced.iter().max_by_key(|(absent, macs, _)| (!absent, *macs));
            least.choices_mut()[i] = first.map_or(0, |priced| priced.2);
            most.choices_mut()[i] = last.map_or(0, |priced| priced.2);
        }
        [least, most].iter().filter_map(|path| self.claim(path)).collect()
    }

    /// A network from two parents of `parents` networks, by uniform crossover and mutation of every choice with
    /// probability `mutation`; a random one where that gives nothing new. `parent` gives the winner of a tournament of
    /// two indices.
    pub fn child<'p>(
        &mut self,
        parents: usize,
        mutation: f64,
        parent: impl Fn(usize, usize) -> &'p Path,
    ) -> Option<Path> {
        for _ in 0..TRIES {
            let [a, b, c, d] = [(); 4].map(|()| sample::below(&mut self.rng, parents as u32) as usize);
            let crossed = sample::crossover(parent(a, b), parent(c, d), &mut self.rng);
            let mutated = sample::mutate(self.supernet, &crossed, mutation, &mut self.rng);
            if let Some(path) = self.claim(&mutated) {
                return Some(path);
            }
        }
        self.random()
    }
}
