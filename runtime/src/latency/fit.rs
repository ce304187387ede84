//! What whole networks take, fitted to sums over their blocks. It knows no supernet: a network is what it has of each feature.

use serde::{Deserialize, Serialize};

use crate::path_table::{MIN_PATHS, Ridge};

/// How the sum of blocks is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Not at all: no whole network was measured.
    Sum,
    /// By an overhead and a slope.
    Line,
    /// By an overhead, a slope and a table of what remains, with this ridge.
    LineAndTable(f64),
    /// By an overhead and a slope for each operator, with this ridge towards a slope for all.
    Slopes(f64),
}

/// A network as a fit sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Sum of its blocks, milliseconds.
    pub sum: f64,
    /// What each operator takes of that wherever it stands, milliseconds. Blocks of every network need not be among them.
    pub times: Vec<f64>,
    /// How often it has each of what a table has a number for.
    pub counts: Vec<f64>,
    /// What was measured of it as a whole: milliseconds, or what else is to be predicted; above 0.
    pub measured: f64,
}

/// A prediction of whole networks: `overhead + slope * sum + more . times + rest + table . counts`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// How.
    pub method: Method,
    /// What a network takes beyond its blocks; may be negative.
    pub overhead: f64,
    /// What it takes for each millisecond of its blocks.
    pub slope: f64,
    /// What it takes more than that for each millisecond of an operator; empty if that is the same for all.
    pub more: Vec<f64>,
    /// What it takes besides by the table of what remains, whatever its counts.
    pub rest: f64,
    /// What it takes besides for each count; empty if nothing.
    pub table: Vec<f64>,
    /// Root mean square of the relative errors of networks left out, by cross-validation over the samples; what to expect of
    /// others. Not a number where nothing was fitted.
    pub expected_error: f64,
}

/// Parts of the cross-validation.
const FOLDS: usize = 8;
/// Ridges of a table that are tried, in runs of a network: larger means less of it.
const RIDGES: [f64; 8] = [64.0, 16.0, 4.0, 1.0, 0.25, 0.0625, 0.0156, 0.0039];
/// Ridges of slopes that are tried, in networks of one operator: larger means slopes closer to one another.
const SLOPE_RIDGES: [f64; 8] = [4.0, 1.0, 0.25, 0.0625, 0.0156, 0.0039, 0.001, 0.00025];
/// Share by which a table must lower the error of networks left out to be preferred to a line alone: less may be chance.
const WORTH_OF_A_TABLE: f64 = 0.1;
/// Share by which slopes must lower it further. On HW-NAS-Bench slopes of 32 or 64 networks lowered it by up to 0.3 in 5 of 144
/// fits, and in 4 of these were worse on networks outside of the fit; where blocks differ by orders of magnitude they lower it by more
/// than half.
const WORTH_OF_SLOPES: f64 = 0.5;
/// Relative error that nobody would lower.
const NOTHING: f64 = 1e-4;

impl Fitted {
    /// The plain sum.
    pub fn none() -> Self {
        let (more, table) = (Vec::new(), Vec::new());
        Self { method: Method::Sum, overhead: 0.0, slope: 1.0, more, rest: 0.0, table, expected_error: f64::NAN }
    }

    /// What [`Fitted::new`] tries, the simplest first.
    pub fn methods() -> Vec<Method> {
        let ridges = RIDGES.map(Method::LineAndTable).into_iter().chain(SLOPE_RIDGES.map(Method::Slopes));
        std::iter::once(Method::Line).chain(ridges).collect()
    }

    /// Fits to samples, all with as many times and counts as the first; those that are not measured (not finite, or not above
    /// 0) are left out. With fewer than 8 it is no more than [`Fitted::none`].
    ///
    /// Of a line, a line with a table of counts, and slopes, it is what cross-validation prefers. Lines and slopes are least
    /// squares of relative errors (weights `1 / measured^2`), since relative errors are what a prediction is judged by. The table is one
    /// of what remains, all networks weighing alike: with the line's weights, errors on networks of HW-NAS-Bench left
    /// out were the same (by less than 0.03 points of MAPE better or worse, 60 fits of 32 and 100 networks).
    pub fn new(samples: &[Sample]) -> Self {
        Self::among(&Self::methods(), samples)
    }

