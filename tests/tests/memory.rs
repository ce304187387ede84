//! The memory budget: what is chosen within it, that it is kept, and when it is refused.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use nasbn_export::bundle::Bundle;
use nasbn_runtime::{checkpoint::Checkpoint, parameters::Layout};
use nasbn_tests::{Ran, cgroup::Group, export, program, run, run_command, small_bundle, text};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Images of a run of one epoch: two steps of the usual mini-batches, in which a run has met all that it will.
const IMAGES: u32 = 128;
/// Address space besides the budget: libraries, stacks of threads, and what allocators reserve and do not touch.
const ADDRESS_SPACE: u64 = 1024 * MIB;

/// `nas-bench-macro` in full width, and pictures of its size: ten classes, `IMAGES` for training.
fn wide() -> &'static (PathBuf, PathBuf) {
    static WIDE: OnceLock<(TempDir, (PathBuf, PathBuf))> = OnceLock::new();
    let (_, paths) = WIDE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, images) = (dir.path().join("bundle"), dir.path().join("images"));
        export(&bundle, &["--space", "nas-bench-macro", "--image-size", "32", "--classes", "10"]);
        for (part, count) in [("train", IMAGES), ("val", 20)] {
            for n in 0..count {
                let class = images.join(part).join(format!("class{}", n % 10));
                fs::create_dir_all(&class).unwrap();
                let pixel = |x, y| image::Rgb([(x * 8 + n) as u8, (y * 8) as u8, (x * y + 3 * n) as u8]);
                image::RgbImage::from_fn(32, 32, pixel).save(class.join(format!("{n}.png"))).unwrap();
            }
        }
        (dir, (bundle, images))
    });
    paths
}

/// How a program ended, and the most memory that it held: as the kernel told until it ended, which only grows, and as the
/// program itself told at its end.
fn watched(command: &mut Command) -> (Ran, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    command.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        if let Some(seen) = fs::read_to_string(&file).ok().and_then(|status| high_water(&status)) {
            peak = peak.max(seen);
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let ran = Ran { status: status.code(), stdout: read(&out), stderr: read(&err) };
    let told = serde_json::from_str::<Value>(&ran.stdout).ok().and_then(|said| said["memory"]["peak"].as_u64());
    (ran, peak.max(told.unwrap_or(0)))
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// `nasbn adapt` for one epoch of the pictures.
fn adapt(out: &Path, more: &[&str]) -> Vec<String> {
    let (bundle, images) = wide();
    let data = format!("images:{}", text(images));
    let mut arguments = vec!["adapt", "--bundle", text(bundle), "--data", &data, "--epochs", "1", "--threads", "2"];
    arguments.extend(["--json", "--out", text(out)]);
    arguments.extend(more);
    arguments.into_iter().map(str::to_owned).collect()
}

fn nasbn(arguments: &[String]) -> Command {
    let mut command = Command::new(program("nasbn"));
    command.args(arguments);
    command
}

/// `nasbn` where the kernel ends it at so many bytes, if it lets us make such a place; else, which is said, with an address
/// space of so many and what is only reserved.
fn confined(arguments: &[String], bytes: u64) -> (Option<Group>, Command) {
    match Group::new(bytes) {
        Ok(group) => {
            let mut command = group.command(&program("nasbn"));
            command.args(arguments);
            (Some(group), command)
        }
        Err(error) => {
            eprintln!("no memory cgroup ({error}): the address space is bounded instead");
            (None, bounded(arguments, bytes + ADDRESS_SPACE))
        }
    }
}

/// `nasbn` with an address space of so many bytes.
fn bounded(arguments: &[String], bytes: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &(bytes / 1024).to_string(), text(&program("nasbn"))]);
    command.args(arguments);
    command
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout))
}

/// Checkpoint files without the metrics, which hold times.
fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.sort();
    // What a killed run was about to write may be cleared away by any later one.
    let passing = |p: &Path| text(p).ends_with(".jsonl") || text(p).ends_with(".lock") || text(p).contains(".nasbn-");
    let kept = files.iter().filter(|p| !passing(p));
    kept.map(|p| (p.file_name().unwrap().into(), fs::read(p).unwrap())).collect()
}

/// The least budget that a refusal tells, as its hint writes it, and in MiB.
fn least(refused: &Ran) -> (String, u64) {
    let hint = refused.stderr.split("give it --memory-budget ").nth(1).unwrap_or_else(|| panic!("{}", refused.stderr));
    let size = hint.split([' ', ',', '\n']).next().unwrap();
    (size.to_owned(), size.strip_suffix("MiB").unwrap().parse().unwrap())
}

