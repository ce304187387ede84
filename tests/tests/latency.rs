//! `nasbn latency`: tables, models, imports, and what is wrong with them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread::{sleep, spawn},
    time::Duration,
};

use nasbn_export::onnx::{
    Attr, Dim, ElemType, GraphBuilder,
    proto::type_proto::{self, Tensor},
};
use nasbn_runtime::latency::{LatencyTable, Statistic};
use nasbn_tests::{Ran, export, program, run, run_command, shared_data, small_bundle, text};
use prost::Message;
use serde_json::Value;

/// Times that are long enough to see that they are times.
const SHORT: [&str; 8] = ["--warm-up", "1ms", "--min-time", "3ms", "--networks", "10", "--check", "6"];

fn latency(out: &Path, more: &[&str]) -> Ran {
    let common = ["latency", "--bundle", text(small_bundle()), "--out", text(out), "--threads", "1"];
    run("nasbn", &[&common[..], more].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_table_tells_every_block_and_predicts_every_network() {
    let dir = tempfile::tempdir().unwrap();
    let [out, exported, times] = ["t.latency", "t.json", "times.json"].map(|name| dir.path().join(name));
    let more = ["--export", text(&exported), "--export-times", text(&times), "--json"];
    let summary = json(&latency(&out, &[&SHORT[..], &more].concat()).ok().stdout);
    let table = LatencyTable::read(&out).unwrap();
    // Stem and head, and on eight layers two blocks each, and a third where the identity is a convolution.
    assert_eq!(table.blocks.len(), 2 + 8 * 2 + 3);
    assert_eq!((table.networks.len(), table.networks.iter().filter(|n| n.in_fit).count()), (16, 10));
    assert_eq!(summary["error"]["networks"], 6);
    assert_eq!(table.conditions.threads, 1);
    assert!(table.networks.iter().all(|n| n.timing.runs >= 10 && n.predicted_ms.is_finite()));
    let all = json(&fs::read_to_string(&exported).unwrap());
    assert_eq!(all["blocks"].as_array().unwrap().len(), table.blocks.len());
    // What the table holds is what was measured: medians of the single times.
    let times = json(&fs::read_to_string(&times).unwrap());
    for network in &table.networks {
        let mut times: Vec<f64> = times["times"][format!("network {}", network.path)]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_f64().unwrap())
            .collect();
        assert_eq!(times.len() as u32, network.timing.runs);
        times.sort_by(f64::total_cmp);
        let middle = f64::midpoint(times[times.len() / 2], times[(times.len() - 1) / 2]);
        assert!((middle - network.timing.median_ms).abs() < 1e-9 && times[0] == network.timing.min_ms);
        assert!(times.iter().sum::<f64>() >= 3.0);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn the_statistic_that_is_asked_for_is_the_one_predicted_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    for (word, statistic) in [("median", Statistic::Median), ("p10", Statistic::P10), ("min", Statistic::Min)] {
        let out = dir.path().join(word);
        let printed = latency(&out, &[&SHORT[..], &["--statistic", word]].concat()).ok().stdout;
        assert_eq!(printed.contains("predicted is"), statistic != Statistic::Median, "{printed}");
        let table = LatencyTable::read(&out).unwrap();
        assert_eq!(table.statistic, statistic);
        let errors = |of: Statistic| -> f64 {
            let checked: Vec<f64> = (table.networks.iter().filter(|network| !network.in_fit))
                .map(|network| (network.predicted_ms / network.timing.statistic(of) - 1.0).abs())
                .collect();
            checked.iter().sum::<f64>() / checked.len() as f64
        };
        assert!((errors(statistic) - table.error.unwrap().mape).abs() < 1e-9);
        // The blocks are those of the statistic, too.
        let base: f64 = (table.blocks.iter().filter(|block| block.key.contains("stem") || block.key.contains("head")))
            .map(|block| block.timing.statistic(statistic))
            .sum();
        let intercept = serde_json::to_value(&table.sums).unwrap()["intercept"].as_f64().unwrap();
        assert!((intercept - base).abs() < 1e-9, "{intercept} {base}");
    }
}

#[test]
fn a_measurement_that_was_killed_goes_on_and_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t");
    let partial = dir.path().join("t.partial");
    let arguments = ["latency", "--bundle", text(small_bundle()), "--out", text(&out), "--threads", "1", "--quiet"];
    let long = ["--min-time", "40ms", "--networks", "10", "--check", "6"];
    let mut child = Command::new(program("nasbn"))
        .args([&arguments[..], &long].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(&partial).map_or(0, |text| text.lines().count());
    while lines() < 30 && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists());
    let before = fs::read_to_string(&partial).unwrap();
    // Cut in the middle of a line, as a kill or a full disk leaves it.
    fs::write(&partial, &before[..before.len() - 3]).unwrap();
    run("nasbn", &[&arguments[..], &long].concat()).fails(2, "an earlier run was stopped");
    let other = ["--min-time", "41ms", "--networks", "10", "--check", "6", "--resume"];
    run("nasbn", &[&arguments[..], &other].concat()).fails(2, "made with other options");
    let times = dir.path().join("times.json");
    let resumed = [&arguments[..], &long, &["--resume", "--export-times", text(&times)]].concat();
    run("nasbn", &resumed).ok();
    assert!(LatencyTable::read(&out).is_ok() && !partial.exists());
    // Every whole line is in the end's times, in its order.
    let times = json(&fs::read_to_string(&times).unwrap());
    let first = before.lines().nth(1).unwrap();
    let (name, first_times): (String, String) = serde_json::from_str(first).unwrap();
    let ms: Vec<f64> = first_times.split(' ').map(|ns| ns.parse::<f64>().unwrap() / 1e6).collect();
    let now: Vec<f64> = times["times"][name.as_str()].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    assert_eq!(now[..ms.len()], ms[..]);
}

#[test]
fn a_measurement_is_stopped_while_it_warms_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t");
    let partial = dir.path().join("t.partial");
    let arguments = ["latency", "--bundle", text(small_bundle()), "--out", text(&out), "--threads", "1", "--quiet"];
    let mut child = Command::new(program("nasbn"))
        .args([&arguments[..], &["--warm-up", "3600s"]].concat())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fs::read_to_string(&partial).map_or(0, |text| text.lines().count()) < 1 && child.try_wait().unwrap().is_none()
    {
        sleep(Duration::from_millis(2));
    }
    // Once its journal is there it is about to hear it.
    sleep(Duration::from_millis(200));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert!(words.contains("hint: go on with the same command and --resume") && partial.exists(), "{words}");
}

