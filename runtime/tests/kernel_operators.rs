//! The custom operators as ONNX Runtime runs them: the same results as the kernels called directly, and errors
//! instead of crashes for whatever does not fit. The graphs come from `fixtures/kernels/make.py`.
//!
//! Skipped, with a line on stderr, where no ONNX Runtime library is found; where CI runs, that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use nasbn_runtime::kernels::{
    Affine, BatchNorm, Depthwise, Dims, Filter, Gradients, SampleGradients, Serial, Statistics, Trained,
    global_avg_pool, global_avg_pool_grad,
};
use nasbn_runtime::{engine::Opener, ort_library};
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

const EPSILON: f32 = 1e-5;
/// Largest difference between the operators in a chain, with ONNX Runtime's own matrix products between them, and
/// a reference in f64.
const CLOSE: f64 = 1e-4;
const THREADS: usize = 2;

type Named<'a> = (&'a str, Vec<i64>, Vec<f32>);

fn session(name: &str) -> Option<ort::Result<Session>> {
    let library = match ort_library::locate(None) {
        Ok(library) => library,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no library to test the operators in: {error}");
            eprintln!("SKIPPED: the operators were NOT tested inside ONNX Runtime: {error}");
            return None;
        }
    };
    let environment = ort_library::load(&library, THREADS).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels").join(format!("{name}.onnx"));
    Some(Opener::new(environment).and_then(|opener| opener.file(&file)))
}

fn run(session: &mut Session, inputs: &[Named<'_>]) -> ort::Result<Vec<Vec<f32>>> {
    let names: Vec<String> = session.outputs().iter().map(|o| o.name().to_owned()).collect();
    let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::new();
    for (name, shape, data) in inputs {
        let tensor = Tensor::from_array((shape.clone(), data.clone()))?;
        values.push(((*name).to_owned(), tensor.into()));
    }
    let outputs = session.run(values)?;
    names.iter().map(|name| Ok(outputs[name.as_str()].try_extract_tensor::<f32>()?.1.to_vec())).collect()
}

fn values(seed: u32, len: usize) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_add(seed << 20) | 1).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(97);
    (0..len as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The fixtures' activation and channel shapes, for a batch.
fn shapes(batch: usize) -> (Dims, Vec<i64>, Vec<i64>) {
    let dims = Dims::new("test", batch, 6, 5, 24).unwrap();
    (dims, dims.to_onnx().to_vec(), vec![24])
}

#[test]
fn batch_norm_is_what_the_kernel_computes() {
    for residual in [false, true] {
        let suffix = if residual { "_residual" } else { "" };
        let Some(train) = session(&format!("train{suffix}")) else { return };
        let mut train = train.unwrap();
        let mut apply = session(&format!("apply{suffix}")).unwrap().unwrap();
        // Batches of one part and of many, one after the other in the same kernel.
        for batch in [1, 3, 700, 2] {
            let (dims, shape, channel) = shapes(batch);
            let (x, added) = (values(1, dims.values()), values(2, dims.values()));
            let (gamma, beta) = (values(3, 24), values(4, 24));
            let (mut y, mut mean, mut var) = (vec![0.0; x.len()], vec![0.0; 24], vec![0.0; 24]);
            let out = Trained { y: &mut y, mean: &mut mean, var: &mut var };
            let affine = Affine { gamma: &gamma, beta: &beta };
            let mut norm = BatchNorm::new("test", EPSILON, !residual).unwrap();
            norm.train(&Serial, dims, &x, affine, residual.then_some(&*added), out).unwrap();

            let mut inputs: Vec<Named<'_>> =
                vec![("x", shape.clone(), x), ("gamma", channel.clone(), gamma), ("beta", channel.clone(), beta)];
            if residual {
                inputs.push(("residual", shape, added));
            }
            assert_eq!(run(&mut train, &inputs).unwrap(), [y.clone(), mean.clone(), var.clone()], "batch {batch}");
            inputs.extend([("mean", channel.clone(), mean), ("var", channel, var)]);
            assert_eq!(run(&mut apply, &inputs).unwrap(), [y], "batch {batch}");
        }
    }
}

#[test]
fn the_gradients_are_what_the_kernels_compute() {
    let Some(gradient) = session("gradient") else { return };
    let (mut gradient, mut samples) = (gradient.unwrap(), session("samples").unwrap().unwrap());
    for batch in [1, 3, 700] {
        let (dims, shape, channel) = shapes(batch);
        let (x, dy) = (values(1, dims.values()), values(2, dims.values()));
        let (gamma, beta, mean) = (values(3, 24), values(4, 24), values(5, 24));
        let var: Vec<f32> = values(6, 24).iter().map(|v| v * v + 0.1).collect();
        let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; 24], vec![0.0; 24]);
        let out = Gradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
        let (affine, statistics) = (Affine { gamma: &gamma, beta: &beta }, Statistics { mean: &mean, var: &var });
        let mut norm = BatchNorm::new("test", EPSILON, true).unwrap();
        norm.gradient(&Serial, dims, &dy, &x, affine, statistics, out).unwrap();
        let (mut sample_dx, mut rows) = (vec![0.0; x.len()], [vec![0.0; batch * 24], vec![0.0; batch * 24]]);
        let [sample_dgamma, sample_dbeta] = &mut rows;
        let out = SampleGradients { dx: &mut sample_dx, dgamma: sample_dgamma, dbeta: sample_dbeta };
        norm.gradient_of_samples(&Serial, dims, &dy, &x, affine, statistics, out).unwrap();
        let inputs = [
            ("dy", shape.clone(), dy),
            ("x", shape, x),
            ("gamma", channel.clone(), gamma),
            ("beta", channel.clone(), beta),
            ("mean", channel.clone(), mean),
            ("var", channel, var),
        ];
        assert_eq!(run(&mut gradient, &inputs).unwrap(), [dx, dgamma, dbeta], "batch {batch}");
        let [sample_dgamma, sample_dbeta] = rows;
        assert_eq!(run(&mut samples, &inputs).unwrap(), [sample_dx, sample_dgamma, sample_dbeta], "batch {batch}");
    }
}

