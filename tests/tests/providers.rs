//! What `--provider` comes to where there is no GPU: an error unless a fallback is allowed, and then no secret.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{fs, path::Path};

use nasbn_export::bundle::Bundle;
use nasbn_models::{Manifest, manifest::MANIFEST_FILE};
use nasbn_runtime::{
    engine::{Model, Opener},
    latency::{
        LatencyTable,
        bench::{block_name, graph_file},
        distinct,
    },
    ort_library::{load, locate},
    provider::{Placement, Precision, Provider, ProviderError, measure, probe, probe_model},
};
use nasbn_tests::{SMALL, export, ort_library, run, small_bundle, text};
use serde_json::Value;

/// Measures as little as possible.
const QUICK: [&str; 8] = ["--warm-up", "1ms", "--min-time", "1ms", "--min-runs", "1", "--threads", "1"];

/// A table of few networks, on whatever `more` says.
fn table(out: &Path, more: &[&str]) -> nasbn_tests::Ran {
    let few = ["latency", "--bundle", text(small_bundle()), "--out", text(out), "--networks", "3", "--check", "2"];
    run("nasbn", &[&few[..], &QUICK, more].concat())
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether CUDA works in the library under test: what is said of machines without a GPU does not hold there.
fn has_cuda() -> bool {
    let ran = run("nasbn", &["doctor", "--json"]).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let works = report["providers"].as_array().unwrap().iter().any(|p| p["provider"] == "cuda" && p["works"] == true);
    if works {
        eprintln!("SKIPPED: cuda works here");
    }
    works
}

#[test]
fn a_provider_that_is_not_there_is_an_error_and_nothing_is_written() {
    if has_cuda() {
        return;
    }
    let (dir, before) = (tempfile::tempdir().unwrap(), names(small_bundle()));
    let out = dir.path().join("out");
    let data = ["--data", "digits", "--out", text(&out)];
    for provider in ["cuda", "tensorrt"] {
        let named = ["--provider", provider, "--bundle", text(small_bundle())];
        let words = format!("error: {provider} ");
        table(&out, &["--provider", provider]).fails(3, &words);
        run("nasbn", &[&["adapt", "--epochs", "1"][..], &named, &data].concat()).fails(3, &words);
        run("nasbn", &[&["score", "--random", "2"][..], &named, &data].concat()).fails(3, &words);
        run("nasbn", &[&["search", "--max-macs", "1M", "--checkpoint", "none"][..], &named, &data].concat())
            .fails(3, &words);
        run("nasbn", &[&["subnet", "--path", "22212220"][..], &named, &data].concat()).fails(3, &words);
    }
    assert_eq!((names(dir.path()), names(small_bundle())), (Vec::new(), before));
}

#[test]
fn a_fallback_that_is_allowed_is_told_and_reported_as_the_cpu() {
    if has_cuda() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let allowed = ["--provider", "tensorrt", "--precision", "fp16", "--allow-cpu-fallback", "--json", "--quiet"];
    let ran = table(&dir.path().join("table"), &allowed).ok();
    assert!(ran.stderr.contains("warning: tensorrt "), "{}", ran.stderr);
    assert!(ran.stderr.contains("EVERYTHING RUNS ON THE CPU"), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&report["conditions"]["provider"], &report["conditions"]["precision"]),
        (&"cpu".into(), &"fp32".into())
    );
    let placed = report["placement"].as_array().unwrap();
    assert!(placed.iter().all(|placed| placed["provider"] == "cpu"), "{placed:?}");
    assert!(placed.iter().map(|placed| placed["nodes"].as_u64().unwrap()).sum::<u64>() > 8, "{placed:?}");
    // The table keeps it.
    let table = LatencyTable::read(&dir.path().join("table")).unwrap();
    assert_eq!(serde_json::to_value(table.placement).unwrap(), report["placement"]);
    assert!(!small_bundle().join("cache").exists());
}

#[test]
fn auto_is_the_cpu_and_says_where_nodes_ran() {
    if has_cuda() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ran = table(&dir.path().join("table"), &[]).ok();
    assert!(
        ran.stdout.contains("placement     ") && ran.stdout.contains(" nodes on cpu (of one network)"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains(": cpu, fp32, batch 1"), "{}", ran.stdout);
    let found = dir.path().join("found");
    let subnet =
        ["subnet", "--bundle", text(small_bundle()), "--data", "digits", "--path", "22212220", "--out", text(&found)];
    run("nasbn", &subnet).ok();
    let model = found.join("subnet.onnx");
    let onnx = [&["latency", "--onnx", text(&model)][..], &QUICK].concat();
    let said = run("nasbn", &onnx).ok().stdout;
    assert!(said.lines().any(|line| line.starts_with("placement     ") && line.ends_with(" nodes on cpu")), "{said}");
    let report: Value = serde_json::from_str(&run("nasbn", &[&onnx[..], &["--json"]].concat()).ok().stdout).unwrap();
    assert_eq!((&report["provider"], &report["precision"]), (&"cpu".into(), &"fp32".into()));
    let is_conv = |placed: &Value| placed["operator"] == "Conv" && placed["nodes"].is_u64();
    assert!(report["placement"].as_array().unwrap().iter().any(is_conv), "{}", report["placement"]);
    run("nasbn", &[&onnx[..], &["--provider", "cuda"]].concat()).fails(3, "error: cuda ");
}

#[test]
fn what_does_not_go_together_is_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let common = ["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--out", text(&out)];
    let with = |more: &[&str]| run("nasbn", &[&common[..], more].concat());
    with(&["--provider", "cuda", "--graphs", "fused"]).fails(2, "--graphs fused is for the CPU only");
    with(&["--provider", "tensorrt", "--graphs", "fused", "--allow-cpu-fallback"]).fails(2, "not for tensorrt");
    with(&["--precision", "fp16"]).fails(2, "--precision fp16 is for --provider tensorrt only");
    with(&["--provider", "cuda", "--precision", "fp16"]).fails(2, "tensorrt only");
    assert_eq!(with(&["--provider", "npu"]).status, Some(2));
    assert!(names(dir.path()).is_empty());
}

