//! BatchNorm, its recomputation and its gradient.

use super::{CLOSE, assert_close, dims, threads, values};
use crate::instructions::testing::with_each;
use crate::{Affine, BatchNorm, Dims, Gradients, Parallel, SampleGradients, Serial, Statistics, Trained};

const EPSILON: f32 = 1e-5;
/// (N, H, W, C): odd sizes, single pixels, channels below, beside and above the vector widths, sums over several
/// blocks and parts.
const SHAPES: [(usize, usize, usize, usize); 14] = [
    (1, 1, 1, 1),
    (2, 1, 1, 1),
    (3, 2, 1, 3),
    (2, 1, 5, 17),
    (5, 7, 7, 1),
    (3, 5, 2, 24),
    (4, 7, 5, 40),
    (2, 2, 2, 960),
    (33, 1, 1, 17),
    (9, 7, 7, 3),
    (4, 32, 31, 24),
    (3, 40, 40, 16),
    (2, 30, 33, 97),
    (5, 16, 16, 520),
];

/// The results of a forward pass and its gradient, by the formulas in f64.
struct Twin {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    dx: Vec<f64>,
    dgamma: Vec<f64>,
    dbeta: Vec<f64>,
}

/// `mask`: where the rectifier lets through, taken from the kernel's own output, as the sign of a value near zero
/// depends on rounding.
fn twin(x: &[f32], dy: &[f32], gamma: &[f32], beta: &[f32], residual: Option<&[f32]>, mask: Option<&[f32]>) -> Twin {
    let c = gamma.len();
    let m = x.len() / c;
    let at = |v: &[f32], p: usize, k: usize| f64::from(v[p * c + k]);
    let mut t = Twin {
        y: vec![0.0; x.len()],
        mean: vec![0.0; c],
        var: vec![0.0; c],
        dx: vec![0.0; x.len()],
        dgamma: vec![0.0; c],
        dbeta: vec![0.0; c],
    };
    for k in 0..c {
        let mean = (0..m).map(|p| at(x, p, k)).sum::<f64>() / m as f64;
        let var = (0..m).map(|p| (at(x, p, k) - mean).powi(2)).sum::<f64>() / m as f64;
        let r = 1.0 / (var + f64::from(EPSILON)).sqrt();
        let hhat = |p: usize| (at(x, p, k) - mean) * r;
        let g = |p: usize| if mask.is_some_and(|y| y[p * c + k] <= 0.0) { 0.0 } else { at(dy, p, k) };
        let (sum, product) = (0..m).fold((0.0, 0.0), |(s, q), p| (s + g(p), q + g(p) * hhat(p)));
        for p in 0..m {
            let y = f64::from(gamma[k]) * hhat(p) + f64::from(beta[k]);
            t.y[p * c + k] = if mask.is_some() { y.max(0.0) } else { y } + residual.map_or(0.0, |v| at(v, p, k));
            t.dx[p * c + k] = f64::from(gamma[k]) * r * (g(p) - sum / m as f64 - hhat(p) * product / m as f64);
        }
        (t.mean[k], t.var[k], t.dgamma[k], t.dbeta[k]) = (mean, var, product, sum);
    }
    t
}

