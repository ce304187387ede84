//! What the kernels refuse: each with its own error, none with a panic.

use super::{dims, values};
use crate::{
    Affine, BatchNorm, Depthwise, Dims, Filter, Gradients, KernelError, SampleGradients, Serial, Statistics, Trained,
    global_avg_pool, global_avg_pool_grad,
};

#[test]
fn shapes_that_hold_nothing_or_too_much() {
    for shape in [[0, 2, 2, 3], [2, 0, 2, 3], [2, 2, 0, 3], [2, 2, 2, 0]] {
        assert!(matches!(Dims::from_onnx("op", "x", &shape), Err(KernelError::Empty { .. })), "{shape:?}");
    }
    for shape in [&[2, 2, 3][..], &[], &[-1, 2, 2, 3], &[1, 1, 1, 1, 1]] {
        let error = Dims::from_onnx("op", "x", shape).unwrap_err();
        assert!(matches!(&error, KernelError::Shape { .. }), "{shape:?}");
        assert!(error.to_string().contains("[N,H,W,C]") && error.hint().is_some(), "{error}");
    }
    assert!(Dims::new("op", usize::MAX / 2, 3, 1, 1).is_err());
    assert!(Dims::from_onnx("op", "x", &[i64::MAX, i64::MAX, 1, 1]).is_err());
}

#[test]
fn slices_that_do_not_fit() {
    let shape = dims(2, 3, 3, 4);
    let (full, channel) = (values(1, 72), values(2, 4));
    // Each tensor in turn is one value short.
    for short in 0..9 {
        let large = |i: usize| &full[usize::from(i == short)..];
        let small = |i: usize| &channel[usize::from(i == short)..];
        let affine = Affine { gamma: small(1), beta: small(2) };
        let mut norm = BatchNorm::new("op", 1e-5, false).unwrap();
        let (mut y, mut a, mut b) = (large(3).to_vec(), small(4).to_vec(), small(5).to_vec());
        let out = Trained { y: &mut y, mean: &mut a, var: &mut b };
        let residual = (short == 6).then(|| large(6));
        let result = norm.train(&Serial, shape, large(0), affine, residual, out);
        assert_eq!(result.is_err(), short <= 6, "train, short {short}: {result:?}");
        let statistics = Statistics { mean: small(4), var: small(5) };
        let result = norm.apply(&Serial, shape, large(0), affine, statistics, residual, &mut y);
        assert_eq!(result.is_err(), short <= 6, "apply, short {short}: {result:?}");
        let (mut dgamma, mut dbeta) = (small(7).to_vec(), small(8).to_vec());
        let out = Gradients { dx: &mut y, dgamma: &mut dgamma, dbeta: &mut dbeta };
        let result = norm.gradient(&Serial, shape, large(6), large(0), affine, statistics, out);
        assert!(matches!(result, Err(KernelError::Length { .. })), "gradient, short {short}: {result:?}");
        let rows = |i: usize| full[..8 - usize::from(i == short)].to_vec();
        let (mut dgamma, mut dbeta) = (rows(7), rows(8));
        let out = SampleGradients { dx: &mut y, dgamma: &mut dgamma, dbeta: &mut dbeta };
        let result = norm.gradient_of_samples(&Serial, shape, large(6), large(0), affine, statistics, out);
        assert!(matches!(result, Err(KernelError::Length { .. })), "samples, short {short}: {result:?}");
    }
    for short in 0..6 {
        let small = |i: usize| &channel[usize::from(i == short)..];
        let (affine, statistics) =
            (Affine { gamma: small(1), beta: small(2) }, Statistics { mean: small(3), var: small(4) });
        let mut norm = BatchNorm::new("op", 1e-5, false).unwrap();
        let mut agreement = vec![0.0; 4 - usize::from(short == 5)];
        let x = &full[usize::from(short == 0)..];
        let result = norm.sign_agreement(&Serial, shape, x, affine, statistics, &mut agreement);
        assert!(matches!(result, Err(KernelError::Length { .. })), "signs, short {short}: {result:?}");
    }
    let filter = Filter::new("op", 3, 1, 1).unwrap();
    let mut conv = Depthwise::new("op", filter);
    let (w, mut y) = (values(3, 36), full.clone());
    assert!(conv.forward(&Serial, shape, &full, &w, &mut y).is_ok());
    assert!(conv.forward(&Serial, shape, &full[1..], &w, &mut y).is_err());
    assert!(conv.forward(&Serial, shape, &full, &w[1..], &mut y).is_err());
    assert!(conv.forward(&Serial, shape, &full, &w, &mut y[1..]).is_err());
    assert!(conv.gradient(&Serial, shape, &full[1..], &w, &mut y).is_err());
    assert!(conv.gradient(&Serial, shape, &full, &w[1..], &mut y).is_err());
    assert!(conv.gradient(&Serial, shape, &full, &w, &mut y[1..]).is_err());
    assert!(global_avg_pool(&Serial, shape, &full, &mut y[..7]).is_err());
    assert!(global_avg_pool(&Serial, shape, &full[1..], &mut y[..8]).is_err());
    assert!(global_avg_pool_grad(&Serial, shape, &full[..7], &mut y).is_err());
    assert!(global_avg_pool_grad(&Serial, shape, &full[..8], &mut y[1..]).is_err());
}

#[test]
fn attributes_out_of_range() {
    for (k, s, p) in [(0, 1, 0), (16, 1, 0), (3, 0, 1), (3, 16, 1), (3, 1, 3), (3, 1, -1), (i64::MIN, 1, 0)] {
        let error = Filter::new("op", k, s, p).unwrap_err();
        assert!(matches!(error, KernelError::Attribute { .. }), "{error}");
    }
    for epsilon in [f32::NAN, f32::INFINITY, -1e-5] {
        assert!(BatchNorm::new("op", epsilon, false).is_err());
    }
    let shape = dims(1, 1, 1, 1);
    let (mut y, mut mean, mut var) = ([0.0], [0.0], [0.0]);
    let out = Trained { y: &mut y, mean: &mut mean, var: &mut var };
    let affine = Affine { gamma: &[1.0], beta: &[0.0] };
    let mut norm = BatchNorm::new("op", 1e-5, true).unwrap();
    let error = norm.train(&Serial, shape, &[1.0], affine, Some(&[1.0]), out).unwrap_err();
    assert!(error.to_string().contains("residual"), "{error}");
}

#[test]
fn a_filter_larger_than_its_input() {
    let filter = Filter::new("op", 5, 1, 1).unwrap();
    let error = filter.output("op", dims(1, 2, 8, 1)).unwrap_err();
    assert!(error.to_string().contains("at least 3"), "{error}");
}
