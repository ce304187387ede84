//! The innermost loops of the depthwise convolutions: a register of channels, a row of outputs, the filter's taps.
//!
//! Forward pass and gradient are the same sweep with other numbers ([`Columns`], [`RowPlan`]): each output column
//! gathers a few neighbouring source columns. Up to eight outputs are accumulated in registers at once, and a source
//! value that is loaded serves all outputs that want it.

use pulp::{Simd, WithSimd};

use super::instructions::instructions;

/// Largest filter side.
pub(super) const MOST_TAPS: usize = 15;

/// Which source columns an output column gathers, with which columns of the filter.
///
/// Output number `t` lies in column `out_first + t * out_step` and gathers, for each `v` in `0..taps`, source column
/// `base + t * advance + v` with filter column `filter_first + v * filter_step`; columns outside the source are zero.
/// Signed numbers are kept as wrapping `usize`, as they only ever go into checked slice accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) taps: usize,
    pub(super) base: usize,
    pub(super) advance: usize,
    pub(super) filter_first: usize,
    pub(super) filter_step: usize,
    pub(super) out_first: usize,
    pub(super) out_step: usize,
    pub(super) outputs: usize,
}

/// Which (source row, filter row) pairs an output row gathers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowPlan {
    len: usize,
    pairs: [(u32, u32); MOST_TAPS],
}

impl RowPlan {
    /// The plan made of `pairs`, of which there are at most [`MOST_TAPS`].
    pub(super) fn new(pairs: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut plan = Self::default();
        for (slot, pair) in plan.pairs.iter_mut().zip(pairs) {
            *slot = pair;
            plan.len += 1;
        }
        plan
    }

    fn pairs(&self) -> &[(u32, u32)] {
        self.pairs.get(..self.len).unwrap_or_default()
    }
}

/// Source values that a block of output rows reads, at most (unless a row alone reads more): they should stay in the
/// second-level cache, from which each is read once for every row of the filter.
const BLOCK_VALUES: usize = 24 << 10;
/// Values of a cache line.
const LINE: usize = 16;

/// Consecutive output rows, of one image or of several.
pub(super) struct Band<'a> {
    /// All images that are read, `[N, source_height, source_width, channels]`.
    pub(super) source: &'a [f32],
    /// Values of an image that is read.
    pub(super) source_image: usize,
    /// Values of a source row.
    pub(super) source_row: usize,
    /// `[kernel, kernel, channels]`.
    pub(super) filter: &'a [f32],
    pub(super) kernel: usize,
    pub(super) channels: usize,
    /// One plan for each output row of an image.
    pub(super) plans: &'a [RowPlan],
    pub(super) columns: &'a [Columns],
    /// Number of the first row that is written, counted through all images.
    pub(super) first: usize,
    /// The rows that are written.
    pub(super) out: &'a mut [f32],
    /// Values of an output row.
    pub(super) out_row: usize,
    /// Whether the output is too large to be in a cache already.
    pub(super) far: bool,
}

impl Band<'_> {
    /// Computes the band with the machine's best instructions.
    pub(super) fn run(self) {
        instructions().dispatch(self);
    }

    /// Where the source rows of output row `row` begin and end.
    fn extent(&self, row: usize) -> Option<(usize, usize)> {
        let height = self.plans.len().max(1);
        let pairs = self.plans.get(row % height)?.pairs();
        let rows = pairs.iter().map(|&(source, _)| source as usize);
        let start = row / height * self.source_image;
        Some((start + rows.clone().min()? * self.source_row, start + (rows.max()? + 1) * self.source_row))
    }
}

/// Reads a value of every cache line, in order: memory is fetched several times faster so than by the loops below,
/// which jump from pixel to pixel.
#[inline(always)]
fn fetch(values: &[f32]) {
    std::hint::black_box(values.iter().step_by(LINE).fold(0, |all, value| all | value.to_bits()));
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let per_image = self.source_image / self.plans.len().max(1);
        let block = (BLOCK_VALUES / per_image.max(1)).max(1) * self.out_row;
        let (mut rest, mut fetched) = (std::mem::take(&mut self.out), 0);
        while !rest.is_empty() {
            let (out, after) = rest.split_at_mut(block.min(rest.len()));
            let last = self.first + (out.len() / self.out_row).saturating_sub(1);
            if let (Some((start, _)), Some((_, end))) = (self.extent(self.first), self.extent(last)) {
                fetch(self.source.get(start.max(fetched)..end).unwrap_or_default());
                fetched = end;
            }
            if self.far {
                fetch(out);
            }
            if self.channels < S::F32_LANES {
                for channel in 0..self.channels {
                    self.channel_group::<_, 1>(pulp::Scalar::new(), channel, out);
                }
            } else {
                let mut channel = 0;
                while channel < self.channels {
                    if self.channels - channel >= 2 * S::F32_LANES {
                        self.channel_group::<S, 2>(simd, channel, out);
                        channel += 2 * S::F32_LANES;
                    } else {
                        // This group may overlap the one before it: the same values are then computed twice.
                        self.channel_group::<S, 1>(simd, channel.min(self.channels - S::F32_LANES), out);
                        channel += S::F32_LANES;
                    }
                }
            }
            self.first = last + 1;
            rest = after;
        }
    }
}

