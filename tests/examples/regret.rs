//! What searches within latency budgets find where the truth is known: accuracy lost against the best possible network.
//!
//!     nasbn latency --bundle bundle --paths truth.csv --networks 64 --check 5000 --export latency.json --out board.latency
//!     nasbn score --indicators composite --paths truth.csv --reference-seed S --out scoresS.csv ...
//!     cargo run --profile quick -p nasbn-tests --example regret -- latency.json truth.csv mean_acc scores0.csv scores1.csv ...
//!
//! Every table of scores is one seed. All searches look at the same networks, those with a truth and a measured latency,
//! and judge them by the same composite; they differ in what keeps them within the budget.

use std::{collections::HashMap, convert::Infallible, env, fs};

use anyhow::{Context, Result, bail};
use nasbn_models::{
    BnPlacement, Path, Supernet,
    canonical::CanonicalTable,
    cost::CostTable,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    search::{
        archive::Assessed,
        finalists::{self, Budget, Dear, Finalist, Found, Margins, Plan},
        pareto::{Point, hypervolume},
    },
    table::Table,
};

/// Budgets, as shares of the networks that keep them.
const BUDGETS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// Networks that are measured in a search.
const FINALISTS: usize = 16;

/// What is known of the networks.
struct Known {
    supernet: Supernet,
    /// Accuracy, measured and predicted latency (milliseconds), by canonical path.
    networks: HashMap<Path, [f64; 3]>,
    /// Milliseconds for a number of multiply-accumulates: overhead and slope, fitted to the networks of the fit.
    line: (f64, f64),
}

/// One search on one budget: the network that it takes.
#[derive(Clone, Copy)]
struct Pick {
    accuracy: f64,
    latency: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [latency, truth, column, scores @ ..] = &arguments[..] else {
        bail!("usage: regret LATENCY.json TRUTH.csv COLUMN SCORES.csv...");
    };
    let known = Known::read(latency, truth, column)?;
    let mut latencies: Vec<f64> = known.networks.values().map(|n| n[1]).collect();
    latencies.sort_by(f64::total_cmp);
    let budgets = BUDGETS.map(|share| latencies[((latencies.len() - 1) as f64 * share) as usize]);
    println!(
        "{} networks, {} seeds, {FINALISTS} finalists in each search, and others for those that turn out over the budget",
        known.networks.len(),
        scores.len()
    );
    let names = ["measured latency", "MACs, finalists measured", "MACs, nothing measured", "random search"];
    let mut regrets = vec![vec![Vec::new(); BUDGETS.len()]; names.len()];
    let mut over = vec![vec![0; BUDGETS.len()]; names.len()];
    let mut volumes = vec![Vec::new(); names.len()];
    for (seed, file) in scores.iter().enumerate() {
        let composite = known.scores(file)?;
        let mut fronts = vec![Vec::new(); names.len()];
        for (b, &budget) in budgets.iter().enumerate() {
            let best = known.best(budget).accuracy;
            for (method, pick) in known.picks(&composite, budget, seed as u64).into_iter().enumerate() {
                match pick {
                    Some(pick) if pick.latency <= budget => {
                        regrets[method][b].push(best - pick.accuracy);
                        fronts[method].push(Point { score: pick.accuracy, cost: pick.latency });
                    }
                    _ => over[method][b] += 1,
                }
            }
        }
        let whole: Vec<Point> = known.networks.values().map(|n| Point { score: n[0], cost: n[1] }).collect();
        let least = whole.iter().map(|p| p.score).fold(f64::INFINITY, f64::min);
        let reference = Point { score: least, cost: budgets[BUDGETS.len() - 1] };
        for (method, front) in fronts.iter().enumerate() {
            volumes[method].push(hypervolume(front, reference) / hypervolume(&whole, reference));
        }
    }
    let best: Vec<String> = budgets.iter().map(|&b| format!("{b:.3} ms ({:.2} %)", known.best(b).accuracy)).collect();
    println!("| regret, points | {} | mean | hypervolume |", best.join(" | "));
    println!("|{}", " --- |".repeat(BUDGETS.len() + 3));
    for (method, name) in names.iter().enumerate() {
        let cell = |b: usize| match over[method][b] {
            0 => statistics(&regrets[method][b], 2),
            n => format!("{} ({n} over budget)", statistics(&regrets[method][b], 2)),
        };
        let cells: Vec<String> = (0..BUDGETS.len()).map(cell).collect();
        let all: Vec<f64> = regrets[method].concat();
        let volume = statistics(&volumes[method], 3);
        let lost: usize = over[method].iter().sum();
        let lost = if lost > 0 { format!(" ({lost} over budget left out)") } else { String::new() };
        println!("| {name} | {} | {}{lost} | {volume} |", cells.join(" | "), statistics(&all, 2));
    }
    Ok(())
}

/// Mean and standard deviation of the sample.
fn statistics(values: &[f64], digits: usize) -> String {
    let n = values.len() as f64;
    if values.is_empty() {
        return "-".into();
    }
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    format!("{mean:.digits$} ± {deviation:.digits$}")
}

