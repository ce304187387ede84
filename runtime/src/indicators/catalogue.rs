//! The catalogue: what every indicator is, which way it points, and what measures it.

use std::fmt::{self, Write};

use nasbn_models::cost::Cost as Costs;
use serde::Serialize;

/// What an indicator is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Perspective {
    /// What the network costs.
    Cost,
    /// What it can tell apart.
    Expressivity,
    /// How well its BatchNorms learn.
    Trainability,
    /// How sure it is under the statistics of random mini-batches.
    Uncertainty,
    /// Loss and accuracy with inherited BatchNorm.
    Validation,
    /// Indicators of others, to compare with.
    Baseline,
    /// All perspectives in one number.
    Composite,
}

impl Perspective {
    /// Every perspective, in the order of the columns.
    pub const ALL: [Self; 7] = [
        Self::Cost,
        Self::Expressivity,
        Self::Trainability,
        Self::Uncertainty,
        Self::Validation,
        Self::Baseline,
        Self::Composite,
    ];

    /// Its name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Expressivity => "expressivity",
            Self::Trainability => "trainability",
            Self::Uncertainty => "uncertainty",
            Self::Validation => "validation",
            Self::Baseline => "baseline",
            Self::Composite => "combination",
        }
    }
}

/// Which values speak for a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Larger ones.
    Higher,
    /// Smaller ones.
    Lower,
}

impl Direction {
    /// The value, or its negative: larger is better.
    pub fn score(self, value: f64) -> f64 {
        match self {
            Self::Higher => value,
            Self::Lower => -value,
        }
    }
}

/// What is measured at once, and gives one or more indicators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measurement {
    /// Costs, which are in every table.
    Cost,
    /// Reading gamma.
    Gamma,
    /// Counting the activations that ReLUs look at.
    Units,
    /// Signs of activations on one mini-batch of training images.
    Signs,
    /// The tangent kernel on one mini-batch: training images and labels.
    Kernel,
    /// Training of the candidate's own BatchNorms: images and labels.
    Adaptation,
    /// Monte-Carlo BatchNorm: training images; validation images and labels.
    MonteCarlo,
    /// Recalibration and validation: training images; validation images and labels.
    Validation,
    /// One backward pass: training images and labels.
    Gradient,
    /// Two forward passes on noise.
    Zen,
    /// A pass forwards and one backwards of the network made linear.
    SynFlow,
    /// A table fitted to paths measured beforehand: training images and labels.
    Composite,
}

impl Measurement {
    /// Whether it needs images of the data set.
    pub const fn needs_images(self) -> bool {
        match self {
            Self::Cost | Self::Gamma | Self::Units | Self::Zen | Self::SynFlow => false,
            Self::Adaptation | Self::MonteCarlo | Self::Validation | Self::Gradient => true,
            Self::Signs | Self::Kernel | Self::Composite => true,
        }
    }
}

