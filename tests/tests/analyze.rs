//! `nasbn analyze` through the public commands.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nasbn_tests::{Ran, export, program, run, text};
use serde_json::Value;
use tempfile::TempDir;

/// Sums of shares in another order.
const ROUNDING: f64 = 1e-12;
/// A difference of squares of order one, in f64.
const CANCELLED: f64 = 1e-9;
const SPACE: [&str; 6] = ["--space", "nas-bench-macro", "--image-size", "8", "--classes", "10"];

/// Small bundles that all tests read, by name.
fn bundle(name: &str) -> PathBuf {
    static BUNDLES: OnceLock<TempDir> = OnceLock::new();
    let dir = BUNDLES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        for (name, more) in [
            ("fair", &["--width", "0.25"][..]),
            ("biased", &["--width", "0.25", "--bn", "convolution"]),
            ("wider", &["--width", "0.5"]),
            ("wider-biased", &["--width", "0.5", "--bn", "convolution"]),
            ("other-seed", &["--width", "0.25", "--seed", "1"]),
            ("other-seed-biased", &["--width", "0.25", "--seed", "1", "--bn", "convolution"]),
        ] {
            export(&dir.path().join(name), &[&SPACE[..], more].concat());
        }
        export(&dir.path().join("larger"), &["--space", "nas-bench-macro", "--width", "0.25", "--image-size", "12"]);
        dir
    });
    dir.path().join(name)
}

fn analyze(what: &str, bundles: &[&str], out: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = ["analyze", what, "--data", "digits", "--threads", "1"].map(Into::into).into();
    for name in bundles {
        arguments.extend(["--bundle".to_owned(), text(&bundle(name)).to_owned()]);
    }
    arguments.extend(["--out".to_owned(), text(out).to_owned()]);
    arguments.extend(more.iter().map(|&a| a.to_owned()));
    arguments
}

