//! Whole paths against PyTorch: gradients of one batch, and fifty steps of training. The fixtures hold
//! PyTorch's float64 results, and how far its own float32 runs are from them (tests/reference).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod reference;

use std::{fs, path::Path};

use nasbn_export::bundle::Bundle;
use nasbn_models::manifest::{Lowering, MemoryMode};
use nasbn_runtime::{
    adapt::{
        AdaptOptions, Sampling, Trainer,
        optimizer::{Rule, Schedule},
    },
    parameters::{BnParameters, Statistics},
};
use ndarray::Array4;
use reference::{
    FLOOR, TIMES_PYTORCH, TURN, Tensors, bundle, fixtures, network, normalise, numbers, parameters, pytorch, relative,
    wide,
};
use serde_json::Value;

/// Nats that the loss falls by over a curve, between the means of its first and last round of batches.
const FALL: f64 = 0.5;
/// A rate wrong by this factor must be found out.
const WRONG_RATE: f64 = 1.01;

const MODES: [(MemoryMode, Lowering); 4] = [
    (MemoryMode::Fast, Lowering::Fused),
    (MemoryMode::Lean, Lowering::Fused),
    (MemoryMode::Fast, Lowering::Portable),
    (MemoryMode::Lean, Lowering::Portable),
];

#[test]
fn gradients_of_whole_paths_are_pytorchs() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let found = fixtures("gradients-");
    assert_eq!(found.len(), 14);
    for (file, fixture) in found {
        let tensors = Tensors(fs::read(file.with_extension("safetensors")).unwrap());
        let bundle = bundle(dir.path(), &fixture);
        let (shape, pixels) = tensors.u8("images");
        let shape = (shape[0], shape[1], shape[2], shape[3]);
        let images = Array4::from_shape_vec(shape, normalise(&pixels, &fixture)).unwrap();
        let labels = tensors.i64("labels");
        for (memory, lowering) in MODES {
            let what = format!("{} {memory:?} {lowering:?}", file.file_stem().unwrap().to_str().unwrap());
            let mut network = network(&bundle, memory, lowering);
            let supernet = network.supernet().clone();
            let path = supernet.parse_path(fixture["path"].as_str().unwrap()).unwrap();
            let layout = network.layout().clone();
            let slots: Vec<usize> = layout.path(&supernet, &path).collect();
            let parameters = parameters(&fixture, &tensors, &layout, &slots);
            let mut statistics = Statistics::standard(&layout);
            let pass = network.forward(&path, &parameters, images.view(), &mut statistics, true).unwrap();
            let logits = wide(pass.logits.read().unwrap().1);
            let loss = network.loss(&pass.logits, &labels).unwrap();
            let value = f64::from(loss.loss);
            let mut gradients = BnParameters::zeros(&layout);
            network.backward(&parameters, &statistics, pass, loss, &mut gradients, &path).unwrap();
            let flat = |values: &[f32]| -> Vec<f64> {
                slots.iter().flat_map(|&s| wide(&values[layout.slots()[s].range.clone()])).collect()
            };
            let got = [flat(&gradients.gamma), flat(&gradients.beta)].concat();
            let exact = [tensors.f64("dgamma"), tensors.f64("dbeta")].concat();
            let check = |kind: &str, error: f64| {
                let allowed = TIMES_PYTORCH * pytorch(&fixture, kind) + FLOOR;
                assert!(error <= allowed, "{what}: {kind} is {error:.2e} from float64; {allowed:.2e} is allowed");
            };
            check("gradients", relative(&got, &exact));
            check("logits", relative(&logits, &tensors.f64("logits")));
            check("loss", relative(&[value], &tensors.f64("loss")));
            check("mean", relative(&flat(&statistics.mean), &wide(&tensors.f32("mean"))));
            check("var", relative(&flat(&statistics.var), &wide(&tensors.f32("var"))));
        }
    }
}

/// A curve's fixture with its bundle and batches.
struct Curve {
    name: String,
    fixture: Value,
    bundle: Bundle,
    batches: Vec<(Array4<f32>, Vec<i64>)>,
    exact: Vec<f64>,
}

impl Curve {
    fn all(dir: &Path) -> Vec<Self> {
        let found = fixtures("curve-");
        assert_eq!(found.len(), 4);
        found.into_iter().map(|(file, fixture)| Self::read(dir, &file, fixture)).collect()
    }