#[test]
fn agreements_of_signs_are_what_the_kernel_computes() {
    let Some(signs) = session("signs") else { return };
    let mut signs = signs.unwrap();
    for batch in [1, 3, 70] {
        let (dims, shape, channel) = shapes(batch);
        let (x, gamma, beta, mean) = (values(1, dims.values()), values(3, 24), values(4, 24), values(5, 24));
        let var: Vec<f32> = values(6, 24).iter().map(|v| v * v + 0.1).collect();
        let mut agreement = vec![0.0; batch * batch];
        let (affine, statistics) = (Affine { gamma: &gamma, beta: &beta }, Statistics { mean: &mean, var: &var });
        let mut norm = BatchNorm::new("test", EPSILON, false).unwrap();
        norm.sign_agreement(&Serial, dims, &x, affine, statistics, &mut agreement).unwrap();
        let small = [("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)];
        let mut inputs: Vec<Named<'_>> = vec![("x", shape, x)];
        inputs.extend(small.map(|(name, values)| (name, channel.clone(), values)));
        assert_eq!(run(&mut signs, &inputs).unwrap(), [agreement], "batch {batch}");
    }
}

#[test]
fn convolution_and_pooling_are_what_the_kernels_compute() {
    let Some(forward) = session("depthwise") else { return };
    let (mut forward, mut backward) = (forward.unwrap(), session("depthwise_gradient").unwrap().unwrap());
    let (mut pool, mut pool_back) = (session("pool").unwrap().unwrap(), session("pool_gradient").unwrap().unwrap());
    for batch in [1, 3, 300] {
        let (dims, shape, _) = shapes(batch);
        let filter = Filter::new("test", 5, 2, 2).unwrap();
        let out = filter.output("test", dims).unwrap();
        let mut conv = Depthwise::new("test", filter);
        let (x, dy, w) = (values(1, dims.values()), values(2, out.values()), values(3, 25 * 24));
        let (mut y, mut dx) = (vec![0.0; out.values()], vec![0.0; dims.values()]);
        conv.forward(&Serial, dims, &x, &w, &mut y).unwrap();
        conv.gradient(&Serial, dims, &dy, &w, &mut dx).unwrap();
        let weights: Named<'_> = ("w", vec![5, 5, 24], w);
        assert_eq!(run(&mut forward, &[("x", shape.clone(), x.clone()), weights.clone()]).unwrap(), [y]);
        assert_eq!(run(&mut backward, &[("dy", out.to_onnx().to_vec(), dy), weights]).unwrap(), [dx.clone()]);

        let (mut y, dy) = (vec![0.0; batch * 24], values(4, batch * 24));
        global_avg_pool(&Serial, dims, &x, &mut y).unwrap();
        global_avg_pool_grad(&Serial, dims, &dy, &mut dx).unwrap();
        assert_eq!(run(&mut pool, &[("x", shape, x)]).unwrap(), [y]);
        assert_eq!(run(&mut pool_back, &[("dy", vec![batch as i64, 24], dy)]).unwrap(), [dx]);
    }
}

/// Statistics over pixels, then gamma, beta and what follows, in f64.
fn normalise(h: &mut [f64], gamma: &[f32], beta: &[f32], relu: bool) -> (Vec<f64>, Vec<f64>) {
    let c = gamma.len();
    let m = (h.len() / c) as f64;
    let mean: Vec<f64> = (0..c).map(|k| h[k..].iter().step_by(c).sum::<f64>() / m).collect();
    let var: Vec<f64> =
        (0..c).map(|k| h[k..].iter().step_by(c).map(|v| (v - mean[k]).powi(2)).sum::<f64>() / m).collect();
    for (i, v) in h.iter_mut().enumerate() {
        let k = i % c;
        *v = f64::from(gamma[k]) * (*v - mean[k]) / (var[k] + f64::from(EPSILON)).sqrt() + f64::from(beta[k]);
        *v = if relu { v.max(0.0) } else { *v };
    }
    (mean, var)
}

fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(f) - e).abs() < CLOSE * e.abs().max(1.0), "{what}[{i}]: {f} instead of {e}");
    }
}

