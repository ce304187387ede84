//! NSGA-II where the truth is known: trained networks of NAS-Bench-Macro, and a space with absent edges.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, convert::Infallible};

use nasbn_models::{
    BnPlacement, Path, Supernet,
    cost::CostTable,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::search::{
    archive::{Archive, Assessed},
    choose::choose,
    enumerate::exact,
    nsga2::{Nsga2Options, nsga2, random_search},
    pareto::Point,
};
use nasbn_tests::shared_data;

/// Share of the best hypervolume that is to be reached where not every network is looked at.
const HYPERVOLUME_SHARE: f64 = 0.99;

fn space(text: &str, name: &str) -> Supernet {
    let placement = BnPlacement::EveryOperator;
    let options = SpaceOptions { image_size: None, classes: None, width: 1.0, placement };
    spec::parse(text, name, &options).unwrap()
}

fn archives(supernet: &Supernet, options: &Nsga2Options, assess: impl Fn(&Path) -> Assessed) -> [Archive; 2] {
    let evaluate = |batch: &[Path]| Ok::<_, Infallible>(batch.iter().map(&assess).collect());
    let found = nsga2(supernet, options, evaluate, |_, _| {}).unwrap();
    [found, random_search(supernet, options, evaluate, |_, _| {}).unwrap()]
}

/// Networks that were not trained are over a limit, so that the search passes over them.
#[test]
fn the_best_trained_networks_within_five_budgets_are_found() {
    const EVALUATIONS: usize = 400;
    let Some(file) = shared_data("nas-bench-macro/dev.csv") else { return };
    let supernet = space(spec::builtin("nas-bench-macro").unwrap(), "nas-bench-macro");
    let costs = CostTable::new(&supernet);
    let mut reader = csv::Reader::from_path(&file).unwrap();
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|h| h == name).unwrap();
    let (canonical, accuracy) = (column("canonical"), column("mean_acc"));
    let truth: HashMap<Path, f64> = reader
        .records()
        .map(|row| row.unwrap())
        .map(|row| (supernet.parse_path(&row[canonical]).unwrap(), row[accuracy].parse().unwrap()))
        .collect();
    assert!(EVALUATIONS < truth.len() / 3, "{}", truth.len());
    let assess = |path: &Path| {
        let score = truth.get(path).copied().unwrap_or(f64::NAN);
        Assessed { score, cost: costs.cost(path).macs as f64, excess: f64::from(u8::from(score.is_nan())) }
    };
    let right = exact(&supernet, assess).unwrap();
    let mut macs: Vec<f64> = truth.keys().map(|path| costs.cost(path).macs as f64).collect();
    macs.sort_by(f64::total_cmp);
    let budgets = [0.1, 0.3, 0.5, 0.7, 0.9].map(|share| macs[(macs.len() as f64 * share) as usize]);
    let best = |budget: f64| {
        let within = truth.iter().filter(|(path, _)| costs.cost(path).macs as f64 <= budget);
        within.map(|(_, &accuracy)| accuracy).fold(f64::NEG_INFINITY, f64::max)
    };
    let reference = Point { score: 85.0, cost: macs[macs.len() - 1] };
    let area = right.hypervolume(reference);
    for seed in 0..3 {
        let options = Nsga2Options { population: 40, evaluations: EVALUATIONS, mutation: 0.125, seed };
        let [found, random] = archives(&supernet, &options, assess);
        let [share, chance] = [&found, &random].map(|archive| archive.hypervolume(reference) / area);
        assert_eq!([&found, &random].map(Archive::evaluations), [EVALUATIONS; 2]);
        for budget in budgets {
            let chosen = choose(&found, budget, 4);
            assert_eq!(chosen[0].assessed.score, best(budget), "seed {seed}, budget {budget}");
            assert!(chosen.len() == 4 && chosen.iter().all(|entry| entry.assessed.cost <= budget));
        }
        assert!(share >= HYPERVOLUME_SHARE && share > chance, "seed {seed}: {share}, random search {chance}");
    }
}

/// A cell space: absent edges, of which some paths have too many, and choices that several edges share.
#[test]
fn a_space_with_absent_edges_is_searched_to_its_front() {
    const EVALUATIONS: usize = 1500;
    let supernet = space(include_str!("../../models/tests/fixtures/tiny-cell.toml"), "tiny-cell.toml");
    let costs = CostTable::new(&supernet);
    let assess = |path: &Path| {
        let cost = costs.cost(path);
        let each = || path.choices().iter().enumerate().map(|(i, &c)| (i as f64, f64::from(c)));
        let score = (cost.params as f64).ln() + each().map(|(i, c)| (i * 1.3 + c * 2.1).sin()).sum::<f64>();
        let time = (cost.macs as f64).sqrt() * 0.02 + each().map(|(i, c)| 1.0 + (i * 0.8 + c * 1.9).sin()).sum::<f64>();
        Assessed { score, cost: time, excess: 0.0 }
    };
    let right = exact(&supernet, assess).unwrap();
    let connected = supernet.paths().filter(|path| supernet.is_connected(path)).count() as u128;
    assert!(connected < supernet.path_count() && connected > 3 * EVALUATIONS as u128, "{connected}");
    let front = right.front();
    assert!(front.len() > 10, "{}", front.len());
    let (cheap, dear) = (front[0].assessed, front[front.len() - 1].assessed);
    let reference = Point { score: cheap.score - 1.0, cost: dear.cost * 1.1 };
    let area = right.hypervolume(reference);
    for seed in 0..3 {
        let options = Nsga2Options { population: 40, evaluations: EVALUATIONS, mutation: 0.15, seed };
        let [found, random] = archives(&supernet, &options, assess);
        let [share, chance] = [&found, &random].map(|archive| archive.hypervolume(reference) / area);
        assert!(share >= HYPERVOLUME_SHARE && share > chance, "seed {seed}: {share}, random search {chance}");
    }
}