/// A model that makes floats of an input `[1, 3, 4, 4]` of ONNX's type `number`.
fn cast(number: i32) -> Vec<u8> {
    let image = [Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(4), Dim::Fixed(4)];
    let mut graph = GraphBuilder::new("cast");
    graph.input("x", ElemType::F32, &image);
    graph.node("Cast", &["x"], &["y"], &[("to", Attr::Int(i64::from(ElemType::F32.onnx())))]);
    graph.output("y", ElemType::F32, &image);
    let mut model = graph.finish();
    let input = &mut model.graph.as_mut().unwrap().input[0];
    let Some(type_proto::Value::TensorType(Tensor { elem_type, .. })) = &mut input.r#type.as_mut().unwrap().value
    else {
        panic!("the input is no tensor");
    };
    *elem_type = Some(number);
    model.encode_to_vec()
}

#[test]
fn any_model_is_measured_as_blocks_are() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let arguments = ["subnet", "--bundle", text(small_bundle()), "--data", "digits", "--path", "01201201", "--quiet"];
    run("nasbn", &[&arguments[..], &["--out", text(&found)]].concat()).ok();
    let model = found.join("subnet.onnx");
    let times = dir.path().join("times.json");
    let short = ["--threads", "1", "--warm-up", "1ms", "--min-time", "5ms", "--min-runs", "12"];
    let of = |more: &[&str]| run("nasbn", &[&["latency", "--onnx", text(&model)][..], &short, more].concat());
    let report = json(&of(&["--json", "--batch", "3", "--export-times", text(&times)]).ok().stdout);
    assert_eq!(report["inputs"][0]["dims"], serde_json::json!([3, 3, 8, 8]));
    let runs = report["latency"]["runs"].as_u64().unwrap();
    assert!(runs >= 12);
    let times = json(&fs::read_to_string(&times).unwrap());
    assert_eq!(times["times"].as_object().unwrap().values().next().unwrap().as_array().unwrap().len() as u64, runs);
    let [min, median, p99] = ["min_ms", "median_ms", "p99_ms"].map(|k| report["latency"][k].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= p99);
    of(&[]).ok();
    of(&["--shape", "picture=1x3x8x8"]).fails(2, "no input `picture`");
    of(&["--shape", "image=1x3x9x8"]).fails(2, "the model wants [-1, 3, 8, 8]");
    of(&["--shape", "image=4x3x8x8", "--batch", "2"]).fails(2, "input `image` would have");
    let four = json(&of(&["--shape", "image=4x3x8x8", "--json"]).ok().stdout);
    let (mean, throughput) = (four["latency"]["mean_ms"].as_f64().unwrap(), four["throughput"].as_f64().unwrap());
    assert!(four["batch"] == 4 && (throughput - 4e3 / mean).abs() < 1e-6 * throughput);
    of(&["--root", "nosuch"]).fails(2, "--root nosuch is not a directory");
    let halves = dir.path().join("halves.onnx");
    for (number, name) in [(10, "half precision"), (4, "16 bits"), (12, "32 bits")] {
        fs::write(&halves, cast(number)).unwrap();
        let ran = run("nasbn", &[&["latency", "--onnx", text(&halves), "--json"][..], &short].concat());
        let report = json(&ran.ok().stdout);
        assert_eq!(report["inputs"][0]["dims"], serde_json::json!([1, 3, 4, 4]), "{name}");
    }
    // Names that records of other things begin with, and one of them whole.
    for name in ["energy of run.onnx", "throttled rounds"] {
        fs::copy(&model, dir.path().join(name)).unwrap();
        let mut command = Command::new(program("nasbn"));
        command.current_dir(dir.path()).args(["latency", "--onnx", name, "--json", "--export-times", "t.json"]);
        let report = json(&nasbn_tests::run_command(command.args(short)).ok().stdout);
        assert_eq!(report["throttled_rounds"], 0);
        let times = json(&fs::read_to_string(dir.path().join("t.json")).unwrap());
        assert_eq!(times["times"][name].as_array().unwrap().len() as u64, report["latency"]["runs"].as_u64().unwrap());
    }
    let missing = dir.path().join("none.onnx");
    run("nasbn", &["latency", "--onnx", text(&missing)]).fails(2, "No such file");
    let broken = dir.path().join("broken.onnx");
    fs::write(&broken, b"not a model").unwrap();
    run("nasbn", &["latency", "--onnx", text(&broken)]).fails(2, "broken.onnx");
}

