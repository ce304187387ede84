//! `nasbn score`: chosen indicators, runs that are stopped and gone on with, adapted candidates, bad input.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::HashMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nasbn_tests::{Ran, program, run, small_bundle, text};

/// Paths of which the first and the last are one network.
const PATHS: &str = "22012010\n22212220\n00000000\n22012001\n";
const FEW: [&str; 8] = ["--validation-images", "64", "--recalibrate", "2", "--mc-batches", "3", "--mc-images", "32"];

fn arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["score", "--bundle", text(small_bundle()), "--data", "digits", "--threads", "1"];
    arguments.extend(["--reference-paths", "8"]);
    arguments.extend(["--quiet", "--out", text(out)]);
    arguments.extend(FEW.iter().filter(|_| !more.contains(&"--validation-images")));
    arguments.extend(more);
    arguments
}

fn score(out: &Path, more: &[&str]) -> Ran {
    run("nasbn", &arguments(out, more))
}

/// Cells of a table by path and column.
fn table(file: &Path) -> HashMap<(String, String), String> {
    let mut reader = csv::Reader::from_path(file).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cells = |row: &csv::StringRecord| {
        let path = row[0].to_owned();
        header
            .iter()
            .zip(row)
            .map(|(name, cell)| ((path.clone(), name.to_owned()), cell.to_owned()))
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(cells).collect()
}

fn write(file: &Path, contents: &str) -> String {
    fs::write(file, contents).unwrap();
    text(file).to_owned()
}

#[test]
fn a_value_depends_neither_on_other_indicators_nor_on_other_paths() {
    let dir = tempfile::tempdir().unwrap();
    let paths = write(&dir.path().join("paths"), PATHS);
    let adapt = ["--adapt-steps", "3", "--adapt-rate", "0.5"];
    for (case, more) in [(0, &[][..]), (1, &adapt[..]), (2, &["--graphs", "portable"][..])] {
        let whole = dir.path().join(format!("all{case}"));
        score(&whole, &[&["--paths", &paths, "--indicators", "all"], more].concat()).ok();
        let all = table(&whole);
        let names = [
            "bn_all",
            "mc_entropy",
            "mc_nll",
            "validation_loss",
            "validation_accuracy",
            "grad_norm",
            "sign_log_det",
            "sign_log_det_scaled",
            "ntk_condition",
            "ntk_least",
            "ntk_trace",
            "ntk_effective_rank",
            "ntk_alignment",
            "ntk_shared_log_det",
            "zen",
            "log_synflow",
        ];
        for name in names {
            let value: f64 = all[&("22212220".to_owned(), name.to_owned())].parse().unwrap();
            // An accuracy may be 0; nothing else is by chance.
            assert!(value.is_finite() && (value != 0.0 || name == "validation_accuracy"), "{name}: {value}");
            // Equal networks have equal scores, different ones different scores.
            let of = |path: &str| &all[&(path.to_owned(), name.to_owned())];
            assert_eq!(of("22012010"), of("22012001"));
            assert!(name == "validation_accuracy" || of("22012010") != of("22212220"), "{name}");
        }
        assert_eq!(all.contains_key(&("22212220".into(), "adapt_loss".into())), case == 1);
        let turned: Vec<&str> = PATHS.lines().rev().collect();
        let reversed = write(&dir.path().join("reversed"), &turned.join("\n"));
        let lists = [
            "mc_nll",
            "grad_norm",
            "zen,validation_loss",
            "validation,mc_entropy",
            "bn_all",
            "sign_log_det,ntk_condition",
            "ntk_shared_log_det,grad_norm",
        ];
        for list in lists {
            let some = dir.path().join("some");
            score(&some, &[&["--paths", &reversed, "--indicators", list], more].concat()).ok();
            for (key, cell) in table(&some) {
                assert_eq!(cell, all[&key], "{key:?} in case {case}, {list}");
            }
        }
        let again = dir.path().join("again");
        score(&again, &[&["--paths", &paths, "--indicators", "all"], more].concat()).ok();
        assert!(fs::read(&whole).unwrap() == fs::read(&again).unwrap(), "case {case} is not deterministic");
        let seeded = dir.path().join("seeded");
        score(&seeded, &[&["--paths", &paths, "--indicators", "all", "--seed", "1"], more].concat()).ok();
        assert!(fs::read(&whole).unwrap() != fs::read(&seeded).unwrap());
    }
}

#[test]
fn adaptation_changes_what_reads_the_parameters_and_lowers_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let number =
        |file: &Path, name: &str| table(file)[&("22212220".to_owned(), name.to_owned())].parse::<f64>().unwrap();
    let paths = write(&dir.path().join("paths"), "22212220\n");
    let scored = |steps: &str| {
        let out = dir.path().join(format!("steps{steps}"));
        score(&out, &["--paths", &paths, "--indicators", "all", "--adapt-steps", steps]).ok();
        out
    };
    let (before, one, many) = (scored("0"), scored("1"), scored("60"));
    // The first step sees the loss of the start.
    assert!(number(&one, "adapt_loss") > number(&many, "adapt_loss") + 0.3);
    assert!(number(&many, "validation_loss") < number(&before, "validation_loss") - 0.1);
    assert_ne!(number(&many, "bn_all"), number(&before, "bn_all"));
    // The Zen-score is one of the architecture alone.
    assert_eq!(number(&many, "zen"), number(&before, "zen"));
    assert_eq!(number(&many, "log_synflow"), number(&before, "log_synflow"));
    // A rate without bounds: what cannot be computed is said, not made up.
    let wild = dir.path().join("wild");
    let more = ["--paths", &paths, "--indicators", "validation", "--adapt-steps", "50", "--adapt-rate", "1e38"];
    score(&wild, &more).ok();
    assert!(number(&wild, "validation_loss").is_nan(), "{}", fs::read_to_string(&wild).unwrap());
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole.csv"), dir.path().join("cut.csv"));
    let more = ["--random", "40", "--indicators", "all"];
    score(&whole, &more).ok();
    let partial = dir.path().join("cut.csv.partial");
    let size = || fs::metadata(&partial).map_or(0, |m| m.len());
    let mut kills = 0;
    for attempt in 0.. {
        let mut arguments = arguments(&cut, &more);
        if partial.exists() {
            arguments.push("--resume");
        }
        let mut child = Command::new(program("nasbn")).args(&arguments).stdout(Stdio::null()).spawn().unwrap();
        if attempt < 3 {
            let before = size();
            for _ in 0..3000 {
                std::thread::sleep(Duration::from_millis(5));
                if size() > before + 700 || child.try_wait().unwrap().is_some() {
                    break;
                }
            }
            let _ = child.kill();
            kills += u32::from(child.wait().unwrap().signal() == Some(9));
        } else {
            assert!(child.wait().unwrap().success());
            break;
        }
    }
    assert!(kills >= 1, "no run was killed");
    assert!(fs::read(&whole).unwrap() == fs::read(&cut).unwrap(), "the resumed table differs");
    assert!(!partial.exists());
}

