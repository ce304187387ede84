//! Bundles on disk: equal ones from equal seeds, and bad ones refused by kind.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use common::{build, space};
use nasbn_export::{
    bundle::{
        Bundle, BundleError,
        check::{CheckError, check},
        source::SourceError,
        write::{BuildOptions, WriteError, write},
    },
    onnx::proto::{AttributeProto, ModelProto, StringStringEntryProto},
    tensors::{TensorFile, TensorLayout},
};
use nasbn_models::{
    Manifest,
    manifest::{MANIFEST_FILE, ManifestError},
};
use prost::Message;
use sha2::{Digest, Sha256};

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in next.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.insert(path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        build(0, &root.path().join("b"));
        Self { root }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("b")
    }

    fn open(&self) -> Result<Bundle, BundleError> {
        let bundle = Bundle::open(&self.dir())?;
        bundle.verify().map(|()| bundle)
    }

    /// The error of opening and verifying.
    fn error(&self) -> BundleError {
        self.open().unwrap_err()
    }

    fn manifest(&self) -> Manifest {
        Manifest::decode(&fs::read(self.dir().join(MANIFEST_FILE)).unwrap()).unwrap()
    }

    fn set_manifest(&self, manifest: &Manifest) {
        fs::write(self.dir().join(MANIFEST_FILE), manifest.encode().unwrap()).unwrap();
    }

    /// Replaces a graph's file and makes size and digest fit.
    fn set_graph(&self, name: &str, data: &[u8]) {
        fs::write(self.dir().join(name), data).unwrap();
        let mut manifest = self.manifest();
        let entry = manifest.files.iter_mut().find(|f| f.name == name).unwrap();
        (entry.bytes, entry.sha256) = (data.len() as u64, Sha256::digest(data).into());
        self.set_manifest(&manifest);
    }

    fn alter_manifest(&self, alter: impl FnOnce(&mut Vec<u8>)) {
        let path = self.dir().join(MANIFEST_FILE);
        let mut bytes = fs::read(&path).unwrap();
        alter(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn equal_seeds_give_equal_directories_and_others_other_weights() {
    let root = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| root.path().join(name));
    build(5, &a);
    build(5, &b);
    build(6, &c);
    assert!(files(&a) == files(&b));
    let weights = Path::new("graphs/weights.safetensors");
    assert_ne!(files(&a)[weights], files(&c)[weights]);
    let differing = files(&a).iter().filter(|(name, bytes)| files(&c)[*name] != **bytes).count();
    assert_eq!(differing, 2, "only the weights and the manifest depend on the seed");
}

#[test]
fn a_new_bundle_passes_every_check() {
    let fixture = Fixture::new();
    let bundle = fixture.open().unwrap();
    check(&bundle).unwrap();
    assert_eq!(bundle.manifest().supernet, space());
    let initial = TensorFile::open(&bundle.initial_path()).unwrap();
    assert!(initial.read("e01.identity.bn0.gamma").unwrap().iter().all(|&v| v == 1.0));
    assert!(initial.read("e01.mb6k5.bn2.beta").unwrap().iter().all(|&v| v == 0.0));
}

#[test]
fn cut_and_altered_files_are_named() {
    let fixture = Fixture::new();
    let path = fixture.dir().join("graphs/loss.onnx");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(fixture.error(), BundleError::Size { path: p, .. } if p == path));
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    fs::write(&path, altered).unwrap();
    assert!(matches!(fixture.error(), BundleError::Digest(p) if p == path));
    fs::remove_file(&path).unwrap();
    assert!(matches!(fixture.error(), BundleError::Missing(p) if p == path));
}

#[test]
fn every_cut_of_the_manifest_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.dir().join(MANIFEST_FILE);
    let good = fs::read(&path).unwrap();
    for length in (0..good.len()).step_by(97) {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(fixture.error(), BundleError::Manifest { .. }), "cut at {length}");
    }
}