#[test]
fn a_run_within_its_budget_finishes_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ran, free) = watched(&mut nasbn(&adapt(&dir.path().join("free"), &[])));
    assert!(json(&ran.ok())["memory"].is_null());
    let mut met = Vec::new();
    for budget in [1024, 384, 256, 160] {
        let out = dir.path().join(budget.to_string());
        let arguments = adapt(&out, &["--max-memory", &format!("{budget}MiB")]);
        // The kernel's limit is the budget itself.
        let (_group, mut command) = confined(&arguments, budget * MIB);
        let (ran, peak) = watched(&mut command);
        let said = json(&ran.ok());
        let memory = &said["memory"];
        assert!(peak > 32 * MIB && peak <= budget * MIB, "{} MiB of {budget}: {memory}", peak / MIB);
        assert_eq!(memory["budget"], budget * MIB);
        let expected = memory["expected"].as_u64().unwrap();
        assert!(expected <= budget * MIB);
        assert!(state(&out).len() == 2, "no checkpoint was written");
        met.push((memory["mode"].as_str().unwrap().to_owned(), memory["batch"].as_u64().unwrap()));
    }
    let mib = free / MIB;
    assert!(mib > 256, "without a budget {mib} MiB are taken: the budgets here force nothing");
    assert_eq!(met[0], ("fast".to_owned(), 64));
    assert_eq!(met[1], ("lean".to_owned(), 64));
    assert!(met[2].1 < 64 && met[3].1 < met[2].1, "{met:?}");
}

#[test]
fn too_small_a_budget_is_refused_before_the_kernel_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let within = |limit: u64, more: &[&str]| -> Option<Ran> {
        let (group, mut command) = confined(&adapt(&out, more), limit * MIB);
        group.is_some().then(|| watched(&mut command).0)
    };
    for (limit, budget) in [(48, "48MiB"), (64, "64MiB"), (64, "1GiB")] {
        let Some(ran) = within(limit, &["--max-memory", budget]) else { return };
        let ran = ran.fails(2, &format!("at {limit}MiB the system ends this process"));
        assert!(ran.stderr.contains("raise that limit, and --memory-budget with it, to more than "), "{}", ran.stderr);
        assert!(!out.exists(), "a refused run has written something");
    }
    // What is told where there is no limit does where that is the limit.
    let (size, mib) = least(&watched(&mut nasbn(&adapt(&out, &["--max-memory", "1MiB"]))).0.fails(2, "too small"));
    json(&within(mib, &["--max-memory", &size]).unwrap().ok());
}

#[test]
fn a_budget_beyond_where_the_kernel_ends_it_is_planned_below_that() {
    const LIMIT: u64 = 256;
    let dir = tempfile::tempdir().unwrap();
    let within = |out: &Path, more: &[&str]| -> Option<Ran> {
        let (group, mut command) = confined(&adapt(out, &[&["--memory-budget", "8GiB"], more].concat()), LIMIT * MIB);
        group.is_some().then(|| watched(&mut command).0)
    };
    let Some(ran) = within(&dir.path().join("out"), &[]) else { return };
    let ran = ran.ok();
    assert_eq!(json(&ran)["memory"]["budget"], LIMIT * MIB);
    assert!(ran.stderr.contains("memory: 256MiB (where the system ends this process): "), "{}", ran.stderr);
    // What needs more is refused with what must be raised.
    let out = dir.path().join("refused");
    let refused =
        within(&out, &["--batch", "512"]).unwrap().fails(2, "it is no more, as the system ends this process there");
    let words = "hint: raise the limit of its memory cgroup (256MiB) to ";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    assert!(!out.exists(), "a refused run has written something");
}

