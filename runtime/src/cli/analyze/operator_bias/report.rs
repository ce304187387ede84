//! What operator bias comes to: a table, CSV and a chart.

use std::path::PathBuf;

use serde::Serialize;

use super::OperatorBiasArgs;
use crate::{
    analyze::{
        operators::{BnIndicator, Ranked, batch_norms},
        spread,
    },
    cli::{
        Failure,
        analyze::{RESULT_FILE, with_spread},
        output, setup,
    },
    plot::{Arrangement, Bars, Labels, bars},
};

/// Names of the files in --out.
const CSV_FILE: &str = "operator-bias.csv";
const PLOT_FILE: &str = "operator-bias.svg";
/// A supernet of one placement, and what came of every seed.
pub struct Side {
    pub placement: &'static str,
    pub bundle: PathBuf,
    pub session: setup::Session,
    pub checkpoints: Vec<PathBuf>,
    /// A row a seed, in the order of [`BnIndicator::ALL`].
    pub ranked: Vec<Vec<Ranked>>,
}

/// result.json.
#[derive(Serialize)]
pub struct Report {
    pub space: String,
    /// Width multiplier.
    pub width: f64,
    pub epochs: u32,
    pub seeds: Vec<u64>,
    /// Different networks that were ranked, at most.
    pub random: u32,
    pub top: f64,
    /// Best networks of a search that count as found; fewer than asked for where one has met no more.
    pub found: u32,
    pub max_macs: Option<u64>,
    pub placements: Vec<Placement>,
    pub shares: Vec<Share>,
    pub files: Vec<PathBuf>,
}

#[derive(Serialize)]
pub struct Placement {
    pub placement: &'static str,
    pub bundle: PathBuf,
    /// Checkpoint of every seed.
    pub checkpoints: Vec<PathBuf>,
    /// Best path that the search found, of every seed, by `bn_last` and by `bn_all`.
    pub best_bn_last: Vec<String>,
    pub best_bn_all: Vec<String>,
}

/// The share of an operator among the choices of paths.
#[derive(Serialize)]
pub struct Share {
    pub indicator: &'static str,
    pub placement: &'static str,
    pub operator: String,
    /// BatchNorms of the operator, averaged over the edges that it may stand on.
    pub batch_norms: f64,
    /// Among all random paths.
    pub all: Estimate,
    /// Among the top ones.
    pub top: Estimate,
    /// Among those that the search found.
    pub found: Estimate,
}

/// A value for every seed.
#[derive(Serialize)]
pub struct Estimate {
    pub mean: f64,
    /// Sample standard deviation over seeds; null for one seed.
    pub deviation: Option<f64>,
    pub values: Vec<f64>,
}

impl Estimate {
    fn new(values: Vec<f64>) -> Self {
        let (mean, deviation) = spread(&values);
        Self { mean, deviation, values }
    }

    fn text(&self) -> String {
        with_spread((self.mean, self.deviation), 3)
    }
}

pub fn report(args: &OperatorBiasArgs, sides: &[Side], seeds: Vec<u64>) -> Report {
    let supernet = sides[0].session.network.supernet();
    let operator = |i: usize| supernet.operators[usize::from(supernet.alphabet[i])].name.clone();
    let mut shares = Vec::new();
    for (i, indicator) in BnIndicator::ALL.into_iter().enumerate() {
        for side in sides {
            let norms = batch_norms(side.session.network.supernet());
            for (o, &batch_norms) in norms.iter().enumerate() {
                let of = |part: fn(&Ranked) -> &Vec<f64>| {
                    Estimate::new(side.ranked.iter().map(|seed| part(&seed[i])[o]).collect())
                };
                shares.push(Share {
                    indicator: indicator.name(),
                    placement: side.placement,
                    operator: operator(o),
                    batch_norms,
                    all: of(|r| &r.all),
                    top: of(|r| &r.top),
                    found: of(|r| &r.found),
                });
            }
        }
    }
    let placements = sides.iter().map(|side| {
        let best = |i: usize| side.ranked.iter().map(|seed| seed[i].best.clone()).collect();
        Placement {
            placement: side.placement,
            bundle: side.bundle.clone(),
            checkpoints: side.checkpoints.clone(),
            best_bn_last: best(0),
            best_bn_all: best(1),
        }
    });
    Report {
        space: supernet.name.clone(),
        width: f64::from(supernet.width_permille) / 1000.0,
        epochs: args.training.epochs,
        seeds,
        random: args.random,
        top: args.top,
        found: sides.iter().flat_map(|s| s.ranked.iter().flatten()).fold(args.found, |n, r| n.min(r.networks_found)),
        max_macs: args.max_macs,
        placements: placements.collect(),
        shares,
        files: [CSV_FILE, PLOT_FILE, RESULT_FILE].map(|file| args.out.join(file)).into(),
    }
}

