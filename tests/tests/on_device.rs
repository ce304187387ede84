//! `nasbn search --latency`: a network within a budget as measured here.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::Duration,
};

use nasbn_runtime::latency::LatencyTable;
use nasbn_tests::{Ran, export, program, run, run_short_of_room, text};
use serde_json::Value;
use tempfile::TempDir;

/// A small bundle and its latency table on one thread of this machine.
fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    let dir = PLACE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, table) = (dir.path().join("bundle"), dir.path().join("here.latency"));
        let space = ["--space", "nas-bench-macro", "--image-size", "16", "--width", "0.25", "--classes", "10"];
        export(&bundle, &space);
        let short = ["--warm-up", "1ms", "--min-time", "10ms", "--networks", "24", "--check", "8", "--quiet"];
        let arguments = ["latency", "--bundle", text(&bundle), "--out", text(&table), "--threads", "1"];
        run("nasbn", &[&arguments[..], &short].concat()).ok();
        dir
    });
    dir.path()
}

fn table() -> LatencyTable {
    LatencyTable::read(&place().join("here.latency")).unwrap()
}

/// A budget in the middle of what networks take.
fn budget() -> String {
    let mut ms: Vec<f64> = table().networks.iter().map(|network| network.timing.median_ms).collect();
    ms.sort_by(f64::total_cmp);
    format!("{:.4}ms", 1.2 * ms[ms.len() / 2])
}

/// Few and short measurements, and few reference paths.
const SHORT: [&str; 8] =
    ["--finalists", "4", "--min-time", "10ms", "--validation-images", "64", "--reference-paths", "8"];

fn arguments(out: &Path, more: &[&str]) -> Vec<String> {
    let (bundle, table) = (place().join("bundle"), place().join("here.latency"));
    let common = ["search", "--bundle", text(&bundle), "--out", text(out)];
    let data: &[&str] = if more.contains(&"--data") { &[] } else { &["--data", "digits"] };
    let given: &[&str] = if more.contains(&"--latency") { &[] } else { &["--latency", text(&table)] };
    let threads: &[&str] = if more.contains(&"--threads") { &[] } else { &["--threads", "1"] };
    let limit = budget();
    let limit: &[&str] = if more.iter().any(|m| m.starts_with("--budget")) { &[] } else { &["--budget", &limit] };
    [&common[..], &SHORT, data, given, threads, limit, more].concat().into_iter().map(str::to_owned).collect()
}