#[test]
fn a_budget_that_is_exceeded_in_the_last_step_is_told() {
    /// What the metrics of the run so far take when it goes on.
    const METRICS: usize = 160 << 20;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // One step an epoch.
    let more = ["--epochs", "2", "--batch", "1024", "--memory", "fast"];
    let adapt = |more: &[&str]| run("nasbn", &strs(&looking("adapt", &out, more)));
    adapt(&more).ok();
    let whole = state(&out);
    let bundle = Bundle::open(small_bundle()).unwrap();
    let layout = Layout::new(&bundle.manifest().supernet);
    let mut checkpoint = Checkpoint::read(&out, bundle.digest(), &layout).unwrap();
    assert_eq!(checkpoint.progress.step, 2);
    checkpoint.progress.step = 1;
    checkpoint.write(&out, bundle.digest(), &layout).unwrap();
    let line = format!("{{\"step\":1,\"loss\":2.0,\"more\":\"{}\"}}\n", "x".repeat(METRICS));
    fs::write(out.join("metrics.jsonl"), line).unwrap();
    let budget = ["--resume", "--quiet", "--memory-budget", "300MiB"];
    let ran = adapt(&[&more[..], &budget].concat()).ok();
    let memory = json(&ran)["memory"].clone();
    assert_eq!(memory["exceeded"], true, "{memory}");
    for words in ["warning: ", "were taken of a memory budget of 300MiB; the results are complete", "hint: "] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert!(state(&out).len() == whole.len() && json(&ran)["steps"] == 2);
    // What keeps it says nothing.
    let ran = adapt(&[&more[..], &["--force", "--quiet", "--memory-budget", "1GiB"]].concat()).ok();
    assert_eq!(json(&ran)["memory"]["exceeded"], false);
    assert_eq!(ran.stderr, "");
}

#[test]
fn too_small_a_budget_is_refused_before_anything_is_written_with_the_least_that_does() {
    let dir = tempfile::tempdir().unwrap();
    for (case, more) in
        [("any", &[][..]), ("batch", &["--batch", "16"]), ("fast", &["--batch", "16", "--memory", "fast"])]
    {
        let out = dir.path().join(case);
        let with = |budget: &str| watched(&mut nasbn(&adapt(&out, &[more, &["--memory-budget", budget]].concat())));
        let refused = with("1MiB").0.fails(2, "a memory budget of 1MiB is too small");
        let images = with("1KiB").0.fails(2, "the images alone do not fit in the memory budget");
        let bound = least(&images).1;
        assert!(!out.exists(), "{case}: a refused run has written something");
        assert_eq!(refused.stderr.contains("smaller --batch than 16"), case != "any", "{}", refused.stderr);
        assert_eq!(refused.stderr.contains("leave out --memory fast"), case == "fast", "{}", refused.stderr);
        let (size, mib) = least(&refused);
        assert!(bound > 16 && bound < mib, "{bound} MiB are said to be the very least, {mib} the least");
        with(&format!("{}MiB", mib * 3 / 4)).0.fails(2, "too small");
        assert!(!out.exists());
        let (ran, peak) = with(&size);
        let memory = json(&ran.ok())["memory"].clone();
        assert!(peak <= mib * MIB, "{case}: {} MiB of {mib}: {memory}", peak / MIB);
        assert_eq!(memory["batch"], if case == "any" { 8 } else { 16 });
        // Sessions are what is given up last; results do not depend on them.
        if case != "any" {
            let free = dir.path().join(format!("{case}-free"));
            let mode = memory["mode"].as_str().unwrap();
            run_command(&mut nasbn(&adapt(&free, &["--batch", "16", "--memory", mode]))).ok();
            assert!(memory["sessions_kept"].as_u64() < memory["sessions"].as_u64(), "{memory}");
            assert!(state(&out) == state(&free), "{case}: fewer sessions changed the result");
        }
    }
}

#[test]
fn a_run_goes_on_under_another_budget_to_the_same_bytes_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let small = adapt(&cut, &["--memory-budget", "200MiB", "--checkpoint-steps", "1"]);
    let mut child = nasbn(&small).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !cut.join("checkpoint.postcard").exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().unwrap();
    // Too little for what was begun is refused, and changes nothing.
    let before = state(&cut);
    let refused = run_command(&mut nasbn(&adapt(&cut, &["--resume", "--memory-budget", "1M"]))).fails(2, "too small");
    assert!(refused.stderr.contains("begin anew in another --out"), "{}", refused.stderr);
    run_command(&mut nasbn(&adapt(&cut, &["--resume", "--batch", "64"]))).fails(2, "is 64");
    assert!(state(&cut) == before);
    // With room for the usual mini-batch it goes on with those that it was begun with.
    let ran = run_command(&mut nasbn(&adapt(&cut, &["--resume", "--memory-budget", "2GiB"]))).ok();
    let memory = json(&ran)["memory"].clone();
    let batch = memory["batch"].as_u64().unwrap();
    assert!(batch < 64, "{memory}");
    assert!(state(&cut) != before, "it was not cut off");
    let (batch, mode) = (batch.to_string(), memory["mode"].as_str().unwrap());
    run_command(&mut nasbn(&adapt(&whole, &["--batch", &batch, "--memory", mode]))).ok();
    assert!(state(&whole) == state(&cut), "the resumed run differs");
    // And without a budget, too.
    run_command(&mut nasbn(&adapt(&cut, &["--resume"]))).ok();
    assert!(state(&whole) == state(&cut));
}

