//! Which operators an indicator read from gamma prefers.

use nasbn_models::{
    Path, Supernet,
    canonical::CanonicalTable,
    cost::{Cost, CostTable},
};
use serde::Serialize;

use crate::{
    indicators::bn::BnTable,
    search::{Candidate, Limits, SearchError, SearchOptions, search},
};

/// An indicator that is a sum over (edge, operator) of mean |gamma|.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BnIndicator {
    /// Last BatchNorms of searchable layers ([`BnTable::last`]).
    BnLast,
    /// All BatchNorms ([`BnTable::all`]).
    BnAll,
}

impl BnIndicator {
    /// Both.
    pub const ALL: [Self; 2] = [Self::BnLast, Self::BnAll];

    /// Its column in tables of scores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BnLast => "bn_last",
            Self::BnAll => "bn_all",
        }
    }

    /// Of a path, larger is better.
    pub fn of(self, table: &BnTable, path: &Path) -> f64 {
        match self {
            Self::BnLast => table.last(path),
            Self::BnAll => table.all(path),
        }
    }
}

/// How paths are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choosing {
    /// Share of the random paths that counts as the top, above 0 and at most 1; at least one path.
    pub top: f64,
    /// Best networks of a search that count as found.
    pub found: usize,
    /// Most multiply-accumulates of a network that is found.
    pub max_macs: Option<u64>,
    /// Most networks that a search looks at; a space of no more is looked at as a whole.
    pub evaluations: usize,
    /// Seed of the search.
    pub seed: u64,
}

/// Shares of the operators among choices, in the order of [`Supernet::alphabet`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Of all random paths.
    pub all: Vec<f64>,
    /// Of the top ones.
    pub top: Vec<f64>,
    /// Of those that the search found.
    pub found: Vec<f64>,
    /// How many these are.
    pub networks_found: u32,
    /// The first of these, as text.
    pub best: String,
}

/// The share of every searchable operator among the choices of paths: counts over choices, summing to 1. Zeros where
/// there is no path or no choice.
pub fn shares<'a>(supernet: &Supernet, paths: impl IntoIterator<Item = &'a Path>) -> Vec<f64> {
    let mut counts = vec![0u64; supernet.alphabet.len()];
    for path in paths {
        for (&choice, of) in path.choices().iter().zip(&supernet.choices) {
            let operator = of.candidates.get(usize::from(choice));
            let place = operator.and_then(|o| supernet.alphabet.iter().position(|a| a == o));
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
    }
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.into_iter().map(|count| count as f64 / total).collect()
}

/// Mean number of BatchNorms of every searchable operator over the edges that it may stand on, in the order of
/// [`Supernet::alphabet`]; 0 for one that stands nowhere.
pub fn batch_norms(supernet: &Supernet) -> Vec<f64> {
    let of = |&operator: &u8| {
        let edges = supernet.edges.iter().enumerate();
        let standing = edges.filter(|(_, edge)| supernet.candidates(edge).contains(&operator));
        let counts: Vec<usize> = standing
            .map(|(e, _)| supernet.program(e, operator).map_or(0, |program| program.batch_norms().count()))
            .collect();
        counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64
    };
    supernet.alphabet.iter().map(of).collect()
}

/// Ranks random paths by an indicator, and searches for the best ones by it.
///
/// `paths` are canonical. Of equal scores the cheaper, then the first path stands higher.
///
/// # Errors
/// If no network is within the limit.
pub fn rank(
    supernet: &Supernet,
    table: &BnTable,
    indicator: BnIndicator,
    paths: &[Path],
    choosing: &Choosing,
) -> Result<Ranked, SearchError<std::convert::Infallible>> {
    let costs = CostTable::new(supernet);
    let score = |path: &Path| indicator.of(table, path);
    let candidate = |path: &Path| Candidate { path: path.clone(), score: score(path), cost: costs.cost(path) };
    let top = (choosing.top * paths.len() as f64).ceil().max(1.0) as usize;
    let top = best(paths.iter().map(candidate).collect(), top);
    let options = SearchOptions {
        limits: Limits { macs: choosing.max_macs, ..Limits::default() },
        evaluations: choosing.evaluations,
        seed: choosing.seed,
        parents: PARENTS,
        population: POPULATION,
        mutation: MUTATION,
    };
    let outcome = search(supernet, &costs, &options, |path| Ok(score(path)), |_, _| {})?;
    let found = best(outcome.evaluated, choosing.found);
    Ok(Ranked {
        all: shares(supernet, paths),
        top: shares(supernet, top.iter().map(|c| &c.path)),
        found: shares(supernet, found.iter().map(|c| &c.path)),
        networks_found: u32::try_from(found.len()).unwrap_or(u32::MAX),
        best: supernet.format_path(&found.first().unwrap_or(&outcome.best).path),
    })
}

/// The evolution of a search, where the space is too large to be looked at as a whole.
const PARENTS: usize = 10;
const POPULATION: usize = 50;
const MUTATION: f64 = 0.1;

/// The `count` best of candidates, of which one that stands there twice counts once.
fn best(mut candidates: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    let macs = |candidate: &Candidate| -> u64 {
        let Cost { macs, .. } = candidate.cost;
        macs
    };
    candidates.retain(|candidate| !candidate.score.is_nan());
    candidates.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| macs(a).cmp(&macs(b))).then_with(|| a.path.cmp(&b.path))
    });
    candidates.dedup_by(|a, b| a.path == b.path);
    candidates.truncate(count);
    candidates
}