fn search(out: &Path, more: &[&str]) -> Ran {
    run("nasbn", &arguments(out, more).iter().map(String::as_str).collect::<Vec<_>>())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn result(out: &Path) -> Value {
    json(&fs::read_to_string(out.join("result.json")).unwrap())
}

#[test]
fn the_winner_keeps_the_budget_as_measured_and_is_the_best_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let said = json(&search(&out, &["--json", "--quiet"]).ok().stdout);
    let found = result(&out);
    assert_eq!(said["winner"]["path"], found["winner"]["path"]);
    assert_eq!(found["objective"], "composite");
    let limit = found["limits"]["latency_ms"].as_f64().unwrap();
    let networks = |key: &str| found[key].as_array().unwrap().clone();
    let (finalists, random) = (networks("finalists"), networks("random"));
    assert_eq!(finalists.len(), random.len());
    let number = |network: &Value, key: &str| network[key].as_f64().unwrap();
    let measured = |network: &Value| network["latency"]["median_ms"].as_f64().unwrap();
    assert!(measured(&found["winner"]) <= limit);
    let within: Vec<&Value> = finalists.iter().chain(&random).filter(|n| measured(n) <= limit).collect();
    let best = within.iter().map(|n| number(n, "score")).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(number(&found["winner"], "score"), best);
    assert!(finalists.iter().chain(&random).all(|n| n["within_budget"] == (measured(n) <= limit)));
    assert!(found["table"]["placement"].as_array().unwrap().iter().any(|p| p["provider"] == "cpu"));
    // Composite, and what it is made of; the winner as blocks; shares that are shares.
    assert_eq!(found["parts"].as_array().unwrap().len(), 3);
    let blocks = networks("blocks");
    assert_eq!(blocks.iter().map(|b| b["macs"].as_u64().unwrap()).sum::<u64>(), found["winner"]["macs"]);
    for layer in networks("operators") {
        let sum: f64 = layer["shares"].as_array().unwrap().iter().map(|s| s[1].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{layer}");
    }
    // Predictions are the table's.
    let table = table();
    let supernet = nasbn_export::bundle::Bundle::open(&place().join("bundle")).unwrap().manifest().supernet.clone();
    for network in finalists.iter().chain(&random) {
        let path = supernet.parse_path(network["path"].as_str().unwrap()).unwrap();
        assert!((table.latency(&path) - number(network, "predicted_ms")).abs() < 1e-9);
    }
    // The table of all that were measured.
    let csv = fs::read_to_string(out.join("pareto.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), finalists.len() + random.len());
    let of = |row: &[&str], column: usize| row[column].parse::<f64>().unwrap();
    for row in &rows {
        let beaten = rows.iter().any(|other| {
            let (score, ms) = (of(other, 4) - of(row, 4), of(row, 6) - of(other, 6));
            score >= 0.0 && ms >= 0.0 && (score > 0.0 || ms > 0.0)
        });
        assert_eq!(row[3], (!beaten).to_string(), "{row:?}");
    }
    let left: HashSet<String> =
        fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let files: HashSet<String> = networks("files").iter().map(|f| f.as_str().unwrap().to_owned()).collect();
    assert_eq!(left, files, "what is written is what is said, and no journal stays");
    assert!(files.contains("winner.onnx") && files.contains("pareto.csv") && files.contains("result.json"));
}

#[test]
fn an_impossible_budget_ends_with_the_fastest_network_and_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let ran = search(&out, &["--budget", "1us", "--objective", "relu-units", "--json"]);
    let said = json(&ran.stdout);
    assert_eq!(said["feasible"], false);
    let fastest = said["fastest_ms"].as_f64().unwrap();
    assert!((said["gap_ms"].as_f64().unwrap() - (fastest - 0.001)).abs() < 1e-9);
    assert!(said["memory"].is_null(), "{said}");
    ran.fails(1, "no network keeps the latency budget of 0.001 ms: the fastest measured, ");
    assert!(!out.exists());
    // What became of a memory budget is told here, too.
    let more = ["--budget", "1us", "--objective", "relu-units", "--memory-budget", "8GiB", "--json"];
    let said = json(&search(&out, &more).stdout);
    assert_eq!(
        (&said["memory"]["budget"], &said["memory"]["exceeded"]),
        (&(8_u64 << 30).into(), &false.into()),
        "{said}"
    );
    assert!(!out.exists());
    // Too low by little: what is nearest by prediction is measured all the same, and it is that which counts.
    let ran = search(&out, &["--objective", "relu-units", "--max-macs", "10"]);
    ran.fails(1, "--max-macs: ").stderr.find("10 at most").unwrap();
    assert!(!out.exists());
}

#[test]
fn who_does_not_listen_finds_no_search_to_go_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let full = fs::File::create("/dev/full").unwrap();
    let mut command = Command::new(program("nasbn"));
    command.args(arguments(&out, &["--objective", "relu-units"])).stdout(full).stderr(Stdio::null());
    assert_eq!(command.status().unwrap().code(), Some(2));
    assert!(out.join("result.json").exists());
    let left = |file: &str| out.join(file).exists();
    assert!(!left("search.jsonl.partial") && !left("latency.jsonl.partial"));
    let bundle = place().join("bundle");
    search(&bundle, &["--objective", "relu-units"]).fails(2, "inside the bundle");
}

#[test]
fn limits_and_lists_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (out, list) = (dir.path().join("found"), dir.path().join("list.csv"));
    fs::write(&list, "path\n01201201\n11111111\n00000001\n22000000\n").unwrap();
    let more = ["--objective", "relu-units", "--paths", text(&list), "--budget", "1s", "--quiet"];
    search(&out, &more).ok();
    let found = result(&out);
    assert_eq!(found["method"], "list");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("looked at every network of the given list, and at no other"), "{page}");
    // Of these, 11111111 has the most ReLU units.
    assert_eq!(found["winner"]["path"], "11111111");
    let macs = found["winner"]["macs"].as_u64().unwrap() - 1;
    search(&out, &[&more[..], &["--max-macs", &macs.to_string()]].concat()).ok();
    let found = result(&out);
    assert_ne!(found["winner"]["path"], "11111111");
    let measured = found["finalists"].as_array().unwrap().iter().chain(found["random"].as_array().unwrap());
    assert!(measured.into_iter().all(|n| n["macs"].as_u64().unwrap() <= macs));
    search(&out, &["--energy-budget", "5mJ"]).fails(2, "has no energies");
}