/// The files of the result, the JSON last.
pub fn files(report: &Report, sides: &[Side]) -> Result<[(&'static str, String); 3], Failure> {
    let json = serde_json::to_string_pretty(report).map_err(Failure::usage)?;
    Ok([(CSV_FILE, csv(sides, &report.seeds)), (PLOT_FILE, picture(report)), (RESULT_FILE, json)])
}

/// A row a seed, indicator, placement and operator.
fn csv(sides: &[Side], seeds: &[u64]) -> String {
    let mut text = String::from("indicator,placement,seed,operator,batch_norms,all,top,found\n");
    for (i, indicator) in BnIndicator::ALL.into_iter().enumerate() {
        for side in sides {
            let supernet = side.session.network.supernet();
            for (seed, ranked) in seeds.iter().zip(&side.ranked) {
                for (o, norms) in batch_norms(supernet).into_iter().enumerate() {
                    let operator = &supernet.operators[usize::from(supernet.alphabet[o])].name;
                    let [all, top, found] = [&ranked[i].all, &ranked[i].top, &ranked[i].found].map(|s| s[o]);
                    let (indicator, placement) = (indicator.name(), side.placement);
                    text += &format!("{indicator},{placement},{seed},{operator},{norms},{all},{top},{found}\n");
                }
            }
        }
    }
    text
}

fn percent(share: f64) -> String {
    format!("{} %", (1e4 * share).round() / 100.0)
}

fn picture(report: &Report) -> String {
    let of = |placement: &'static str| report.shares.iter().filter(move |share| share.placement == placement);
    let Some(first) = report.placements.first() else { return String::new() };
    let categories: Vec<String> =
        of(first.placement).map(|share| format!("{} · {}", share.operator, share.indicator)).collect();
    let series = |name: String, placement, part: fn(&Share) -> &Estimate| Bars {
        name,
        values: of(placement).map(|share| part(share).mean).collect(),
        spread: of(placement).map(|share| part(share).deviation.unwrap_or(0.0)).collect(),
    };
    let top = percent(report.top);
    let mut drawn = vec![series("random paths".into(), first.placement, |share| &share.all)];
    for Placement { placement, .. } in &report.placements {
        drawn.push(series(format!("top {top}, {placement}"), placement, |share| &share.top));
    }
    for Placement { placement, .. } in &report.placements {
        drawn.push(series(format!("found, {placement}"), placement, |share| &share.found));
    }
    let limit = report.max_macs.map_or(String::new(), |macs| format!(" up to {} M MACs", macs as f64 / 1e6));
    let seeds = report.seeds.len();
    let labels = Labels {
        title: "Which operators an indicator of gamma prefers, by BatchNorm placement".into(),
        subtitle: format!(
            "{}, width {}, {} epochs, {seeds} {}; top {top} of {} random paths, best {} found{limit}",
            report.space,
            report.width,
            report.epochs,
            if seeds == 1 { "seed" } else { "seeds" },
            report.random,
            report.found,
        ),
        x: "operator · indicator".into(),
        y: if seeds == 1 { "share of choices" } else { "share of choices (mean ± deviation)" }.into(),
        legend: String::new(),
    };
    bars(&labels, &categories, &drawn, Arrangement::Grouped)
}

pub fn print(report: &Report) -> Result<(), Failure> {
    let top = format!("top {}", percent(report.top));
    let heads = ["indicator", "placement", "operator", "BatchNorms", "all paths", &top, "found"].map(str::to_owned);
    let rows = report.shares.iter().map(|share| {
        let of = [share.indicator, share.placement, &share.operator].map(str::to_owned);
        let norms = format!("{:.2}", share.batch_norms);
        let shares = [&share.all, &share.top, &share.found].map(Estimate::text);
        of.into_iter().chain([norms]).chain(shares).collect()
    });
    output::table(&heads, rows.collect())?;
    let seeds = report.seeds.len();
    let spread = if seeds == 1 { "one seed" } else { "mean ± standard deviation over seeds" };
    output::line(format!("\n(share of each operator among the choices of paths, {spread})"))?;
    for file in &report.files {
        output::line(format!("wrote {}", file.display()))?;
    }
    Ok(())
}
