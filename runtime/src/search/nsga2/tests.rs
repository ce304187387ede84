//! Searches of spaces whose exact front is known, and of spaces that are odd.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::HashSet, convert::Infallible};

use nasbn_models::{Form, Operator};

use super::*;
use crate::{search::enumerate::exact, testing::chain};

/// Least share of the exact front's hypervolume that NSGA-II is to reach.
const HYPERVOLUME_SHARE: f64 = 0.99;

fn options(population: usize, evaluations: usize, seed: u64) -> Nsga2Options {
    Nsga2Options { population, evaluations, mutation: 0.1, seed }
}

/// Sums over choices, and over neighbours that agree: dearer operators are better, by chance of the place.
fn assess(path: &Path) -> Assessed {
    let size = |i: usize, c: u8| -> f64 {
        match (c, i % 2) {
            (0, _) => 0.0,
            (1, 0) | (2, 1) => 1.0,
            _ => 2.0,
        }
    };
    let choices = path.choices();
    let each = || choices.iter().enumerate().map(|(i, &c)| (i as f64, size(i, c)));
    let agree = |by: f64| choices.windows(2).filter(|w| w[0] == w[1]).count() as f64 * by;
    let score = each().map(|(i, s)| s.sqrt() * (1.2 + (2.3 * i).sin())).sum::<f64>() + agree(0.35);
    let cost = 3.0 + each().map(|(i, s)| s * (1.1 + (1.7 * i).cos())).sum::<f64>() - agree(0.2);
    Assessed { score, cost, excess: 0.0 }
}

fn run(supernet: &Supernet, options: &Nsga2Options, of: impl Fn(&Path) -> Assessed) -> Archive {
    let mut known = HashSet::new();
    let mut told = Vec::new();
    let evaluate = |batch: &[Path]| {
        assert!(!batch.is_empty() && batch.len() <= options.population.max(2));
        for path in batch {
            assert!(supernet.is_connected(path) && supernet.canonical(path) == *path);
            assert!(known.insert(path.clone()), "{path:?} twice");
        }
        Ok::<_, Infallible>(batch.iter().map(&of).collect())
    };
    let archive = nsga2(supernet, options, evaluate, |done, all| told.push((done, all))).unwrap();
    assert!(told.is_sorted() && told.iter().all(|&(done, all)| done <= all && all == options.evaluations));
    assert_eq!(archive.evaluations(), told.last().map_or(0, |t| t.0));
    archive
}

fn drawn(supernet: &Supernet, options: &Nsga2Options, of: impl Fn(&Path) -> Assessed) -> Archive {
    let evaluate = |batch: &[Path]| Ok::<_, Infallible>(batch.iter().map(&of).collect());
    random_search(supernet, options, evaluate, |_, _| {}).unwrap()
}

/// A chain in which every choice has the same candidates in the same order, so that many paths are one network.
fn runs(layers: u16) -> Supernet {
    let mut supernet = chain(layers);
    supernet.choices.iter_mut().for_each(|choice| choice.candidates = vec![1, 2, 3]);
    supernet
}

/// A chain with one more candidate a choice, the first, that cuts it.
fn cut(layers: u16) -> Supernet {
    let mut supernet = chain(layers);
    supernet.operators.push(Operator { name: "none".into(), form: Form::Absent, timm: None });
    supernet.alphabet.push(5);
    supernet.choices.iter_mut().for_each(|choice| choice.candidates.insert(0, 5));
    supernet.validate().unwrap();
    supernet
}

#[test]
fn the_front_is_found_with_few_looks_and_random_search_finds_less() {
    const EVALUATIONS: usize = 3000;
    // Of 177 147 networks.
    let supernet = chain(11);
    let all: Vec<Point> = supernet.paths().map(|path| assess(&path).point()).collect();
    let of = |best: fn(f64, f64) -> f64, of: fn(&Point) -> f64| all.iter().map(of).reduce(best).unwrap();
    let reference = Point { score: of(f64::min, |p| p.score), cost: of(f64::max, |p| p.cost) };
    let right = exact(&supernet, assess).unwrap();
    let area = right.hypervolume(reference);
    assert_eq!(area, pareto::hypervolume(&all, reference));
    for seed in 0..3 {
        let options = options(40, EVALUATIONS, seed);
        let (found, random) = (run(&supernet, &options, assess), drawn(&supernet, &options, assess));
        assert_eq!((found.evaluations(), random.evaluations()), (EVALUATIONS, EVALUATIONS));
        let [share, chance] = [&found, &random].map(|archive| archive.hypervolume(reference) / area);
        assert!((HYPERVOLUME_SHARE..=1.0 + 1e-12).contains(&share), "seed {seed}: {share}");
        assert!(chance < HYPERVOLUME_SHARE && chance < share, "seed {seed}: random search {chance}");
        // The found front is that of all that was met.
        assert!(found.front().iter().all(|e| !found.entries().iter().any(|o| o.point().dominates(&e.point()))));
    }
}