#[test]
fn an_altered_manifest_is_damaged() {
    let fixture = Fixture::new();
    let length = fs::metadata(fixture.dir().join(MANIFEST_FILE)).unwrap().len() as usize;
    for bit in (12 * 8..length * 8).step_by(1009) {
        let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
        fixture.alter_manifest(flip);
        let error = fixture.error();
        assert!(matches!(error, BundleError::Manifest { source: ManifestError::Damaged(_), .. }), "bit {bit}: {error}");
        fixture.alter_manifest(flip);
    }
    fixture.open().unwrap();
}

#[test]
fn foreign_newer_and_older_manifests_are_told_apart() {
    let fixture = Fixture::new();
    fixture.alter_manifest(|bytes| bytes[8..12].copy_from_slice(&999_u32.to_le_bytes()));
    let error = fixture.error();
    assert!(matches!(error, BundleError::Manifest { source: ManifestError::Version { found: 999 }, .. }));
    assert!(error.to_string().contains("format 999"), "{error}");
    assert!(error.hint().contains("newer version"), "{:?}", error.hint());
    fixture.alter_manifest(|bytes| bytes[8..12].copy_from_slice(&1_u32.to_le_bytes()));
    let error = fixture.error();
    assert!(matches!(error, BundleError::Manifest { source: ManifestError::Version { found: 1 }, .. }));
    assert!(error.hint().contains("older version"), "{:?}", error.hint());
    fixture.alter_manifest(|bytes| bytes[0] = b'x');
    assert!(matches!(fixture.error(), BundleError::Manifest { source: ManifestError::Foreign, .. }));
    fs::remove_file(fixture.dir().join(MANIFEST_FILE)).unwrap();
    assert!(matches!(fixture.error(), BundleError::NoManifest(_)));
}

#[test]
fn hostile_lengths_end_in_an_error_and_not_in_memory() {
    let fixture = Fixture::new();
    // A string that claims 2^63 bytes, right behind the version, under a SHA-256 that fits.
    fixture.alter_manifest(|bytes| {
        bytes[12..22].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]);
        let body = bytes.len() - 32;
        let digest = Sha256::digest(&bytes[..body]);
        bytes[body..].copy_from_slice(&digest);
    });
    let error = fixture.error();
    assert!(matches!(error, BundleError::Manifest { source: ManifestError::Damaged(_), .. }));
    assert!(!error.to_string().contains("SHA-256"), "{error}");
    let file = fs::File::create(fixture.dir().join(MANIFEST_FILE)).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(fixture.error(), BundleError::ManifestSize { .. }));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let fixture = Fixture::new();
    let good = fixture.manifest();
    for name in ["../secret", "/etc/passwd", "graphs/../../secret", "graphs//x", "a\\b", ""] {
        let mut manifest = good.clone();
        manifest.files[0].name = name.to_owned();
        fixture.set_manifest(&manifest);
        let error = fixture.error();
        assert!(matches!(error, BundleError::Manifest { source: ManifestError::FileName(_), .. }), "{name}: {error}");
    }
}

#[test]
fn links_are_refused() {
    let fixture = Fixture::new();
    let outside = fixture.root.path().join("outside");
    let path = fixture.dir().join("graphs/loss.onnx");
    fs::rename(&path, &outside).unwrap();
    symlink(&outside, &path).unwrap();
    assert!(matches!(fixture.error(), BundleError::NotAFile { path: p, .. } if p == path));
    let fixture = Fixture::new();
    let graphs = fixture.dir().join("graphs");
    let moved = fixture.root.path().join("graphs");
    fs::rename(&graphs, &moved).unwrap();
    symlink(&moved, &graphs).unwrap();
    assert!(matches!(fixture.error(), BundleError::NotAFile { path: p, .. } if p == graphs));
}

#[test]
fn graphs_that_contradict_the_manifest_do_not_pass() {
    let fixture = Fixture::new();
    let mut manifest = fixture.manifest();
    let last = manifest.graphs.len() - 1;
    manifest.graphs[0].file = manifest.graphs[last].file;
    fixture.set_manifest(&manifest);
    let error = check(&fixture.open().unwrap()).unwrap_err();
    assert!(matches!(error, CheckError::Graph { .. }) && !error.hint().is_empty(), "{error}");
}

