//! Bundles that fit themselves, digests and all, but not what `nasbn` relies on: one clear error, never a crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use nasbn_export::{
    bundle::Bundle,
    onnx::proto::ModelProto,
    tensors::{TensorFile, TensorLayout},
};
use nasbn_models::{
    Manifest,
    manifest::{MANIFEST_FILE, MemoryMode, Port, Role},
};
use nasbn_tests::{Ran, export, run, text};
use prost::Message;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A bundle to be spoilt.
struct Victim {
    _root: TempDir,
    dir: PathBuf,
}

impl Victim {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("bundle");
        export(&dir, &["--space", "nas-bench-macro", "--image-size", "8", "--width", "0.1", "--classes", "10"]);
        Self { _root: root, dir }
    }

    fn manifest(&self) -> Manifest {
        Manifest::decode(&fs::read(self.dir.join(MANIFEST_FILE)).unwrap()).unwrap()
    }

    fn set_manifest(&self, manifest: &Manifest) {
        fs::write(self.dir.join(MANIFEST_FILE), manifest.encode().unwrap()).unwrap();
    }

    fn alter(&self, alter: impl FnOnce(&mut Manifest)) {
        let mut manifest = self.manifest();
        alter(&mut manifest);
        self.set_manifest(&manifest);
    }

    /// Replaces a file, and makes the manifest fit.
    fn set_file(&self, name: &str, data: &[u8]) {
        fs::write(self.dir.join(name), data).unwrap();
        self.alter(|manifest| {
            let entry = manifest.files.iter_mut().find(|f| f.name == name).unwrap();
            (entry.bytes, entry.sha256) = (data.len() as u64, Sha256::digest(data).into());
        });
    }

    /// Replaces the initial parameters by what `value` says for a name.
    fn set_initial(&self, value: impl Fn(&str) -> f32) {
        let bundle = Bundle::open(&self.dir).unwrap();
        let file = TensorFile::open(&bundle.initial_path()).unwrap();
        let layout = TensorLayout::new(file.tensors().map(|(name, place)| (name.to_owned(), place.dims.clone())));
        let mut data = Vec::new();
        let fill = |name: &str| Ok(vec![value(name); layout.place(name).unwrap().bytes as usize / 4]);
        layout.write::<std::io::Error>(&mut data, fill).unwrap();
        self.set_file("initial.safetensors", &data);
    }

    fn score(&self, more: &[&str]) -> Ran {
        let paths = self.dir.with_file_name("paths");
        fs::write(&paths, "22212220\n").unwrap();
        let arguments = ["score", "--bundle", text(&self.dir), "--data", "digits", "--threads", "1", "--out", "-"];
        let arguments = [&arguments[..], &["--indicators", "bn_all,validation"]].concat();
        run("nasbn", &[&arguments[..], &["--paths", text(&paths)], more].concat())
    }

    /// The indicator over all BatchNorms of the path.
    fn bn_all(&self, more: &[&str]) -> f64 {
        let ran = self.score(&[&["--no-validation"], more].concat()).ok();
        let mut reader = csv::Reader::from_reader(ran.stdout.as_bytes());
        let column = reader.headers().unwrap().iter().position(|h| h == "bn_all").unwrap();
        reader.records().next().unwrap().unwrap()[column].parse().unwrap()
    }
}

#[test]
fn ports_that_an_operator_does_not_have_are_one_error() {
    let victim = Victim::new();
    let good = victim.manifest();
    let graph = |manifest: &Manifest, role| manifest.graphs.iter().position(|g| g.role == role).unwrap();
    let lean = Role::Forward(MemoryMode::Lean);
    type Alter = fn(&mut nasbn_models::manifest::Graph);
    let cases: [(Role, Alter, &str); 4] = [
        (lean, |g| g.inputs.last_mut().unwrap().port = Port::Gamma(65535), "Gamma(65535)"),
        (lean, |g| g.outputs.last_mut().unwrap().port = Port::Var(3), "Var(3)"),
        (Role::Evaluate, |g| g.inputs.retain(|p| p.port != Port::X), "ports like X"),
        (Role::Loss, |g| g.outputs.truncate(1), "ports like SampleLoss"),
    ];
    for (role, alter, words) in cases {
        let mut manifest = good.clone();
        let at = graph(&manifest, role);
        alter(&mut manifest.graphs[at]);
        victim.set_manifest(&manifest);
        let ran = victim.score(&[]).fails(2, words);
        assert_eq!(ran.stderr.matches("error:").count(), 1, "{}", ran.stderr);
    }
    // Ports that the role may have, but in an order that the graph does not have.
    let mut manifest = good.clone();
    for graph in manifest.graphs.iter_mut().filter(|g| g.role == lean) {
        graph.inputs.reverse();
    }
    victim.set_manifest(&manifest);
    victim.score(&[]).fails(2, "other inputs or outputs than the manifest");
    // Graphs that are not there at all.
    let mut manifest = good;
    manifest.graphs.retain(|g| g.role != Role::Evaluate);
    victim.set_manifest(&manifest);
    victim.score(&[]).fails(2, "no Evaluate graph");
}

#[test]
fn constants_outside_of_the_bundle_are_never_read() {
    let victim = Victim::new();
    fs::write(victim.dir.with_file_name("secret"), vec![0u8; 1 << 20]).unwrap();
    let name = "graphs/e00.stem.evaluate.onnx";
    let mut model = ModelProto::decode(fs::read(victim.dir.join(name)).unwrap().as_slice()).unwrap();
    let tensors = model.graph.as_mut().unwrap().initializer.iter_mut();
    let entries = tensors.flat_map(|t| &mut t.external_data).filter(|e| e.key() == "location");
    for entry in entries {
        entry.value = Some("../../secret".into());
    }
    victim.set_file(name, &model.encode_to_vec());
    victim.score(&[]).fails(2, "outside the weights' file");
}

#[test]
fn training_starts_from_the_initial_parameters_of_the_bundle() {
    const CLOSE: f64 = 1e-5;
    let victim = Victim::new();
    let usual = victim.bn_all(&[]);
    victim.set_initial(|name| if name.ends_with("gamma") { 2.5 } else { 0.5 });
    assert!((victim.bn_all(&[]) - 2.5 * usual).abs() < CLOSE * usual);
    // A run with a rate of next to nothing ends where it started.
    let out = victim.dir.with_file_name("checkpoint");
    let arguments = ["adapt", "--bundle", text(&victim.dir), "--data", "digits", "--threads", "1"];
    run("nasbn", &[&arguments[..], &["--epochs", "1", "--rate", "1e-30", "--out", text(&out)]].concat()).ok();
    assert!((victim.bn_all(&["--checkpoint", text(&out)]) - 2.5 * usual).abs() < CLOSE * usual);
    let initial = TensorFile::open(Path::new(&victim.dir.join("initial.safetensors"))).unwrap();
    assert!(initial.read("e00.stem.bn0.beta").unwrap().iter().all(|&v| v == 0.5));

    victim.set_initial(|name| if name == "e00.stem.bn0.beta" { f32::NAN } else { 1.0 });
    victim.score(&[]).fails(2, "`e00.stem.bn0.beta` holds a value that is not finite");
}
