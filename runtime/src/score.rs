//! Scoring of paths: a row a path, a column an indicator.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
};

use nasbn_models::{
    Path, Supernet,
    cost::{Cost, CostTable},
};
use ndarray::Array2;
use serde::Serialize;

use crate::{
    adapt::{
        AdaptError,
        candidate::{self, CandidateOptions},
    },
    composite::{self, Composite},
    data::{Batch, BatchList},
    engine::EngineError,
    indicators::{
        bn::BnTable,
        catalogue::{Indicator, Measurement, Perspective, Selection},
        gradient,
        ntk::{self, NtkError, NtkSummary, Outputs, Parameters},
        signs::{self, SignsError},
        synflow::log_synflow,
        uncertainty::{logits, uncertainty},
        zen::{self, Noise},
    },
    network::{Network, Pass},
    parameters::{BnParameters, Statistics},
    validation::{Moments, validate},
};

/// Scores of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The path as it was given.
    pub path: String,
    /// Its canonical form, which was scored.
    pub canonical: String,
    /// Costs.
    pub cost: Cost,
    /// A value for each chosen indicator. What cannot be computed is NaN or infinite, as it came out.
    pub values: Vec<f64>,
}

/// What is measured, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreOptions {
    /// The indicators.
    pub selection: Selection,
    /// Mini-batches that statistics are recalibrated on for the validation indicators.
    pub recalibrate: usize,
    /// Mini-batches whose statistics the uncertainty indicators compare.
    pub mc_batches: usize,
    /// Outputs that the tangent kernel is of.
    pub ntk_outputs: Outputs,
    /// Adaptation of every candidate before it is scored.
    pub adapt: Option<CandidateOptions>,
    /// Images of noise for the Zen-score.
    pub noise_images: usize,
    /// Seed of the noise.
    pub seed: u64,
}

impl ScoreOptions {
    /// Mini-batches of training images that all of it takes; adaptation makes do with fewer.
    pub fn training_batches(&self) -> usize {
        let recalibrate = if self.selection.needs(Measurement::Validation) { self.recalibrate } else { 0 };
        let mc = if self.selection.needs(Measurement::MonteCarlo) { self.mc_batches } else { 0 };
        let one = [Measurement::Gradient, Measurement::Signs, Measurement::Kernel];
        recalibrate.max(mc).max(usize::from(one.into_iter().any(|measurement| self.selection.needs(measurement))))
    }
}

/// Images for the indicators that need some.
#[derive(Default)]
pub struct Images {
    /// Mini-batches of training images: for statistics, gradients and adaptation.
    pub training: Vec<Batch>,
    /// Mini-batches that loss and accuracy are measured on, made when they are used: they may be many.
    pub validation: BatchList,
    /// Mini-batches of validation images that uncertainty is measured on.
    pub uncertainty: Vec<Batch>,
}

/// Scores paths; equal networks are scored once. A value depends on network, parameters, images and options
/// alone: not on the other paths, their order, or the other indicators.
pub struct Scorer<'a> {
    network: &'a mut Network,
    parameters: &'a BnParameters,
    images: &'a Images,
    options: ScoreOptions,
    costs: CostTable,
    table: BnTable,
    noise: Option<Noise>,
    composite: Option<Composite>,
    known: HashMap<Path, Vec<f64>>,
    measured: usize,
    told: Told,
}

impl<'a> Scorer<'a> {
    /// A scorer of paths with the given BatchNorm parameters. `images` must hold what `options` take.
    pub fn new(
        network: &'a mut Network,
        parameters: &'a BnParameters,
        images: &'a Images,
        options: ScoreOptions,
    ) -> Self {
        let costs = CostTable::new(network.supernet());
        let table = BnTable::new(network.supernet(), network.layout(), parameters);
        let zen = options.selection.needs(Measurement::Zen);
        let noise = zen.then(|| Noise::new(network, options.noise_images, options.seed));
        let (composite, known, told) = (None, HashMap::new(), Told::default());
        Self { network, parameters, images, options, costs, table, noise, composite, known, measured: 0, told }
    }

    /// With what gives the composite of a path; without it, the composite is not a number.
    pub fn with_composite(mut self, composite: Option<Composite>) -> Self {
        self.composite = composite;
        self
    }