/// Digests that fit say nothing: what ONNX Runtime would read must lie inside the bundle all the same.
#[test]
fn graphs_that_read_outside_of_the_weights_file_do_not_pass() {
    const NAME: &str = "graphs/e00.stem.evaluate.onnx";
    let fixture = Fixture::new();
    let good = fs::read(fixture.dir().join(NAME)).unwrap();
    let model = ModelProto::decode(good.as_slice()).unwrap();
    let external = model.graph.as_ref().unwrap().initializer.iter().position(|t| !t.external_data.is_empty()).unwrap();
    let set = |key: &str, value: &str| {
        let mut model = model.clone();
        let tensor = &mut model.graph.as_mut().unwrap().initializer[external];
        let entry = tensor.external_data.iter_mut().find(|e| e.key() == key).unwrap();
        entry.value = Some(value.to_owned());
        model
    };
    let mut bad: Vec<Vec<u8>> = [
        set("location", "../../secret"),
        set("location", "/etc/passwd"),
        set("location", "../graphs/weights.safetensors"),
        set("location", "loss.onnx"),
        set("offset", "18446744073709551615"),
        set("offset", "99999999"),
        set("length", "-1"),
        set("offset", ""),
    ]
    .map(|model| model.encode_to_vec())
    .into();
    // The same constant in a node's attribute, twice the same entry, and parts of ONNX that are not known here.
    let mut hidden = set("location", "../../secret");
    let graph = hidden.graph.as_mut().unwrap();
    let tensor = graph.initializer[external].clone();
    graph.initializer[external] = model.graph.as_ref().unwrap().initializer[external].clone();
    graph.node[0].attribute.push(AttributeProto { t: Some(tensor), ..Default::default() });
    bad.push(hidden.encode_to_vec());
    let mut twice = model.clone();
    let entries = &mut twice.graph.as_mut().unwrap().initializer[external].external_data;
    let second = StringStringEntryProto { key: Some("location".into()), value: Some("../../secret".into()) };
    entries.push(second);
    bad.push(twice.encode_to_vec());
    // Field 25 of a model: functions.
    bad.push([&good[..], &[0xca, 0x01, 0x00]].concat());
    bad.push(good[..good.len() / 2].to_vec());
    for (i, data) in bad.iter().enumerate() {
        fixture.set_graph(NAME, data);
        let error = fixture.error();
        assert!(matches!(&error, BundleError::Graph { path, .. } if path.ends_with(NAME)), "{i}: {error}");
    }
    fixture.set_graph(NAME, &good);
    fixture.open().unwrap();
}

#[test]
fn weights_of_another_space_do_not_pass() {
    let fixture = Fixture::new();
    let mut manifest = fixture.manifest();
    // A digest can be made to fit; the tensors inside must fit as well.
    (manifest.weights_file, manifest.initial_file) = (manifest.initial_file, manifest.weights_file);
    fixture.set_manifest(&manifest);
    assert!(matches!(fixture.error(), BundleError::Tensor { .. }));
}

#[test]
fn nothing_but_a_bundle_is_replaced_and_that_only_with_force() {
    let fixture = Fixture::new();
    let options = |seed, force| BuildOptions { seed, force, ..Default::default() };
    let before = files(&fixture.dir());
    let error = write(&space(), &options(1, false), &fixture.dir(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, WriteError::Exists { .. }) && error.hint().contains("--force"));
    assert!(files(&fixture.dir()) == before);
    write(&space(), &options(1, true), &fixture.dir(), &mut |_| {}).unwrap();
    assert_eq!(fixture.open().unwrap().manifest().seed, 1);

    let mine = fixture.root.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.txt"), "text").unwrap();
    for force in [false, true] {
        let error = write(&space(), &options(1, force), &mine, &mut |_| {}).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }));
        assert_eq!(files(&mine).len(), 1);
    }
    let names: Vec<_> = fixture.root.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "something was left behind: {names:?}");
}