impl Known {
    fn read(latency: &str, truth: &str, column: &str) -> Result<Self> {
        let text = fs::read_to_string(latency).with_context(|| latency.to_owned())?;
        let table: serde_json::Value = serde_json::from_str(&text).with_context(|| latency.to_owned())?;
        let space = table["conditions"]["space"].as_str().context("no space in the latency table")?;
        let options =
            SpaceOptions { placement: BnPlacement::EveryOperator, width: 1.0, image_size: None, classes: None };
        let builtin = spec::builtin(space).with_context(|| format!("{space} is not built in"))?;
        let supernet = spec::parse(builtin, space, &options)?;
        let canonical = CanonicalTable::new(&supernet);
        let mut accuracies: HashMap<Path, f64> = HashMap::new();
        for (path, accuracy) in pairs(&supernet, truth, column)? {
            accuracies.insert(canonical.of(&path), accuracy);
        }
        let costs = CostTable::new(&supernet);
        let (mut networks, mut fitted) = (HashMap::new(), Vec::new());
        for network in table["networks"].as_array().context("no networks in the latency table")? {
            let path = canonical.of(&supernet.parse_path(network["path"].as_str().unwrap_or_default())?);
            let number = |value: &serde_json::Value| value.as_f64().context("a latency is missing");
            let (measured, predicted) = (number(&network["timing"]["median_ms"])?, number(&network["predicted_ms"])?);
            if network["in_fit"].as_bool() == Some(true) {
                fitted.push((costs.cost(&path).macs as f64, measured));
            }
            if let Some(&accuracy) = accuracies.get(&path) {
                networks.insert(path, [accuracy, measured, predicted]);
            }
        }
        Ok(Self { line: line(&fitted), supernet, networks })
    }

    fn scores(&self, file: &str) -> Result<HashMap<Path, f64>> {
        let canonical = CanonicalTable::new(&self.supernet);
        let pairs = pairs(&self.supernet, file, "composite")?;
        Ok(pairs.into_iter().map(|(path, score)| (canonical.of(&path), score)).collect())
    }

    /// The most accurate network within a budget.
    fn best(&self, budget: f64) -> Pick {
        let within = self.networks.values().filter(|n| n[1] <= budget);
        let best = within.max_by(|a, b| a[0].total_cmp(&b[0])).copied().unwrap_or([f64::NAN; 3]);
        Pick { accuracy: best[0], latency: best[1] }
    }

    fn search(&self, composite: &HashMap<Path, f64>, budget: f64, seed: u64, by_macs: bool) -> Found {
        let plan = Plan {
            budget: Budget { latency_ms: budget, energy_mj: None },
            evaluations: 20_000,
            population: 50,
            mutation: 0.1,
            finalists: FINALISTS,
            replacements: 3,
            free: true,
            seed,
        };
        let costs = CostTable::new(&self.supernet);
        let cheap = |path: &Path, margins: &Margins| {
            let Some(&[_, _, predicted]) = self.networks.get(path) else {
                return Ok(Assessed { score: f64::NAN, cost: f64::INFINITY, excess: f64::INFINITY });
            };
            let macs = costs.cost(path).macs as f64;
            let cost = if by_macs { self.line.0 + self.line.1 * macs } else { predicted };
            let score = composite.get(path).copied().unwrap_or(f64::NAN);
            Ok::<_, Infallible>(Assessed { score, cost, excess: (margins.latency * cost / budget - 1.0).max(0.0) })
        };
        let dear = |paths: &[Path]| {
            let one = |path: &Path| Dear {
                score: composite.get(path).copied().unwrap_or(f64::NAN),
                latency_ms: self.networks.get(path).map_or(f64::NAN, |n| n[1]),
                energy_mj: None,
                predicted_mj: None,
            };
            Ok(paths.iter().map(one).collect())
        };
        let mut list: Vec<Path> = self.networks.keys().cloned().collect();
        list.sort();
        let Ok(found) = finalists::search(&self.supernet, &plan, Some(&list), cheap, |_| true, dear, |_, _| {});
        found
    }

    /// What each search takes, in the order of the names in `main`.
    fn picks(&self, composite: &HashMap<Path, f64>, budget: f64, seed: u64) -> [Option<Pick>; 4] {
        let by_latency = self.search(composite, budget, seed, false);
        let by_macs = self.search(composite, budget, seed, true);
        let of = |finalist: &Finalist| {
            let n = self.networks.get(&finalist.path)?;
            Some(Pick { accuracy: n[0], latency: n[1] })
        };
        let best = |finalists: &[Finalist]| {
            let within = finalists.iter().filter(|f| f.dear.latency_ms <= budget);
            within.max_by(|a, b| a.dear.score.total_cmp(&b.dear.score)).and_then(of)
        };
        [
            best(&by_latency.finalists),
            best(&by_macs.finalists),
            by_macs.finalists.first().and_then(of),
            best(&by_latency.random),
        ]
    }
}

fn pairs(supernet: &Supernet, file: &str, column: &str) -> Result<Vec<(Path, f64)>> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let table = Table::parse(&text).with_context(|| file.to_owned())?;
    let path = table.column("path").or_else(|_| table.column("arch"))?;
    let value = table.column(column)?;
    let row = |row: &nasbn_runtime::table::Row| -> Result<(Path, f64)> {
        Ok((supernet.parse_path(&row.fields[path])?, row.fields[value].parse()?))
    };
    table.rows().iter().map(row).collect()
}

/// Least squares.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(a, b), &(x, y)| (a + x / n, b + y / n));
    let (xx, xy) = points.iter().fold((0.0, 0.0), |(a, b), &(u, v)| (a + (u - x).powi(2), b + (u - x) * (v - y)));
    (y - x * xy / xx, xy / xx)
}