    /// As [`Fitted::new`], with these methods to choose from: the first, unless a table lowers its error by a tenth; and that,
    /// unless slopes lower it by half.
    pub fn among(methods: &[Method], samples: &[Sample]) -> Self {
        let usable = |s: &&Sample| s.measured.is_finite() && s.measured > 0.0 && s.sum.is_finite();
        let samples: Vec<&Sample> = samples.iter().filter(usable).collect();
        if samples.len() < MIN_PATHS {
            return Self::none();
        }
        let errors: Vec<(Method, f64)> = methods.iter().map(|&method| (method, left_out(&samples, method))).collect();
        let Some(&first) = errors.first() else { return Self::none() };
        let (mut method, mut expected_error) = first;
        for (slopes, worth) in [(false, WORTH_OF_A_TABLE), (true, WORTH_OF_SLOPES)] {
            let of_kind =
                |&&(method, error): &&(Method, f64)| matches!(method, Method::Slopes(_)) == slopes && error.is_finite();
            let of_kind = errors.iter().filter(of_kind);
            let least = of_kind.min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some(&least) = least.filter(|l| expected_error > NOTHING && l.1 < (1.0 - worth) * expected_error) {
                (method, expected_error) = least;
            }
        }
        Self { expected_error, ..Self::by(method, &samples) }
    }

    /// What is predicted of a network, whatever was measured of it.
    pub fn predict(&self, sample: &Sample) -> f64 {
        let line = self.overhead + self.slope * sample.sum + dot(&self.more, &sample.times);
        line + self.rest + dot(&self.table, &sample.counts)
    }