#[test]
fn equal_seeds_take_the_same_way_and_others_another() {
    let supernet = runs(9);
    let [a, b, c] = [0, 0, 1].map(|seed| run(&supernet, &options(20, 200, seed), assess));
    assert_eq!(a, b);
    assert_ne!(a, c);
    let [a, b, c] = [0, 0, 1].map(|seed| drawn(&supernet, &options(20, 200, seed), assess));
    assert_eq!(a, b);
    assert_ne!(a, c);
}

/// What may depend on neither the compiler nor a library: part of one run, as it was when it was written.
#[test]
fn a_seed_takes_this_way_for_ever() {
    let archive = run(&chain(6), &options(4, 12, 5), assess);
    let found: Vec<String> =
        archive.entries().iter().map(|e| e.path.choices().iter().map(u8::to_string).collect()).collect();
    assert_eq!(
        found,
        [
            "000000", "212121", "020220", "001112", "000020", "112121", "020120", "200000", "212000", "210120",
            "002101", "122121"
        ]
    );
}

#[test]
fn a_space_is_looked_through_where_evaluations_allow() {
    for supernet in [runs(3), chain(2), cut(2), chain(0)] {
        let right: HashSet<Path> =
            supernet.paths().filter(|p| supernet.canonical(p) == *p && supernet.is_connected(p)).collect();
        for population in [2, 7, 1000] {
            for search in [run, drawn] as [fn(&Supernet, &Nsga2Options, fn(&Path) -> Assessed) -> Archive; 2] {
                let archive = search(&supernet, &options(population, 5000, 0), assess);
                let found: HashSet<Path> = archive.entries().iter().map(|e| e.path.clone()).collect();
                assert_eq!(found, right);
                let front: Vec<Entry> = archive.front().into_iter().cloned().collect();
                let exact = exact(&supernet, assess).unwrap();
                assert_eq!(front, exact.front().into_iter().cloned().collect::<Vec<_>>());
            }
        }
    }
    assert!(run(&chain(3), &options(10, 0, 0), assess).entries().is_empty());
    // Nothing but absent operators: no network at all.
    let mut none = cut(3);
    none.choices[1].candidates = vec![5];
    assert!(run(&none, &options(10, 100, 0), assess).entries().is_empty());
}

#[test]
fn what_is_over_the_limits_leads_towards_them() {
    const EVALUATIONS: usize = 400;
    let supernet = chain(11);
    let least = supernet.paths().map(|path| assess(&path).cost).fold(f64::INFINITY, f64::min);
    // Nothing is within the limits, whether networks over them are scored or passed over.
    for scored in [true, false] {
        let over = |path: &Path| {
            let known = assess(path);
            Assessed { score: if scored { known.score } else { f64::NAN }, excess: known.cost + 1.0, ..known }
        };
        let archive = run(&supernet, &options(20, EVALUATIONS, 1), over);
        assert!(archive.front().is_empty());
        let (met, counted) = (archive.entries().len(), archive.evaluations());
        assert_eq!((met, counted), if scored { (EVALUATIONS, EVALUATIONS) } else { (EVALUATIONS * LOOKS, 0) });
        let nearest = archive.nearest().unwrap();
        assert_eq!(nearest.assessed.cost, least, "scored: {scored}");
        assert!(archive.entries().iter().all(|e| e.assessed.excess >= nearest.assessed.excess));
    }
    // A limit that one network in hundreds keeps: those over it are not counted, and all evaluations are spent within.
    let mut costs: Vec<f64> = supernet.paths().map(|path| assess(&path).cost).collect();
    costs.sort_by(f64::total_cmp);
    let budget = costs[costs.len() / 400];
    let within = |path: &Path| {
        let known = assess(path);
        let excess = (known.cost - budget).max(0.0);
        Assessed { score: if excess > 0.0 { f64::NAN } else { known.score }, excess, ..known }
    };
    let archive = run(&supernet, &options(20, 200, 2), within);
    assert_eq!(archive.evaluations(), 200);
    assert_eq!(archive.entries().iter().filter(|e| e.assessed.is_feasible()).count(), 200);
    let best = |archive: &Archive| archive.front().last().unwrap().assessed.score;
    assert_eq!(best(&archive), best(&exact(&supernet, within).unwrap()));
}