#[test]
fn a_stopped_run_says_how_to_go_on_and_guards_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.csv");
    let partial = dir.path().join("s.csv.partial");
    let more = ["--random", "400", "--indicators", "all"];
    let child = Command::new(program("nasbn")).args(arguments(&out, &more)).stderr(Stdio::piped()).spawn().unwrap();
    // What is computed, the composite, and the first row.
    wait_for_lines(&partial, 3);
    score(&out, &more).fails(2, "another process is writing to");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert!(words.contains("stopped after") && words.contains("--resume"), "{words}");
    assert!(!out.exists());

    let left = fs::read_to_string(&partial).unwrap();
    score(&out, &more).fails(2, "an earlier run was stopped");
    score(&out, &["--random", "400", "--indicators", "zen", "--resume"]).fails(2, "indicators was");
    score(&out, &["--random", "300", "--indicators", "all", "--resume"])
        .fails(2, "not the same paths (--random, --paths)");
    score(&out, &["--random", "400", "--indicators", "all", "--mc-batches", "4", "--resume"]).fails_usage();
    // A row of another path, and one with a column too few.
    let lines: Vec<&str> = left.lines().collect();
    fs::write(&partial, format!("{}\n{}\n{}\n", lines[0], lines[2], lines[2])).unwrap();
    score(&out, &[&more[..], &["--resume"]].concat()).fails(2, "line 3");
    let short = lines[2].rsplit_once(',').unwrap().0;
    fs::write(&partial, format!("{}\n{short}]\n", lines[0])).unwrap();
    score(&out, &[&more[..], &["--resume"]].concat()).fails(2, "line 2");
    fs::remove_file(&partial).unwrap();
    score(&out, &[&more[..], &["--resume"]].concat()).fails(2, "nothing to go on from");
}

