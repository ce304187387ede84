//! What the drift of tangent kernels comes to: means, a table, CSV and charts.

use std::{collections::BTreeSet, path::PathBuf};

use nasbn_models::Supernet;
use serde::Serialize;

use super::NtkDriftArgs;
use crate::{
    analyze::{
        drift::{Moment, StatisticsUse},
        spread,
    },
    cli::{
        Failure,
        analyze::{RESULT_FILE, placement_name, with_spread},
        output,
        training::TrainingArgs,
    },
    plot::{Labels, Series, lines},
};

/// Names of the files in --out.
const CSV_FILE: &str = "ntk-drift.csv";
const KERNEL_PLOT: &str = "ntk-drift.svg";
const LOSS_PLOT: &str = "ntk-loss.svg";
const LOGITS_PLOT: &str = "ntk-logits.svg";
const SUPERNET_PLOT: &str = "ntk-drift-supernet.svg";

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Training {
    /// The path alone, by gradient descent on the fixed batch.
    Path,
    /// The supernet, by mini-batches.
    Supernet,
}

impl Training {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Supernet => "supernet",
        }
    }
}

/// The drift of one path of one bundle.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub training: Training,
    pub width: f64,
    #[serde(skip)]
    pub permille: u32,
    pub bundle: PathBuf,
    pub path: String,
    /// BatchNorm parameters of the path: gammas and betas.
    pub bn_parameters: usize,
    /// Learning rate; the peak of the supernet's.
    pub rate: f64,
    pub moments: Vec<Moment>,
}

/// Means over the runs of a training and a width at one moment.
#[derive(Serialize)]
pub struct Mean {
    pub training: Training,
    pub width: f64,
    pub runs: usize,
    pub bn_parameters: f64,
    pub rate: f64,
    pub step: u64,
    pub loss: Estimate,
    pub linearised_loss: Option<Estimate>,
    pub kernel_distance: Estimate,
    pub kernel_norm: Estimate,
    pub kernel_cosine: Estimate,
    pub logit_distance: Option<Estimate>,
}

#[derive(Clone, Copy, Serialize)]
pub struct Estimate {
    pub mean: f64,
    /// Sample standard deviation over runs; null for one run.
    pub deviation: Option<f64>,
}

impl Estimate {
    fn text(&self) -> String {
        with_spread((self.mean, self.deviation), 4)
    }
}

/// result.json.
#[derive(Serialize)]
pub struct Report {
    pub space: String,
    pub placement: &'static str,
    pub batch: u32,
    pub steps: u32,
    pub statistics: StatisticsUse,
    /// Passes of the supernet's training; null without it.
    pub epochs: Option<u32>,
    pub seed: u64,
    pub means: Vec<Mean>,
    pub runs: Vec<Run>,
    pub files: Vec<PathBuf>,
}

pub fn report(args: &NtkDriftArgs, training: &TrainingArgs, supernet: &Supernet, runs: Vec<Run>) -> Report {
    let mut widths: Vec<u32> = runs.iter().map(|run| run.permille).collect();
    widths.dedup();
    let mut means = Vec::new();
    for training in [Training::Path, Training::Supernet] {
        for &permille in &widths {
            let of: Vec<&Run> = runs.iter().filter(|r| r.training == training && r.permille == permille).collect();
            let Some(first) = of.first() else { continue };
            for moment in 0..first.moments.len() {
                let mean = |value: &dyn Fn(&Moment) -> Option<f64>| {
                    let values: Vec<f64> = of.iter().filter_map(|r| r.moments.get(moment).and_then(value)).collect();
                    let (mean, deviation) = spread(&values);
                    (!values.is_empty()).then_some(Estimate { mean, deviation })
                };
                let whole = |value: &dyn Fn(&Moment) -> f64| {
                    mean(&|m| Some(value(m))).unwrap_or(Estimate { mean: f64::NAN, deviation: None })
                };
                means.push(Mean {
                    training,
                    width: first.width,
                    runs: of.len(),
                    bn_parameters: spread(&of.iter().map(|r| r.bn_parameters as f64).collect::<Vec<_>>()).0,
                    rate: spread(&of.iter().map(|r| r.rate).collect::<Vec<_>>()).0,
                    step: first.moments[moment].step,
                    loss: whole(&|m| m.loss),
                    linearised_loss: mean(&|m| m.linearised_loss),
                    kernel_distance: whole(&|m| m.kernel_distance),
                    kernel_norm: whole(&|m| m.kernel_norm),
                    kernel_cosine: whole(&|m| m.kernel_cosine),
                    logit_distance: mean(&|m| m.logit_distance),
                });
            }
        }
    }
    let mut files = vec![CSV_FILE, KERNEL_PLOT, LOSS_PLOT, LOGITS_PLOT];
    files.extend(args.supernet.then_some(SUPERNET_PLOT));
    files.push(RESULT_FILE);
    Report {
        space: supernet.name.clone(),
        placement: placement_name(supernet.placement),
        batch: args.batch,
        steps: args.steps,
        statistics: args.statistics.into(),
        epochs: args.supernet.then_some(training.epochs),
        seed: args.seed,
        means,
        runs,
        files: files.into_iter().map(|file| args.out.join(file)).collect(),
    }
}

/// The files of the result, the JSON last.
pub fn files(report: &Report) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut files = vec![
        (CSV_FILE, csv(&report.runs)),
        (KERNEL_PLOT, kernel_plot(report, Training::Path)),
        (LOSS_PLOT, loss_plot(report)),
        (LOGITS_PLOT, logits_plot(report)),
    ];
    if report.epochs.is_some() {
        files.push((SUPERNET_PLOT, kernel_plot(report, Training::Supernet)));
    }
    files.push((RESULT_FILE, serde_json::to_string_pretty(report).map_err(Failure::usage)?));
    Ok(files)
}