#[test]
fn a_table_of_other_conditions_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let cheap = ["--objective", "relu-units", "--quiet"];
    search(&out, &[&["--threads", "2"], &cheap[..]].concat()).fails(2, "threads was 1, is 2");
    search(&out, &[&["--threads", "2", "--force"], &cheap[..]].concat()).ok();
    let mut other = table();
    other.conditions.device = "another board".into();
    other.conditions.bundle = "00".repeat(32);
    let file = dir.path().join("other.latency");
    other.write(&file).unwrap();
    let refused = search(&out, &[&["--latency", text(&file)], &cheap[..]].concat());
    assert!(refused.stderr.contains("bundle was 000000000000"), "{}", refused.stderr);
    refused.fails(2, "device was another board");
    other.conditions.space = "mobilenet".into();
    other.write(&file).unwrap();
    search(&out, &[&["--latency", text(&file), "--force"], &cheap[..]].concat()).fails(2, "of the space `mobilenet`");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    search(&out, &["--latency", text(&file)]).fails(2, "damaged");
    fs::write(&file, b"path,latency\n").unwrap();
    search(&out, &["--latency", text(&file)]).fails(2, "no latency table");
    let missing = search(&out, &["--latency", text(&dir.path().join("none"))]).fails(2, "none");
    assert!(missing.stderr.contains("nasbn latency --bundle"), "{}", missing.stderr);
}

#[test]
fn budgets_must_be_times() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    for limit in ["0ms", "-3ms", "8", "8 parsecs", "nanms", "1e9s", ""] {
        let ran = search(&out, &[&format!("--budget={limit}")]);
        assert_eq!(ran.status, Some(2), "{limit}: {}", ran.stderr);
        assert!(ran.stderr.contains("with its unit"), "{limit}: {}", ran.stderr);
    }
    assert!(!out.exists());
    let dry = json(&search(&out, &["--dry-run", "--json"]).ok().stdout);
    let reference = (dry["reference_paths"].as_u64(), dry["reference_draws"].as_u64());
    assert_eq!((reference, dry["measured"].as_u64()), ((Some(8), Some(3)), Some(8)));
    assert_eq!(dry["looked_at_at_most"], 3969.0);
    let said = search(&out, &["--dry-run"]).ok().stdout;
    for words in
        ["on 8 reference paths in 3 draws", "4 finalists", "80 ms of latency at least", "up to 32 networks in all"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    search(&out, &["--dry-run", "--data", "images:/nowhere"]).fails(2, "/nowhere");
    assert!(dry["gap_ms"].is_null() && dry["fastest_predicted_ms"].as_f64().unwrap() > 0.0);
    assert!(!out.exists(), "a dry run writes nothing");
}

#[test]
fn a_dry_run_tells_that_a_budget_is_impossible_as_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let table = table();
    let supernet = nasbn_export::bundle::Bundle::open(&place().join("bundle")).unwrap().manifest().supernet.clone();
    // Every path, equal networks among them: the canonical one of the least is what a search would look at.
    let least = supernet.paths().map(|path| table.latency(&path)).fold(f64::INFINITY, f64::min);
    let dry = json(&search(&out, &["--dry-run", "--json", "--budget", "0.1us"]).ok().stdout);
    let fastest = dry["fastest_predicted_ms"].as_f64().unwrap();
    let path = supernet.parse_path(dry["fastest"].as_str().unwrap()).unwrap();
    assert!((table.latency(&path) - fastest).abs() < 1e-9 && (fastest - least).abs() < 1e-9, "{fastest} {least}");
    assert!((dry["gap_ms"].as_f64().unwrap() - (fastest - 1e-4)).abs() < 1e-9, "{dry}");
    let said = search(&out, &["--dry-run", "--budget", "0.1us"]).ok().stdout;
    let words =
        format!("impossible as predicted: the fastest network, {}, would take", dry["fastest"].as_str().unwrap());
    assert!(said.contains(&words), "{said}");
    // Among given networks, the fastest of these.
    let list = dir.path().join("list");
    fs::write(&list, "22222222\n22222221\n").unwrap();
    let dry = json(&search(&out, &["--dry-run", "--json", "--paths", text(&list)]).ok().stdout);
    let of = |path: &str| table.latency(&supernet.parse_path(path).unwrap());
    let fastest = dry["fastest_predicted_ms"].as_f64().unwrap();
    assert!((fastest - of("22222222").min(of("22222221"))).abs() < 1e-9, "{dry}");
}

