//! What a latency-aware search has found: `result.json`, `pareto.csv` and `report.html`. `docs/search.md` describes them.

mod html;

use nasbn_models::{Path, Selection, Supernet, cost::CostTable};
use serde::Serialize;

use crate::{
    board::Board,
    indicators::catalogue::Direction,
    latency::{Conditions, IMPORTED, LatencyTable, PredictionError, Statistic, Timing},
    provider::Placement,
    search::{FoundBy, Method, finalists::Margins},
    validation::Validation,
};

/// Version of the layout of `result.json`.
pub const SCHEMA: u32 = 4;

/// `result.json` of a search with a latency table.
#[derive(Clone, Debug, Serialize)]
pub struct SearchReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version that wrote it.
    pub generator: String,
    /// Arguments of the program, with which it can be run again.
    pub command: Vec<String>,
    /// Space of the bundle.
    pub space: String,
    /// Seed.
    pub seed: u64,
    /// What was searched for.
    pub objective: String,
    /// Which of its values are better.
    pub direction: Direction,
    /// Whether the objective that decides was measured on the finalists, after tables had filtered.
    pub decided_by_measurement: bool,
    /// Parts of the composite; empty for other objectives.
    pub parts: Vec<PartOfScore>,
    /// Limits.
    pub limits: BudgetLimits,
    /// How the first step went about it.
    pub method: Method,
    /// Networks that the first step looked at.
    pub looked_at: usize,
    /// Different networks whose objective and latency were measured, random search's among them.
    pub measured: usize,
    /// How many times as much as predicted the finalists took, as medians; limits on the others were corrected by it.
    pub margins: Margins,
    /// Under what conditions they were measured.
    pub conditions: Conditions,
    /// Rounds of measuring that were thrown away because the device throttled.
    pub throttled_rounds: u32,
    /// The best that keeps the limits as measured.
    pub winner: MeasuredNetwork,
    /// The winner's operators, in order.
    pub blocks: Vec<BlockOfWinner>,
    /// The best of random search that keeps them; null if none does.
    pub random_search: Option<MeasuredNetwork>,
    /// Networks that the search proposed and that were measured.
    pub finalists: Vec<MeasuredNetwork>,
    /// Networks that random search proposed and that were measured.
    pub random: Vec<MeasuredNetwork>,
    /// Front of the first step within the widest limits that it looked at, by fitted score and predicted latency, the
    /// fastest first.
    pub front: Vec<PointOfFront>,
    /// How often an operator stands in a layer of the front's networks.
    pub operators: Vec<LayerShares>,
    /// Images that validation figures are of; the search saw none of them.
    pub report_images: usize,
    /// The latency table.
    pub table: TableSummary,
    /// The board before the search.
    pub before: Board,
    /// The board after it.
    pub after: Board,
    /// Files that were written beside.
    pub files: Vec<String>,
}

/// A part of the composite.
#[derive(Clone, Debug, Serialize)]
pub struct PartOfScore {
    /// Name of the indicator.
    pub indicator: String,
    /// Weight of its rank.
    pub weight: f64,
}

/// Hard limits; null where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BudgetLimits {
    /// Most latency of one run, milliseconds, median as measured.
    pub latency_ms: f64,
    /// Most energy of one run, millijoules, as measured.
    pub energy_mj: Option<f64>,
    /// Most multiply-accumulates for one image.
    pub macs: Option<u64>,
    /// Most parameters.
    pub params: Option<u64>,
    /// Most peak activation memory for one image, bytes.
    pub memory_bytes: Option<u64>,
}

