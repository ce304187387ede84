//! What a thread leaves, and how much of it may differ between machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

// Sums of float32 in another order, which nine steps of training make more of. In qemu 7.2, beside x86-64 with AVX-512, the greatest
// differences were: a loss 8e-6, a parameter 1.6e-5, an indicator 2.2e-5 (the variance of logits). Each may be tenfold or so.

/// Losses (of order two), nats.
const LOSS: f64 = 1e-4;
/// Gamma, beta (of order one) and their momenta.
const PARAMETER: f64 = 2e-4;
/// Gradients. Adam divides each by its own size, so that one of size `g` that is this far off takes a parameter this far over
/// `g` times the rate off in a step; of one that is nought but for rounding (of a shift that the next BatchNorm takes out again)
/// not even the sign is the same. By what parameters were apart, gradients (of 3e-2 at most) were 5e-5 apart.
const GRADIENT: f64 = 5e-4;
/// Adam's rate times its steps here: no parameter of one machine is further than that from where it began.
const ADAM_REACH: f64 = 0.02 * 3.0;
/// What is left after as many steps of Adam's second moment of a gradient that stays: its root times the gradient's size.
const ADAM_SECOND: f64 = 0.003;
/// Indicators, relative.
const INDICATOR: f64 = 3e-4;

/// What a thread leaves.
#[derive(Clone)]
pub struct Outcome {
    /// Path and loss of each step of all adaptations.
    steps: Vec<(String, f64)>,
    /// Tensors of all checkpoints, by `checkpoint N: name`.
    parameters: BTreeMap<String, Vec<f32>>,
    /// By path and column.
    scores: BTreeMap<(String, String), f64>,
    winner: (String, f64),
}

impl Outcome {
    /// Reads checkpoints, a table of scores and what a search has printed.
    pub fn read(checkpoints: &[PathBuf], scores: &Path, search: &str) -> Self {
        let metrics = |checkpoint: &PathBuf| fs::read_to_string(checkpoint.join("metrics.jsonl")).unwrap();
        let step = |line: &str| {
            let step: Value = serde_json::from_str(line).unwrap();
            (step["path"].as_str().unwrap().to_owned(), step["loss"].as_f64().unwrap())
        };
        let found: Value = serde_json::from_str(search).unwrap();
        let winner = &found["winner"];
        Self {
            steps: checkpoints.iter().flat_map(|at| metrics(at).lines().map(step).collect::<Vec<_>>()).collect(),
            parameters: checkpoints
                .iter()
                .enumerate()
                .flat_map(|(i, at)| {
                    parameters(at).into_iter().map(move |(name, v)| (format!("checkpoint {i}: {name}"), v))
                })
                .collect(),
            scores: table(scores),
            winner: (winner["path"].as_str().unwrap().to_owned(), winner["score"].as_f64().unwrap()),
        }
    }

    /// Outcomes that are changed in one thing, and which, as [`differences`] calls it.
    pub fn with_changes(&self) -> Vec<(String, Self)> {
        type Change = fn(&mut Outcome) -> String;
        let changes: [Change; 10] = [
            |changed| {
                changed.steps[2].1 *= 1.001;
                "step 2".into()
            },
            |changed| {
                changed.steps[0].0.push('0');
                "step 0".into()
            },
            |changed| {
                let (name, values) = changed.parameters.iter_mut().next().unwrap();
                values[0] += 0.01;
                name.clone()
            },
            |changed| {
                // Of Adam, where a gradient is the largest; and a moment.
                let seconds = changed.parameters.iter().filter(|(name, _)| name.ends_with(".gamma.second"));
                let values = seconds.flat_map(|(name, v)| v.iter().enumerate().map(move |(i, v)| (*v, i, name)));
                let (_, i, second) = values.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                let name = second.trim_end_matches(".second").to_owned();
                changed.parameters.get_mut(&name).unwrap()[i] += 0.01;
                name
            },
            |changed| {
                let adam = |name: &str| name.starts_with("checkpoint 1: ") && name.ends_with(".first");
                let (name, values) = changed.parameters.iter_mut().find(|(name, _)| adam(name)).unwrap();
                values[0] += 0.001;
                name.clone()
            },
            // What only one of the two has, whichever it is.
            |changed| {
                changed.parameters.insert("more".into(), vec![0.0]);
                "more".into()
            },
            |changed| {
                changed.scores.insert(("path".into(), "more".into()), 0.0);
                "more of path".into()
            },
            |changed| {
                let ((path, column), loss) =
                    changed.scores.iter_mut().find(|((_, column), _)| column == "validation_loss").unwrap();
                *loss *= 1.01;
                format!("{column} of {path}")
            },
            |changed| {
                let ((path, column), _) = changed.scores.pop_first().unwrap();
                format!("{column} of {path}")
            },
            |changed| {
                changed.winner.0.push('0');
                "winner".into()
            },
        ];
        let changed = |change: Change| {
            let mut changed = self.clone();
            (change(&mut changed), changed)
        };
        changes.map(changed).into()
    }
}