    /// The scores of a path.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn score(&mut self, path: &Path) -> Result<Row, EngineError> {
        let canonical = self.network.supernet().canonical(path);
        let values = self.values(&canonical)?;
        let supernet = self.network.supernet();
        Ok(Row {
            path: supernet.format_path(path),
            canonical: supernet.format_path(&canonical),
            cost: self.costs.cost(&canonical),
            values,
        })
    }

    /// A value for each chosen indicator of a canonical path.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn values(&mut self, canonical: &Path) -> Result<Vec<f64>, EngineError> {
        if let Some(values) = self.known.get(canonical) {
            return Ok(values.clone());
        }
        let found = self.measure(canonical)?;
        let value = |i: &&Indicator| found.get(i.name).copied().unwrap_or(f64::NAN);
        let values: Vec<f64> = self.options.selection.indicators().iter().map(value).collect();
        self.measured += 1;
        self.known.insert(canonical.clone(), values.clone());
        Ok(values)
    }

    /// Takes over a row that an earlier run scored.
    pub fn remember(&mut self, path: &Path, row: &Row) {
        self.known.insert(self.network.supernet().canonical(path), row.values.clone());
    }

    /// Everything that the options ask for, by name; all of it missing (not a number) where the
    /// candidate's adaptation diverged.
    fn measure(&mut self, path: &Path) -> Result<HashMap<&'static str, f64>, EngineError> {
        let needs = |measurement| self.options.selection.needs(measurement);
        let mut found = HashMap::new();
        let adapted = match self.options.adapt {
            None => None,
            Some(options) => {
                match candidate::adapt(self.network, path, self.parameters, &self.images.training, options) {
                    Ok(adapted) => Some(adapted),
                    Err(AdaptError::Engine(error)) => return Err(error),
                    Err(diverged) => {
                        let text = self.network.supernet().format_path(path);
                        log::warn!("{text} cannot be scored: {diverged}");
                        return Ok(found);
                    }
                }
            }
        };
        if let Some(adapted) = &adapted {
            found.insert("adapt_loss", adapted.last_loss());
            self.table = BnTable::new(self.network.supernet(), self.network.layout(), &adapted.parameters);
        }
        if let Some(composite) = &self.composite {
            found.insert("composite", composite.score(path));
            found.extend(composite::COLUMNS.into_iter().zip(composite.ranks(path)));
        }
        let parameters = adapted.as_ref().map_or(self.parameters, |adapted| &adapted.parameters);
        let supernet = self.network.supernet();
        found.insert("bn_all", self.table.all(path));
        found.insert("bn_last", self.table.last(path));
        if needs(Measurement::Units) {
            found.insert("relu_units", relu_units(supernet, path));
        }

        // One forward pass a mini-batch gives the statistics for all that need some. The first is always
        // kept for its gradients, so that no indicator depends on whether another one is asked for.
        let mut moments = Moments::new(self.network, path);
        let mut samples = Vec::new();
        let mut statistics = Statistics::standard(self.network.layout());
        for (i, batch) in self.images.training.iter().take(self.options.training_batches()).enumerate() {
            let images = batch.images.view();
            if i == 0 {
                let pass = self.network.forward_for_indicators(path, parameters, images, &mut statistics)?;
                if needs(Measurement::Signs) {
                    let agreement = self.network.sign_agreement(parameters, &statistics, &pass)?;
                    let scaled = self.told.once(signs::log_determinant(&agreement), "sign_log_det", SignsError::hint);
                    let scaled = scaled.flatten().unwrap_or(f64::NAN);
                    found.insert("sign_log_det", signs::unscaled(&agreement, scaled));
                    found.insert("sign_log_det_scaled", scaled);
                }
                if needs(Measurement::Kernel) {
                    let outputs = self.options.ntk_outputs;
                    let labels = &batch.labels;
                    let (all, shared) = kernels(self.network, parameters, &statistics, &pass, labels.len(), outputs)?;
                    let all = self.told.once(ntk::summary(all.view(), labels), "the tangent kernel", NtkError::hint);
                    found.extend(of_kernels(all, ntk::log_determinant(shared.view())));
                }
                if needs(Measurement::Gradient) {
                    let norm = gradient::norm(self.network, path, parameters, &statistics, pass, &batch.labels)?;
                    found.insert("grad_norm", norm);
                }
            } else {
                self.network.forward(path, parameters, images, &mut statistics, false)?;
            }
            if i < self.options.recalibrate {
                moments.add(self.network.layout(), &statistics);
            }
            if i < self.options.mc_batches && needs(Measurement::MonteCarlo) {
                samples.push(statistics.clone());
            }
        }
        if needs(Measurement::MonteCarlo) {
            let batches = &self.images.uncertainty;
            let logits = logits(self.network, path, parameters, &samples, batches)?;
            let labels: Vec<i64> = batches.iter().flat_map(|batch| batch.labels.iter().copied()).collect();
            let measures = uncertainty(logits.view(), &labels);
            found.insert("mc_entropy", measures.entropy);
            found.insert("mc_mutual_information", measures.mutual_information);
            found.insert("mc_logit_variance", measures.logit_variance);
            found.insert("mc_log_likelihood", measures.log_likelihood);
            found.insert("mc_nll", measures.nll);
        }
        if needs(Measurement::Validation) {
            let statistics = moments.statistics(self.network.layout());
            let validation = validate(self.network, path, parameters, &statistics, self.images.validation.iter())?;
            found.insert("validation_loss", validation.loss);
            found.insert("validation_accuracy", validation.accuracy);
        }
        if let Some(noise) = &self.noise {
            found.insert("zen", zen::score(self.network, path, noise)?);
        }
        if needs(Measurement::SynFlow) {
            found.insert("log_synflow", log_synflow(self.network, path)?);
        }
        Ok(found)
    }

    /// Networks scored so far, equal ones counted once.
    pub fn distinct(&self) -> usize {
        self.known.len()
    }

    /// Networks that were measured, and not remembered.
    pub fn measured(&self) -> usize {
        self.measured
    }

    /// The network that is scored on.
    pub fn network(&self) -> &Network {
        self.network
    }

    /// The network that is scored on, to keep fewer sessions of it.
    pub fn network_mut(&mut self) -> &mut Network {
        self.network
    }
}