impl Band<'_> {
    /// Computes the channels of `VECTORS` registers. A function of its own for each number of taps keeps what the compiler
    /// has to hold in its head small.
    #[inline(always)]
    fn channel_group<S: Simd, const VECTORS: usize>(&self, simd: S, channel: usize, out: &mut [f32]) {
        for &columns in self.columns {
            let (band, taps, advance) = (self, columns.taps, columns.advance);
            let group = Group { band, columns, channel, out: &mut *out };
            if S::F32_LANES == 1 {
                // Nothing would be vectorised: not worth the code's size.
                simd.vectorize(Single::<VECTORS>(group));
                continue;
            }
            match (taps, advance) {
                (1, 1) => simd.vectorize(Tiled::<1, 1, VECTORS>(group)),
                (2, 1) => simd.vectorize(Tiled::<2, 1, VECTORS>(group)),
                (3, 1) => simd.vectorize(Tiled::<3, 1, VECTORS>(group)),
                (4, 1) => simd.vectorize(Tiled::<4, 1, VECTORS>(group)),
                (5, 1) => simd.vectorize(Tiled::<5, 1, VECTORS>(group)),
                (7, 1) => simd.vectorize(Tiled::<7, 1, VECTORS>(group)),
                (3, 2) => simd.vectorize(Tiled::<3, 2, VECTORS>(group)),
                (5, 2) => simd.vectorize(Tiled::<5, 2, VECTORS>(group)),
                (7, 2) => simd.vectorize(Tiled::<7, 2, VECTORS>(group)),
                _ => simd.vectorize(Single::<VECTORS>(group)),
            }
        }
    }
}

/// Some registers' width of values, or nothing where `start` lies outside (wrapped negative starts included).
#[inline(always)]
fn load<S: Simd, const VECTORS: usize>(values: &[f32], start: usize) -> Option<[S::f32s; VECTORS]> {
    let values = values.get(start..start.wrapping_add(VECTORS * S::F32_LANES))?;
    S::as_simd_f32s(values).0.first_chunk().copied()
}

#[inline(always)]
fn store<S: Simd, const VECTORS: usize>(values: &mut [f32], start: usize, sums: [S::f32s; VECTORS]) {
    let slot = values.get_mut(start..start.wrapping_add(VECTORS * S::F32_LANES));
    if let Some(slot) = slot.and_then(|slot| S::as_mut_simd_f32s(slot).0.first_chunk_mut()) {
        *slot = sums;
    }
}

/// Adds x * tap to the sums, register by register.
#[inline(always)]
fn accumulate<S: Simd, const VECTORS: usize>(
    simd: S,
    x: [S::f32s; VECTORS],
    tap: [S::f32s; VECTORS],
    mut sums: [S::f32s; VECTORS],
) -> [S::f32s; VECTORS] {
    // No closure here nor anywhere around vector arithmetic: one that is not inlined is compiled without the
    // instruction set that was dispatched to, and runs thirty times slower.
    for i in 0..VECTORS {
        sums[i] = simd.mul_add_e_f32s(x[i], tap[i], sums[i]);
    }
    sums
}

/// A few channels of a block of rows.
struct Group<'b, 'a> {
    band: &'b Band<'a>,
    columns: Columns,
    channel: usize,
    out: &'b mut [f32],
}

/// Counts through the rows of a band.
struct Place {
    image: usize,
    row: usize,
}

impl Place {
    #[inline(always)]
    fn first(band: &Band<'_>) -> Self {
        let height = band.plans.len().max(1);
        Self { image: band.first / height, row: band.first % height }
    }

    /// What the row at this place needs; steps on to the next.
    #[inline(always)]
    fn next<'b>(&mut self, band: &'b Band<'_>, columns: Columns, channel: usize) -> Row<'b> {
        let row = Row {
            source: band.source.get(self.image * band.source_image..).unwrap_or_default(),
            source_row: band.source_row,
            filter: band.filter,
            filter_row: band.kernel * band.channels,
            pixel: band.channels,
            channel,
            pairs: band.plans.get(self.row).map_or(&[], RowPlan::pairs),
            columns,
        };
        self.row += 1;
        if self.row == band.plans.len() {
            *self = Self { image: self.image + 1, row: 0 };
        }
        row
    }
}

/// A number of taps and a stride that the compiler knows.
struct Tiled<'b, 'a, const TAPS: usize, const ADVANCE: usize, const VECTORS: usize>(Group<'b, 'a>);