#[test]
fn a_bundle_with_files_of_the_user_is_not_replaced_even_with_force() {
    let fixture = Fixture::new();
    let options = BuildOptions { seed: 1, force: true, ..Default::default() };
    let replace = || write(&space(), &options, &fixture.dir(), &mut |_| {});
    let manifest = fs::read(fixture.dir().join(MANIFEST_FILE)).unwrap();
    // With a manifest that can be read and with one that cannot.
    for contents in [manifest.as_slice(), b"NASBNBDL".as_slice()] {
        fs::write(fixture.dir().join(MANIFEST_FILE), contents).unwrap();
        for name in ["checkpoint/parameters.safetensors", "notes.txt", "graphs/mine.txt"] {
            let mine = fixture.dir().join(name);
            fs::create_dir_all(mine.parent().unwrap()).unwrap();
            fs::write(&mine, "mine").unwrap();
            let error = replace().unwrap_err();
            assert!(matches!(&error, WriteError::Foreign { files, .. } if *files == [PathBuf::from(name)]), "{error}");
            assert!(error.to_string().contains(name) && error.hint().contains("elsewhere"), "{error}");
            assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
            fs::remove_file(&mine).unwrap();
            let _ = fs::remove_dir(fixture.dir().join("checkpoint"));
        }
        replace().unwrap();
        assert_eq!(fixture.open().unwrap().manifest().seed, 1);
    }
    let mine = fixture.dir().join("graphs/mine.onnx");
    fs::write(&mine, "mine").unwrap();
    assert!(matches!(replace(), Err(WriteError::Foreign { .. })), "the manifest does not name it");
}

/// What a killed program set aside comes back before anything else is looked at.
#[test]
fn a_bundle_that_was_set_aside_is_restored_and_then_not_replaced_unasked() {
    let fixture = Fixture::new();
    let before = files(&fixture.dir());
    fs::rename(fixture.dir(), fixture.root.path().join(".b.replaced-1")).unwrap();
    let error = write(&space(), &BuildOptions::default(), &fixture.dir(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, WriteError::Exists { .. }), "{error}");
    assert!(files(&fixture.dir()) == before);
}

#[test]
fn given_weights_are_taken_over_and_every_misfit_is_named() {
    let fixture = Fixture::new();
    let weights = fixture.dir().join("graphs/weights.safetensors");
    let out = fixture.root.path().join("c");
    let options = |path: &Path| BuildOptions { seed: 9, weights: Some(path.to_owned()), force: false };
    write(&space(), &options(&weights), &out, &mut |_| {}).unwrap();
    assert_eq!(files(&out)[Path::new("graphs/weights.safetensors")], fs::read(&weights).unwrap());
    assert!(Bundle::open(&out).unwrap().manifest().weights.starts_with("weights.safetensors sha256:"));

    let file = TensorFile::open(&weights).unwrap();
    let mut dims: BTreeMap<String, Vec<u64>> = file.tensors().map(|(n, p)| (n.to_owned(), p.dims.clone())).collect();
    dims.remove("e00.stem.conv0.weight");
    dims.get_mut("e01.mb3k3.conv0.weight").unwrap().push(2);
    dims.insert("surprise".into(), vec![1]);
    let layout = TensorLayout::new(dims);
    let bad = fixture.root.path().join("bad.safetensors");
    let mut out_file = fs::File::create(&bad).unwrap();
    let zeros = |name: &str| Ok(vec![0.0; layout.place(name).unwrap().bytes as usize / 4]);
    layout.write::<std::io::Error>(&mut out_file, zeros).unwrap();
    let error = write(&space(), &options(&bad), &fixture.root.path().join("d"), &mut |_| {}).unwrap_err();
    let WriteError::Weights(SourceError::Tensors { problems, .. }) = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 3, "{error}");
    for name in ["e00.stem.conv0.weight", "e01.mb3k3.conv0.weight", "surprise"] {
        assert!(problems.iter().any(|p| p.contains(name)), "{name}: {error}");
    }
    assert!(!fixture.root.path().join("d").exists());
}