/// Tenths of a millisecond of a layer's operators: layers of equal shapes, which may change places, have equal ones.
const TENTHS: [u32; 8] = [0, 1, 2, 3, 3, 4, 5, 5];

/// Latencies of blocks as they might come from elsewhere.
fn blocks(base: &str) -> String {
    let mut text = format!("layer,operator,latency_ms\nbase,,{base}\n");
    for (layer, tenth) in TENTHS.iter().enumerate() {
        text += &format!("{layer},identity,0\n{layer},mb3k3,0.{tenth}1\n{layer},mb6k5,0.{tenth}5\n");
    }
    text
}

#[test]
fn latencies_of_elsewhere_are_taken_in_and_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let [csv, networks, out] = ["blocks.csv", "networks.csv", "t"].map(|name| dir.path().join(name));
    fs::write(&csv, blocks("1.5")).unwrap();
    // Networks there take twice as long as their blocks.
    let mut text_of_networks = "path,latency_ms\n".to_owned();
    for number in 0..60u32 {
        let path: String = (0..8).map(|layer| char::from(b'0' + (number * 109 / 3u32.pow(layer) % 3) as u8)).collect();
        let ms: f64 = path
            .chars()
            .enumerate()
            .map(|(l, c)| match c {
                '1' => f64::from(TENTHS[l]) / 10.0 + 0.01,
                '2' => f64::from(TENTHS[l]) / 10.0 + 0.05,
                _ => 0.0,
            })
            .sum::<f64>()
            + 1.5;
        text_of_networks += &format!("{path},{}\n", 2.0 * ms);
    }
    fs::write(&networks, &text_of_networks).unwrap();
    let import =
        ["--import", text(&csv), "--import-networks", text(&networks), "--networks", "20", "--device", "a board"];
    let summary = json(&latency(&out, &[&import[..], &["--json"]].concat()).ok().stdout);
    assert_eq!(summary["conditions"]["device"], "a board");
    assert!((summary["error_of_sums"]["mape"].as_f64().unwrap() - 0.5).abs() < 1e-6, "{summary}");
    assert!(summary["error"]["mape"].as_f64().unwrap() < 1e-6, "{summary}");
    assert_eq!(summary["networks_in_fit"], 20);
    // They are in the table: with what was measured, and what is predicted.
    let exported = dir.path().join("export.json");
    latency(&out, &[&import[..], &["--export", text(&exported)]].concat()).ok();
    let whole = json(&fs::read_to_string(&exported).unwrap());
    let listed = whole["networks"].as_array().unwrap();
    assert_eq!(listed.len(), 60);
    assert!(listed.iter().enumerate().all(|(i, network)| network["in_fit"] == (i < 20)));
    for network in listed {
        let measured = network["timing"]["median_ms"].as_f64().unwrap();
        assert!((network["predicted_ms"].as_f64().unwrap() / measured - 1.0).abs() < 1e-6, "{network}");
        // Canonical, it has the same operators as in its line.
        let sorted = |path: &str| {
            let mut letters: Vec<char> = path.chars().collect();
            letters.sort_unstable();
            letters
        };
        let operators = sorted(network["path"].as_str().unwrap());
        let same = |line: &str| line.split_once(',').is_some_and(|(path, _)| sorted(path) == operators);
        assert!(text_of_networks.lines().any(same), "{network}");
    }
    let alone = ["--import", text(&csv), "--json"];
    assert!(json(&latency(&out, &alone).ok().stdout)["error"].is_null());
    for (contents, words) in [
        (blocks("x"), "line 2: `x` is no latency"),
        (blocks("1").replace("mb3k3", "mb3k4"), "line 4: `mb3k4` is no operator of layer 0"),
        (blocks("1").lines().take(9).collect::<Vec<_>>().join("\n"), "of the space's operators are missing"),
        ("a,b\n1,2\n".to_owned(), "no column `layer`"),
        (blocks("0").replace("identity,0", "identity,-1"), "more than 0 is possible"),
        (String::new(), "empty"),
    ] {
        fs::write(&csv, contents).unwrap();
        latency(&out, &["--import", text(&csv)]).fails(2, words);
    }
    assert!(LatencyTable::read(&out).is_ok(), "a failed import leaves the table alone");
}

