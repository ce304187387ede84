//! Fixtures of `tests/reference`: PyTorch's float64 results, and how far its own float32 runs are from them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use nasbn_export::bundle::{
    Bundle,
    write::{BuildOptions, write},
};
use nasbn_models::{
    BnPlacement,
    manifest::{Lowering, MemoryMode},
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    network::{Network, NetworkOptions},
    ort_library,
    parameters::{BnParameters, Layout},
};
use safetensors::SafeTensors;
use serde_json::Value;

/// How much further from float64 than PyTorch's own float32 a result may be.
pub const TIMES_PYTORCH: f64 = 2.0;
/// Relative distance that is always allowed: a few roundings of float32.
pub const FLOOR: f64 = 2e-6;

pub fn fixtures(prefix: &str) -> Vec<(PathBuf, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/fixtures");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.file_name().unwrap().to_str().unwrap().starts_with(prefix) && p.extension().unwrap() == "json");
    files.sort();
    files.into_iter().map(|p| (p.clone(), serde_json::from_slice(&fs::read(p).unwrap()).unwrap())).collect()
}

/// The bundle that a fixture was made with, its weights' digest checked.
pub fn bundle(dir: &Path, fixture: &Value) -> Bundle {
    let options = &fixture["bundle"];
    let name = options["space"].as_str().unwrap();
    let placement = match options["bn"].as_str().unwrap() {
        "every-operator" => BnPlacement::EveryOperator,
        "convolution" => BnPlacement::Convolution,
        other => panic!("{other}"),
    };
    let space = SpaceOptions {
        image_size: Some(options["image_size"].as_u64().unwrap() as u32),
        classes: Some(options["classes"].as_u64().unwrap() as u32),
        width: options["width"].as_f64().unwrap(),
        placement,
    };
    let supernet = spec::parse(spec::builtin(name).unwrap(), name, &space).unwrap();
    let out = dir.join(format!("{name}-{}-{}", options["bn"].as_str().unwrap(), options["image_size"]));
    if !out.exists() {
        let build = BuildOptions { seed: options["seed"].as_u64().unwrap(), weights: None, force: false };
        write(&supernet, &build, &out, &mut |_| {}).unwrap();
    }
    let bundle = Bundle::open(&out).unwrap();
    let manifest = bundle.manifest();
    let digest: String =
        manifest.files[manifest.weights_file as usize].sha256.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(digest, fixture["weights_sha256"].as_str().unwrap(), "the fixture was made with other weights");
    bundle
}

/// ONNX Runtime's environment is one per process; tests take turns.
pub static TURN: Mutex<()> = Mutex::new(());

pub fn network(bundle: &Bundle, memory: MemoryMode, lowering: Lowering) -> Network {
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    let environment = ort_library::load(&library, 1).unwrap();
    let network =
        Network::new(environment, bundle.dir(), bundle.manifest(), NetworkOptions { memory, lowering }).unwrap();
    assert_eq!(network.options().lowering, lowering);
    network
}

pub struct Tensors(pub Vec<u8>);

impl Tensors {
    pub fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    pub fn u8(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }
}

/// `(pixel / 255 - mean) / deviation` in float32, as the fixtures do it.
pub fn normalise(pixels: &[u8], fixture: &Value) -> Vec<f32> {
    let of = |name: &str| fixture["normalisation"][name].as_f64().unwrap() as f32;
    let (mean, deviation) = (of("mean"), of("deviation"));
    pixels.iter().map(|&p| (f32::from(p) / 255.0 - mean) / deviation).collect()
}

pub fn relative(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

/// Root mean square of PyTorch's own float32 errors.
pub fn pytorch(fixture: &Value, kind: &str) -> f64 {
    let errors: Vec<f64> =
        fixture["torch_f32_errors"][kind].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
    (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The fixture's gamma and beta in the `slots` of its path, whose names are checked.
pub fn parameters(fixture: &Value, tensors: &Tensors, layout: &Layout, slots: &[usize]) -> BnParameters {
    let names: Vec<&str> = fixture["batch_norms"].as_array().unwrap().iter().map(|b| b[0].as_str().unwrap()).collect();
    assert_eq!(slots.iter().map(|&s| layout.name(s)).collect::<Vec<_>>(), names);
    let mut parameters = BnParameters::initial(layout);
    let (gamma, beta) = (tensors.f32("gamma"), tensors.f32("beta"));
    let mut at = 0;
    for &slot in slots {
        let range = layout.slots()[slot].range.clone();
        let next = at + range.len();
        parameters.gamma[range.clone()].copy_from_slice(&gamma[at..next]);
        parameters.beta[range].copy_from_slice(&beta[at..next]);
        at = next;
    }
    assert_eq!(at, gamma.len());
    parameters
}

pub fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}
