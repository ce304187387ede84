//! Joining, and reports on populations whose figures are known.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{
    join::{Conflict, JoinError, Population, Problem, Side},
    picture::picture,
    *,
};
use crate::table::Table;

/// Rounding of sums in f64.
const ROUNDING: f64 = 1e-12;

const SCORES: &str = "path,canonical,macs,params,depth,loss_like,composite,note
01,10,5,100,1,2.5,0.5,a
10,10,5,100,1,2.5,0.5,b
00,00,1,10,0,3.0,0.1,c
22,22,9,300,2,nan,0.7,d
21,21,8,250,2,1.0,0.9,e
12,12,8,240,2,1.5,,f
";

fn joined(scores: &str, truth: &str, wanted: &[&str]) -> Result<Population, JoinError> {
    let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
    join::join(&Table::parse(scores).unwrap(), &Table::parse(truth).unwrap(), "acc", None, &wanted)
}

fn problem(scores: &str, truth: &str, wanted: &[&str]) -> (Side, String) {
    let error = joined(scores, truth, wanted).unwrap_err();
    assert!(!error.problem.hint().is_empty());
    (error.side, error.to_string())
}

#[test]
fn equal_networks_count_once_under_any_name() {
    let truth = "arch,acc\n01,80\n00,50\n22,90\n21,91\n21,91.0\n11,70\n12,nan\n";
    let population = joined(SCORES, truth, &[]).unwrap();
    assert_eq!(population.names, ["00", "10", "21", "22"]);
    assert_eq!(population.truth, [50.0, 80.0, 91.0, 90.0]);
    let names: Vec<&str> = population.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["macs", "params", "depth", "loss_like", "composite"]);
    assert_eq!(population.columns[3].values, [Some(3.0), Some(2.5), Some(1.0), None]);
    assert_eq!(population.text_columns, [("note".into(), 2, "a".into())]);
    let rows = &population.rows;
    assert_eq!((rows.scores, rows.scores_networks, rows.scores_joined, rows.scores_without_truth), (6, 5, 5, 1));
    assert_eq!((rows.truth, rows.truth_joined, rows.truth_without_scores), (7, 4, 1));
    assert_eq!((rows.truth_repeated, rows.truth_without_value), (1, 1));
    assert_eq!(population.differing, None);
    // The truth may know the network by its canonical path though no score row has it as its path.
    let scores = SCORES.replace("10,10,5,100,1,2.5,0.5,b\n", "");
    assert_eq!(joined(&scores, &truth.replace("01,", "10,"), &[]).unwrap().truth, population.truth);
}

#[test]
fn paths_of_one_network_may_differ_and_rows_of_one_path_may_not() {
    let population = joined(SCORES, "arch,acc\n01,80\n10,81\n00,50\n22,90\n", &[]).unwrap();
    assert_eq!(population.truth, [50.0, 80.5, 90.0]);
    let differing = population.differing.unwrap();
    assert_eq!((differing.networks, differing.most, differing.lines), (1, 1.0, (2, 3)));
    let error = joined(SCORES, "arch,acc\n01,80\n00,50\n\n01,81\n", &[]).unwrap_err();
    let conflict = Conflict {
        what: "path",
        name: "01".into(),
        column: "acc".into(),
        lines: (2, 5),
        values: ("80".into(), "81".into()),
    };
    assert_eq!(error, JoinError { side: Side::Truth, problem: Problem::Conflict(Box::new(conflict)) });
    // Rows of scores for one network must agree, too.
    let mixed = SCORES.replace("10,10,5,100,1,2.5", "10,10,5,100,1,2.6");
    let truth = "arch,acc\n01,80\n00,50\n22,90\n";
    let words = "lines 2 and 3 are of one network, `10`, but `loss_like` is 2.5 and 2.6";
    assert_eq!(problem(&mixed, truth, &[]), (Side::Scores, words.into()));
    let mixed = SCORES.replace("10,10,5", "01,11,5");
    assert_eq!(
        problem(&mixed, truth, &[]),
        (Side::Scores, "lines 2 and 3 are of one path, `01`, but `canonical` is 10 and 11".into())
    );
}