#[test]
fn a_dry_run_judges_all_limits() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let table = table();
    let supernet = nasbn_export::bundle::Bundle::open(&place().join("bundle")).unwrap().manifest().supernet.clone();
    let costs = nasbn_models::cost::CostTable::new(&supernet);
    let impossible = ["--dry-run", "--budget", "8ms", "--max-macs", "1"];
    let dry = json(&search(&out, &[&impossible[..], &["--json"]].concat()).ok().stdout);
    assert!(dry["fastest"].is_null() && dry["gap_ms"].is_null(), "{dry}");
    let nearest = costs.cost(&supernet.parse_path(dry["nearest"].as_str().unwrap()).unwrap());
    let fewest = supernet.paths().map(|path| costs.cost(&path).macs).min().unwrap();
    assert_eq!(nearest.macs, fewest);
    assert_eq!(dry["over"], serde_json::json!([format!("--max-macs: {fewest} MACs, 1 at most")]));
    assert_eq!(dry["not_looked_at"], serde_json::json!([]));
    let said = search(&out, &impossible).ok().stdout;
    assert!(said.contains("limits        impossible: of the nearest network, "), "{said}");
    assert!(said.contains(&format!("--max-macs: {fewest} MACs, 1 at most")) && !said.contains("budget  "), "{said}");
    // Limits that some networks keep: the fastest of these, which is none of those that they cut off.
    let (macs, params) = (2 * fewest, costs.cost(&supernet.parse_path("22222222").unwrap()).params / 2);
    let limits = [("--max-macs", macs.to_string()), ("--max-params", params.to_string())];
    let more: Vec<&str> = limits.iter().flat_map(|(option, value)| [*option, value.as_str()]).collect();
    let dry = json(&search(&out, &[&["--dry-run", "--json"], &more[..]].concat()).ok().stdout);
    let is_within = |path: &nasbn_models::Path| {
        let cost = costs.cost(path);
        cost.macs <= macs && cost.params <= params
    };
    let least = supernet.paths().filter(is_within).map(|path| table.latency(&path)).fold(f64::INFINITY, f64::min);
    assert!(is_within(&supernet.parse_path(dry["fastest"].as_str().unwrap()).unwrap()), "{dry}");
    assert!((dry["fastest_predicted_ms"].as_f64().unwrap() - least).abs() < 1e-9, "{dry}: {least}");
    let said = search(&out, &[&["--dry-run"], &more[..]].concat()).ok().stdout;
    assert!(said.contains("the fastest network within the other limits, "), "{said}");
    assert!(!out.exists(), "a dry run writes nothing");
}