struct Run {
    y: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    dx: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

fn run(
    pool: &dyn Parallel,
    shape: Dims,
    x: &[f32],
    dy: &[f32],
    affine: Affine<'_>,
    residual: Option<&[f32]>,
    relu: bool,
) -> Run {
    let (n, c) = (shape.values(), shape.channels());
    let mut norm = BatchNorm::new("test", EPSILON, relu).unwrap();
    // Filled with NaN, so that a value which is not written shows.
    let fresh = |len| vec![f32::NAN; len];
    let mut r = Run { y: fresh(n), mean: fresh(c), var: fresh(c), dx: fresh(n), dgamma: fresh(c), dbeta: fresh(c) };
    norm.train(pool, shape, x, affine, residual, Trained { y: &mut r.y, mean: &mut r.mean, var: &mut r.var }).unwrap();
    let statistics = Statistics { mean: &r.mean, var: &r.var };
    let out = Gradients { dx: &mut r.dx, dgamma: &mut r.dgamma, dbeta: &mut r.dbeta };
    norm.gradient(pool, shape, dy, x, affine, statistics, out).unwrap();
    let mut again = fresh(n);
    norm.apply(pool, shape, x, affine, statistics, residual, &mut again).unwrap();
    assert!(r.y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "recomputation differs at {shape:?}");
    r
}

fn parameters(c: usize) -> (Vec<f32>, Vec<f32>) {
    (values(5, c).iter().map(|v| v + 0.2).collect(), values(6, c))
}

#[test]
fn agrees_with_the_formulas() {
    with_each(compare_with_the_formulas);
}

fn compare_with_the_formulas() {
    for (n, h, w, c) in SHAPES {
        let shape = dims(n, h, w, c);
        let (x, dy, added) = (values(1, shape.values()), values(2, shape.values()), values(3, shape.values()));
        let (gamma, beta) = parameters(c);
        let affine = Affine { gamma: &gamma, beta: &beta };
        for (relu, residual) in [(false, None), (true, None), (false, Some(&*added))] {
            let r = run(&Serial, shape, &x, &dy, affine, residual, relu);
            let t = twin(&x, &dy, &gamma, &beta, residual, relu.then_some(&*r.y));
            let what = |name: &str| format!("{name} {shape:?} relu {relu} residual {}", residual.is_some());
            assert_close(&what("y"), &r.y, &t.y, CLOSE);
            assert_close(&what("mean"), &r.mean, &t.mean, CLOSE);
            assert_close(&what("var"), &r.var, &t.var, CLOSE);
            // A sum's rounding error goes with the sum of magnitudes, not with the sum.
            let terms = (shape.pixels() as f64).sqrt();
            assert_close(&what("dbeta"), &r.dbeta, &t.dbeta, CLOSE * terms.max(1.0) / 4.0 + CLOSE);
            assert_close(&what("dgamma"), &r.dgamma, &t.dgamma, CLOSE * terms.max(1.0) / 4.0 + CLOSE);
            // With one or two pixels nearly all of the gradient cancels.
            let cancelled = if shape.pixels() <= 2 { 50.0 } else { 2.0 };
            assert_close(&what("dx"), &r.dx, &t.dx, cancelled * CLOSE);
        }
    }
}

/// dx, dgamma and dbeta of every sample, with statistics of their own.
fn run_samples(pool: &dyn Parallel, shape: Dims, x: &[f32], dy: &[f32], relu: bool) -> [Vec<f32>; 3] {
    let c = shape.channels();
    let ((gamma, beta), (mean, var)) = (parameters(c), statistics(c));
    let mut norm = BatchNorm::new("test", EPSILON, relu).unwrap();
    let fresh = |len| vec![f32::NAN; len];
    let [mut dx, mut dgamma, mut dbeta] = [shape.values(), shape.batch() * c, shape.batch() * c].map(fresh);
    let out = SampleGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
    let (affine, statistics) = (Affine { gamma: &gamma, beta: &beta }, Statistics { mean: &mean, var: &var });
    norm.gradient_of_samples(pool, shape, dy, x, affine, statistics, out).unwrap();
    [dx, dgamma, dbeta]
}

fn statistics(c: usize) -> (Vec<f32>, Vec<f32>) {
    (values(7, c), values(8, c).iter().map(|v| v * v + 0.1).collect())
}

#[test]
fn gradients_of_samples_agree_with_the_formulas() {
    with_each(compare_samples_with_the_formulas);
}

fn compare_samples_with_the_formulas() {
    for (n, h, w, c) in SHAPES {
        let shape = dims(n, h, w, c);
        let (x, dy) = (values(1, shape.values()), values(2, shape.values()));
        let ((gamma, beta), (mean, var)) = (parameters(c), statistics(c));
        for relu in [false, true] {
            let [dx, dgamma, dbeta] = run_samples(&Serial, shape, &x, &dy, relu);
            let mut y = vec![0.0; x.len()];
            let (affine, given) = (Affine { gamma: &gamma, beta: &beta }, Statistics { mean: &mean, var: &var });
            let mut norm = BatchNorm::new("test", EPSILON, relu).unwrap();
            norm.apply(&Serial, shape, &x, affine, given, None, &mut y).unwrap();
            let (mut to_x, mut to_gamma, mut to_beta) = (vec![0.0; x.len()], vec![0.0; n * c], vec![0.0; n * c]);
            for i in 0..x.len() {
                let (sample, k) = (i / (h * w * c), i % c);
                let r = 1.0 / (f64::from(var[k]) + f64::from(EPSILON)).sqrt();
                let g = if relu && y[i] <= 0.0 { 0.0 } else { f64::from(dy[i]) };
                to_x[i] = f64::from(gamma[k]) * r * g;
                to_gamma[sample * c + k] += g * (f64::from(x[i]) - f64::from(mean[k])) * r;
                to_beta[sample * c + k] += g;
            }
            let what = |name: &str| format!("{name} {shape:?} relu {relu}");
            let terms = ((h * w) as f64).sqrt();
            assert_close(&what("dx"), &dx, &to_x, CLOSE);
            assert_close(&what("dgamma"), &dgamma, &to_gamma, CLOSE * terms.max(1.0) / 4.0 + CLOSE);
            assert_close(&what("dbeta"), &dbeta, &to_beta, CLOSE * terms.max(1.0) / 4.0 + CLOSE);
        }
    }
}

#[test]
fn samples_meet_neither_each_other_nor_the_number_of_threads() {
    for (n, h, w, c) in SHAPES {
        let shape = dims(n, h, w, c);
        let (x, dy) = (values(1, shape.values()), values(2, shape.values()));
        let all = run_samples(&Serial, shape, &x, &dy, true);
        assert_eq!(all, run_samples(&threads(3), shape, &x, &dy, true));
        let image = h * w * c;
        let alone = x.chunks_exact(image).zip(dy.chunks_exact(image));
        let alone = alone.map(|(x, dy)| run_samples(&Serial, dims(1, h, w, c), x, dy, true));
        let joined = alone.reduce(|mut all, one| {
            all.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
            all
        });
        assert_eq!(Some(all), joined, "{shape:?}");
    }
}

#[test]
fn sign_agreement_counts_equal_signs_of_what_apply_gives() {
    with_each(compare_signs_with_a_count);
}

fn compare_signs_with_a_count() {
    for (n, h, w, c) in SHAPES {
        let shape = dims(n, h, w, c);
        let x = values(1, shape.values());
        let ((gamma, beta), (mean, var)) = (parameters(c), statistics(c));
        let (affine, given) = (Affine { gamma: &gamma, beta: &beta }, Statistics { mean: &mean, var: &var });
        let mut norm = BatchNorm::new("test", EPSILON, false).unwrap();
        let mut y = vec![0.0; x.len()];
        norm.apply(&Serial, shape, &x, affine, given, None, &mut y).unwrap();
        let codes: Vec<&[f32]> = y.chunks_exact(h * w * c).collect();
        let equal = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|&(&a, &b)| (a > 0.0) == (b > 0.0)).count() as f32;
        let expected: Vec<f32> = codes.iter().flat_map(|a| codes.iter().map(|b| equal(a, b))).collect();
        // The second call finds the first one's codes.
        for pool in [&Serial as &dyn Parallel, &threads(3)] {
            let mut found = vec![f32::NAN; n * n];
            norm.sign_agreement(pool, shape, &x, affine, given, &mut found).unwrap();
            assert_eq!(found, expected, "{shape:?}");
        }
    }
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    for (n, h, w, c) in [(4, 32, 31, 24), (2, 30, 33, 97), (2, 2, 2, 960)] {
        let shape = dims(n, h, w, c);
        let (x, dy) = (values(1, shape.values()), values(2, shape.values()));
        let (gamma, beta) = parameters(c);
        let affine = Affine { gamma: &gamma, beta: &beta };
        let one = run(&Serial, shape, &x, &dy, affine, None, true);
        for count in [2, 5] {
            let many = run(&threads(count), shape, &x, &dy, affine, None, true);
            assert_eq!((&one.y, &one.mean, &one.var), (&many.y, &many.mean, &many.var));
            assert_eq!((&one.dx, &one.dgamma, &one.dbeta), (&many.dx, &many.dgamma, &many.dbeta));
        }
    }
}