#[test]
fn what_cannot_be_joined_says_why() {
    let truth = "arch,acc\n01,80\n00,50\n22,90\n";
    let cases = [
        (SCORES, "arch,acc\n1,80\n0,50\n22,90\n", &[][..], Side::Truth, "only 1 of the 5 networks"),
        (SCORES, "arch,accuracy\n01,80\n", &[], Side::Truth, "no column `acc`"),
        (SCORES, "network,acc\n01,80\n", &[], Side::Truth, "no column `path`"),
        (SCORES, "arch,acc\n01,80 %\n", &[], Side::Truth, "line 2, column `acc`: `80 %` is not a number"),
        (SCORES, "arch,acc\n,80\n", &[], Side::Truth, "line 2 has no path"),
        (SCORES, truth, &["canonical"], Side::Scores, "the column `canonical` names networks"),
        ("path,x\n01,1\n00,2\n", truth, &[], Side::Truth, "the scores have only 2 different networks"),
        (SCORES, truth, &["composit"], Side::Scores, "no column `composit`"),
        (SCORES, truth, &["note"], Side::Scores, "line 2, column `note`: `a` is not a number"),
        ("path,name\n01,a\n00,b\n22,c\n", truth, &[], Side::Scores, "no column holds numbers"),
        ("path,x,x\n01,1,2\n00,1,2\n22,1,2\n", truth, &[], Side::Scores, "`x` is there more than once"),
    ];
    for (scores, truth, wanted, side, words) in cases {
        let (found, said) = problem(scores, truth, wanted);
        assert!(found == side && said.contains(words), "{said}");
    }
    let error = joined(SCORES, "arch,acc\n1,80\n0,50\n22,90\n", &[]).unwrap_err();
    assert!(
        error.problem.hint().contains("`10` is only in the scores, `1` only in the truth"),
        "{}",
        error.problem.hint()
    );
}

#[test]
fn truths_without_a_value_are_not_said_to_be_missing_paths() {
    let empty = |truth: &str| joined(SCORES, truth, &[]).unwrap_err().problem;
    let problem = empty("arch,acc\n01,\n00,nan\n22,90\n55,1\n");
    let (words, hint) = (problem.to_string(), problem.hint());
    assert!(
        words.starts_with("only 1 of the 5 networks") && words.ends_with("and 2 rows of them have no finite `acc`")
    );
    assert!(hint.contains("fill in `acc`") && hint.contains("--truth-column"), "{hint}");
    // Here paths are the trouble: the one that is named is in no row of the truth.
    let problem = empty("arch,acc\n01,\n0,1\n22,90\n");
    assert!(problem.to_string().ends_with("and 1 row of them has no finite `acc`"), "{problem}");
    assert!(problem.hint().contains("`00` is only in the scores, `0` only in the truth"), "{}", problem.hint());
}

#[test]
fn the_column_of_paths_is_no_truth() {
    let (scores, truth) = (Table::parse(SCORES).unwrap(), Table::parse("which,arch,acc\n01,1,80\n00,2,50\n").unwrap());
    for (column, path) in [("which", Some("which")), ("arch", None), ("arch", Some("which"))] {
        let error = join::join(&scores, &truth, column, path, &[]).unwrap_err();
        assert_eq!(error, JoinError { side: Side::Truth, problem: Problem::Names(column.into()) });
    }
}

/// Rows in another order are the same evaluation, intervals and all.
#[test]
fn the_order_of_rows_changes_nothing() {
    let row = |i: u64| format!("{i:02},{},{},{}\n", i % 3, i.wrapping_mul(0x9e37_79b9) % 97, i % 5);
    let truth = |i: u64| format!("{i:02},{}\n", i.wrapping_mul(0x85eb_ca6b) % 89);
    let of = |order: &[u64]| {
        let scores: String = order.iter().map(|&i| row(i)).collect();
        let truths: String = order.iter().rev().map(|&i| truth(i)).collect();
        let population =
            joined(&format!("path,depth,score,macs\n{scores}"), &format!("arch,acc\n{truths}"), &[]).unwrap();
        population.columns.iter().map(|column| evaluate(&population, column, "acc", &options())).collect::<Vec<_>>()
    };
    let sorted: Vec<u64> = (0..60).collect();
    let mixed: Vec<u64> = (0..60).map(|i| i * 37 % 60).collect();
    let reports = of(&sorted);
    assert!(reports.iter().all(|report| report.kendall_tau.low.is_some()));
    assert_eq!(of(&mixed), reports);
}