#[test]
fn objectives_that_tell_nothing_and_small_populations_are_searched_all_the_same() {
    let flat = |_: &Path| Assessed { score: 1.0, cost: 1.0, excess: 0.0 };
    let none = |_: &Path| Assessed { score: f64::NAN, cost: 1.0, excess: 0.0 };
    let endless = |path: &Path| Assessed { score: f64::INFINITY, cost: f64::NEG_INFINITY, ..assess(path) };
    let lost = |_: &Path| Assessed { score: 1.0, cost: f64::NAN, excess: f64::NAN };
    for population in [0, 1, 2, 3, 30] {
        for (of, front) in [(flat as fn(&Path) -> Assessed, 100), (none, 0), (endless, 100), (lost, 0)] {
            for supernet in [chain(7), runs(7), cut(5)] {
                let archive = run(&supernet, &options(population, 100, 0), of);
                assert_eq!((archive.entries().len(), archive.front().len()), (100, front));
            }
        }
    }
    for mutation in [f64::NAN, -1.0, 0.0, 7.0] {
        let archive = run(&chain(7), &Nsga2Options { mutation, ..options(10, 100, 0) }, assess);
        assert_eq!(archive.evaluations(), 100);
    }
}

#[test]
fn the_largest_space_is_searched_from_end_to_end() {
    let supernet = chain(64);
    let options = Nsga2Options { mutation: 1.0 / 64.0, ..options(40, 2000, 0) };
    let (found, random) = (run(&supernet, &options, assess), drawn(&supernet, &options, assess));
    let ends = [0u8, 1].map(|dear| {
        let choice = |i: u8| if dear == 0 { 0 } else { 2 - i % 2 };
        assess(&Path::new(&(0..64).map(choice).collect::<Vec<_>>()).unwrap())
    });
    let reference = Point { score: ends[0].score - 1.0, cost: ends[1].cost };
    let [area, chance] = [&found, &random].map(|archive| archive.hypervolume(reference));
    assert!(area > 1.1 * chance, "{area} {chance}");
    let front = found.front();
    assert!(front[0].assessed.cost <= ends[0].cost && front[front.len() - 1].assessed.score >= ends[1].score);
}

#[test]
fn failures_and_wrong_counts_end_the_search() {
    let supernet = chain(6);
    let options = options(10, 100, 0);
    let mut batches = 0;
    let failing = |batch: &[Path]| {
        batches += 1;
        if batches == 3 { Err("the device is gone") } else { Ok(batch.iter().map(assess).collect()) }
    };
    let error = nsga2(&supernet, &options, failing, |_, _| {}).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.hint()), ("the device is gone", None));
    assert_eq!(batches, 3);
    let short = |batch: &[Path]| Ok::<_, Infallible>(batch.iter().skip(1).map(assess).collect());
    let error = nsga2(&supernet, &options, short, |_, _| {}).unwrap_err();
    assert!(matches!(error, Nsga2Error::Count { asked: 10, given: 9 }) && error.hint().is_some());
}

#[test]
fn of_the_last_front_those_in_the_emptiest_places_survive() {
    // A front of five, crowded in the middle, then two that it dominates, then one over the limits.
    let front = [0.0, 1.0, 1.1, 1.2, 5.0].map(|v| (v, v, 0.0));
    let networks = [&[(9.0, 0.0, 0.1), (0.5, 4.0, 0.0)][..], &front, &[(0.5, 3.0, 0.0)]].concat();
    let entry = |(i, &(score, cost, excess)): (usize, &(f64, f64, f64))| Entry {
        path: Path::new(&[i as u8]).unwrap(),
        assessed: Assessed { score, cost, excess },
    };
    let entries: Vec<Entry> = networks.iter().enumerate().map(entry).collect();
    let kept = |size| {
        let mut kept: Vec<(usize, usize)> =
            survive(&entries, &[0, 1, 2, 3, 4, 5, 6, 7], size).iter().map(|s| (s.rank, s.index)).collect();
        kept.sort_unstable();
        kept
    };
    // Ends first, then 1.2 (its neighbours are 3.9 apart), then 1 (1.1 apart), then 1.1 (0.2 apart).
    let order = [&[2, 6][..], &[2, 5, 6], &[2, 3, 5, 6], &[2, 3, 4, 5, 6]];
    for indices in order {
        assert_eq!(kept(indices.len()), indices.iter().map(|&i| (0, i)).collect::<Vec<_>>());
    }
    assert_eq!(kept(6)[5], (1, 7));
    assert_eq!(kept(100)[5..], [(1, 7), (2, 1), (3, 0)]);
    let of = |rank, crowding, index| Survivor { index, rank, crowding };
    let contests = [
        (of(0, 0.1, 0), of(1, 9.0, 1), 0),
        (of(1, 9.0, 0), of(0, 0.1, 1), 1),
        (of(1, 0.1, 0), of(1, 0.2, 1), 1),
        (of(1, 0.2, 0), of(1, 0.2, 1), 0),
    ];
    for (a, b, winner) in contests {
        assert_eq!(better(&a, &b).index, winner);
    }
}