#[test]
fn what_is_asked_for_must_be_possible() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t");
    for (more, words) in [
        (&["--min-time", "5"][..], "with its unit"),
        (&["--min-time=-1ms"], "--min-time"),
        (&["--warm-up", "2h"], "with its unit"),
        (&["--batch", "0"], "--batch"),
        (&["--min-runs", "0"], "--min-runs"),
        (&["--min-runs", "2000000000"], "--min-runs"),
        (&["--onnx", "x.onnx"], "cannot be used with"),
        (&["--shape", "image=1xx3"], "--shape"),
        (&["--device", "x"], "--import"),
    ] {
        let ran = latency(&out, more);
        assert_eq!(ran.status, Some(2), "{more:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{more:?}: {}", ran.stderr);
    }
    latency(&out, &["--resume"]).fails(2, "nothing to go on from");
    latency(&out, &["--export", text(&dir.path().join("t.partial"))]).fails(2, "same file");
    latency(&small_bundle().join("manifest.postcard"), &[]).fails(2, "bundle");
    latency(&small_bundle().join("t"), &[]).fails(2, "inside the bundle");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    latency(&dir.path().join("no/such/t"), &SHORT).fails(2, "");
    run("nasbn", &["latency", "--bundle", text(small_bundle())]).status.filter(|&s| s == 2).unwrap();
    run("nasbn", &["latency"]).status.filter(|&s| s == 2).unwrap();
}