/// Every float32 tensor of a checkpoint.
fn parameters(checkpoint: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|file| file.extension().is_some_and(|e| e == "safetensors")).unwrap();
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let float = tensors.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32);
    float
        .map(|(name, tensor)| {
            let (values, _) = tensor.data().as_chunks::<4>();
            (name.to_owned(), values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        })
        .collect()
}

/// The numbers of a table of scores.
fn table(scores: &Path) -> BTreeMap<(String, String), f64> {
    let mut reader = csv::Reader::from_path(scores).unwrap();
    let header = reader.headers().unwrap().clone();
    let mut table = BTreeMap::new();
    for row in reader.records().map(Result::unwrap) {
        // The first two are the path and its canonical form.
        for (column, value) in header.iter().zip(&row).skip(2) {
            table.insert((row[0].to_owned(), column.to_owned()), value.parse().unwrap());
        }
    }
    table
}

/// Relative tolerance of an indicator.
fn tolerance(column: &str) -> f64 {
    match column {
        "macs" | "params" | "depth" | "peak_activation_bytes" | "relu_units" | "validation_accuracy" => 0.0,
        _ => INDICATOR,
    }
}

/// How far two outcomes are apart in one thing.
struct Gap {
    /// What is compared with one tolerance: `loss`, `parameter`, or an indicator.
    kind: String,
    /// Which of these.
    what: String,
    /// How far they are apart; infinite if one lacks it.
    apart: f64,
    allowed: f64,
}

fn relative(a: f64, b: f64) -> f64 {
    if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() / a.abs().max(b.abs()) }
}

/// How far Adam may take a parameter off, by the second moment of its gradient.
fn adam_slack(second: f32) -> f64 {
    let gradient = (f64::from(second) / ADAM_SECOND).sqrt();
    // Two machines may go opposite ways.
    ADAM_REACH * (GRADIENT / gradient).min(2.0)
}

fn gaps(a: &Outcome, b: &Outcome) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut push = |kind: &str, what: String, apart: f64, allowed: f64| {
        // What is no number is as far apart as what is not there.
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        gaps.push(Gap { kind: kind.to_owned(), what, apart, allowed });
    };
    for i in 0..a.steps.len().max(b.steps.len()) {
        let apart = match (a.steps.get(i), b.steps.get(i)) {
            (Some(a), Some(b)) if a.0 == b.0 => (a.1 - b.1).abs(),
            _ => f64::INFINITY,
        };
        push("loss", format!("step {i}"), apart, LOSS);
    }
    for name in a.parameters.keys().chain(b.parameters.keys()).collect::<BTreeSet<_>>() {
        let apart = match (a.parameters.get(name), b.parameters.get(name)) {
            (Some(values), Some(others)) if values.len() == others.len() => {
                let slack = [a, b].map(|outcome| outcome.parameters.get(&format!("{name}.second")));
                let gaps = values.iter().zip(others).enumerate().map(|(i, (x, y))| {
                    let second = slack.iter().filter_map(|second| (*second)?.get(i)).copied().reduce(f32::min);
                    f64::from((x - y).abs()) - second.map_or(0.0, adam_slack)
                });
                // A maximum would pass over what is no number.
                gaps.map(|gap| if gap.is_nan() { f64::INFINITY } else { gap }).fold(0.0, f64::max)
            }
            _ => f64::INFINITY,
        };
        push("parameter", name.clone(), apart, PARAMETER);
    }
    for key in a.scores.keys().chain(b.scores.keys()).collect::<BTreeSet<_>>() {
        let apart = match (a.scores.get(key), b.scores.get(key)) {
            (Some(&a), Some(&b)) => relative(a, b),
            _ => f64::INFINITY,
        };
        let (path, column) = key;
        push(column, format!("{column} of {path}"), apart, tolerance(column));
    }
    let apart = if a.winner.0 == b.winner.0 { (a.winner.1 - b.winner.1).abs() } else { f64::INFINITY };
    push("loss", "winner".into(), apart, LOSS);
    gaps
}

/// Where outcomes are further apart than is allowed, a line each.
pub fn differences(a: &Outcome, b: &Outcome) -> Vec<String> {
    let wide = gaps(a, b).into_iter().filter(|gap| gap.apart > gap.allowed);
    wide.map(|gap| format!("{}: {:.1e} apart, {:.0e} allowed", gap.what, gap.apart, gap.allowed)).collect()
}

/// The greatest gap of each kind, and what is allowed.
pub fn greatest(a: &Outcome, b: &Outcome) -> String {
    let mut kinds = BTreeMap::<String, Gap>::new();
    for gap in gaps(a, b) {
        if kinds.get(&gap.kind).is_none_or(|kept| gap.apart > kept.apart) {
            kinds.insert(gap.kind.clone(), gap);
        }
    }
    let line = |gap: &Gap| format!("{}: {:.1e} of {:.0e} ({})", gap.kind, gap.apart, gap.allowed, gap.what);
    kinds.values().map(line).collect::<Vec<_>>().join("\n")
}