impl<const TAPS: usize, const ADVANCE: usize, const VECTORS: usize> WithSimd for Tiled<'_, '_, TAPS, ADVANCE, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Group { band, columns, channel, out } = self.0;
        let mut place = Place::first(band);
        for out in out.chunks_exact_mut(band.out_row) {
            let row = place.next(band, columns, channel);
            let mut t = 0;
            while t < row.columns.outputs {
                match row.columns.outputs - t {
                    0..=2 => {
                        row.tile::<S, TAPS, ADVANCE, VECTORS, 2>(simd, t, out);
                        t += 2;
                    }
                    3..=6 => {
                        row.tile::<S, TAPS, ADVANCE, VECTORS, 4>(simd, t, out);
                        t += 4;
                    }
                    _ => {
                        row.tile::<S, TAPS, ADVANCE, VECTORS, 8>(simd, t, out);
                        t += 8;
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Row<'a> {
    source: &'a [f32],
    source_row: usize,
    filter: &'a [f32],
    filter_row: usize,
    pixel: usize,
    channel: usize,
    pairs: &'a [(u32, u32)],
    columns: Columns,
}

impl<'a> Row<'a> {
    /// A source row and the place of tap 0 in the filter.
    #[inline(always)]
    fn pair(&self, (source_row, filter_row): (u32, u32)) -> (&'a [f32], usize) {
        let start = source_row as usize * self.source_row;
        let row = self.source.get(start..start + self.source_row).unwrap_or_default();
        let tap = filter_row as usize * self.filter_row + self.columns.filter_first * self.pixel + self.channel;
        (row, tap)
    }

    #[inline(always)]
    fn out_start(&self, t: usize) -> usize {
        (self.columns.out_first + t * self.columns.out_step) * self.pixel + self.channel
    }

    /// Outputs `t .. t + WIDE`, those beyond the last one computed but not written.
    ///
    /// The loop over source columns is written out, since a compiler that declines to unroll it keeps the sums in
    /// memory, ten times slower.
    #[inline(always)]
    fn tile<S: Simd, const TAPS: usize, const ADVANCE: usize, const VECTORS: usize, const WIDE: usize>(
        &self,
        simd: S,
        t: usize,
        out: &mut [f32],
    ) {
        let zero = [simd.splat_f32s(0.0); VECTORS];
        let mut sums = [zero; WIDE];
        let first = self.columns.base.wrapping_add(t * ADVANCE).wrapping_mul(self.pixel).wrapping_add(self.channel);
        let tap_step = self.columns.filter_step.wrapping_mul(self.pixel);
        for &pair in self.pairs {
            let (row, tap) = self.pair(pair);
            let mut taps = [zero; TAPS];
            for (v, slot) in taps.iter_mut().enumerate() {
                *slot = load::<S, VECTORS>(self.filter, tap.wrapping_add(v.wrapping_mul(tap_step))).unwrap_or(zero);
            }
            macro_rules! tap {
                ($x:ident, $q:literal: $($v:literal)*) => {$(
                    if $v < TAPS && $v <= $q && ($q as usize).wrapping_sub($v) % ADVANCE == 0 {
                        let t = ($q as usize).wrapping_sub($v) / ADVANCE;
                        if t < WIDE {
                            sums[t] = accumulate(simd, $x, taps[$v], sums[t]);
                        }
                    }
                )*};
            }
            macro_rules! column {
                ($($q:literal)*) => {$(
                    if $q < (WIDE - 1) * ADVANCE + TAPS {
                        if let Some(x) = load::<S, VECTORS>(row, first.wrapping_add(self.pixel.wrapping_mul($q))) {
                            tap!(x, $q: 0 1 2 3 4 5 6);
                        }
                    }
                )*};
            }
            column!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
        }
        for (u, sum) in sums.into_iter().enumerate() {
            if t + u < self.columns.outputs {
                store::<S, VECTORS>(out, self.out_start(t + u), sum);
            }
        }
    }
}

/// Any number of taps and any stride, an output at a time.
struct Single<'b, 'a, const VECTORS: usize>(Group<'b, 'a>);

impl<const VECTORS: usize> WithSimd for Single<'_, '_, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Group { band, columns, channel, out } = self.0;
        let mut place = Place::first(band);
        for out in out.chunks_exact_mut(band.out_row) {
            let row = place.next(band, columns, channel);
            for t in 0..columns.outputs {
                let mut sum = [simd.splat_f32s(0.0); VECTORS];
                let first = columns.base.wrapping_add(t * columns.advance);
                for &pair in row.pairs {
                    let (values, tap) = row.pair(pair);
                    for v in 0..columns.taps {
                        let start = first.wrapping_add(v).wrapping_mul(row.pixel).wrapping_add(row.channel);
                        let tap = tap.wrapping_add(v.wrapping_mul(columns.filter_step).wrapping_mul(row.pixel));
                        if let (Some(x), Some(w)) =
                            (load::<S, VECTORS>(values, start), load::<S, VECTORS>(row.filter, tap))
                        {
                            sum = accumulate(simd, x, w, sum);
                        }
                    }
                }
                store::<S, VECTORS>(out, row.out_start(t), sum);
            }
        }
    }
}