#[test]
fn what_networks_are_grouped_by_is_checked_though_it_is_not_evaluated() {
    let truth = "arch,acc\n01,80\n00,50\n22,90\n";
    let conflicting = SCORES.replace("10,10,5,100,1", "10,10,6,100,1");
    let words = "lines 2 and 3 are of one network, `10`, but `macs` is 5 and 6";
    assert_eq!(problem(&conflicting, truth, &["composite"]), (Side::Scores, words.into()));
    let twice = SCORES.replace("loss_like", "depth");
    let words = "`depth` is there more than once";
    assert!(problem(&twice, truth, &["composite"]).1.contains(words));
    // What is no number is said as if it were evaluated.
    let text = SCORES.replace("01,10,5,100,1", "01,10,5 M,100,1");
    let population = joined(&text, truth, &["composite"]).unwrap();
    assert_eq!((population.macs, population.depth.is_some()), (None, true));
    assert_eq!(population.text_columns, [("macs".into(), 2, "5 M".into())]);
    assert_eq!(joined(&text, truth, &[]).unwrap().text_columns.len(), 2, "and only once");
    let without = SCORES.replace("macs", "other");
    let population = joined(&without, truth, &["composite"]).unwrap();
    assert_eq!((population.macs, population.text_columns.len()), (None, 0));
}

#[test]
fn the_column_path_comes_before_arch_wherever_it_stands() {
    let plain = joined(SCORES, "path,acc\n01,80\n00,50\n22,90\n", &[]).unwrap();
    for truth in ["arch,acc,path\na,80,01\nb,50,00\nc,90,22\n", "path,acc,arch\n01,80,a\n00,50,b\n22,90,c\n"] {
        assert_eq!(joined(SCORES, truth, &[]).unwrap(), plain);
    }
}

/// `groups` depths of twelve networks each; within a depth `score` ranks the truth perfectly, between depths the
/// wrong way round.
fn layered(groups: usize) -> Population {
    let n = 12 * groups;
    let depth: Vec<f64> = (0..n).map(|i| (i / 12) as f64).collect();
    let score = (0..n).map(|i| Some((i % 12) as f64 - 100.0 * depth[i])).collect();
    Population {
        names: (0..n).map(|i| i.to_string()).collect(),
        truth: (0..n).map(|i| i as f64).collect(),
        columns: vec![
            Column { name: "score".into(), values: score },
            Column { name: "depth".into(), values: depth.iter().map(|&d| Some(d)).collect() },
            Column { name: "constant".into(), values: vec![Some(1.0); n] },
            Column { name: "rare".into(), values: (0..n).map(|i| (i < 2).then_some(i as f64)).collect() },
        ],
        macs: Some(depth.iter().map(|d| 10.0 * d).collect()),
        depth: Some(depth),
        rows: join::Rows::default(),
        differing: None,
        text_columns: Vec::new(),
        canonical: true,
    }
}

fn options() -> Options {
    Options { seed: 0, bootstrap: 200, top: TOP.to_vec(), lower_is_better: Vec::new() }
}