/// What went wrong with indicators, said once a run: tables count the rows.
#[derive(Default)]
struct Told(HashSet<&'static str>);

impl Told {
    /// A value; none of a failure, which goes to the log with its hint unless one of the same indicator has.
    fn once<T, E: fmt::Display>(
        &mut self,
        result: Result<T, E>,
        indicator: &'static str,
        hint: fn(&E) -> &'static str,
    ) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if self.0.insert(indicator) {
            log::warn!("{indicator}: {error} (hint: {})", hint(&error));
        }
        None
    }
}

/// The tangent kernels of a pass, `[N, N]`: over all of the path's BatchNorms and over those that every path has.
fn kernels(
    network: &mut Network,
    parameters: &BnParameters,
    statistics: &Statistics,
    pass: &Pass,
    samples: usize,
    outputs: Outputs,
) -> Result<(Array2<f64>, Array2<f64>), EngineError> {
    let (mut theta, mut shared) = (Array2::zeros([samples, samples]), Array2::zeros([samples, samples]));
    for seed in outputs.seeds(samples, network.supernet().classes() as usize) {
        let jacobian = network.jacobian(parameters, statistics, pass, seed.view())?;
        ntk::add_gram(&mut theta, &jacobian, Parameters::All);
        ntk::add_gram(&mut shared, &jacobian, Parameters::Shared(network.supernet(), network.layout()));
    }
    Ok((theta, shared))
}

/// The indicators of a summary of all of a path's BatchNorms, and of the log-determinant over those that every path has.
fn of_kernels(all: Option<NtkSummary>, shared: Option<f64>) -> [(&'static str, f64); 6] {
    let of = |value: fn(&NtkSummary) -> Option<f64>| all.as_ref().and_then(value).unwrap_or(f64::NAN);
    [
        // What float32 cannot tell from a singular kernel has no condition number that one could believe.
        ("ntk_condition", of(|s| Some(if s.ill_conditioned { f64::INFINITY } else { s.condition_number }))),
        ("ntk_least", of(|s| Some(s.least_eigenvalue))),
        ("ntk_trace", of(|s| Some(s.trace))),
        ("ntk_effective_rank", of(|s| s.effective_rank)),
        ("ntk_alignment", of(|s| s.label_alignment)),
        ("ntk_shared_log_det", shared.unwrap_or(f64::NAN)),
    ]
}

/// Activations of one image that ReLUs look at, over the path's edges.
fn relu_units(supernet: &Supernet, path: &Path) -> f64 {
    let edges = supernet.edges.iter().enumerate();
    let programs = edges.map(|(e, edge)| supernet.program(e, supernet.operator_on(edge, path)).unwrap_or_default());
    programs.map(|program| program.relu_units()).sum::<u64>() as f64
}

/// Names of the columns: path, canonical, costs, then the chosen indicators.
pub fn header(selection: &Selection) -> Vec<&'static str> {
    let costs = crate::indicators::catalogue::CATALOGUE.iter().filter(|i| i.perspective == Perspective::Cost);
    let chosen = selection.indicators().iter().map(|i| i.name);
    ["path", "canonical"].into_iter().chain(costs.map(|i| i.name)).chain(chosen).collect()
}