/// Largest relative error of a variance, where the mean is ten thousand times the deviation.
const FAR_MEAN: f64 = 1e-6;

#[test]
fn a_mean_far_from_zero_costs_the_variance_no_digits() {
    let shape = dims(16, 24, 24, 24);
    let x: Vec<f32> = values(7, shape.values()).iter().map(|v| v + 1e4).collect();
    let (gamma, beta) = parameters(24);
    let affine = Affine { gamma: &gamma, beta: &beta };
    let dy = values(2, shape.values());
    let r = run(&Serial, shape, &x, &dy, affine, None, false);
    let t = twin(&x, &dy, &gamma, &beta, None, None);
    assert_close("var", &r.var, &t.var, FAR_MEAN);
}

/// As [`FAR_MEAN`], for data whose first pixel, from which the sums are taken, is a wild outlier.
const OUTLIER: f64 = 1e-5;

#[test]
fn an_outlier_in_the_first_pixel_costs_few_digits() {
    let shape = dims(8, 24, 24, 16);
    let mut x = values(8, shape.values());
    x[..16].fill(3e3);
    let (gamma, beta) = parameters(16);
    let affine = Affine { gamma: &gamma, beta: &beta };
    let dy = values(2, shape.values());
    let r = run(&Serial, shape, &x, &dy, affine, None, false);
    let t = twin(&x, &dy, &gamma, &beta, None, None);
    assert_close("var", &r.var, &t.var, OUTLIER);
}

#[test]
fn equal_values_have_no_variance_and_nan_is_not_hidden() {
    let shape = dims(2, 9, 9, 24);
    let (gamma, beta) = parameters(24);
    let affine = Affine { gamma: &gamma, beta: &beta };
    let dy = values(2, shape.values());
    let mut x = vec![0.1f32; shape.values()];
    let r = run(&Serial, shape, &x, &dy, affine, None, false);
    assert_eq!(r.var, vec![0.0; 24]);
    x[24 * 30 + 7] = f32::NAN;
    let (mut y, mut mean, mut var) = (vec![0.0; x.len()], vec![0.0; 24], vec![0.0; 24]);
    let out = Trained { y: &mut y, mean: &mut mean, var: &mut var };
    BatchNorm::new("test", EPSILON, true).unwrap().train(&Serial, shape, &x, affine, None, out).unwrap();
    for (i, value) in y.iter().enumerate() {
        assert_eq!(value.is_nan(), i % 24 == 7, "y[{i}] = {value}");
    }
}