/// One indicator.
#[derive(Debug, PartialEq, Eq)]
pub struct Indicator {
    /// Name, and its column.
    pub name: &'static str,
    /// What it is about.
    pub perspective: Perspective,
    /// Which values are better.
    pub direction: Direction,
    /// What measures it.
    pub measurement: Measurement,
    /// What it is, in a line.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

use Direction::{Higher, Lower};
use Measurement as By;
use Perspective::{Baseline, Composite, Cost, Expressivity, Trainability, Uncertainty, Validation};

const fn indicator(
    name: &'static str,
    perspective: Perspective,
    direction: Direction,
    measurement: Measurement,
    formula: &'static str,
    source: &'static str,
) -> Indicator {
    Indicator { name, perspective, direction, measurement, formula, source }
}

/// Every indicator, in the order of the columns. Costs are in every table and are not chosen; more of
/// them is taken as better, as an indicator of accuracy.
pub const CATALOGUE: &[Indicator] = &[
    indicator("macs", Cost, Higher, By::Cost, "multiply-accumulates for one image", "-"),
    indicator("params", Cost, Higher, By::Cost, "parameters of the deployed network", "-"),
    indicator("depth", Cost, Higher, By::Cost, "searchable layers that are no identities", "-"),
    indicator("peak_activation_bytes", Cost, Higher, By::Cost, "activations alive at once, f32, one image", "-"),
    indicator(
        "bn_all",
        Expressivity,
        Higher,
        By::Gamma,
        "sum over all BatchNorms of mean |gamma|",
        "arXiv 2112.00265, section 3",
    ),
    indicator(
        "bn_last",
        Expressivity,
        Higher,
        By::Gamma,
        "sum over searchable layers of mean |gamma| of the last BatchNorm",
        "BN-NAS, Chen et al. 2021, equation 4",
    ),
    indicator(
        "sign_log_det",
        Expressivity,
        Higher,
        By::Signs,
        "log det of the agreement of activation signs after BatchNorm, one mini-batch",
        "NASWOT, Mellor et al. 2021, equation 3",
    ),
    indicator(
        "sign_log_det_scaled",
        Expressivity,
        Higher,
        By::Signs,
        "the same, agreement divided by the number of activations",
        "Mellor et al. 2021, divided",
    ),
    indicator(
        "ntk_condition",
        Trainability,
        Lower,
        By::Kernel,
        "condition number of the tangent kernel of gamma and beta, one mini-batch",
        "TE-NAS, Chen et al. 2021, equation 5",
    ),
    indicator(
        "ntk_least",
        Trainability,
        Higher,
        By::Kernel,
        "least eigenvalue of that kernel",
        "Du et al. 2019, theorem 3.2",
    ),
    indicator("ntk_trace", Trainability, Higher, By::Kernel, "trace of that kernel", "Jacot et al. 2018"),
    indicator(
        "ntk_effective_rank",
        Trainability,
        Higher,
        By::Kernel,
        "effective rank of that kernel, 1 to the batch size",
        "Roy and Vetterli 2007, definition 1",
    ),
    indicator(
        "ntk_alignment",
        Trainability,
        Higher,
        By::Kernel,
        "centred alignment of that kernel with the labels, -1 to 1",
        "Cortes et al. 2012, definition 4",
    ),
    indicator(
        "ntk_shared_log_det",
        Trainability,
        Higher,
        By::Kernel,
        "log det of the tangent kernel of the BatchNorms that every path has (stem, head)",
        "log rate of gradient flow over the batch's modes, Jacot et al. 2018, section 5",
    ),
    indicator(
        "adapt_loss",
        Trainability,
        Lower,
        By::Adaptation,
        "mean loss, nats, over the last quarter of the --adapt-steps",
        "training-based scores: BN-NAS, Chen et al. 2021, section 3",
    ),
    indicator(
        "mc_entropy",
        Uncertainty,
        Lower,
        By::MonteCarlo,
        "entropy, nats, of the mean prediction over mini-batches' statistics",
        "Teye et al. 2018, section 3.3; predictive entropy",
    ),
    indicator(
        "mc_mutual_information",
        Uncertainty,
        Higher,
        By::MonteCarlo,
        "mc_entropy less the mean entropy of each prediction, nats",
        "Houlsby et al. 2011 (BALD), equation 2; Teye et al. 2018",
    ),
    indicator(
        "mc_logit_variance",
        Uncertainty,
        Lower,
        By::MonteCarlo,
        "mean variance of a logit over mini-batches' statistics",
        "Teye et al. 2018, equation 5, without the noise term",
    ),
    indicator(
        "mc_log_likelihood",
        Uncertainty,
        Higher,
        By::MonteCarlo,
        "mean log-probability of the label, nats",
        "Teye et al. 2018, section 4.2",
    ),
    indicator(
        "mc_nll",
        Uncertainty,
        Lower,
        By::MonteCarlo,
        "negative log of the label's mean probability, nats",
        "Teye et al. 2018, section 4.2 (negated predictive log-likelihood)",
    ),
    indicator(
        "validation_loss",
        Validation,
        Lower,
        By::Validation,
        "cross-entropy, nats, with recalibrated statistics",
        "SPOS, Guo et al. 2020, section 3.4",
    ),
    indicator(
        "validation_accuracy",
        Validation,
        Higher,
        By::Validation,
        "share of images classified rightly with recalibrated statistics",
        "SPOS, Guo et al. 2020, section 3.4",
    ),
    indicator("relu_units", Baseline, Higher, By::Units, "activations of one image that ReLUs look at", "-"),
    indicator(
        "grad_norm",
        Baseline,
        Higher,
        By::Gradient,
        "Euclidean norm of the loss gradient over gamma and beta, one mini-batch",
        "Abdelfattah et al. 2021, section 3.2, restricted to BatchNorm",
    ),
    indicator(
        "zen",
        Baseline,
        Higher,
        By::Zen,
        "log of the feature map's change under noise, BatchNorms' scales put back",
        "Lin et al. 2021, algorithm 1",
    ),
    indicator(
        "log_synflow",
        Baseline,
        Higher,
        By::SynFlow,
        "log of the synaptic flow, sum of w dR/dw with weights by magnitude",
        "Tanaka et al. 2020, equation 1; Abdelfattah et al. 2021",
    ),
    indicator(
        "fitted_expressivity",
        Composite,
        Higher,
        By::Composite,
        "rank of sign_log_det before training, fitted",
        "docs/composite.md",
    ),
    indicator(
        "fitted_trainability",
        Composite,
        Higher,
        By::Composite,
        "rank of ntk_shared_log_det before training, fitted",
        "docs/composite.md",
    ),
    indicator(
        "fitted_uncertainty",
        Composite,
        Higher,
        By::Composite,
        "rank of mc_mutual_information before training, fitted",
        "docs/composite.md",
    ),
    indicator(
        "composite",
        Composite,
        Higher,
        By::Composite,
        "mean of these ranks, that of expressivity counted twice",
        "docs/composite.md",
    ),
];

/// The indicator of a name.
pub fn find(name: &str) -> Option<&'static Indicator> {
    CATALOGUE.iter().find(|indicator| indicator.name == name)
}

