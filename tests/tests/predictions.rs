//! `nasbn search --latency` where predictions are wrong, and where energy is limited.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{fs, path::Path};

use nasbn_runtime::latency::LatencyTable;
use nasbn_tests::{Ran, run, small_bundle, text};
use serde_json::Value;

/// Few and short measurements, and few reference paths.
const SHORT: [&str; 8] =
    ["--finalists", "3", "--min-time", "10ms", "--validation-images", "64", "--reference-paths", "8"];

fn search(out: &Path, table: &Path, more: &[&str]) -> Ran {
    let common = ["search", "--bundle", text(small_bundle()), "--data", "digits", "--out", text(out), "--threads", "1"];
    run("nasbn", &[&common[..], &SHORT, &["--latency", text(table)], more].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn result(out: &Path) -> Value {
    json(&fs::read_to_string(out.join("result.json")).unwrap())
}

/// A table by which every network takes more than 1000 s.
fn hopeless(dir: &Path) -> std::path::PathBuf {
    let (csv, table) = (dir.join("blocks.csv"), dir.join("hopeless.latency"));
    let supernet = nasbn_export::bundle::Bundle::open(small_bundle()).unwrap().manifest().supernet.clone();
    let mut lines = "layer,operator,latency_ms\nbase,,1000000\n".to_owned();
    for (layer, choice) in supernet.choices.iter().enumerate() {
        for (candidate, &operator) in choice.candidates.iter().enumerate() {
            lines += &format!("{layer},{},{candidate}\n", supernet.operators[usize::from(operator)].name);
        }
    }
    fs::write(&csv, lines).unwrap();
    let bundle = text(small_bundle());
    run("nasbn", &["latency", "--bundle", bundle, "--import", text(&csv), "--out", text(&table), "--quiet"]).ok();
    table
}

#[test]
fn a_network_that_keeps_the_budget_as_measured_is_not_lost_to_its_prediction() {
    let dir = tempfile::tempdir().unwrap();
    let (table, out) = (hopeless(dir.path()), dir.path().join("found"));
    for objective in ["loss", "bn-all", "relu-units", "macs"] {
        let few: &[&str] = if objective == "loss" { &["--evaluations", "4", "--population", "2"] } else { &[] };
        let more = ["--force", "--budget", "500s", "--objective", objective];
        let said = search(&out, &table, &[&more[..], few].concat()).ok().stdout;
        assert!(said.contains("latency is predicted too high: finalists took 0.000 times as much"), "{said}");
        let found = result(&out);
        assert!(found["winner"]["within_budget"].as_bool().unwrap() && found["winner"]["score"].is_number());
        assert!(found["margins"]["latency"].as_f64().unwrap() < 0.001);
        // Once it is known how far off predictions are, others have their turn.
        assert!(found["finalists"].as_array().unwrap().len() >= 3, "{objective}: {}", found["finalists"]);
        assert!(!found["front"].as_array().unwrap().is_empty());
    }
}

/// A directory that shows the power rails of a Jetson Orin Nano (see docs/board.md), of so many mV and mA.
fn rails(root: &Path, name: &str, millivolts: u32, milliamperes: u32) {
    let monitor = root.join("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3");
    fs::create_dir_all(&monitor).unwrap();
    fs::create_dir_all(root.join("proc/device-tree")).unwrap();
    fs::write(root.join("proc/device-tree/model"), "NVIDIA Jetson Orin Nano Developer Kit\0").unwrap();
    let values = [("in1_label", name.to_owned()), ("in1_input", millivolts.to_string())];
    for (file, value) in values.into_iter().chain([("curr1_input", milliamperes.to_string())]) {
        fs::write(monitor.join(file), format!("{value}\n")).unwrap();
    }
}

#[test]
fn energy_is_measured_limited_and_never_taken_on_trust() {
    let dir = tempfile::tempdir().unwrap();
    let [root, table, out, list] = ["root", "board.latency", "found", "list"].map(|name| dir.path().join(name));
    rails(&root, "VDD_IN", 5000, 1000);
    let bundle = ["latency", "--bundle", text(small_bundle()), "--threads", "1", "--root", text(&root), "--quiet"];
    let short = ["--warm-up", "1ms", "--min-time", "3ms", "--networks", "9", "--check", "2", "--out", text(&table)];
    run("nasbn", &[&bundle[..], &short].concat()).ok();
    let measured = LatencyTable::read(&table).unwrap();
    assert!(measured.networks.iter().all(|network| network.energy_mj.is_some_and(|mj| mj > 0.0)));
    assert!(measured.energy.is_some());
    fs::write(&list, "00000000\n01201201\n").unwrap();
    let common = ["--root", text(&root), "--objective", "relu-units", "--budget", "1s", "--paths", text(&list)];
    let limited = |more: &[&str]| search(&out, &table, &[&common[..], more].concat());
    // What is measured keeps a loose limit.
    let said = limited(&["--energy-budget", "500mJ"]).ok().stdout;
    assert!(said.contains("(every network of --paths)"), "{said}");
    let found = result(&out);
    let energy = |network: &Value| network["energy_mj"].as_f64().unwrap();
    assert!(energy(&found["winner"]) > 0.0 && found["winner"]["within_budget"] == true);
    assert_eq!((found["method"].as_str(), found["limits"]["energy_mj"].as_f64()), (Some("list"), Some(500.0)));
    assert!(found["finalists"].as_array().unwrap().iter().all(|network| energy(network) > 0.0));
    // 5 W of a microsecond are 0.005 mJ: none takes as little as this.
    let ran = limited(&["--energy-budget", "0.000001mJ", "--json", "--quiet"]);
    let said = json(&ran.stdout);
    assert!(said["gap_ms"].is_null(), "{said}");
    let (least, gap) = (said["least_energy_mj"].as_f64().unwrap(), said["energy_gap_mj"].as_f64().unwrap());
    assert!((least - gap - 1e-6).abs() < 1e-9 && gap > 0.0, "{said}");
    ran.fails(1, "keeps the energy budget of 0.000001 mJ");
    // Where the rails tell nothing that limit is refused before anything is done; without it there is nothing to refuse.
    rails(&root, "VDD_UNHEARD_OF", 5000, 1000);
    let nowhere = dir.path().join("nowhere");
    let fresh = |more: &[&str]| search(&nowhere, &table, &[&common[..], more].concat());
    fresh(&["--energy-budget", "500mJ"]).fails(3, "no total is known of the power rails VDD_UNHEARD_OF");
    fs::remove_dir_all(root.join("sys")).unwrap();
    fresh(&["--energy-budget", "500mJ"]).fails(3, "--energy-budget cannot be kept here: no power rails are found");
    fresh(&["--energy-budget", "500mJ", "--dry-run"]).fails(3, "no power rails");
    assert!(!nowhere.exists());
    fresh(&["--quiet"]).ok();
    assert!(result(&nowhere)["winner"]["energy_mj"].is_null());
}