fn ran(arguments: &[String]) -> Ran {
    run("nasbn", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn bias(bundles: &[&str], out: &Path, more: &[&str]) -> Ran {
    ran(&analyze("operator-bias", bundles, out, more))
}

fn drift(bundles: &[&str], out: &Path, more: &[&str]) -> Ran {
    ran(&analyze("ntk-drift", bundles, out, more))
}

const BOTH: [&str; 2] = ["fair", "biased"];
const SHORT: [&str; 6] = ["--epochs", "1", "--seeds", "2", "--random", "100"];

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn operator_bias_shows_what_a_missing_batch_norm_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bias");
    let more = [&SHORT[..], &["--json"]].concat();
    let first = bias(&BOTH, &out, &more).ok();
    let report = json(&first);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(out.join("result.json")).unwrap()).unwrap(), report);
    let wanted = ["checkpoints", "operator-bias.csv", "operator-bias.svg", "result.json"];
    assert_eq!(names(&out), wanted.map(String::from).into());
    let placements: Vec<&str> =
        report["placements"].as_array().unwrap().iter().map(|p| p["placement"].as_str().unwrap()).collect();
    assert_eq!(placements, ["convolution", "every-operator"]);
    let shares = report["shares"].as_array().unwrap();
    let of = |indicator: &str, placement: &str, operator: &str| {
        let is = |s: &&Value| s["indicator"] == indicator && s["placement"] == placement && s["operator"] == operator;
        shares.iter().find(is).unwrap()
    };
    for part in ["all", "top", "found"] {
        for indicator in ["bn_last", "bn_all"] {
            for placement in &placements {
                let sum: f64 = ["identity", "mb3k3", "mb6k5"]
                    .map(|operator| of(indicator, placement, operator)[part]["mean"].as_f64().unwrap())
                    .iter()
                    .sum();
                assert!((sum - 1.0).abs() < ROUNDING, "{part} {indicator} {placement}: {sum}");
            }
        }
    }
    let identity =
        |indicator, placement, part: &str| of(indicator, placement, "identity")[part]["mean"].as_f64().unwrap();
    for indicator in ["bn_last", "bn_all"] {
        // Without a BatchNorm an identity counts 0 in five of eight layers: a search takes none there, and the top has few.
        assert!(identity(indicator, "convolution", "found") <= 3.0 / 8.0);
        assert!(identity(indicator, "convolution", "top") < identity(indicator, "convolution", "all"));
    }
    assert!(identity("bn_last", "every-operator", "top") > identity("bn_last", "convolution", "top"));
    assert_eq!(of("bn_last", "convolution", "identity")["batch_norms"], 3.0 / 8.0);
    assert_eq!(of("bn_last", "every-operator", "identity")["batch_norms"], 1.0);
    assert_eq!(of("bn_last", "convolution", "mb6k5")["top"]["values"].as_array().unwrap().len(), 2);
    let mut reader = csv::Reader::from_path(out.join("operator-bias.csv")).unwrap();
    let header: Vec<String> = reader.headers().unwrap().iter().map(Into::into).collect();
    assert_eq!(header, ["indicator", "placement", "seed", "operator", "batch_norms", "all", "top", "found"]);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2 * 2 * 2 * 3);
    for row in &rows {
        let seed: usize = row[2].parse().unwrap();
        for (i, part) in [(5, "all"), (6, "top"), (7, "found")] {
            assert_eq!(of(&row[0], &row[1], &row[3])[part]["values"][seed], row[i].parse::<f64>().unwrap());
        }
    }
    let svg = fs::read_to_string(out.join("operator-bias.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("identity · bn_last"));

    // The same again, in any order of bundles, from what was trained; a further seed is added to it.
    let before: BTreeMap<_, _> =
        ["operator-bias.csv", "operator-bias.svg"].map(|f| (f, fs::read(out.join(f)).unwrap())).into();
    let again = bias(&["biased", "fair"], &out, &more).ok();
    assert!(again.stderr.contains("convolution-seed0: trained before"), "{}", again.stderr);
    assert_eq!(again.stdout, first.stdout);
    assert!(before.iter().all(|(file, bytes)| fs::read(out.join(file)).unwrap() == *bytes));
    let quiet = bias(&BOTH, &out, &["--epochs", "1", "--random", "50", "--max-macs", "100k", "--quiet"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(names(&out.join("checkpoints")).len(), 6);
    // They are checkpoints of `nasbn adapt` like any other.
    let adapted = dir.path().join("adapted");
    let fair = bundle("fair");
    let arguments = ["adapt", "--bundle", text(&fair), "--data", "digits", "--threads", "1", "--quiet"];
    run("nasbn", &[&arguments[..], &["--epochs", "1", "--seed", "1", "--out", text(&adapted)]].concat()).ok();
    let parameters = |dir: &Path| names(dir).into_iter().find(|name| name.starts_with("parameters-")).unwrap();
    assert_eq!(parameters(&adapted), parameters(&out.join("checkpoints/every-operator-seed1")));
    // A search of the whole space finds no more than there is.
    let all = bias(&BOTH, &out, &["--epochs", "1", "--random", "50", "--found", "99999", "--json"]).ok();
    assert_eq!(json(&all)["found"], 3969);
    assert!(all.stderr.contains("--found 99999: a search has only 3969 different networks"), "{}", all.stderr);
    bias(&BOTH, &out, &["--epochs", "2", "--random", "50"]).fails(2, "made with other options");
    bias(&BOTH, &out, &["--epochs", "2", "--seeds", "1", "--random", "50", "--force"]).ok();
}

#[test]
fn operator_bias_goes_on_where_it_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let more = ["--epochs", "6", "--seeds", "1", "--random", "50"];
    bias(&BOTH, &whole, &more).ok();
    let arguments = analyze("operator-bias", &BOTH, &cut, &more);
    let mut child =
        Command::new(program("nasbn")).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !cut.join("checkpoints/convolution-seed0/checkpoint.postcard").exists() && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(names(&cut), ["checkpoints".to_owned()].into());
    ran(&arguments).ok();
    for file in ["operator-bias.csv", "operator-bias.svg"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(cut.join(file)).unwrap(), "{file} differs");
    }
}

#[test]
fn training_again_that_is_stopped_goes_on_with_the_same_command() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    let more = ["--epochs", "6", "--seeds", "2", "--random", "50"];
    bias(&BOTH, &whole, &more).ok();
    bias(&BOTH, &out, &SHORT).ok();
    let refused = bias(&BOTH, &out, &more).fails(2, "made with other options");
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    let arguments = analyze("operator-bias", &BOTH, &out, &[&more[..], &["--force"]].concat());
    let mut child =
        Command::new(program("nasbn")).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The last supernet's turn does not come before the program is stopped: it has gone with the first one's.
    let state = |name: &str| out.join("checkpoints").join(name).join("checkpoint.postcard");
    while state("every-operator-seed1").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    bias(&BOTH, &out, &more).ok();
    for file in ["operator-bias.csv", "operator-bias.svg"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(out.join(file)).unwrap(), "{file} differs");
    }
}