#[test]
fn what_is_no_size_is_refused_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for size in ["0", "", "much", "1e30GiB", "99999999999999999999", "nan", "12 parsecs"] {
        for option in ["--memory-budget", "--max-memory"] {
            let refused = run_command(&mut nasbn(&adapt(&out, &[option, size]))).fails(2, "512KiB");
            // An alias is told by the name that it stands for.
            assert!(refused.stderr.contains("--memory-budget"), "{size}: {}", refused.stderr);
        }
    }
    assert!(!out.exists());
}

/// A command that scores or searches the small bundle.
fn looking(command: &str, out: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![command, "--bundle", text(small_bundle()), "--data", "digits", "--threads", "1"];
    arguments.extend(["--json", "--out", text(out)]);
    arguments.extend(more);
    arguments.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_run_that_takes_more_than_its_budget_stops_with_its_checkpoint_and_goes_on() {
    /// What the metrics of the run so far take when it goes on: they are no part of the plan.
    const METRICS: usize = 96 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let adapt = |out: &Path, more: &[&str]| -> Vec<String> {
        let common = ["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--epochs", "20", "--batch", "64"];
        let same = ["--memory", "fast", "--threads", "1", "--json", "--out", text(out)];
        [&common[..], &same, more].concat().into_iter().map(str::to_owned).collect()
    };
    run_command(&mut nasbn(&adapt(&whole, &[]))).ok();
    let mut child = nasbn(&adapt(&cut, &["--checkpoint-steps", "1"]));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !cut.join("checkpoint.postcard").exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let before = state(&cut);
    let metrics = cut.join("metrics.jsonl");
    let rest = fs::read_to_string(&metrics).unwrap();
    let line = format!("{{\"step\":1,\"loss\":2.0,\"more\":\"{}\"}}\n", "x".repeat(METRICS));
    fs::write(&metrics, line + &rest).unwrap();
    let ran = run_command(&mut nasbn(&adapt(&cut, &["--resume", "--memory-budget", "160MiB"])));
    let ran = ran.fails(4, "were taken of a memory budget of 160MiB");
    for words in ["stopped after step ", "--resume and --memory-budget "] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert!(state(&cut) != before, "the checkpoint is that of before the stop");
    run_command(&mut nasbn(&adapt(&cut, &["--resume"]))).ok();
    assert!(state(&cut) == state(&whole), "the resumed run differs");
}

#[test]
fn a_budget_is_watched_while_reference_paths_are_measured() {
    /// What a line that was cut off takes when a run goes on, which is no part of the plan.
    const CUT_OFF: u64 = 320 << 20;
    let dir = tempfile::tempdir().unwrap();
    let common = ["--bundle", text(small_bundle()), "--data", "digits", "--threads", "1", "--quiet"];
    let checkpoint = dir.path().join("checkpoint");
    run("nasbn", &[&["adapt", "--epochs", "1", "--out", text(&checkpoint)], &common[..]].concat()).ok();
    let few = ["--reference-paths", "8", "--validation-images", "64", "--checkpoint", text(&checkpoint)];
    let score = ["score", "--random", "3", "--indicators", "composite"];
    let search = ["search", "--objective", "composite", "--max-macs", "1G", "--evaluations", "6", "--population", "3"];
    for (command, out, journal, table) in [
        (&score[..], "scores.csv", "scores.csv.partial", "scores.csv"),
        (&search[..], "found", "found/search.jsonl.partial", "found/winner.safetensors"),
    ] {
        let with = |out: &Path, more: &[&str]| {
            let arguments = [command, &common, &few, &["--out", text(out)], more].concat();
            run("nasbn", &arguments)
        };
        let whole = dir.path().join("whole");
        fs::create_dir_all(&whole).unwrap();
        with(&whole.join(out), &[]).ok();
        let cut = dir.path().join(out);
        let journal = dir.path().join(journal);
        // Killed once it has said what it computes, in the midst of a long row.
        let arguments = [command, &common, &few, &["--out", text(&cut)]].concat();
        let mut child = Command::new(program("nasbn")).args(arguments).stderr(Stdio::null()).spawn().unwrap();
        let begun =
            || fs::read_to_string(&journal).unwrap_or_default().split_once('\n').map(|(run, _)| format!("{run}\n"));
        while begun().is_none() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let run = begun().unwrap();
        fs::write(&journal, run).unwrap();
        fs::File::options().write(true).open(&journal).unwrap().set_len(CUT_OFF).unwrap();
        let budget = format!("{}MiB", CUT_OFF / MIB - 10);
        let stopped =
            with(&cut, &["--resume", "--memory-budget", &budget]).fails(4, "stopped among the reference paths");
        assert!(stopped.stderr.contains("--resume and --memory-budget "), "{}", stopped.stderr);
        assert!(journal.exists(), "there is something to go on from");
        with(&cut, &["--resume"]).ok();
        assert!(fs::read(dir.path().join(table)).unwrap() == fs::read(whole.join(table)).unwrap(), "{out}");
    }
}

#[test]
fn scores_are_the_same_within_a_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (free, kept) = (dir.path().join("free.csv"), dir.path().join("kept.csv"));
    let more = ["--random", "12", "--indicators", "all", "--reference-paths", "8", "--validation-images", "64"];
    run_command(&mut nasbn(&looking("score", &free, &more))).ok();
    let with = |budget: &str| {
        let more = [&more[..], &["--memory-budget", budget]].concat();
        watched(&mut nasbn(&looking("score", &kept, &more)))
    };
    let (size, mib) = least(&with("1MiB").0.fails(2, "too small"));
    with(&format!("{}MiB", mib * 3 / 4)).0.fails(2, "too small");
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "a refused run has written something");
    let (ran, peak) = with(&size);
    let memory = json(&ran.ok())["memory"].clone();
    assert!(peak <= mib * MIB, "{} MiB of {mib}: {memory}", peak / MIB);
    // That fewer sessions change no bit of any indicator, `engine.rs` holds.
    assert!(fs::read(&free).unwrap() == fs::read(&kept).unwrap(), "a budget changed the scores");
}