/// A row a moment of a run; what there is none of is empty.
fn csv(runs: &[Run]) -> String {
    let mut text = String::from(
        "training,width,bundle,path,bn_parameters,rate,step,loss,linearised_loss,kernel_distance,kernel_norm,\
         kernel_cosine,logit_distance\n",
    );
    let quoted = |cell: String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    let cell = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    for run in runs {
        let Run { training, width, path, bn_parameters, rate, .. } = run;
        let bundle = quoted(run.bundle.display().to_string());
        for m in &run.moments {
            let Moment { step, loss, kernel_distance, kernel_norm, kernel_cosine, .. } = m;
            let (training, linearised, logits) = (training.name(), cell(m.linearised_loss), cell(m.logit_distance));
            text += &format!(
                "{training},{width},{bundle},{path},{bn_parameters},{rate},{step},{loss},{linearised},{kernel_distance},\
                 {kernel_norm},{kernel_cosine},{logits}\n"
            );
        }
    }
    text
}

/// A line a width.
fn by_width(report: &Report, training: Training, value: &dyn Fn(&Mean) -> f64) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for mean in report.means.iter().filter(|mean| mean.training == training) {
        let name = format!("width {}", mean.width);
        if series.last().is_none_or(|last| last.name != name) {
            series.push(Series { name: name.clone(), ..Series::default() });
        }
        if let Some(last) = series.last_mut() {
            last.points.push((mean.step as f64, value(mean)));
        }
    }
    series
}

fn labels(report: &Report, training: Training, title: &str, y: &str) -> Labels {
    let of: Vec<&Run> = report.runs.iter().filter(|run| run.training == training).collect();
    let widths = of.iter().map(|run| run.permille).collect::<BTreeSet<_>>().len().max(1);
    let how = match training {
        Training::Path => format!("gradient descent on {} images", report.batch),
        Training::Supernet => format!("mini-batches of {}, {} epochs", report.batch, report.epochs.unwrap_or(0)),
    };
    let each = of.len() / widths;
    let runs = if each == 1 { "one path".to_owned() } else { format!("mean of {each} runs a width") };
    Labels {
        title: title.into(),
        subtitle: format!("{}; {how}; {runs}", report.space),
        x: "step".into(),
        y: y.into(),
        legend: String::new(),
    }
}

fn kernel_plot(report: &Report, training: Training) -> String {
    let title = match training {
        Training::Path => "How far the tangent kernel moves while a path is trained",
        Training::Supernet => "How far paths' tangent kernels move while the supernet is trained",
    };
    let labels = labels(report, training, title, "relative distance from the first kernel");
    lines(&labels, &by_width(report, training, &|mean| mean.kernel_distance.mean))
}

fn loss_plot(report: &Report) -> String {
    let mut labels = labels(report, Training::Path, "Loss, and what the first kernel foretells", "cross-entropy, nats");
    labels.subtitle += "; dashed: foretold";
    let mut series = Vec::new();
    let real = by_width(report, Training::Path, &|mean| mean.loss.mean);
    let linear = |mean: &Mean| mean.linearised_loss.map_or(f64::NAN, |estimate| estimate.mean);
    let foretold = by_width(report, Training::Path, &linear);
    for (real, foretold) in real.into_iter().zip(foretold) {
        series.extend([real, Series { dashed: true, ..foretold }]);
    }
    lines(&labels, &series)
}

fn logits_plot(report: &Report) -> String {
    let title = "How far logits are from those that the first kernel foretells";
    let labels = labels(report, Training::Path, title, "distance, of the way that the logits have gone");
    let value = |mean: &Mean| mean.logit_distance.map_or(f64::NAN, |estimate| estimate.mean);
    lines(&labels, &by_width(report, Training::Path, &value))
}

pub fn print(report: &Report) -> Result<(), Failure> {
    let heads = [
        "training",
        "width",
        "BN parameters",
        "rate",
        "step",
        "loss before",
        "loss",
        "foretold loss",
        "kernel distance",
        "norm",
        "cosine",
        "logit distance",
    ];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (i, mean) in report.means.iter().enumerate() {
        let follows = |next: &Mean| next.training == mean.training && next.width == mean.width;
        if report.means.get(i + 1).is_some_and(follows) {
            continue;
        }
        let before = report.means.iter().find(|first| follows(first)).unwrap_or(mean);
        let or_none = |estimate: &Option<Estimate>| estimate.as_ref().map_or("-".to_owned(), Estimate::text);
        rows.push(vec![
            mean.training.name().to_owned(),
            format!("{}", mean.width),
            format!("{:.0}", mean.bn_parameters),
            if mean.rate < 0.001 { format!("{:.1e}", mean.rate) } else { format!("{:.3}", mean.rate) },
            mean.step.to_string(),
            before.loss.text(),
            mean.loss.text(),
            or_none(&mean.linearised_loss),
            mean.kernel_distance.text(),
            mean.kernel_norm.text(),
            mean.kernel_cosine.text(),
            or_none(&mean.logit_distance),
        ]);
    }
    output::table(&heads.map(str::to_owned), rows)?;
    output::line("\n(at the last step; mean ± standard deviation over paths and bundles of a width)")?;
    for file in &report.files {
        output::line(format!("wrote {}", file.display()))?;
    }
    Ok(())
}
