//! BatchNorm with batch statistics, its rectifier and residual, and its gradient, each in two sweeps over memory; and
//! its gradient sample by sample with constant statistics, in one.
//!
//! With x[N,H,W,C], M = N * H * W and, per channel, mean = sum(x) / M, var = sum((x - mean)^2) / M,
//! r = 1 / sqrt(var + epsilon), hhat = (x - mean) * r:
//!
//! ```text
//! y      = gamma * hhat + beta            (then the rectifier, or then the residual)
//! g      = dy, or with the rectifier dy where gamma * hhat + beta > 0 and 0 elsewhere
//! dbeta  = sum(g)      dgamma = sum(g * hhat)
//! dx     = gamma * r * (g - dbeta / M - hhat * dgamma / M)
//! ```
//!
//! Source: Ioffe and Szegedy 2015, section 3. Results depend on the machine's vector width in the last bits, but on
//! one machine [`BatchNorm::apply`] repeats [`BatchNorm::train`] bit for bit, the gradient's mask agrees with both,
//! and nothing depends on the number of threads.

use super::dims::check_len;
use super::elementwise::{self, Gradient};
use super::lanes::Lanes;
use super::moments::{self, Normalise};
use super::samples::{SampleOut, Scratch, sample_gradient};
use super::signs;
use super::{Dims, KernelError, Parallel, for_each_part};

/// A BatchNorm operator with the memory that it needs while it works, kept from call to call.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    operator: &'static str,
    epsilon: f32,
    relu: bool,
    partial: Vec<f64>,
    mean: Vec<f32>,
    scale: Vec<f32>,
    beta: Vec<f32>,
    mean_g: Vec<f32>,
    slope: Vec<f32>,
    tail: [Vec<f32>; 3],
    codes: Vec<u32>,
    /// What the parts come to, for each channel.
    totals: Vec<f64>,
}

/// A channel's parameters, `[C]` each.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// The factor of the normalised value.
    pub gamma: &'a [f32],
    /// What is added to it.
    pub beta: &'a [f32],
}

/// A channel's statistics, `[C]` each.
#[derive(Debug, Clone, Copy)]
pub struct Statistics<'a> {
    /// Mean over N, H, W.
    pub mean: &'a [f32],
    /// Biased variance over N, H, W.
    pub var: &'a [f32],
}

/// Where [`BatchNorm::train`] writes.
#[derive(Debug)]
pub struct Trained<'a> {
    /// `[N,H,W,C]`.
    pub y: &'a mut [f32],
    /// `[C]`.
    pub mean: &'a mut [f32],
    /// `[C]`, biased.
    pub var: &'a mut [f32],
}

/// Where [`BatchNorm::gradient`] writes.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[N,H,W,C]`.
    pub dx: &'a mut [f32],
    /// `[C]`.
    pub dgamma: &'a mut [f32],
    /// `[C]`.
    pub dbeta: &'a mut [f32],
}

/// Where [`BatchNorm::gradient_of_samples`] writes.
#[derive(Debug)]
pub struct SampleGradients<'a> {
    /// `[N,H,W,C]`.
    pub dx: &'a mut [f32],
    /// `[N,C]`.
    pub dgamma: &'a mut [f32],
    /// `[N,C]`.
    pub dbeta: &'a mut [f32],
}