/// The value of an indicator that is a cost.
pub fn cost(indicator: &Indicator, costs: &Costs) -> Option<f64> {
    Some(match indicator.name {
        "macs" => costs.macs as f64,
        "params" => costs.params as f64,
        "depth" => f64::from(costs.depth),
        "peak_activation_bytes" => costs.peak_activation_bytes as f64,
        _ => return None,
    })
}

/// The name of an indicator, a perspective or `all` that is nearest to `given`.
pub fn nearest(given: &str) -> &'static str {
    let names = CATALOGUE.iter().map(|i| i.name).chain(Perspective::ALL.map(Perspective::name)).chain(["all"]);
    let likeness = |name: &str| strsim::jaro_winkler(given, name);
    names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or("all")
}

/// Chosen indicators, in the order of the catalogue, costs left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(Vec<&'static Indicator>);

/// Why a list of indicators is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// It names what is not there.
    #[error("there is no indicator or perspective `{given}`; the nearest is `{nearest}`")]
    Unknown {
        /// What it names.
        given: String,
        /// What it may mean.
        nearest: &'static str,
    },
}

impl Selection {
    /// The indicators of a list of names, perspectives and `all`, separated by commas.
    ///
    /// # Errors
    /// If a name is not known.
    pub fn parse(list: &str) -> Result<Self, SelectionError> {
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let is = |name: &str, i: &Indicator| name == "all" || name == i.name || name == i.perspective.name();
        for &name in &names {
            if !CATALOGUE.iter().any(|i| is(name, i)) {
                return Err(SelectionError::Unknown { given: name.to_owned(), nearest: nearest(name) });
            }
        }
        Ok(Self::of(|i| names.iter().any(|name| is(name, i))))
    }

    /// The indicators that `wanted` holds for.
    pub fn of(wanted: impl Fn(&Indicator) -> bool) -> Self {
        Self(CATALOGUE.iter().filter(|i| i.perspective != Cost && wanted(i)).collect())
    }

    /// Those of the selection that `wanted` holds for.
    pub fn only(mut self, wanted: impl Fn(&Indicator) -> bool) -> Self {
        self.0.retain(|i| wanted(i));
        self
    }

    /// The indicators.
    pub fn indicators(&self) -> &[&'static Indicator] {
        &self.0
    }

    /// Whether a measurement is needed.
    pub fn needs(&self, measurement: Measurement) -> bool {
        self.0.iter().any(|i| i.measurement == measurement)
    }

    /// Whether images of the data set are needed.
    pub fn needs_images(&self) -> bool {
        self.0.iter().any(|i| i.measurement.needs_images())
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|i| i.name).collect::<Vec<_>>().join(","))
    }
}

/// The catalogue as text for people.
pub fn describe() -> String {
    let mut text = String::new();
    for perspective in Perspective::ALL {
        let _ = writeln!(text, "{}", perspective.name());
        for i in CATALOGUE.iter().filter(|i| i.perspective == perspective) {
            let better = if i.direction == Higher { '+' } else { '-' };
            let _ = writeln!(text, "  {better} {:<22} {}", i.name, i.formula);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_name_indicators_perspectives_or_all() {
        let names = |list: &str| Selection::parse(list).unwrap().to_string();
        assert_eq!(names("zen, bn_all,zen"), "bn_all,zen");
        assert_eq!(names("validation,bn_last"), "bn_last,validation_loss,validation_accuracy");
        assert_eq!(names("cost"), "");
        assert_eq!(Selection::parse("all").unwrap().indicators().len(), CATALOGUE.len() - 4);
        assert!(!Selection::parse("bn_last,zen").unwrap().needs_images());
        assert!(Selection::parse("mc_nll").unwrap().needs(Measurement::MonteCarlo));
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        for (given, expected) in [("bnall", "bn_all"), ("gradnorm", "grad_norm"), ("uncertainity", "uncertainty")] {
            let error = Selection::parse(given).unwrap_err();
            assert_eq!(error, SelectionError::Unknown { given: given.into(), nearest: expected });
        }
    }

    #[test]
    fn names_are_columns_of_their_own_and_perspectives_stay_together() {
        for (i, indicator) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..i].iter().all(|other| other.name != indicator.name), "{}", indicator.name);
            assert!(indicator.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", indicator.name);
            assert!(Perspective::ALL.iter().all(|p| p.name() != indicator.name));
        }
        let order = |p: Perspective| Perspective::ALL.iter().position(|&other| other == p);
        assert!(CATALOGUE.is_sorted_by_key(|i| order(i.perspective)));
    }
}