#[test]
fn a_block_of_standard_and_custom_operators() {
    let Some(chain) = session("chain") else { return };
    let (dims, shape, channel) = shapes(3);
    let x = values(1, dims.values());
    let (gamma, beta, w) = (values(2, 40), values(3, 40), values(4, 9 * 40));
    let (gamma_out, beta_out) = (values(5, 24), values(6, 24));
    let inputs = [
        ("x", shape, x.clone()),
        ("gamma", vec![40], gamma.clone()),
        ("beta", vec![40], beta.clone()),
        ("w", vec![3, 3, 40], w.clone()),
        ("gamma_out", channel.clone(), gamma_out.clone()),
        ("beta_out", channel, beta_out.clone()),
    ];
    let found = run(&mut chain.unwrap(), &inputs).unwrap();

    let weight = |i: usize| (((i * 37) % 19) as f64 - 9.0) / 20.0;
    let pixels = dims.pixels();
    let mut h: Vec<f64> = (0..pixels * 40)
        .map(|i| (0..24).map(|k| f64::from(x[i / 40 * 24 + k]) * weight(k * 40 + i % 40)).sum())
        .collect();
    let (mean, var) = normalise(&mut h, &gamma, &beta, true);
    let mut d = vec![0.0; h.len()];
    for (i, to) in d.iter_mut().enumerate() {
        let (k, px, py, n) = (i % 40, i / 40 % 5, i / 200 % 6, i / 1200);
        for tap in 0..9 {
            let (row, column) = (py + tap / 3, px + tap % 3);
            if (1..=6).contains(&row) && (1..=5).contains(&column) {
                *to += h[((n * 6 + row - 1) * 5 + column - 1) * 40 + k] * f64::from(w[tap * 40 + k]);
            }
        }
    }
    let mut y: Vec<f64> =
        (0..pixels * 24).map(|i| (0..40).map(|k| d[i / 24 * 40 + k] * weight(959 - (k * 24 + i % 24))).sum()).collect();
    normalise(&mut y, &gamma_out, &beta_out, false);
    let pooled: Vec<f64> = (0..3 * 24)
        .map(|i| {
            let at = |p: usize| (i / 24 * 30 + p) * 24 + i % 24;
            (0..30).map(|p| y[at(p)] + f64::from(x[at(p)])).sum::<f64>() / 30.0
        })
        .collect();
    assert_close("pooled", &found[0], &pooled);
    assert_close("mean", &found[1], &mean);
    assert_close("var", &found[2], &var);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(train) = session("loose_train") else { return };
    let mut train = train.unwrap();
    let input = |name, shape: &[i64]| -> Named<'_> {
        (name, shape.to_vec(), values(1, shape.iter().product::<i64>() as usize))
    };
    let x = [2, 3, 3, 4];
    let cases: [(&str, [&[i64]; 4]); 5] = [
        ("empty", [&[0, 3, 3, 4], &[4], &[4], &[0, 3, 3, 4]]),
        ("no channels", [&[2, 3, 3, 0], &[0], &[0], &[2, 3, 3, 0]]),
        ("gamma", [&x, &[3], &[4], &x]),
        ("beta", [&x, &[4], &[5], &x]),
        ("residual", [&x, &[4], &[4], &[2, 3, 4, 3]]),
    ];
    for (what, [x, gamma, beta, residual]) in cases {
        let inputs = [input("x", x), input("gamma", gamma), input("beta", beta), input("residual", residual)];
        let error = run(&mut train, &inputs).expect_err(what).to_string();
        assert!(error.contains("BatchNormTrain"), "{what}: {error}");
    }
    // The session is as good as before.
    let inputs = [input("x", &x), input("gamma", &[4]), input("beta", &[4]), input("residual", &x)];
    assert_eq!(run(&mut train, &inputs).unwrap()[0].len(), 72);

    for (name, attribute) in [("no_kernel", "kernel"), ("bad_relu", "relu")] {
        let Err(error) = session(name).unwrap() else { panic!("{name} was accepted") };
        let error = error.to_string();
        assert!(error.contains(attribute), "{name}: {error}");
    }
}