#[test]
fn a_board_that_throttles_is_not_measured() {
    // A processor that counts one more throttling whenever it is asked: a file that something else writes to.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let counter = root.join("sys/devices/system/cpu/cpu0/thermal_throttle");
    fs::create_dir_all(&counter).unwrap();
    let file = counter.join("core_throttle_count");
    fs::write(&file, "0\n").unwrap();
    let out = dir.path().join("t");
    let mut command = Command::new(program("nasbn"));
    command.args([
        "latency",
        "--bundle",
        text(small_bundle()),
        "--out",
        text(&out),
        "--threads",
        "1",
        "--root",
        text(&root),
    ]);
    command.args(["--warm-up", "1ms", "--min-time", "200ms", "--networks", "0", "--check", "0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Counts up until a round was thrown away for it, then lets it go on.
    let (told, lines) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let reader =
        spawn(move || stderr.lines().map_while(Result::ok).filter(|line| told.send(line.clone()).is_ok()).count());
    let mut count = 0u64;
    let mut noticed = false;
    while !noticed && child.try_wait().unwrap().is_none() {
        count += 1;
        fs::write(&file, format!("{count}\n")).unwrap();
        sleep(Duration::from_millis(10));
        noticed = lines.try_iter().any(|line| line.contains("a round is measured again"));
    }
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    assert!(noticed, "nothing was said of {count} events");
    let table = LatencyTable::read(&out).unwrap();
    assert!(table.throttled_rounds > 0, "no round was thrown away");
    assert!(table.blocks.iter().all(|block| block.timing.runs >= 10));
}

#[test]
fn a_full_disk_stops_it_with_what_it_had() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The table itself cannot be written to a device that is always full.
    let mut command = Command::new(program("nasbn"));
    command.args(["latency", "--bundle", text(small_bundle()), "--threads", "1"]).args(SHORT);
    command.args(["--out", text(&dir.path().join("t")), "--export-times", "/dev/full"]);
    let ran = run_command(&mut command).fails(4, "/dev/full");
    assert!(ran.stderr.contains("go on with the same command and --resume"), "{}", ran.stderr);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["t.partial"], "the times are still there to go on from");
}

#[test]
fn the_correction_holds_on_networks_of_a_real_board() {
    let Some(from) = shared_data("hw-nas-bench") else { return };
    let dir = tempfile::tempdir().unwrap();
    let [bundle, files, out] = ["bundle", "files", "t"].map(|name| dir.path().join(name));
    export(&bundle, &["--space", "fbnet", "--width", "0.1"]);
    run("xtask", &["hw-nas-bench", text(&from), text(&files)]).ok();
    // Blocks of a telephone, whole networks of a Titan RTX at batch 1: what was measured when this was written, and room.
    let blocks = files.join("blocks-pixel3.csv");
    let import = ["--import", text(&blocks), "--networks", "100", "--json"];
    let networks = files.join("networks-titan_rtx_b1.csv");
    let arguments = ["latency", "--bundle", text(&bundle), "--out", text(&out), "--import-networks", text(&networks)];
    let summary = json(&run("nasbn", &[&arguments[..], &import].concat()).ok().stdout);
    assert_eq!(summary["error"]["networks"], 1400);
    let [sums, corrected] = ["error_of_sums", "error"].map(|key| summary[key]["mape"].as_f64().unwrap());
    assert!(sums > 0.5 && corrected < 0.02, "{summary}");
    assert!(summary["error"]["kendall_tau"].as_f64().unwrap() > 0.85, "{summary}");
}

#[test]
fn a_missing_directory_of_temporary_files_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let without = |more: &[&str]| {
        let mut command = Command::new(program("nasbn"));
        run_command(command.env("TMPDIR", dir.path().join("none")).args(["latency", "--threads", "1"]).args(more))
    };
    let out = dir.path().join("t");
    let table = ["--bundle", text(small_bundle()), "--out", text(&out)];
    let said = without(&[&table[..], &SHORT].concat()).ok().stderr;
    assert!(said.contains("warning: where nodes ran is not known") && said.contains("hint: check that"), "{said}");
    assert!(said.contains("TMPDIR"), "{said}");
    let model = small_bundle().join("manifest.postcard");
    let said = without(&["--onnx", text(&model)]).fails(2, "no temporary files").stderr;
    assert!(said.contains("TMPDIR"), "{said}");
}