fn wait_for_lines(file: &Path, lines: usize) {
    while fs::read_to_string(file).map_or(0, |t| t.lines().count()) < lines {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_run_that_goes_on_keeps_the_composite_and_says_what_it_measures_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole.csv"), dir.path().join("cut.csv"));
    let partial = dir.path().join("cut.csv.partial");
    // Stopped when so many lines are there, with so many reference paths.
    let stop = |lines: usize, reference: &str| {
        let mut arguments = arguments(&cut, &["-v", "--random", "300", "--indicators", "composite,zen"]);
        let option = arguments.iter().position(|&a| a == "--reference-paths").unwrap();
        arguments[option + 1] = reference;
        let child = Command::new(program("nasbn")).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_lines(&partial, lines);
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{words}");
        words
    };
    let words = stop(1, "3000");
    assert!(words.contains("of 9000 reference paths") && words.contains("measured anew"), "{words}");
    fs::remove_file(&partial).unwrap();
    // Said where the composite is measured.
    const MEASURED: &str = "the table explains";
    assert!(stop(3, "8").contains(MEASURED));
    let more = ["-v", "--random", "300", "--indicators", "composite,zen"];
    let resumed = score(&cut, &[&more[..], &["--resume"]].concat()).ok();
    assert!(!resumed.stderr.contains(MEASURED), "{}", resumed.stderr);
    assert!(score(&whole, &more).ok().stderr.contains(MEASURED));
    assert!(fs::read(&whole).unwrap() == fs::read(&cut).unwrap(), "the resumed table differs");
}

/// A rate in single precision has more digits than it was given with.
#[test]
fn a_run_with_any_rate_goes_on_with_its_own_command() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.csv");
    let partial = dir.path().join("s.csv.partial");
    let with = |rate: &str, more: &[&str]| {
        let all = ["--random", "1", "--indicators", "adapt_loss", "--adapt-steps", "1", "--adapt-rate", rate];
        score(&out, &[&all[..], more].concat())
    };
    for rate in ["0.03", "0.1", "0.7"] {
        // The table goes to a device that is full: the run comes to its end and leaves its rows.
        std::os::unix::fs::symlink("/dev/full", &out).unwrap();
        with(rate, &[]).fails(4, "s.csv");
        assert!(partial.exists());
        fs::remove_file(&out).unwrap();
        with("0.031", &["--resume"]).fails(2, &format!("--adapt-rate was {rate}, is 0.031"));
        with(rate, &["--resume"]).ok();
        fs::remove_file(&out).unwrap();
    }
}

/// Where a run would keep its rows.
fn journal_of(out: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", text(out)))
}

#[test]
fn more_than_there_is_is_taken_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.csv");
    let ran = score(&out, &["--random", "1", "--indicators", "validation", "--validation-images", "99999"]).ok();
    assert!(ran.stderr.contains("--validation-images 99999: there are only 360"), "{}", ran.stderr);
    let ran = score(&out, &["--random", "1", "--indicators", "validation", "--validation-images", "360"]).ok();
    assert_eq!(ran.stderr, "");
}

#[test]
fn bad_input_is_refused_with_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.csv");
    let one = ["--random", "1"];
    let with = |more: &[&str]| score(&out, &[&one[..], more].concat());
    with(&["--indicators", "mc_entrpy"]).fails(2, "the nearest is `mc_entropy`");
    with(&["--indicators", "adapt_loss"]).fails(2, "steps that are not taken");
    with(&["--adapt-steps", "1", "--adapt-rate", "nan"]).fails(2, "--adapt-rate must be a finite number above 0");
    with(&["--adapt-steps", "1", "--adapt-rate", "-1"]).fails(2, "above 0, not -1");
    with(&["--adapt-rate", "1"]).fails(2, "--adapt-steps <N>");
    with(&["--adapt-steps", "2", "--indicators", "macs"]).fails(2, "--adapt-steps changes nothing in a table of costs");
    with(&["--adapt-steps", "2", "--indicators", "zen,log_synflow"]).fails(2, "in a table of zen,log_synflow");
    with(&["--indicators", ""]).fails(2, "--indicators names no indicator");
    with(&["--indicators", " , "]).fails(2, "--indicators names no indicator");
    with(&["--no-validation", "--indicators", "validation"]).fails(2, "names: validation_loss,validation_accuracy");
    let many = ["score", "--bundle", text(small_bundle()), "--random", "1", "--out", text(&out)];
    run("nasbn", &[&many[..], &["--reference-paths", "99999999"]].concat()).fails(2, "99999999");
    with(&["--indicatrs", "zen"]).fails(2, "'--indicators'");
    score(dir.path(), &one).fails(2, "is a directory, a file is wanted");
    score(&dir.path().join("none/s.csv"), &one).fails(2, "none/s.csv");
    assert!(!journal_of(dir.path()).exists());
    with(&["--batch", "1"]).fails_usage();
    with(&["--batch", "2000"]).fails(2, "2000");
    with(&["--indicators", "grad_norm", "--batch", "1438"]).fails(2, "1438");
    score(Path::new("-"), &["--random", "1", "--resume"]).fails(2, "--resume");
    score(Path::new("-"), &["--random", "1", "--json"]).fails(2, "--json and --out -");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "something was written");
}