/// A network that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct MeasuredNetwork {
    /// Canonical path.
    pub path: String,
    /// Which search proposed it.
    pub found_by: FoundBy,
    /// Whether it keeps the limits on latency and energy as measured: where there is one on the energy and that was not
    /// measured, it does not.
    pub within_budget: bool,
    /// The objective's own value: of a loss, the loss. Which is better, [`SearchReport::direction`] says.
    pub score: f64,
    /// What the tables gave for it.
    pub fitted_score: f64,
    /// Fitted ranks of the composite's parts, in order; empty for other objectives.
    pub ranks: Vec<f64>,
    /// Predicted latency, milliseconds.
    pub predicted_ms: f64,
    /// Latency as measured.
    pub latency: Timing,
    /// Energy of one run, millijoules: as measured where the board has rails.
    pub energy_mj: Option<f64>,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
    /// Layers that are not the identity.
    pub depth: u32,
    /// Peak activation memory for one image, bytes.
    pub peak_activation_bytes: u64,
    /// With inherited BatchNorm and recalibrated statistics, for the winner and random search's best.
    pub validation: Option<Validation>,
}

/// An operator of the winner.
#[derive(Clone, Debug, Serialize)]
pub struct BlockOfWinner {
    /// Layer of a path that decides it; null for fixed ones.
    pub layer: Option<usize>,
    /// Name of the operator.
    pub operator: String,
    /// Channels, height and width of its output.
    pub output: [u32; 3],
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Latency by itself, milliseconds; null where the table has none (identity, imported tables).
    pub latency_ms: Option<f64>,
}

/// A network of the front of the first step.
#[derive(Clone, Debug, Serialize)]
pub struct PointOfFront {
    /// Canonical path.
    pub path: String,
    /// Fitted score.
    pub fitted_score: f64,
    /// Predicted latency, milliseconds.
    pub predicted_ms: f64,
}

/// Shares of the operators in one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerShares {
    /// Name of the layer.
    pub layer: String,
    /// Operators and their shares among the front's networks, 0 to 1.
    pub shares: Vec<(String, f64)>,
    /// The winner's operator.
    pub winner: String,
}

/// What matters of the latency table.
#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    /// Under what conditions it holds.
    pub conditions: Conditions,
    /// Where nodes ran while it was measured; null where that is not known.
    pub placement: Option<Placement>,
    /// Error of plain sums of blocks on networks that were not in the fit.
    pub error_of_sums: Option<PredictionError>,
    /// Error of its prediction on them.
    pub error: Option<PredictionError>,
    /// Which of the run times is predicted.
    pub statistic: Statistic,
    /// Predicted and measured latency (that statistic of it), milliseconds, of the networks that were not in the fit; empty for imported tables.
    pub checked: Vec<(f64, f64)>,
}

impl TableSummary {
    /// Of a table.
    pub fn of(table: &LatencyTable) -> Self {
        // What was imported was not measured as finalists are.
        let here = table.conditions.provider != IMPORTED;
        let checked = table.networks.iter().filter(|network| here && !network.in_fit);
        Self {
            conditions: table.conditions.clone(),
            placement: table.placement.clone(),
            error_of_sums: table.error_of_sums,
            error: table.error,
            statistic: table.statistic,
            checked: checked.map(|network| (network.predicted_ms, network.timing.statistic(table.statistic))).collect(),
        }
    }
}

/// The winner's operators.
pub fn blocks(supernet: &Supernet, costs: &CostTable, table: &LatencyTable, path: &Path) -> Vec<BlockOfWinner> {
    let mut blocks = Vec::new();
    for (e, edge) in supernet.edges.iter().enumerate() {
        let operator = supernet.operator_on(edge, path);
        let layer = match edge.selection {
            Selection::Fixed(_) => None,
            Selection::Mixed(choice) => Some(usize::from(choice)),
        };
        let time = table.blocks.iter().find(|b| usize::from(b.edge) == e && b.operator == operator);
        let shape = supernet.edge_shape(edge);
        blocks.push(BlockOfWinner {
            layer,
            operator: supernet.operators[usize::from(operator)].name.clone(),
            output: [shape.channels, shape.height, shape.width],
            macs: supernet.candidates(edge).iter().position(|&o| o == operator).map_or(0, |c| costs.macs_of(e, c)),
            latency_ms: time.map(|b| b.timing.statistic(table.statistic)),
        });
    }
    blocks
}