impl Row {
    /// Cells in the order of [`header`]. Numbers are written with as many digits as tell them apart; what is
    /// not finite as `NaN`, `inf` or `-inf`.
    pub fn cells(&self) -> Vec<String> {
        let Cost { macs, params, depth, peak_activation_bytes } = self.cost;
        let costs = [macs, params, u64::from(depth), peak_activation_bytes].map(|cost| cost.to_string());
        let values = self.values.iter().map(|value| format!("{value:?}"));
        [self.path.clone(), self.canonical.clone()].into_iter().chain(costs).chain(values).collect()
    }

    /// The row of cells that [`Row::cells`] gave; none if they are not of that form.
    pub fn from_cells(cells: &[String]) -> Option<Self> {
        let [path, canonical, macs, params, depth, memory, values @ ..] = cells else { return None };
        let cost = Cost {
            macs: macs.parse().ok()?,
            params: params.parse().ok()?,
            depth: depth.parse().ok()?,
            peak_activation_bytes: memory.parse().ok()?,
        };
        let values = values.iter().map(|value| value.parse().ok()).collect::<Option<Vec<f64>>>()?;
        Some(Self { path: path.clone(), canonical: canonical.clone(), cost, values })
    }
}

/// Writes rows as CSV with a header.
///
/// # Errors
/// Those of the writer.
pub fn write_csv(rows: &[Row], selection: &Selection, to: impl io::Write) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(header(selection))?;
    for row in rows {
        writer.write_record(row.cells())?;
    }
    writer.flush()?;
    Ok(())
}

/// Values that are not finite: how many, for every chosen indicator that has some.
pub fn not_finite(rows: &[Row], selection: &Selection) -> Vec<NotFinite> {
    let count = |column: usize| rows.iter().filter(move |row| row.values.get(column).is_some_and(|v| !v.is_finite()));
    let counted = selection
        .indicators()
        .iter()
        .enumerate()
        .map(|(column, indicator)| NotFinite { indicator: indicator.name, rows: count(column).count() });
    counted.filter(|counted| counted.rows > 0).collect()
}

/// Rows in which an indicator is not finite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotFinite {
    /// The indicator.
    pub indicator: &'static str,
    /// How many.
    pub rows: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_is_told_once_an_indicator() {
        let mut told = Told::default();
        let failed = || Err::<f64, _>(SignsError::NoActivations);
        assert_eq!(told.once(Ok::<_, SignsError>(1.5), "a", SignsError::hint), Some(1.5));
        assert!(told.0.is_empty());
        for (indicator, count) in [("a", 1), ("a", 1), ("b", 2)] {
            assert_eq!(told.once(failed(), indicator, SignsError::hint), None);
            assert_eq!(told.0.len(), count);
        }
    }

    #[test]
    fn cells_are_read_back_to_the_bit() {
        let values = vec![0.1 + 0.2, -1e-300, 3.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE / 3.0];
        let cost = Cost { macs: u64::MAX, params: 2, peak_activation_bytes: 3, depth: 4 };
        let row = Row { path: "02".into(), canonical: "20".into(), cost, values };
        assert_eq!(Row::from_cells(&row.cells()).unwrap(), row);
        let missing = Row { values: vec![f64::NAN], ..row.clone() };
        assert_eq!(missing.cells()[6], "NaN");
        assert!(Row::from_cells(&missing.cells()).unwrap().values[0].is_nan());
        assert!(Row::from_cells(&row.cells()[..5]).is_none());
        let selection = Selection::parse("bn_all").unwrap();
        let counted = not_finite(&[missing, Row { values: vec![1.0], ..row }], &selection);
        assert_eq!(counted, [NotFinite { indicator: "bn_all", rows: 1 }]);
    }
}
