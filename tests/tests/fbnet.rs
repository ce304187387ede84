//! The space `fbnet` through the public commands: two steps of training, every indicator, subnets.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{fs, path::Path};

use nasbn_tests::{export, run, text};
use serde_json::Value;

/// An architecture of HW-NAS-Bench's list with blocks of every kind, and one without groups.
const GROUPED: &str = "5-3-5-5-0-4-7-5-5-2-0-2-4-5-1-3-7-2-6-0-4-0";
const PLAIN: &str = "8-8-3-8-8-0-2-8-8-8-4-6-6-7-8-8-8-0-2-8-8-8";

fn subnet(bundle: &Path, checkpoint: &Path, path: &str, out: &Path) -> Value {
    let arguments = ["subnet", "--bundle", text(bundle), "--checkpoint", text(checkpoint), "--data", "digits"];
    let more = ["--threads", "1", "--path", path, "--out", text(out)];
    run("nasbn", &[&arguments[..], &more].concat()).ok();
    assert!(out.join("subnet.onnx").metadata().unwrap().len() > 1000);
    serde_json::from_slice(&fs::read(out.join("subnet.json")).unwrap()).unwrap()
}

#[test]
fn fbnet_trains_is_scored_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let [bundle, checkpoint, scores] = ["bundle", "checkpoint", "scores.csv"].map(|name| dir.path().join(name));
    export(&bundle, &["--space", "fbnet", "--image-size", "8", "--width", "0.1", "--classes", "10"]);
    let data = ["--bundle", text(&bundle), "--data", "digits", "--threads", "1"];
    let more = ["--epochs", "1", "--batch", "720", "--memory", "lean", "--out", text(&checkpoint), "--json"];
    let ran = run("nasbn", &[&["adapt"], &data[..], &more].concat()).ok();
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    let loss = summary["epoch_losses"][0].as_f64().unwrap();
    assert!(loss.is_finite() && summary["steps"].as_u64().unwrap() > 0, "{summary}");

    let paths = dir.path().join("paths");
    fs::write(&paths, format!("{GROUPED}\n{PLAIN}\n")).unwrap();
    let indicators = "bn_all,sign_log_det,ntk_effective_rank,log_synflow,zen";
    let more = ["--checkpoint", text(&checkpoint), "--paths", text(&paths), "--indicators", indicators];
    run("nasbn", &[&["score"], &data[..], &more, &["--out", text(&scores)]].concat()).ok();
    let mut reader = csv::Reader::from_path(&scores).unwrap();
    let headers = reader.headers().unwrap().clone();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.unwrap();
        for name in indicators.split(',') {
            let value: f64 = record[headers.iter().position(|h| h == name).unwrap()].parse().unwrap();
            assert!(value.is_finite(), "{name} is {value}");
        }
        rows += 1;
    }
    assert_eq!(rows, 2);

    let grouped = subnet(&bundle, &checkpoint, GROUPED, &dir.path().join("grouped"));
    assert_eq!(grouped["timm"], Value::Null, "timm has no block with grouped 1x1 convolutions");
    let steps = grouped["edges"][1]["steps"].as_array().unwrap();
    let shuffles = steps.iter().filter(|s| s["op"] == "channel_shuffle" && s["groups"] == 2).count();
    let convolutions = steps.iter().filter(|s| s["op"] == "conv" && s["groups"] == 2).count();
    assert_eq!((shuffles, convolutions), (1, 2));
    let plain = subnet(&bundle, &checkpoint, PLAIN, &dir.path().join("plain"));
    let stages = plain["timm"]["arch_def"].as_array().unwrap();
    let blocks: Vec<&str> = stages.iter().flat_map(|s| s.as_array().unwrap()).map(|b| b.as_str().unwrap()).collect();
    // So narrow, the first stages have eight channels each, and their skips are identities, left out, unless strided.
    assert_eq!(blocks[..4], ["ir_r1_k3_s1_e6_c8", "ir_r1_k3_s2_e1_c8", "ir_r1_k3_s1_e3_c8", "cn_r1_k1_s2_c8"]);
}