    fn read(dir: &Path, file: &Path, fixture: Value) -> Self {
        let tensors = Tensors(fs::read(file.with_file_name(fixture["data"].as_str().unwrap())).unwrap());
        let (shape, pixels) = tensors.u8("images");
        let (count, size, side) = (shape[0], shape[1], shape[2]);
        let values = normalise(&pixels, &fixture);
        let labels = tensors.i64("labels");
        // One channel in the file, three in the network.
        let batches = (0..count)
            .map(|b| {
                let pixel = |(n, _, y, x): (usize, usize, usize, usize)| values[((b * size + n) * side + y) * side + x];
                (Array4::from_shape_fn((size, 3, side, side), pixel), labels[b * size..(b + 1) * size].to_vec())
            })
            .collect();
        Self {
            name: file.file_stem().unwrap().to_str().unwrap().to_owned(),
            bundle: bundle(dir, &fixture),
            batches,
            exact: numbers(&fixture["float64"]),
            fixture,
        }
    }

    /// Root mean square distance of a curve from PyTorch's float64 one.
    fn distance(&self, curve: &[f64]) -> f64 {
        assert_eq!(curve.len(), self.exact.len());
        let squares = curve.iter().zip(&self.exact).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        (squares / self.exact.len() as f64).sqrt()
    }

    /// The same distance of PyTorch's own float32 curves.
    fn pytorchs(&self) -> f64 {
        let runs = self.fixture["float32"].as_array().unwrap();
        (runs.iter().map(|run| self.distance(&numbers(run)).powi(2)).sum::<f64>() / runs.len() as f64).sqrt()
    }

    fn allowed(&self) -> f64 {
        TIMES_PYTORCH * self.pytorchs() + FLOOR
    }

    /// Trains with `times` the fixture's rate; the losses before each step.
    fn train(&self, memory: MemoryMode, lowering: Lowering, times: f64) -> Vec<f64> {
        let number = |v: &Value| v.as_f64().unwrap();
        let mut network = network(&self.bundle, memory, lowering);
        let path = network.supernet().parse_path(self.fixture["path"].as_str().unwrap()).unwrap();
        let options = AdaptOptions {
            epochs: 1,
            batch: self.batches[0].1.len() as u32,
            rule: Rule::Sgd { momentum: number(&self.fixture["momentum"]) as f32 },
            schedule: Schedule {
                peak: (number(&self.fixture["rate"]) * times) as f32,
                warmup: 0,
                total: self.exact.len() as u64,
                cosine: false,
            },
            clip_norm: None,
            sampling: Sampling::Uniform,
            path: Some(path),
            seed: 0,
            data: String::new(),
            augment: false,
            lean: memory == MemoryMode::Lean,
            fused: lowering == Lowering::Fused,
        };
        let mut start = BnParameters::initial(network.layout());
        start.gamma.fill(number(&self.fixture["start"]["gamma"]) as f32);
        start.beta.fill(number(&self.fixture["start"]["beta"]) as f32);
        let mut trainer = Trainer::new(&network, options, start);
        (0..self.exact.len())
            .map(|step| {
                let (images, labels) = &self.batches[step % self.batches.len()];
                f64::from(trainer.step(&mut network, images.view(), labels).unwrap().loss)
            })
            .collect()
    }
}

#[test]
fn fifty_steps_follow_pytorchs_float64_curve() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for curve in Curve::all(dir.path()) {
        assert_eq!(curve.exact.len(), 50);
        let round = curve.batches.len();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&curve.exact[..round]) - mean(&curve.exact[50 - round..]) > FALL, "the loss falls");
        for (memory, lowering) in MODES {
            let distance = curve.distance(&curve.train(memory, lowering, 1.0));
            let own = curve.pytorchs();
            println!(
                "{} {memory:?} {lowering:?}: {distance:.1e} from float64, PyTorch's float32 {own:.1e}",
                curve.name
            );
            assert!(distance <= curve.allowed(), "{distance:.2e} against {own:.2e}");
        }
    }
}

#[test]
fn a_slightly_wrong_rate_leaves_the_curve() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for curve in Curve::all(dir.path()) {
        let distance = curve.distance(&curve.train(MemoryMode::Fast, Lowering::Fused, WRONG_RATE));
        assert!(distance > curve.allowed(), "{}: {distance:.2e} passes as {:.2e}", curve.name, curve.allowed());
    }
}
