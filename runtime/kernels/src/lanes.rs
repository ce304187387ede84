//! How a sweep over pixels is laid over vector registers and cut into parts.

use super::Dims;

/// Values in the widest vector register that the kernels use (AVX-512); a multiple of all narrower ones.
const WIDEST: usize = 16;
/// A super-row has at least this many values, so that the loop over it is worth its set-up.
const LEAST_WIDTH: usize = 96;
/// A part is at least this large: below, handing it to a thread costs more than it saves.
const LEAST_PART_BYTES: usize = 48 << 10;
/// More parts than this balance no better, and each costs a row of partial sums.
const MOST_PARTS: usize = 32;

/// Pixels joined into *super-rows*: as many as make the number of values a multiple of every register width.
///
/// A sweep with a coefficient per channel then needs no masked loads for C = 24 or 17: it works on `width` lanes,
/// lane `i` belonging to channel `i % channels`. Only the tensor's last few pixels may not fill a super-row.
///
/// The cut into parts depends on the shape alone, so results do not depend on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lanes {
    channels: usize,
    repeat: usize,
    part_pixels: usize,
}

impl Lanes {
    /// Lays out a sweep over `dims`.
    pub(super) fn new(dims: Dims) -> Self {
        let channels = dims.channels();
        // C / gcd(C, 16): 16 is a power of two, so the gcd is C's lowest set bit, at most 16.
        let lowest = 1usize << channels.trailing_zeros().min(WIDEST.trailing_zeros());
        let unit = WIDEST / lowest;
        let repeat = unit * LEAST_WIDTH.div_ceil(unit * channels);
        let least = LEAST_PART_BYTES.div_ceil(size_of::<f32>() * channels);
        let part_pixels = dims.pixels().div_ceil(MOST_PARTS).max(least).next_multiple_of(repeat);
        Self { channels, repeat, part_pixels }
    }

    /// Lanes of a super-row.
    pub(super) const fn width(self) -> usize {
        self.channels * self.repeat
    }

    /// Values of a part; a whole number of super-rows.
    pub(super) const fn part_len(self) -> usize {
        self.part_pixels * self.channels
    }

    /// Number of parts that hold at least one whole super-row of a tensor with `values` values.
    pub(super) const fn parts(self, values: usize) -> usize {
        self.whole(values).div_ceil(self.part_len())
    }

    /// Number of values in whole super-rows.
    pub(super) const fn whole(self, values: usize) -> usize {
        values - values % self.width()
    }

    /// Part `index` of a tensor's values.
    pub(super) fn part(self, values: &[f32], index: usize) -> &[f32] {
        values.chunks(self.part_len()).nth(index).unwrap_or_default()
    }

    /// Writes `channels` coefficients once for every pixel of a super-row.
    pub(super) fn widen(self, out: &mut Vec<f32>, channels: impl Iterator<Item = f32> + Clone) {
        out.clear();
        for _ in 0..self.repeat {
            out.extend(channels.clone());
        }
    }
}