#[test]
fn a_loss_is_shown_as_itself() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let more = ["--objective", "loss", "--evaluations", "4", "--population", "2", "--budget", "1s"];
    let said = search(&out, &more).ok().stdout;
    let found = result(&out);
    let score = found["winner"]["score"].as_f64().unwrap();
    assert_eq!((&found["objective"], &found["direction"]), (&"loss".into(), &"lower".into()));
    let least = ["finalists", "random"].iter().flat_map(|list| found[*list].as_array().unwrap());
    let least = least.map(|network| network["score"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    assert!(score > 0.0 && score == least, "{score} {least}");
    assert!(said.contains(&format!("loss {score:.4} (lower is better)")), "{said}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("loss, lower is better") && page.contains("Further down and to the left is better"));
    // Of two networks that are as fast, the one of less loss is on the front: the winner is.
    let csv = fs::read_to_string(out.join("pareto.csv")).unwrap();
    let winner = csv.lines().find(|line| line.starts_with(found["winner"]["path"].as_str().unwrap())).unwrap();
    assert_eq!(winner.split(',').nth(3), Some("true"), "{winner}");
}

#[test]
fn a_disk_that_was_full_for_a_while_costs_only_what_did_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let scores = out.join("search.jsonl.partial");
    let loose = ["--budget", "1s"];
    // No file may be larger than 6 KiB: the composite does not fit into the journal, the scores after it do, and what
    // is written at the end does not.
    let arguments = arguments(&out, &loose);
    let ran = run_short_of_room(6 << 10, "nasbn", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_ne!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("the composite is not on file"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint:") && !out.join("result.json").exists(), "{}", ran.stderr);
    let kept = fs::read_to_string(&scores).unwrap();
    assert!(kept.lines().count() > 1, "{kept}");
    assert!(kept.ends_with('\n') && kept.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{kept}");
    search(&out, &[&loose[..], &["--resume"]].concat()).ok();
    assert!(!scores.exists() && out.join("winner.onnx").exists());
}

#[test]
fn a_search_that_is_stopped_anywhere_goes_on_with_what_it_has_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let (scores, times) = (out.join("search.jsonl.partial"), out.join("latency.jsonl.partial"));
    let lines = |file: &PathBuf| fs::read_to_string(file).map_or(0, |text| text.lines().count());
    // So wide that what is timed, which no two runs do alike, decides nothing.
    let loose = ["--budget", "1s", "--quiet"];
    let mut kept = Vec::new();
    // Killed once there is the composite, once there are scores, and once there are times.
    for (file, wanted) in [(&scores, 2), (&scores, 4), (&times, 6)] {
        let resume: &[&str] = if scores.exists() { &["--resume"] } else { &[] };
        let mut child = Command::new(program("nasbn"))
            .args(arguments(&out, &[resume, &loose].concat()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while lines(file) < wanted && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!out.join("result.json").exists());
        let text = fs::read_to_string(&scores).unwrap();
        kept = text.lines().skip(2).filter_map(|line| serde_json::from_str::<(String, String)>(line).ok()).collect();
    }
    // Cut in the middle of a line.
    let text = fs::read(&times).unwrap();
    fs::write(&times, &text[..text.len() - 2]).unwrap();
    let mut timed: HashMap<String, u64> = HashMap::new();
    // The torn line does not count.
    let text = String::from_utf8(text).unwrap();
    let (whole, _) = text.trim_end().rsplit_once('\n').unwrap();
    for line in whole.lines().skip(1) {
        let (name, times): (String, String) = serde_json::from_str(line).unwrap();
        *timed.entry(name.trim_start_matches("network ").to_owned()).or_default() += times.split(' ').count() as u64;
    }
    search(&out, &loose).fails(2, "an earlier run was stopped");
    search(&out, &[&loose[..], &["--resume", "--seed", "5"]].concat()).fails(2, "seed");
    search(&out, &[&loose[..], &["--resume"]].concat()).ok();
    let found = result(&out);
    assert!(!scores.exists() && !times.exists() && !kept.is_empty());
    let all = [&found["finalists"], &found["random"]].map(|list| list.as_array().unwrap().clone()).concat();
    for (path, score) in kept {
        let network = all.iter().find(|network| network["path"] == *path).unwrap();
        // As JSON is read, to the last digit but one.
        let (now, then) = (network["score"].as_f64().unwrap(), score.parse::<f64>().unwrap());
        assert!((now - then).abs() <= 1e-12 * then.abs(), "{path}: {now} {then}");
    }
    // The same search in one go takes the same networks into its last step, with the same scores.
    let whole = dir.path().join("whole");
    search(&whole, &loose).ok();
    let names = |found: &Value, list: &str| -> Vec<(Value, Value)> {
        let of = |network: &Value| (network["path"].clone(), network["score"].clone());
        found[list].as_array().unwrap().iter().map(of).collect()
    };
    let names = |found: &Value| (names(found, "finalists"), names(found, "random"), found["front"].clone());
    assert_eq!(names(&found), names(&result(&whole)));
    // What was timed before the last kill is not timed again: it begins the times that there are now.
    assert!(timed.len() > 3);
    for (path, least) in timed {
        let network = all.iter().find(|network| network["path"] == *path).unwrap();
        assert!(network["latency"]["runs"].as_u64().unwrap() >= least, "{path}");
    }
}
