//! Codes of samples: a bit for every normalised value, set where it is positive; and how many bits two codes share.

use pulp::{Simd, WithSimd};

use super::instructions::instructions;
use super::lanes::Lanes;
use super::moments::{Normalise, affine};

/// Super-rows whose bits share the words of one row of codes.
const ROWS: usize = u32::BITS as usize;

/// Words of the code of a sample with `values` values.
pub(super) fn code_len(lanes: Lanes, values: usize) -> usize {
    values.div_ceil(lanes.width()).div_ceil(ROWS) * lanes.width()
}

/// Sets the bits of whole super-rows, which begin with bit `first` of the first row of codes.
struct Codes<'a> {
    x: &'a [f32],
    first: usize,
    normalise: Normalise<'a>,
    codes: &'a mut [u32],
}

impl WithSimd for Codes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, first, normalise, codes } = self;
        let width = normalise.mean.len();
        let [mean, scale, beta] = [normalise.mean, normalise.scale, normalise.beta].map(|c| S::as_simd_f32s(c).0);
        let (zero, none) = (simd.splat_f32s(0.0), simd.splat_u32s(0));
        for (row, x) in x.chunks_exact(width).enumerate() {
            let (block, bit) = ((first + row) / ROWS, (first + row) % ROWS);
            let to = S::as_mut_simd_u32s(&mut codes[block * width..][..width]).0;
            let n = to.len();
            let x = &S::as_simd_f32s(x).0[..n];
            let (mean, scale, beta) = (&mean[..n], &scale[..n], &beta[..n]);
            let set = simd.splat_u32s(1 << bit);
            for v in 0..n {
                let y = affine(simd, simd.sub_f32s(x[v], mean[v]), scale[v], beta[v]);
                let bits = simd.select_u32s(simd.greater_than_f32s(y, zero), set, none);
                to[v] = simd.or_u32s(to[v], bits);
            }
        }
    }
}

/// Writes the code of one sample. Which bit belongs to which value depends on the shape alone; bits beyond the last
/// value are the same for all samples. `tail` is memory for one super-row.
pub(super) fn code(lanes: Lanes, x: &[f32], normalise: Normalise<'_>, tail: &mut [f32], codes: &mut [u32]) {
    codes.fill(0);
    let (whole, rest) = x.split_at(lanes.whole(x.len()));
    let arch = instructions();
    arch.dispatch(Codes { x: whole, first: 0, normalise, codes });
    if !rest.is_empty() {
        tail.fill(0.0);
        tail[..rest.len()].copy_from_slice(rest);
        arch.dispatch(Codes { x: tail, first: whole.len() / lanes.width(), normalise, codes });
    }
}

/// Number of bits in which two codes differ.
pub(super) fn hamming(a: &[u32], b: &[u32]) -> u32 {
    struct Hamming<'a>(&'a [u32], &'a [u32]);
    impl WithSimd for Hamming<'_> {
        type Output = u32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> u32 {
            self.0.iter().zip(self.1).map(|(a, b)| (a ^ b).count_ones()).sum()
        }
    }
    instructions().dispatch(Hamming(a, b))
}