impl BatchNorm {
    /// An operator that reports its errors as `operator`; `relu`: the output goes through a rectifier.
    ///
    /// # Errors
    /// [`KernelError::Attribute`] unless `epsilon` is finite and not negative.
    pub fn new(operator: &'static str, epsilon: f32, relu: bool) -> Result<Self, KernelError> {
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(KernelError::Attribute {
                operator,
                attribute: "epsilon",
                found: epsilon.to_string(),
                expected: "a finite number, zero or more",
            });
        }
        Ok(Self {
            operator,
            epsilon,
            relu,
            partial: Vec::new(),
            mean: Vec::new(),
            scale: Vec::new(),
            beta: Vec::new(),
            mean_g: Vec::new(),
            slope: Vec::new(),
            tail: Default::default(),
            codes: Vec::new(),
            totals: Vec::new(),
        })
    }

    /// Normalises by the batch's own statistics, which it also writes.
    ///
    /// # Errors
    /// [`KernelError::Length`] where a slice does not fit `dims`, [`KernelError::Attribute`] for a residual beside a
    /// rectifier, [`KernelError::Pool`].
    pub fn train(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        x: &[f32],
        affine: Affine<'_>,
        residual: Option<&[f32]>,
        out: Trained<'_>,
    ) -> Result<(), KernelError> {
        self.check(dims, &[("x", x), ("y", out.y)], &[("mean", out.mean), ("var", out.var)], affine)?;
        self.check_residual(dims, residual)?;
        let lanes = Lanes::new(dims);
        let stride = 2 * lanes.width();
        let whole = x.get(..lanes.whole(x.len())).unwrap_or_default();
        resize(&mut self.partial, lanes.parts(x.len()) * stride);
        if !whole.is_empty() {
            for_each_part(pool, &mut self.partial, stride, &|index, out| {
                moments::part_moments(lanes.part(whole, index), lanes, out);
            })?;
        }
        zero(&mut self.totals, 2 * dims.channels());
        moments::join_moments(x, lanes, &self.partial, &mut self.totals, (&mut *out.mean, &mut *out.var));
        self.prepare(lanes, affine, Statistics { mean: out.mean, var: out.var });
        self.normalise(pool, lanes, x, residual, out.y)
    }

    /// Normalises by given statistics: recomputes what [`BatchNorm::train`] wrote, bit for bit.
    ///
    /// # Errors
    /// As [`BatchNorm::train`].
    #[expect(clippy::too_many_arguments, reason = "the operator has this many inputs")]
    pub fn apply(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        x: &[f32],
        affine: Affine<'_>,
        statistics: Statistics<'_>,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        self.check(dims, &[("x", x), ("y", y)], &[("mean", statistics.mean), ("var", statistics.var)], affine)?;
        self.check_residual(dims, residual)?;
        let lanes = Lanes::new(dims);
        self.prepare(lanes, affine, statistics);
        self.normalise(pool, lanes, x, residual, y)
    }

    /// The gradient with respect to input, gamma and beta; `statistics` are those that the forward pass wrote.
    ///
    /// # Errors
    /// As [`BatchNorm::train`].
    #[expect(clippy::too_many_arguments, reason = "the operator has this many inputs")]
    pub fn gradient(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        dy: &[f32],
        x: &[f32],
        affine: Affine<'_>,
        statistics: Statistics<'_>,
        out: Gradients<'_>,
    ) -> Result<(), KernelError> {
        let small =
            [("mean", statistics.mean), ("var", statistics.var), ("dgamma", &*out.dgamma), ("dbeta", &*out.dbeta)];
        self.check(dims, &[("dy", dy), ("x", x), ("dx", out.dx)], &small, affine)?;
        let lanes = Lanes::new(dims);
        self.prepare(lanes, affine, statistics);
        let (stride, whole, parts) = (2 * lanes.width(), lanes.whole(x.len()), lanes.parts(x.len()));
        // One more row of sums than parts: that of the last few pixels, which may be none.
        resize(&mut self.partial, (parts + 1) * stride);
        let normalise = Normalise { mean: &self.mean, scale: &self.scale, beta: &self.beta };
        let relu = self.relu;
        let (sums, tail_sums) = self.partial.split_at_mut(parts * stride);
        let ((x_whole, x_tail), (dy_whole, dy_tail)) = (x.split_at(whole), dy.split_at(whole));
        if parts > 0 {
            for_each_part(pool, sums, stride, &|index, out| {
                moments::part_sums(relu, lanes.part(x_whole, index), lanes.part(dy_whole, index), normalise, out);
            })?;
        }
        let [padded_x, padded_dy, padded_dx] = &mut self.tail;
        pad(padded_x, x_tail, lanes.width());
        pad(padded_dy, dy_tail, lanes.width());
        pad(padded_dx, &[], lanes.width());
        moments::part_sums(relu, padded_x, padded_dy, normalise, tail_sums);

        let channels = dims.channels();
        zero(&mut self.totals, 2 * channels);
        let (sum, product) = self.totals.split_at_mut(channels);
        moments::fold_sums(&self.partial, lanes.width(), sum, product);
        let inverse = 1.0 / dims.pixels() as f64;
        for (((dbeta, dgamma), (sum, product)), &var) in
            out.dbeta.iter_mut().zip(out.dgamma).zip(sum.iter_mut().zip(product)).zip(statistics.var)
        {
            let r = rsqrt(var, self.epsilon);
            *dbeta = *sum as f32;
            *dgamma = (*product * r) as f32;
            *sum *= inverse;
            *product *= r * r * inverse;
        }
        let (sum, product) = self.totals.split_at(channels);
        lanes.widen(&mut self.mean_g, sum.iter().map(|&v| v as f32));
        lanes.widen(&mut self.slope, product.iter().map(|&v| v as f32));
        let gradient = Gradient { normalise, mean_g: &self.mean_g, slope: &self.slope };
        let (dx_whole, dx_tail) = out.dx.split_at_mut(whole);
        if parts > 0 {
            for_each_part(pool, dx_whole, lanes.part_len(), &|index, dx| {
                elementwise::backward(relu, lanes.part(x_whole, index), lanes.part(dy_whole, index), gradient, dx);
            })?;
        }
        elementwise::backward(relu, padded_x, padded_dy, gradient, padded_dx);
        dx_tail.copy_from_slice(padded_dx.get(..dx_tail.len()).unwrap_or_default());
        Ok(())
    }

    /// The gradient of [`BatchNorm::apply`], whose statistics are constants: with respect to input, and of every sample
    /// with respect to gamma and beta. With g as above,
    ///
    /// ```text
    /// dbeta[n,c] = sum_hw(g)      dgamma[n,c] = sum_hw(g * hhat)      dx = gamma * r * g
    /// ```
    ///
    /// A sample's results do not depend on the other samples of the batch, bit for bit.
    ///
    /// # Errors
    /// As [`BatchNorm::train`].
    #[expect(clippy::too_many_arguments, reason = "the operator has this many inputs")]
    pub fn gradient_of_samples(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        dy: &[f32],
        x: &[f32],
        affine: Affine<'_>,
        statistics: Statistics<'_>,
        out: SampleGradients<'_>,
    ) -> Result<(), KernelError> {
        let small = [("mean", statistics.mean), ("var", statistics.var)];
        self.check(dims, &[("dy", dy), ("x", x), ("dx", out.dx)], &small, affine)?;
        let channels = dims.channels();
        for (name, values) in [("dgamma", &*out.dgamma), ("dbeta", &*out.dbeta)] {
            check_len(self.operator, name, values.len(), dims.batch() * channels)?;
        }
        // The layout is that of one sample, so that it is the same for every batch.
        let lanes = Lanes::new(Dims::new(self.operator, 1, dims.height(), dims.width(), channels)?);
        self.prepare(lanes, affine, statistics);
        let r: Vec<f64> = statistics.var.iter().map(|&var| rsqrt(var, self.epsilon)).collect();
        let normalise = Normalise { mean: &self.mean, scale: &self.scale, beta: &self.beta };
        let image = dims.values() / dims.batch();
        let rows = out.dgamma.chunks_exact_mut(channels).zip(out.dbeta.chunks_exact_mut(channels));
        let samples = out.dx.chunks_exact_mut(image).zip(rows);
        let mut samples: Vec<SampleOut<'_>> =
            samples.map(|(dx, (dgamma, dbeta))| SampleOut { dx, dgamma, dbeta }).collect();
        let in_part = lanes.part_len().div_ceil(image);
        let relu = self.relu;
        for_each_part(pool, &mut samples, in_part, &|index, samples| {
            let mut scratch = Scratch::new(lanes, channels);
            let from = index * in_part * image;
            let inputs = x[from..].chunks_exact(image).zip(dy[from..].chunks_exact(image));
            for (inputs, out) in inputs.zip(samples) {
                sample_gradient(relu, lanes, inputs, normalise, &r, &mut scratch, out);
            }
        })
    }

    /// In how many places two samples are both positive after [`BatchNorm::apply`], or both not: `agreement` is `[N,N]`.
    /// Exact for fewer than 2^24 values of a sample.
    ///
    /// # Errors
    /// As [`BatchNorm::train`].
    pub fn sign_agreement(
        &mut self,
        pool: &dyn Parallel,
        dims: Dims,
        x: &[f32],
        affine: Affine<'_>,
        statistics: Statistics<'_>,
        agreement: &mut [f32],
    ) -> Result<(), KernelError> {
        self.check(dims, &[("x", x)], &[("mean", statistics.mean), ("var", statistics.var)], affine)?;
        let batch = dims.batch();
        check_len(self.operator, "agreement", agreement.len(), batch * batch)?;
        let one = Dims::new(self.operator, 1, dims.height(), dims.width(), dims.channels())?;
        let (lanes, image) = (Lanes::new(one), one.values());
        self.prepare(lanes, affine, statistics);
        let length = signs::code_len(lanes, image);
        self.codes.resize(batch * length, 0);
        let normalise = Normalise { mean: &self.mean, scale: &self.scale, beta: &self.beta };
        let in_part = lanes.part_len().div_ceil(image);
        for_each_part(pool, &mut self.codes, in_part * length, &|index, codes| {
            let mut tail = vec![0.0; lanes.width()];
            let from = index * in_part * image;
            for (x, code) in x[from..].chunks_exact(image).zip(codes.chunks_exact_mut(length)) {
                signs::code(lanes, x, normalise, &mut tail, code);
            }
        })?;
        let codes = &self.codes;
        for_each_part(pool, agreement, batch, &|n, row| {
            let own = &codes[n * length..][..length];
            for (to, other) in row.iter_mut().zip(codes.chunks_exact(length)) {
                *to = (image - signs::hamming(own, other) as usize) as f32;
            }
        })
    }

    fn check(
        &self,
        dims: Dims,
        large: &[(&'static str, &[f32])],
        small: &[(&'static str, &[f32])],
        affine: Affine<'_>,
    ) -> Result<(), KernelError> {
        for &(name, values) in large {
            check_len(self.operator, name, values.len(), dims.values())?;
        }
        for &(name, values) in small.iter().chain(&[("gamma", affine.gamma), ("beta", affine.beta)]) {
            check_len(self.operator, name, values.len(), dims.channels())?;
        }
        Ok(())
    }

    fn check_residual(&self, dims: Dims, residual: Option<&[f32]>) -> Result<(), KernelError> {
        let Some(residual) = residual else { return Ok(()) };
        if self.relu {
            return Err(KernelError::Attribute {
                operator: self.operator,
                attribute: "relu",
                found: "1 beside a residual".to_owned(),
                expected: "0 where a residual is added",
            });
        }
        check_len(self.operator, "residual", residual.len(), dims.values())
    }

    /// Lays the coefficients out over the lanes.
    fn prepare(&mut self, lanes: Lanes, affine: Affine<'_>, statistics: Statistics<'_>) {
        let epsilon = self.epsilon;
        lanes.widen(&mut self.mean, statistics.mean.iter().copied());
        lanes.widen(&mut self.beta, affine.beta.iter().copied());
        self.slope.clear();
        self.slope.extend(
            affine
                .gamma
                .iter()
                .zip(statistics.var)
                .map(|(&gamma, &var)| (f64::from(gamma) * rsqrt(var, epsilon)) as f32),
        );
        lanes.widen(&mut self.scale, self.slope.iter().copied());
    }

    fn normalise(
        &mut self,
        pool: &dyn Parallel,
        lanes: Lanes,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        let relu = self.relu;
        let normalise = Normalise { mean: &self.mean, scale: &self.scale, beta: &self.beta };
        let whole = lanes.whole(x.len());
        let (x_whole, x_tail) = x.split_at(whole);
        let (y_whole, y_tail) = y.split_at_mut(whole);
        let residual = residual.map(|values| values.split_at(whole));
        if whole > 0 {
            for_each_part(pool, y_whole, lanes.part_len(), &|index, y| {
                let residual = residual.map(|(values, _)| lanes.part(values, index));
                elementwise::forward(relu, lanes.part(x_whole, index), residual, normalise, y);
            })?;
        }
        if !y_tail.is_empty() {
            let [padded_x, padded_residual, padded_y] = &mut self.tail;
            pad(padded_x, x_tail, lanes.width());
            pad(padded_y, &[], lanes.width());
            let residual = residual.map(|(_, tail)| {
                pad(padded_residual, tail, lanes.width());
                &**padded_residual
            });
            elementwise::forward(relu, padded_x, residual, normalise, padded_y);
            y_tail.copy_from_slice(padded_y.get(..y_tail.len()).unwrap_or_default());
        }
        Ok(())
    }
}

/// 1 / sqrt(var + epsilon) in float64.
fn rsqrt(var: f32, epsilon: f32) -> f64 {
    (f64::from(var) + f64::from(epsilon)).sqrt().recip()
}

/// Makes `buffer` hold `len` values, whatever they are.
fn resize(buffer: &mut Vec<f64>, len: usize) {
    buffer.resize(len, 0.0);
}

/// Makes `buffer` as many zeroes.
fn zero(buffer: &mut Vec<f64>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}

/// Makes `buffer` a super-row that begins with `values` and ends with zeroes.
fn pad(buffer: &mut Vec<f32>, values: &[f32], width: usize) {
    buffer.clear();
    buffer.extend_from_slice(values);
    buffer.resize(width, 0.0);
}