/// What is asked of every block where the provider is not the CPU can be answered of every block.
#[test]
fn where_the_nodes_of_any_block_ran_is_told() {
    let opener = Opener::new(load(&locate(Some(&ort_library())).unwrap(), 1).unwrap()).unwrap();
    let bundle = Bundle::open(small_bundle()).unwrap();
    let blocks = distinct(&bundle.manifest().supernet);
    assert!(blocks.len() > 10);
    for block in &blocks {
        let file = bundle.file_path(graph_file(bundle.manifest(), block).unwrap());
        let name = block_name(&bundle, block);
        let placement = measure(&opener, Model::File(&file), 2, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(placement.check(Provider::Cpu, &name).is_ok());
        // With CUDA asked for, a block that the CPU ran alone is an error that names it.
        let error = placement.check(Provider::Cuda, &name).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cuda ran no node of {name} that computes: ")), "{error}");
    }
}

/// Graphs of the fused lowering run on the CPU, and on nothing else: elsewhere they are not even asked for.
#[test]
fn the_probe_runs_on_the_cpu_and_the_rest_says_what_is_missing() {
    let environment = load(&locate(Some(&ort_library())).unwrap(), 1).unwrap();
    let placement = probe(&environment, Provider::Cpu).unwrap();
    // The convolution and its activation, fused or not, depending on the version.
    let nodes = placement.nodes();
    assert!(nodes.len() == 1 && (1..=4).contains(&nodes["cpu"]), "{placement}");
    // Seen as another provider's, everything was left to the CPU.
    let left = placement.left_by(Provider::Cuda);
    assert!(left["cpu"].keys().any(|op| op.contains("Conv")), "{placement}");
    let opener = Opener::new(environment.clone()).unwrap();
    assert_eq!((opener.backend().provider, opener.backend().precision), (Provider::Cpu, Precision::Fp32));
    let again: Placement = measure(&opener, Model::Bytes(&probe_model()), 1, &[]).unwrap();
    assert_eq!(again, placement);
    for provider in [Provider::Cuda, Provider::TensorRt] {
        match probe(&environment, provider) {
            Ok(placement) => assert!(placement.nodes().contains_key(provider.to_string().as_str()), "{placement}"),
            Err(ProviderError::NotBuiltIn { .. }) => assert!(!provider.is_built_in()),
            Err(error) => assert!(provider.is_built_in() && !error.hint().is_empty(), "{error}"),
        }
    }
    // No graph is what a profile cannot be made of.
    assert!(measure(&opener, Model::Bytes(b"no model"), 1, &[]).is_err());
    assert!(measure(&opener, Model::File(Path::new("/nonexistent.onnx")), 1, &[]).is_err());
}

#[test]
fn doctor_says_of_every_provider_whether_it_works() {
    let ran = run("nasbn", &["doctor"]).ok();
    assert!(ran.stdout.contains("provider     cpu works\n"), "{}", ran.stdout);
    let report: Value = serde_json::from_str(&run("nasbn", &["doctor", "--json"]).ok().stdout).unwrap();
    let providers = report["providers"].as_array().unwrap();
    let named: Vec<&str> = providers.iter().map(|p| p["provider"].as_str().unwrap()).collect();
    assert_eq!(named, ["cpu", "cuda", "tensorrt"]);
    for provider in providers {
        let works = provider["works"] == true;
        assert_eq!(works, provider["problem"].is_null() && provider["hint"].is_null(), "{provider}");
        assert!(provider["built_in"] == true || !works, "{provider}");
        if !works {
            assert!(ran.stdout.contains(provider["problem"].as_str().unwrap()), "{}", ran.stdout);
            assert!(ran.stdout.contains(provider["hint"].as_str().unwrap()), "{}", ran.stdout);
        }
    }
}

/// Caches are of the bundle: it can be replaced with them, but not with what is somebody else's.
#[test]
fn a_bundle_is_replaced_together_with_its_caches() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    export(&out, &SMALL);
    let engines = out.join("cache/tensorrt-1.23.2/0123-fp16/4567");
    fs::create_dir_all(&engines).unwrap();
    fs::write(engines.join("a.engine"), b"engine").unwrap();
    run("nasbn-export", &["check", text(&out)]).ok();
    let replace = ["build", "--quiet", "--force", "--out", text(&out), "--seed", "1"];
    let replace = [&replace[..], &SMALL].concat();
    fs::write(out.join("cache/mine"), b"mine").unwrap();
    run("nasbn-export", &replace).fails(2, "cache/mine");
    fs::remove_file(out.join("cache/mine")).unwrap();
    run("nasbn-export", &replace).ok();
    assert!(!out.join("cache").exists());
    assert!(Manifest::decode(&fs::read(out.join(MANIFEST_FILE)).unwrap()).is_ok());
}