#[test]
fn a_search_has_a_budget_of_its_own_beside_the_limit_on_what_it_finds() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("checkpoint");
    run_command(&mut nasbn(&looking("adapt", &checkpoint, &["--epochs", "1"]))).ok();
    let common = ["--checkpoint", text(&checkpoint), "--evaluations", "6", "--population", "4", "--parents", "2"];
    let common = [&common[..], &["--peers", "2", "--validation-images", "64"]].concat();
    let (free, kept) = (dir.path().join("free"), dir.path().join("kept"));
    let found = run_command(&mut nasbn(&looking("search", &free, &common))).ok();
    let with = |more: &[&str]| watched(&mut nasbn(&looking("search", &kept, &[&common[..], more].concat())));
    let (size, mib) = least(&with(&["--memory-budget", "1M"]).0.fails(2, "too small"));
    assert!(!kept.exists());
    let (ran, peak) = with(&["--memory-budget", &size]);
    let said = json(&ran.ok());
    assert!(peak <= mib * MIB, "{} MiB of {mib}: {}", peak / MIB, said["memory"]);
    assert_eq!(said["winner"], json(&found)["winner"]);
    // The other option is what it was: no network is that small.
    with(&["--max-memory", "1KiB", "--memory-budget", "1GiB"]).0.fails(1, "no network is within the limits");
    let subnet = dir.path().join("subnet");
    let path = ["--path", "22212220", "--validation-images", "64"];
    let with = |budget: &str| {
        run("nasbn", &strs(&looking("subnet", &subnet, &[&path[..], &["--max-memory", budget]].concat())))
    };
    let (size, _) = least(&with("1M").fails(2, "too small"));
    assert!(!subnet.exists());
    with(&size).ok();
    assert!(subnet.join("subnet.onnx").is_file());
}

#[test]
fn the_least_for_one_path_is_not_far_above_what_it_takes() {
    /// Times that more may be told than is taken: a plan leaves a margin, and the next probe may find more.
    const FAR: f64 = 1.4;
    let dir = tempfile::tempdir().unwrap();
    let (bundle, images) = wide();
    let (data, out) = (format!("images:{}", text(images)), dir.path().join("subnet"));
    let subnet = |budget: &str| {
        let common = ["subnet", "--bundle", text(bundle), "--data", &data, "--path", "22222222", "--threads", "2"];
        let common = [&common[..], &["--batch", "32"]].concat();
        let more = ["--json", "--out", text(&out), "--max-memory", budget];
        watched(&mut nasbn(&[&common[..], &more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()))
    };
    let (size, mib) = least(&subnet("1MiB").0.fails(2, "too small"));
    let (ran, peak) = subnet(&size);
    ran.ok();
    assert!(peak <= mib * MIB && (mib * MIB) as f64 <= FAR * peak as f64, "{mib} MiB told, {} taken", peak / MIB);
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