#[test]
fn bundles_that_do_not_compare_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (bundles, words) in [
        (&["fair"][..], "two bundles are compared, not 1"),
        (&["fair", "biased", "wider"], "not 3"),
        (&["fair", "fair"], "the same BatchNorm placement, every-operator"),
        (&["fair", "wider-biased"], "differ in more than BatchNorm placement: width"),
        (&["fair", "larger"], "differ in more than BatchNorm placement: image size"),
        (&["fair", "other-seed-biased"], "different weights"),
        (&["fair", "missing"], "missing"),
    ] {
        bias(bundles, &out, &SHORT).fails(2, words);
    }
    for (bundles, words) in [
        (&["fair", "fair"][..], "are the same bundle"),
        (&["fair", "biased"], "differ in more than width: BatchNorm placement"),
        (&["fair", "larger"], "differ in more than width: image size"),
        (&["missing"], "missing"),
    ] {
        drift(bundles, &out, &[]).fails(2, words);
    }
    assert!(!out.exists());
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for more in [["--seeds", "0"], ["--random", "0"], ["--found", "0"], ["--batch", "1"], ["--max-macs", "ten"]] {
        assert_eq!(bias(&BOTH, &out, &more).status, Some(2), "{more:?}");
    }
    for share in ["0", "1.5", "NaN", "-1"] {
        bias(&BOTH, &out, &[&format!("--top={share}")]).fails(2, "--top must be above 0 and at most 1");
    }
    bias(&BOTH, &out, &["--batch", "5000"]).fails(2, "1437");
    bias(&BOTH, &out, &["--rate=-1"]).fails(2, "--rate must be");
    bias(&BOTH, &out, &["--max-macs", "10"]).fails(1, "no network is within --max-macs");
    bias(&BOTH, &out, &["--top", "-1"]).fails(2, "--top must be above 0 and at most 1, not -1");
    bias(&BOTH, &out, &["--random", "1000", "--top", "0.0001"]).fails(2, "less than one path");
    drift(&["fair"], &out, &["--steps", "3", "--points", "5"]).fails(2, "--points 5 is more than --steps 3");
    let taken = dir.path().join("taken");
    fs::write(&taken, "kept").unwrap();
    for place in [taken.clone(), taken.join("below")] {
        drift(&["fair"], &place, &[]).fails(2, "taken is a file, a directory is wanted");
        bias(&BOTH, &place, &SHORT).fails(2, "taken is a file, a directory is wanted");
    }
    assert_eq!(fs::read(&taken).unwrap(), b"kept");
    let inside = bundle("fair").join("new/deeper");
    drift(&["fair"], &inside, &[]).fails(2, "is inside the bundle");
    bias(&BOTH, &inside, &SHORT).fails(2, "is inside the bundle");
    for more in [["--steps", "0"], ["--points", "0"], ["--batch", "1"], ["--random", "0"], ["--epochs", "1"]] {
        assert_eq!(drift(&["fair"], &out, &more).status, Some(2), "{more:?}");
    }
    drift(&["fair"], &out, &["--batch", "410"]).fails(2, "4100 logits");
    drift(&["fair"], &out, &["--rate", "0"]).fails(2, "--rate must be a finite number above 0");
    drift(&["fair"], &out, &["--path", "0121"]).fails(2, "4 layers instead of 8");
    drift(&["fair"], &out, &["--batch", "4", "--rate", "1e9"]).fails(2, "name a lower --rate");
    assert!(!out.exists());
    let few = dir.path().join("few");
    for class in 0..10 {
        let folder = few.join(format!("train/{class}"));
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(few.join(format!("val/{class}"))).unwrap();
        let image = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([(x * 30) as u8, (y * 30) as u8, class * 20]));
        image.save(folder.join("a.png")).unwrap();
        image.save(few.join(format!("val/{class}/a.png"))).unwrap();
    }
    let mut arguments = analyze("ntk-drift", &["fair"], &out, &["--batch", "16"]);
    arguments[3] = format!("images:{}", text(&few));
    ran(&arguments).fails(2, "10");
    assert!(!out.exists());
}

