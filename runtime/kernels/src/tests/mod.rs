//! Each fast kernel against a slow f64 twin that follows the formula word for word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch_norm;
mod depthwise;
mod pool;
mod refusals;

use std::num::NonZeroUsize;

use super::{Dims, Threads};

/// Largest error of a kernel's result, as a share of the largest magnitude in the expected tensor: a few float32
/// roundings.
const CLOSE: f64 = 2e-6;

/// Values in about -1.5 .. 1.5 that look random and are always the same (splitmix64).
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 3.0
        })
        .collect()
}

fn dims(n: usize, h: usize, w: usize, c: usize) -> Dims {
    Dims::new("test", n, h, w, c).unwrap()
}

fn threads(count: usize) -> Threads {
    Threads(NonZeroUsize::new(count).unwrap())
}

/// Asserts that two tensors agree up to `tolerance` times the largest expected magnitude.
fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1e-3f64, |a, v| a.max(v.abs()));
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(f) - e).abs() <= tolerance * scale, "{what}[{i}]: {f} instead of {e}, scale {scale}");
    }
}

#[test]
fn close_can_fail() {
    let wrong = std::panic::catch_unwind(|| assert_close("x", &[1.0, 2.0], &[1.0, 2.00002], CLOSE));
    assert!(wrong.is_err());
}
