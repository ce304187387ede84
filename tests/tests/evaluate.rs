//! `nasbn evaluate` through the public command.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use nasbn_tests::{Ran, export, run, shared_data, text};
use serde_json::Value;
use tempfile::TempDir;

/// Files of a small evaluation: thirty networks of three depths, `good` ranks them all but for two.
struct Files {
    dir: TempDir,
    scores: PathBuf,
    truth: PathBuf,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (scores, truth) = (dir.path().join("scores.csv"), dir.path().join("truth.csv"));
        let files = Self { dir, scores, truth };
        let (mut scores, mut truth) = (String::new(), String::new());
        scores.push_str("path,canonical,macs,params,depth,good,validation_loss,flat\n");
        truth.push_str("arch,acc,other\n");
        for i in 0..30 {
            let good = if i < 2 { 1 - i } else { i };
            let (macs, depth, loss) = (1000 + 7 * i, i / 10, 3.0 - 0.1 * f64::from(i));
            scores.push_str(&format!("{i:03},{i:03},{macs},{},{depth},{good},{loss},1\n", 100 - i));
            truth.push_str(&format!("{i:03},{},1\n", 50.0 + f64::from(i)));
        }
        files.write(&files.scores, &scores);
        files.write(&files.truth, &truth);
        files
    }

    fn write(&self, file: &Path, contents: &str) {
        fs::write(file, contents).unwrap();
    }

    fn change(&self, file: &Path, from: &str, to: &str) {
        let before = fs::read_to_string(file).unwrap();
        assert!(before.contains(from), "{from}");
        self.write(file, &before.replace(from, to));
    }

    fn run(&self, more: &[&str]) -> Ran {
        let arguments = ["evaluate", "--scores", text(&self.scores), "--truth", text(&self.truth)];
        run("nasbn", &[&arguments[..], &["--truth-column", "acc"], more].concat())
    }

    fn json(&self, more: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["--json"], more].concat()).ok().stdout).unwrap()
    }
}

fn column<'a>(result: &'a Value, name: &str) -> &'a Value {
    result["columns"].as_array().unwrap().iter().find(|c| c["column"] == name).unwrap()
}

#[test]
fn figures_are_those_that_can_be_reckoned_by_hand() {
    let files = Files::new();
    let result = files.json(&["--top", "1,2", "29", "1"]);
    assert_eq!(column(&result, "good")["top_k_regret"].as_array().unwrap().len(), 3);
    assert_eq!((&result["networks"], &result["confidence"]), (&30.into(), &0.95.into()));
    let good = column(&result, "good");
    // One of 435 pairs stands the wrong way round; one of 45 in the first of three depths and of ten bands.
    let near = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-12;
    assert!(near(&good["kendall_tau"]["value"], 1.0 - 2.0 / 435.0), "{good}");
    assert!(near(&good["kendall_within_depth"]["value"], 1.0 - 2.0 / 45.0 / 3.0), "{good}");
    assert_eq!(good["kendall_within_macs"]["undefined"], "no group of 10 networks");
    assert_eq!(good["kendall_within_macs"]["groups"].as_array().unwrap().len(), 10);
    assert_eq!(good["top_k_regret"][2], serde_json::json!({ "k": 29, "regret": 0.0 }));
    assert!(near(&column(&result, "params")["kendall_tau"]["value"], -1.0));
    // A loss has a negative tau, and its least value is the top.
    let loss = column(&result, "validation_loss");
    assert!(near(&loss["kendall_tau"]["value"], -1.0) && loss["top_k_regret"][0]["regret"] == 0.0, "{loss}");
    let flat = column(&result, "flat");
    assert_eq!(
        (&flat["kendall_tau"]["value"], &flat["kendall_tau"]["undefined"]),
        (&Value::Null, &"constant score".into())
    );
    // The same bytes again, other intervals for another seed.
    assert_eq!(files.json(&["--top", "1,2", "29"]), result);
    assert_ne!(column(&files.json(&["--seed", "1"]), "good")["kendall_tau"], good["kendall_tau"]);
    let none = files.json(&["--bootstrap", "0", "--score-column", "good", "--score-column", "depth"]);
    assert_eq!(none["columns"].as_array().unwrap().len(), 2);
    assert_eq!(column(&none, "good")["kendall_tau"]["low"], Value::Null);
}