/// Shares of operators among paths, layer by layer.
pub fn shares(supernet: &Supernet, paths: &[Path], winner: &Path) -> Vec<LayerShares> {
    let name = |operator: u8| supernet.operators[usize::from(operator)].name.clone();
    let layer = |(c, choice): (usize, &nasbn_models::Choice)| {
        let share = |candidate: usize| {
            let takes = |path: &&Path| path.choices().get(c).is_some_and(|&taken| usize::from(taken) == candidate);
            paths.iter().filter(takes).count() as f64 / paths.len().max(1) as f64
        };
        let candidates = choice.candidates.iter().enumerate();
        let taken = winner.choices().get(c).and_then(|&taken| choice.candidates.get(usize::from(taken)));
        LayerShares {
            layer: choice.name.clone(),
            shares: candidates.map(|(candidate, &operator)| (name(operator), share(candidate))).collect(),
            winner: taken.map_or_else(String::new, |&operator| name(operator)),
        }
    };
    supernet.choices.iter().enumerate().map(layer).collect()
}

impl SearchReport {
    /// Whether a network is over the limit on the latency as measured.
    fn is_over_latency(&self, network: &MeasuredNetwork) -> bool {
        network.latency.median_ms.is_nan() || network.latency.median_ms > self.limits.latency_ms
    }

    /// Whether there is a limit on the energy, and that of a network was not measured.
    fn energy_is_unknown(&self, network: &MeasuredNetwork) -> bool {
        self.limits.energy_mj.is_some() && network.energy_mj.is_none_or(f64::is_nan)
    }

    /// How far off predictions were, in words; none where that is not worth any.
    pub fn far_off(&self) -> Option<String> {
        /// Networks that take no more than so many times as much are not worth a word.
        const FAR: f64 = 1.1;
        let word = |what: &str, margin: f64| {
            let high = if margin < 1.0 { "high" } else { "low" };
            let far = !(1.0..=FAR).contains(&margin);
            far.then(|| {
                format!("{what} is predicted too {high}: finalists took {margin:.3} times as much, as a median")
            })
        };
        let words = [word("latency", self.margins.latency), word("energy", self.margins.energy)];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// `pareto.csv`: every network that was measured, the search's first.
    ///
    /// # Errors
    /// Only those of writing to memory.
    pub fn pareto_csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([
            "path",
            "found_by",
            "within_budget",
            "on_front",
            "score",
            "fitted_score",
            "latency_ms",
            "latency_p95_ms",
            "predicted_ms",
            "energy_mj",
            "macs",
            "params",
            "depth",
            "peak_activation_bytes",
        ])?;
        let all: Vec<&MeasuredNetwork> = self.finalists.iter().chain(&self.random).collect();
        for network in &all {
            let dominates = |other: &&&MeasuredNetwork| {
                let better = self.direction.score(other.score) - self.direction.score(network.score);
                let faster = network.latency.median_ms - other.latency.median_ms;
                better >= 0.0 && faster >= 0.0 && (better > 0.0 || faster > 0.0)
            };
            let on_front = !network.score.is_nan() && !all.iter().any(|other| dominates(&other));
            let found_by = serde_json::to_value(network.found_by).ok();
            writer.write_record([
                network.path.clone(),
                found_by.as_ref().and_then(|v| v.as_str()).unwrap_or("").to_owned(),
                network.within_budget.to_string(),
                on_front.to_string(),
                network.score.to_string(),
                network.fitted_score.to_string(),
                network.latency.median_ms.to_string(),
                network.latency.p95_ms.to_string(),
                network.predicted_ms.to_string(),
                network.energy_mj.map_or_else(String::new, |mj| mj.to_string()),
                network.macs.to_string(),
                network.params.to_string(),
                network.depth.to_string(),
                network.peak_activation_bytes.to_string(),
            ])?;
        }
        writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    }
}