/// Paths as their canonical ones, each network once, in order.
pub fn distinct(supernet: &Supernet, paths: &[Path]) -> Vec<Path> {
    let canonical = CanonicalTable::new(supernet);
    let mut seen = std::collections::HashSet::new();
    paths.iter().map(|path| canonical.of(path)).filter(|path| seen.insert(path.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::{
        parameters::{BnParameters, Layout},
        testing::chain,
    };

    /// Sums of shares in another order.
    const ROUNDING: f64 = 1e-12;
    const CHOOSING: Choosing = Choosing { top: 0.1, found: 1, max_macs: None, evaluations: 1000, seed: 0 };

    /// A table in which mean |gamma| of an operator is `worth` of its index in the alphabet.
    fn table(supernet: &Supernet, worth: impl Fn(usize) -> f32) -> BnTable {
        let layout = Layout::new(supernet);
        let mut parameters = BnParameters::zeros(&layout);
        for slot in layout.slots() {
            if let Some(place) = supernet.alphabet.iter().position(|&o| o == slot.operator) {
                // The sign of gamma counts for nothing.
                let signed = |i: usize| if i.is_multiple_of(2) { worth(place) } else { -worth(place) };
                slot.range.clone().for_each(|i| parameters.gamma[i] = signed(i));
            }
        }
        BnTable::new(supernet, &layout, &parameters)
    }

    #[test]
    fn shares_are_counts_over_choices() {
        let supernet = chain(4);
        // Candidates of neighbours are in different orders: 1, 2, 3 and 1, 3, 2.
        let paths = [Path::new(&[0, 1, 2, 0]).unwrap(), Path::new(&[1, 1, 0, 2]).unwrap()];
        assert_eq!(shares(&supernet, &paths), [3.0 / 8.0, 2.0 / 8.0, 3.0 / 8.0]);
        assert_eq!(shares(&supernet, &[]), [0.0; 3]);
        let all: Vec<Path> = supernet.paths().collect();
        for share in shares(&supernet, &all) {
            assert!((share - 1.0 / 3.0).abs() < ROUNDING);
        }
    }

    #[test]
    fn a_known_table_gives_known_shares() {
        let supernet = chain(4);
        let all: Vec<Path> = supernet.paths().collect();
        // A 1x1 convolution is worth most; the identity has no BatchNorm and is worth nothing.
        let table = table(&supernet, |place| [9.0, 2.0, 1.0][place]);
        for indicator in BnIndicator::ALL {
            let ranked = rank(&supernet, &table, indicator, &all, &CHOOSING).unwrap();
            for shares in [&ranked.all, &ranked.top, &ranked.found] {
                assert!((shares.iter().sum::<f64>() - 1.0).abs() < ROUNDING, "{shares:?}");
            }
            // Of 81 paths nine are the top: the best (8), four with one 3x3 (7), and four of the ten with 6: those
            // with one identity are cheaper than those with two 3x3.
            assert_eq!(ranked.found, [0.0, 1.0, 0.0]);
            assert_eq!(ranked.top, [4.0 / 36.0, 28.0 / 36.0, 4.0 / 36.0]);
            assert_eq!(ranked.best, "1111");
        }
    }

    /// By sorting all paths with their scores as text that sorts the same.
    #[test]
    fn the_top_is_what_a_sort_puts_first() {
        let supernet = chain(5);
        let all: Vec<Path> = supernet.paths().collect();
        let table = table(&supernet, |place| [0.0, 0.7, 1.3][place]);
        let mut scores: Vec<f64> = all.iter().map(|path| table.all(path)).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let costs = CostTable::new(&supernet);
        let candidate = |path: &Path| Candidate { path: path.clone(), score: table.all(path), cost: costs.cost(path) };
        for count in [1, 7, 243, 300] {
            let top = best(all.iter().chain(&all).map(candidate).collect(), count);
            assert_eq!(top.iter().map(|c| c.score).collect::<Vec<_>>(), scores[..count.min(243)]);
        }
    }

    #[test]
    fn a_limit_on_macs_binds_the_search_alone() {
        let supernet = chain(4);
        let all: Vec<Path> = supernet.paths().collect();
        let table = table(&supernet, |place| place as f32);
        let free = rank(&supernet, &table, BnIndicator::BnAll, &all, &CHOOSING).unwrap();
        assert_eq!(free.found, [0.0, 0.0, 1.0]);
        let least = all.iter().map(|path| CostTable::new(&supernet).cost(path).macs).min().unwrap();
        let limited = Choosing { max_macs: Some(least), ..CHOOSING };
        let tight = rank(&supernet, &table, BnIndicator::BnAll, &all, &limited).unwrap();
        assert_eq!((tight.found, tight.top), (vec![1.0, 0.0, 0.0], free.top));
        let none = rank(&supernet, &table, BnIndicator::BnAll, &all, &Choosing { max_macs: Some(1), ..CHOOSING });
        assert!(matches!(none, Err(SearchError::Infeasible { .. })));
    }

    /// Random search, which runs beside an evolution, may meet a better one; it is not among those found.
    #[test]
    fn the_best_is_one_of_those_found() {
        let supernet = chain(8);
        let table = table(&supernet, |place| [0.3, 0.7, 1.3][place]);
        for seed in 0..20 {
            let choosing = Choosing { evaluations: 12, seed, ..CHOOSING };
            let ranked = rank(&supernet, &table, BnIndicator::BnAll, &[], &choosing).unwrap();
            let best = supernet.parse_path(&ranked.best).unwrap();
            assert_eq!(shares(&supernet, [&best]), ranked.found, "seed {seed}");
        }
    }

    #[test]
    fn batch_norms_are_counted_where_an_operator_may_stand() {
        let mut supernet = chain(2);
        assert_eq!(batch_norms(&supernet), [0.0, 1.0, 1.0]);
        supernet.placement = nasbn_models::BnPlacement::EveryOperator;
        assert_eq!(batch_norms(&supernet), [1.0, 1.0, 1.0]);
    }
}