    /// A method fitted to samples.
    fn by(method: Method, samples: &[&Sample]) -> Self {
        let (overhead, slope) = if method == Method::Sum { (0.0, 1.0) } else { line_of(samples) };
        let line = Self { method, overhead, slope, ..Self::none() };
        let rest: Vec<f64> = samples.iter().map(|s| s.measured - line.predict(s)).collect();
        match method {
            Method::Sum | Method::Line => line,
            Method::LineAndTable(ridge) => {
                let columns = samples.first().map_or(0, |s| s.counts.len());
                let x = samples.iter().flat_map(|s| s.counts.iter().copied()).collect();
                let fit = Ridge::fit(x, columns, &rest, ridge);
                Self { rest: fit.intercept, table: fit.coefficients, ..line }
            }
            Method::Slopes(ridge) => {
                let columns = samples.first().map_or(0, |s| s.times.len());
                // In units of the measured, so that a ridge means the same whatever these are.
                let unit = ratio_of(samples);
                let x = samples.iter().flat_map(|s| s.times.iter().map(|time| unit * time)).collect();
                let weights: Vec<f64> = samples.iter().map(|s| 1.0 / (s.measured * s.measured)).collect();
                let fit = Ridge::weighted(x, columns, &rest, &weights, ridge);
                let more = fit.coefficients.iter().map(|share| unit * share).collect();
                Self { overhead: overhead + fit.intercept, more, ..line }
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Overhead and slope.
fn line_of(samples: &[&Sample]) -> (f64, f64) {
    // Minimises sum ((a + b s - y) / y)^2.
    let (mut w, mut ws, mut wss, mut wy, mut wsy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for sample in samples {
        let (s, y) = (sample.sum, sample.measured);
        let weight = 1.0 / (y * y);
        w += weight;
        ws += weight * s;
        wss += weight * s * s;
        wy += weight * y;
        wsy += weight * s * y;
    }
    let determinant = w * wss - ws * ws;
    // Sums that are all equal tell nothing of a slope.
    if determinant <= 1e-12 * w * wss {
        let slope = 1.0;
        return (if w > 0.0 { (wy - slope * ws) / w } else { 0.0 }, slope);
    }
    let slope = (w * wsy - ws * wy) / determinant;
    ((wy - slope * ws) / w, slope)
}

/// Slope of a line without an overhead, 1 where there is none above 0.
fn ratio_of(samples: &[&Sample]) -> f64 {
    // Minimises sum ((b s - y) / y)^2.
    let shares = || samples.iter().map(|sample| sample.sum / sample.measured);
    let ratio = shares().sum::<f64>() / shares().map(|share| share * share).sum::<f64>();
    if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
}

/// Root mean square of the relative errors on networks left out of the fit, a part at a time.
fn left_out(samples: &[&Sample], method: Method) -> f64 {
    let folds = FOLDS.min(samples.len());
    let mut squares = 0.0;
    for fold in 0..folds {
        let (out, within): (Vec<_>, Vec<_>) = samples.iter().enumerate().partition(|(i, _)| i % folds == fold);
        let within: Vec<&Sample> = within.into_iter().map(|(_, s)| *s).collect();
        let fitted = Fitted::by(method, &within);
        squares += out.into_iter().map(|(_, s)| (fitted.predict(s) / s.measured - 1.0).powi(2)).sum::<f64>();
    }
    (squares / samples.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Differences that rounding explains.
    const EXACT: f64 = 1e-9;

    /// Networks of three operators whose blocks differ a thousandfold, as far apart as `count` numbers allow.
    fn networks(count: usize, truth: impl Fn(&[f64]) -> f64) -> Vec<Sample> {
        let network = |i: usize| {
            let share = |step: usize| ((i * step + 3) % 101) as f64 / 101.0;
            let size = 10.0_f64.powf(3.0 * share(37));
            let times: Vec<f64> = [29, 53, 71].iter().map(|&step| size * share(step)).collect();
            let counts = vec![1.0 + (i % 3) as f64, 1.0 + (i % 5) as f64, 1.0 + (i % 7) as f64];
            Sample { sum: 0.5 + times.iter().sum::<f64>(), measured: truth(&times), times, counts }
        };
        (0..count).map(network).collect()
    }

    fn worst(fitted: &Fitted, samples: &[Sample]) -> f64 {
        samples.iter().map(|s| (fitted.predict(s) / s.measured - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn operators_of_other_slopes_are_found_where_blocks_differ_a_thousandfold() {
        let truth = |times: &[f64]| 0.3 + 0.5 * times[0] + 1.0 * times[1] + 3.0 * times[2];
        let (fit, check) = (networks(40, truth), networks(101, truth).split_off(40));
        let fitted = Fitted::new(&fit);
        assert!(matches!(fitted.method, Method::Slopes(_)), "{fitted:?}");
        let slopes: Vec<f64> = fitted.more.iter().map(|more| fitted.slope + more).collect();
        for (slope, wanted) in slopes.iter().zip([0.5, 1.0, 3.0]) {
            assert!((slope - wanted).abs() < 0.05 * wanted, "{slopes:?}");
        }
        let samples: Vec<&Sample> = fit.iter().collect();
        let others =
            [Method::Line, Method::LineAndTable(1.0)].map(|method| worst(&Fitted::by(method, &samples), &check));
        assert!(others.iter().all(|&other| worst(&fitted, &check) < 0.2 * other), "{others:?}");
    }

    #[test]
    fn the_unit_of_what_is_measured_does_not_matter() {
        let truth = |times: &[f64]| 0.3 + 0.5 * times[0] + 1.0 * times[1] + 3.0 * times[2];
        let fit = networks(40, truth);
        let mut scaled = fit.clone();
        scaled.iter_mut().for_each(|s| s.measured *= 1000.0);
        let (one, other) = (Fitted::new(&fit), Fitted::new(&scaled));
        assert_eq!(one.method, other.method);
        for sample in &networks(101, truth) {
            assert!((other.predict(sample) / one.predict(sample) / 1000.0 - 1.0).abs() < EXACT);
        }
    }

    #[test]
    fn slopes_are_the_least_of_their_neighbours() {
        let fit = networks(30, |times| 1.0 + times[0] + 2.0 * times[1] + 0.7 * times[2] + (times[0] * times[1]).sqrt());
        let samples: Vec<&Sample> = fit.iter().collect();
        let (ridge, unit) = (0.25, ratio_of(&samples));
        let cost = |f: &Fitted| {
            let errors: f64 = fit.iter().map(|s| (f.predict(s) / s.measured - 1.0).powi(2)).sum();
            errors + ridge * f.more.iter().map(|more| (more / unit).powi(2)).sum::<f64>()
        };
        let fitted = Fitted::by(Method::Slopes(ridge), &samples);
        for i in 0..4 {
            for step in [-1e-4, 1e-4] {
                let mut other = fitted.clone();
                *other.more.get_mut(i).unwrap_or(&mut other.overhead) += step;
                assert!(cost(&other) > cost(&fitted), "{i}");
            }
        }
    }

    #[test]
    fn samples_that_tell_nothing_correct_nothing() {
        let mut few = networks(7, |_| 1.0);
        few.extend([f64::NAN, 0.0, -1.0].map(|measured| Sample { measured, ..few[0].clone() }));
        let fitted = Fitted::new(&few);
        assert_eq!((fitted.method, fitted.predict(&few[0])), (Method::Sum, few[0].sum));
        // No features, and sums of nothing.
        let bare = Sample { sum: 0.0, times: Vec::new(), counts: Vec::new(), measured: 2.0 };
        let fitted = Fitted::new(&vec![bare.clone(); 9]);
        assert!((fitted.predict(&bare) - 2.0).abs() < EXACT, "{fitted:?}");
    }
}