#[test]
fn images_are_asked_for_only_if_an_indicator_looks_at_some() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.csv");
    let common = ["score", "--bundle", text(small_bundle()), "--random", "2", "--out", text(&out)];
    let with = |more: &[&str]| run("nasbn", &[&common[..], more].concat());
    with(&[]).fails(2, "images are needed for validation_loss, validation_accuracy, composite");
    with(&["--no-validation"]).fails(2, "images are needed for composite");
    with(&["--indicators", "bn_all", "--adapt-steps", "1"]).fails(2, "--adapt-steps");
    assert!(!out.exists());
    with(&["--no-validation", "--indicators", "bn_all,validation,zen"]).ok();
    let header = || fs::read_to_string(&out).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(header(), "path,canonical,macs,params,depth,peak_activation_bytes,bn_all,zen");
    with(&["--indicators", "cost,zen"]).ok();
    assert_eq!(header(), "path,canonical,macs,params,depth,peak_activation_bytes,zen");
}

#[test]
fn a_checkpoint_with_what_is_no_number_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("c");
    let adapt =
        ["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--epochs", "1", "--out", text(&checkpoint)];
    run("nasbn", &[&adapt[..], &["--quiet"]].concat()).ok();
    let opened = nasbn_export::bundle::Bundle::open(small_bundle()).unwrap();
    let layout = nasbn_runtime::parameters::Layout::new(&opened.manifest().supernet);
    let mut broken = nasbn_runtime::checkpoint::Checkpoint::read(&checkpoint, opened.digest(), &layout).unwrap();
    broken.parameters.gamma[layout.slots()[3].range.start] = f32::NAN;
    broken.write(&checkpoint, opened.digest(), &layout).unwrap();
    let out = dir.path().join("s.csv");
    let ran = score(&out, &["--random", "1", "--checkpoint", text(&checkpoint)]);
    ran.fails(2, &format!("{}.gamma holds a value that is not finite", layout.name(3)));
    assert!(!out.exists());
}

#[test]
fn help_lists_every_indicator() {
    let help = run("nasbn", &["score", "--help"]).ok().stdout;
    for indicator in nasbn_runtime::indicators::catalogue::CATALOGUE {
        assert!(help.contains(indicator.name), "{}", indicator.name);
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/indicators.md")).unwrap();
    for indicator in nasbn_runtime::indicators::catalogue::CATALOGUE {
        assert!(page.contains(&format!("`{}`", indicator.name)), "{} is not in docs/indicators.md", indicator.name);
    }
}

#[test]
fn a_search_maximises_any_indicator_of_the_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("c");
    let adapt =
        ["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--epochs", "1", "--out", text(&checkpoint)];
    run("nasbn", &[&adapt[..], &["--quiet"]].concat()).ok();
    let out = dir.path().join("found");
    let common =
        ["search", "--bundle", text(small_bundle()), "--checkpoint", text(&checkpoint), "--data", "digits", "--json"];
    let search = |objective: &str, more: &[&str]| {
        let all = [&common[..], &["--out", text(&out), "--max-macs", "150k", "--objective", objective], more].concat();
        run("nasbn", &all)
    };
    let few =
        ["--evaluations", "6", "--population", "3", "--parents", "2", "--validation-images", "64", "--peers", "0"];
    for (objective, direction) in
        [("zen", "higher"), ("mc-nll", "lower"), ("macs", "higher"), ("validation-loss", "lower")]
    {
        let report: serde_json::Value = serde_json::from_str(&search(objective, &few).ok().stdout).unwrap();
        assert_eq!((&report["objective"], &report["direction"]), (&objective.into(), &direction.into()));
        let score_of = |found: &str| report[found]["score"].as_f64().unwrap();
        let winner = score_of("winner");
        if objective == "zen" {
            // The same number as in a table, which needs no images.
            let path = write(&dir.path().join("path"), report["winner"]["path"].as_str().unwrap());
            let table_file = dir.path().join("zen");
            score(&table_file, &["--paths", &path, "--indicators", "zen"]).ok();
            let cell = table(&table_file).into_iter().find(|((_, name), _)| name == "zen").unwrap().1;
            assert_eq!(winner, cell.parse::<f64>().unwrap());
        } else {
            assert!(winner > 0.0, "{objective}: {winner}");
        }
    }
    search("sen", &[]).fails_usage();
    search("adapt-loss", &[]).fails_usage();
}

/// Errors of the argument parser.
trait FailsUsage {
    fn fails_usage(self);
}

impl FailsUsage for Ran {
    fn fails_usage(self) {
        assert_eq!(self.status, Some(2), "{}", self.stderr);
        assert!(self.stderr.contains("error:") && self.stderr.contains("hint:"), "{}", self.stderr);
    }
}