#[test]
fn tau_within_groups_is_not_tau_over_all() {
    let population = layered(5);
    let report = |i: usize, options: &Options| evaluate(&population, &population.columns[i], "acc", options);
    let score = report(0, &options());
    // 5 groups of 66 concordant pairs; 10 pairs of groups with 144 discordant pairs each.
    let tau = (5.0 * 66.0 - 10.0 * 144.0) / 1770.0;
    assert!((score.kendall_tau.value.unwrap() - tau).abs() < ROUNDING);
    for within in [&score.kendall_within_depth, &score.kendall_within_macs] {
        assert_eq!((within.mean.value, within.mean.low, within.pair_weighted), (Some(1.0), Some(1.0), Some(1.0)));
        assert_eq!(within.groups.len(), 5);
    }
    let interval = (score.kendall_tau.low.unwrap(), score.kendall_tau.high.unwrap());
    assert!(interval.0 < tau && tau < interval.1 && interval.1 - interval.0 < 0.5, "{interval:?}");
    assert_eq!(report(0, &options()), score);
    assert_ne!(report(0, &Options { seed: 1, ..options() }).kendall_tau, score.kendall_tau);
    // The best score is the twelfth truth of 60.
    assert_eq!(score.top_k_regret[0].regret, Some(59.0 - 11.0));
    let lower = report(0, &Options { lower_is_better: vec!["score".into()], ..options() });
    assert_eq!(lower.kendall_tau, score.kendall_tau);
    assert_eq!(lower.top_k_regret[0].regret, Some(59.0 - 48.0));
    let both = Options { lower_is_better: vec!["score".into(), "acc".into()], ..options() };
    assert_eq!(report(0, &both).top_k_regret[0].regret, Some(48.0));
}

#[test]
fn depth_is_worth_nothing_within_equal_depth() {
    let population = layered(5);
    let report = evaluate(&population, &population.columns[1], "acc", &options());
    assert!(report.kendall_tau.value.unwrap() > 0.85);
    let within = &report.kendall_within_depth;
    assert_eq!((within.mean.value, within.pair_weighted), (Some(0.0), Some(0.0)));
    assert!(within.groups.iter().all(|g| g.counted && g.undefined == Some(Undefined::ConstantScore)));
}

#[test]
fn what_is_undefined_says_why() {
    let mut population = layered(5);
    let report = |population: &Population, i: usize| evaluate(population, &population.columns[i], "acc", &options());
    let constant = report(&population, 2);
    for estimate in [&constant.kendall_tau, &constant.spearman, &constant.kendall_within_depth.mean] {
        assert_eq!((estimate.value, estimate.low, estimate.undefined), (None, None, Some(Undefined::ConstantScore)));
    }
    // Any network may be the one on top: the mean of 59 - (0..=59).
    assert!((constant.top_k_regret[0].regret.unwrap() - 29.5).abs() < 1e-9);
    let rare = report(&population, 3);
    assert_eq!((rare.networks, rare.left_out, rare.kendall_tau.undefined), (2, 58, Some(Undefined::TooFew)));
    // The best of all, 59, has no score; the better of the two that have one is 1.
    assert_eq!(rare.top_k_regret[0].regret, Some(58.0));
    assert_eq!(rare.top_k_regret.iter().filter(|r| r.regret.is_some()).count(), 1);
    population.macs = None;
    population.depth = Some((0..60).map(|i| f64::from(i / 6)).collect());
    let small = report(&population, 0);
    assert_eq!(small.kendall_within_macs.mean.undefined, Some(Undefined::NoGroups));
    assert_eq!(small.kendall_within_depth.mean.undefined, Some(Undefined::SmallGroups));
    assert!(small.kendall_within_depth.groups.iter().all(|g| !g.counted && g.tau == Some(1.0)));
    population.truth = vec![3.0; 60];
    assert_eq!(report(&population, 0).kendall_tau.undefined, Some(Undefined::ConstantTruth));
}

#[test]
fn a_picture_has_a_mark_a_network_and_a_colour_a_depth() {
    for (groups, colours) in [(5, 5), (20, 9)] {
        let population = layered(groups);
        let report = evaluate(&population, &population.columns[0], "acc", &options());
        let svg = picture(&population, &population.columns[0], "acc", &report);
        assert_eq!(svg.matches("<circle").count(), 12 * groups);
        assert_eq!(svg.matches("<g fill").count(), colours);
        assert!(svg.contains("score: Kendall tau -0.") && svg.contains(">depth<"));
    }
}