#[test]
fn ntk_drift_follows_kernels_width_by_width() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("drift");
    let more = ["--batch", "4", "--steps", "6", "--points", "3", "--random", "2", "--supernet", "--epochs", "1"];
    let more = [&more[..], &["--json"]].concat();
    let bundles = ["wider", "fair", "other-seed"];
    let first = drift(&bundles, &out, &more).ok();
    let report = json(&first);
    assert_eq!(report["placement"], "every-operator");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(out.join("result.json")).unwrap()).unwrap(), report);
    let files = ["ntk-drift.csv", "ntk-drift.svg", "ntk-loss.svg", "ntk-logits.svg", "ntk-drift-supernet.svg"];
    assert_eq!(names(&out), files.iter().chain(&["result.json"]).map(|&f| f.to_owned()).collect());
    let mut reader = csv::Reader::from_path(out.join("ntk-drift.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // Two paths of three bundles, trained alone and in the supernet, at the start and three times after it.
    assert_eq!(rows.len(), 2 * 3 * 2 * 4);
    let number = |row: &csv::StringRecord, name: &str| row[column(name)].parse::<f64>().unwrap();
    for row in &rows {
        let (step, alone) = (number(row, "step"), &row[column("training")] == "path");
        assert!(number(row, "loss").is_finite());
        let distance = number(row, "kernel_distance");
        assert_eq!(distance == 0.0, step == 0.0, "{row:?}");
        let (norm, cosine) = (number(row, "kernel_norm"), number(row, "kernel_cosine"));
        assert!((distance.powi(2) - (norm.powi(2) + 1.0 - 2.0 * norm * cosine)).abs() < CANCELLED, "{row:?}");
        assert!(norm > 0.0 && cosine > 0.0 && cosine < 1.0 + ROUNDING, "{row:?}");
        assert_eq!(row[column("linearised_loss")].is_empty(), !alone);
        assert_eq!(row[column("logit_distance")].is_empty(), !alone || step == 0.0);
    }
    let means = report["means"].as_array().unwrap();
    let of = |training: &str, width: f64| -> Vec<&Value> {
        means.iter().filter(|m| m["training"] == training && m["width"] == width).collect()
    };
    for (width, runs) in [(0.25, 4), (0.5, 2)] {
        let alone = of("path", width);
        assert_eq!(alone.iter().map(|m| m["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 2, 4, 6]);
        assert!(alone.iter().all(|m| m["runs"] == runs));
        assert!(alone[3]["loss"]["mean"].as_f64() < alone[0]["loss"]["mean"].as_f64());
        let last: Vec<f64> = rows
            .iter()
            .filter(|r| &r[column("training")] == "path" && number(r, "width") == width && number(r, "step") == 6.0)
            .map(|r| number(r, "kernel_distance"))
            .collect();
        let mean = last.iter().sum::<f64>() / f64::from(runs);
        assert!((alone[3]["kernel_distance"]["mean"].as_f64().unwrap() - mean).abs() < ROUNDING);
        assert_eq!(of("supernet", width).len(), 4);
    }
    for file in &files[1..] {
        let svg = fs::read_to_string(out.join(file)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("width 0.5"), "{file}");
    }
    assert_eq!(drift(&["other-seed", "wider", "fair"], &dir.path().join("again"), &more).ok().status, Some(0));
    let again = drift(&bundles, &out, &more).ok();
    assert_eq!(again.stdout, first.stdout);
    // A named path, whose canonical one is trained; statistics held.
    let more =
        ["--batch", "4", "--steps", "2", "--points", "2", "--statistics", "held", "--path", "22012001", "--json"];
    let report = json(&drift(&["fair"], &dir.path().join("one"), &more).ok());
    assert_eq!((report["runs"].as_array().unwrap().len(), report["means"].as_array().unwrap().len()), (1, 3));
    assert_eq!(report["runs"][0]["path"], "22012010");
    let table = drift(&["fair"], &dir.path().join("one"), &more[..8]).ok();
    assert!(table.stdout.contains("kernel distance") && table.stderr.starts_with("data: "), "{}", table.stdout);
    let quiet = drift(&["fair"], &dir.path().join("one"), &[&more[..8], &["--quiet"]].concat()).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn a_stopped_drift_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("drift");
    let more = ["--batch", "4", "--steps", "1000000", "--points", "1", "--random", "1"];
    let arguments = analyze("ntk-drift", &["fair"], &out, &more);
    let mut child = Command::new(program("nasbn")).args(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    // Before it says what the data are, signals are heeded.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("data: "), "{line}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut words = String::new();
    stderr.read_to_string(&mut words).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{words}");
    assert!(words.contains("nothing was written") && words.contains("hint:"), "{words}");
    assert!(!out.exists());
}