#[test]
fn the_table_is_data_and_the_rest_is_on_stderr() {
    let files = Files::new();
    files.change(&files.truth, "003,53,1", "003,,1\n999,1,1\n005,55.0,1");
    let ran = files.run(&[]).ok();
    assert!(ran.stdout.starts_with("29 different networks, from 29 of 30 rows of scores and 29 of 32 rows of truth\n"));
    assert!(ran.stdout.contains("undefined (constant score)") && ran.stdout.contains("top 50"), "{}", ran.stdout);
    for words in [
        "scores.csv: 1 row without truth, left out",
        "truth.csv: 1 row of paths that the scores do not have, left out",
        "truth.csv: 1 row without a finite value, left out",
        "truth.csv: 1 row repeated, counted once",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let quiet = files.run(&["--quiet"]).ok();
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (ran.stdout, ""));
}

#[test]
fn a_plot_and_a_result_are_written() {
    let files = Files::new();
    let (plot, out) = (files.dir.path().join("p.svg"), files.dir.path().join("r.json"));
    let more = ["--plot", text(&plot), "--out", text(&out), "--bootstrap", "50"];
    let result = files.json(&more);
    // The greatest tau of all.
    assert_eq!(result["plot"]["column"], "macs");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&out).unwrap()).unwrap(), result);
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.matches("<circle").count() == 30);
    let ran = files.run(&[&more[..], &["--score-column", "good"]].concat()).ok();
    assert!(ran.stdout.contains("p.svg (good)"), "{}", ran.stdout);
    let nowhere = files.dir.path().join("none/p.svg");
    files.run(&["--plot", text(&nowhere)]).fails(2, "p.svg");
}

#[test]
fn outputs_are_looked_at_before_and_written_all_or_not_at_all() {
    let files = Files::new();
    let (scores, new) = (fs::read(&files.scores).unwrap(), files.dir.path().join("new"));
    let listing = || fs::read_dir(files.dir.path()).unwrap().count();
    files.run(&["--out", text(&files.scores)]).fails(2, "--scores and --out are the same file");
    files.run(&["--plot", text(&files.truth)]).fails(2, "--truth and --plot are the same file");
    let again = files.dir.path().join(".").join("new");
    files.run(&["--out", text(&new), "--plot", text(&again)]).fails(2, "--out and --plot are the same file");
    files.run(&["--out", text(files.dir.path()), "--plot", text(&new)]).fails(2, "is a directory, a file is wanted");
    assert_eq!((listing(), fs::read(&files.scores).unwrap()), (2, scores));
    // One file may hold scores and truth, and what is kept nowhere may go there twice.
    let both = ["evaluate", "--scores", text(&files.scores), "--truth", text(&files.scores), "--truth-column", "good"];
    run("nasbn", &[&both[..], &["--out", "/dev/null", "--plot", "/dev/null", "--bootstrap", "0"]].concat()).ok();
}

