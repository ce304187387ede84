//! What the correction of latencies makes of whole networks that were measured on a Jetson Nano.
//!
//!     cargo run --profile quick -p nasbn-tests --example nano -- ../shared/data/jetson-nano-cnn/dev.csv [--seeds 10]
//!
//! The networks are chains of one operator each, of all sizes; there is no supernet and no table of blocks. So a block's time is
//! what the board's data sheet allows at best (a roofline), and features are those that the correction has of paths: how
//! often a network has each operator, and how long each takes. Fits are to random networks, errors on all others.

#[path = "support/chain.rs"]
mod chain;

use std::{env, fs};

use anyhow::{Context, Result, bail};
use chain::{Chain, read};
use nasbn_models::sample;
use nasbn_runtime::latency::{Fitted, Method, PredictionError, Sample};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Networks in the fit.
const FITS: [usize; 4] = [32, 64, 100, 400];
/// Fit of which errors are told family by family.
const SHOWN: usize = 100;
/// Seeds, unless others are asked for.
const SEEDS: u64 = 10;

/// What is predicted of a network.
type Quantity = fn(&Chain) -> f64;

/// What predicts.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Whether a network is its MACs instead of the sum of its blocks.
    by_macs: bool,
    fit: fn(&[Sample]) -> Fitted,
}

const WAYS: [Way; 5] = [
    Way { name: "plain sums", by_macs: false, fit: |_| Fitted::none() },
    Way { name: "overhead + slope x MACs", by_macs: true, fit: |samples| Fitted::among(&[Method::Line], samples) },
    Way { name: "overhead + slope", by_macs: false, fit: |samples| Fitted::among(&[Method::Line], samples) },
    Way {
        name: "a number an operator, if it is worth it",
        by_macs: false,
        fit: |samples| Fitted::among(&without_slopes(), samples),
    },
    Way { name: "**with a slope an operator, as nasbn chooses**", by_macs: false, fit: Fitted::new },
];

fn without_slopes() -> Vec<Method> {
    Fitted::methods().into_iter().filter(|method| !matches!(method, Method::Slopes(_))).collect()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (file, seeds) = match &arguments[..] {
        [file] => (file, SEEDS),
        [file, option, seeds] if option == "--seeds" => (file, seeds.parse().context("--seeds wants a number")?),
        _ => bail!("usage: nano dev.csv [--seeds N]"),
    };
    let text = fs::read_to_string(file).with_context(|| file.clone())?;
    let chains = read(&text).with_context(|| file.clone())?;
    if chains.len() <= FITS[FITS.len() - 1] {
        bail!("{file} has {} networks, more than {} are needed", chains.len(), FITS[FITS.len() - 1]);
    }
    println!("{} networks; {seeds} seeds (networks of the fit), mean ± deviation over them\n", chains.len());
    let (latency, energy): (Quantity, Quantity) = (|chain| chain.latency_ms, |chain| chain.energy_mj);
    for (what, of) in [("latency", latency), ("energy of the GPU", energy)] {
        sizes(what, &chains, of, seeds);
        families(what, &chains, of, seeds);
    }
    Ok(())
}

/// Errors of every way, for every size of fit.
fn sizes(what: &str, chains: &[Chain], of: Quantity, seeds: u64) {
    println!("| {what} | {} |", FITS.map(|n| format!("{n} in the fit")).join(" | "));
    println!("|{}", " --- |".repeat(FITS.len() + 1));
    for way in WAYS {
        let cells = FITS.map(|n| {
            let errors: Vec<_> = (0..seeds).filter_map(|seed| judged(way, chains, of, (n, seed), |_| true)).collect();
            show(&errors)
        });
        println!("| {} | {} |", way.name, cells.join(" | "));
    }
    for n in FITS {
        let tell = |seed| format!("{:?}", (WAYS[WAYS.len() - 1].fit)(&split(chains, of, (n, seed), false).0).method);
        println!("chosen with {n}: {}", (0..seeds).map(tell).collect::<Vec<_>>().join(", "));
    }
    println!();
}

/// Errors of every way, for every kind of network.
fn families(what: &str, chains: &[Chain], of: Quantity, seeds: u64) {
    let kinds = ["ordinary", "mixed", "depthwise"];
    println!("| {what}, {SHOWN} in the fit | {} |", kinds.join(" | "));
    println!("|{}", " --- |".repeat(kinds.len() + 1));
    for way in WAYS {
        let cells = kinds.map(|kind| {
            let errors = (0..seeds).filter_map(|seed| judged(way, chains, of, (SHOWN, seed), |c| c.kind == kind));
            show(&errors.collect::<Vec<_>>())
        });
        println!("| {} | {} |", way.name, cells.join(" | "));
    }
    println!();
}

/// Samples of the networks of a fit, and of the others; and those others.
fn split(
    chains: &[Chain],
    of: Quantity,
    (count, seed): (usize, u64),
    by_macs: bool,
) -> (Vec<Sample>, Vec<(&Chain, Sample)>) {
    let mut order: Vec<usize> = (0..chains.len()).collect();
    sample::shuffle(&mut ChaCha8Rng::seed_from_u64(seed), &mut order);
    let sample = |chain: &Chain| {
        let mut sample = chain.sample(of(chain));
        if by_macs {
            sample.sum = chain.macs as f64 / 1e6;
        }
        sample
    };
    let fit = order[..count].iter().map(|&i| sample(&chains[i])).collect();
    (fit, order[count..].iter().map(|&i| (&chains[i], sample(&chains[i]))).collect())
}

/// Errors on the networks that were not in the fit, those that `keep` keeps.
fn judged(
    way: Way,
    chains: &[Chain],
    of: Quantity,
    fit: (usize, u64),
    keep: impl Fn(&Chain) -> bool,
) -> Option<PredictionError> {
    let (within, others) = split(chains, of, fit, way.by_macs);
    let fitted = (way.fit)(&within);
    let others = others.iter().filter(|(chain, _)| keep(chain));
    let pairs: Vec<(f64, f64)> = others.map(|(_, sample)| (fitted.predict(sample), sample.measured)).collect();
    PredictionError::of_pairs(&pairs)
}

/// MAPE, shares within 5 and 10 %, and tau.
fn show(errors: &[PredictionError]) -> String {
    let of = |value: fn(&PredictionError) -> f64, scale: f64| {
        let values: Vec<f64> = errors.iter().map(|error| scale * value(error)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
    };
    let ((mape, spread), (tau, _)) = (of(|e| e.mape, 100.0), of(|e| e.kendall_tau, 1.0));
    let (five, ten) = (of(|e| e.within_5, 100.0).0, of(|e| e.within_10, 100.0).0);
    format!("{mape:.1} ± {spread:.1} %; {five:.0} %, {ten:.0} %; {tau:.3}")
}