#[test]
fn files_are_read_whatever_wrote_them() {
    let files = Files::new();
    let plain = files.json(&["--bootstrap", "0"])["columns"].clone();
    let contents = fs::read_to_string(&files.truth).unwrap();
    files.write(
        &files.truth,
        &format!("\u{feff}{}", contents.replace("005,55,1", "\"005\", 55 ,1").replace('\n', "\r\n")),
    );
    assert_eq!(files.json(&["--bootstrap", "0"])["columns"], plain);
    files.change(&files.truth, "arch,", "which network,");
    files.run(&[]).fails(2, "there is no column `path`; there is `which network`, `acc`, `other`");
    assert_eq!(files.json(&["--bootstrap", "0", "--path-column", "which network"])["columns"], plain);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let wrong = |change: &dyn Fn(&Files), more: &[&str], words: &str| {
        let files = Files::new();
        change(&files);
        files.run(more).fails(2, words)
    };
    let truth = |from: &'static str, to: &'static str| move |files: &Files| files.change(&files.truth, from, to);
    let scores = |from: &'static str, to: &'static str| move |files: &Files| files.change(&files.scores, from, to);
    wrong(
        &truth("003,53,1", "003,53,1\n003,54,1"),
        &[],
        "lines 5 and 6 are of one path, `003`, but `acc` is 53 and 54",
    );
    wrong(&truth("003,53,1", "003,53"), &[], "truth.csv: line 5 has 2 fields, the header has 3");
    wrong(&truth("003,53,1", "003,53%,1"), &[], "line 5, column `acc`: `53%` is not a number");
    let ran = wrong(&truth(",acc,", ",accu,"), &[], "there is no column `acc`");
    assert!(ran.stderr.contains("did you mean `accu`?"), "{}", ran.stderr);
    wrong(&|files| files.write(&files.truth, "arch,acc\n"), &[], "the file has a header and no rows");
    wrong(&|files| files.write(&files.scores, ""), &[], "scores.csv: the file is empty");
    wrong(&|files| files.write(&files.truth, "arch,acc\n000,1\n001,2\n"), &[], "only 2 of the 30 networks");
    let ran = wrong(&|files| files.write(&files.truth, "arch,acc\n0,1\n1,2\n2,3\n"), &[], "only 0 of the 30 networks");
    assert!(ran.stderr.contains("zeros in front count"), "{}", ran.stderr);
    wrong(&|files| fs::write(&files.truth, [0xff, 0xfe, 0, 65]).unwrap(), &[], "valid UTF-8");
    let ran = wrong(&|files| fs::remove_file(&files.truth).unwrap(), &[], "truth.csv: No such file");
    assert!(ran.stderr.contains("check the path") && !ran.stderr.contains("UTF-8"), "{}", ran.stderr);
    let semicolons = |files: &Files| {
        let text = fs::read_to_string(&files.truth).unwrap();
        files.write(&files.truth, &text.replace(',', ";"));
    };
    let ran = wrong(&semicolons, &[], "there is no column `path`");
    assert!(ran.stderr.contains("seems to have semicolons"), "{}", ran.stderr);
    wrong(&truth("003,53,1", "003,53,\"1"), &[], "truth.csv: a quote in the row of line 5 is not closed");
    wrong(&|_| {}, &["--path-column", "acc"], "the column `acc` names networks");
    let ran = wrong(
        &|files| files.write(&files.truth, "arch,acc\n000,\n001,nan\n002,\n"),
        &[],
        "3 rows of them have no finite `acc`",
    );
    assert!(ran.stderr.contains("fill in `acc`") && !ran.stderr.contains("zeros"), "{}", ran.stderr);
    wrong(&|_| {}, &["--bootstrap", "1"], "0, or a whole number from 40 to 1000000, is needed");
    wrong(&scores("canonical", "macs"), &[], "the column `macs` is there more than once");
    wrong(&|_| {}, &["--score-column", "goood"], "there is no column `goood`");
    let ran = wrong(&|_| {}, &["--lower-is-better", "param"], "no column `param` is evaluated");
    assert!(ran.stderr.contains("did you mean `params`?"), "{}", ran.stderr);
    assert_eq!(Files::new().run(&["--top", "0"]).status, Some(2));
}

/// Depth, MACs and parameters on the development networks of NAS-Bench-Macro, scored by the program itself. At full
/// width the published figures for all networks are 0.69, 0.55 and 0.22.
#[test]
fn costs_rank_nas_bench_macro_as_is_known() {
    /// Development networks are a part of all networks, drawn at random.
    const SAMPLE: f64 = 0.03;
    let Some(truth) = shared_data("nas-bench-macro/dev.csv") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (bundle, scores) = (dir.path().join("bundle"), dir.path().join("scores.csv"));
    export(&bundle, &["--space", "nas-bench-macro", "--image-size", "32", "--classes", "10"]);
    let arguments =
        ["score", "--bundle", text(&bundle), "--data", "digits", "--indicators", "bn_all", "--threads", "1"];
    run("nasbn", &[&arguments[..], &["--paths", text(&truth), "--out", text(&scores)]].concat()).ok();
    let arguments = ["evaluate", "--scores", text(&scores), "--truth", text(&truth), "--truth-column", "mean_acc"];
    let ran = run("nasbn", &[&arguments[..], &["--json", "--bootstrap", "100"]].concat()).ok();
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    let mut reader = csv::Reader::from_path(&truth).unwrap();
    let canonical = reader.headers().unwrap().iter().position(|h| h == "canonical").unwrap();
    let distinct: HashSet<String> = reader.records().map(|r| r.unwrap()[canonical].to_owned()).collect();
    assert_eq!(result["networks"].as_u64().unwrap() as usize, distinct.len());
    for (name, wanted) in [("depth", 0.67), ("macs", 0.55), ("params", 0.22)] {
        let tau = &column(&result, name)["kendall_tau"];
        let [value, low, high] = ["value", "low", "high"].map(|key| tau[key].as_f64().unwrap());
        assert!((value - wanted).abs() < SAMPLE && low < value && value < high, "{name}: {tau}");
    }
    assert_eq!(column(&result, "depth")["kendall_within_depth"]["value"], 0.0);
    assert!(column(&result, "depth")["kendall_within_macs"]["value"].as_f64().unwrap() > 0.3);
}
