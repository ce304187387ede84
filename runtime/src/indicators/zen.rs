//! The Zen-score (Lin et al. 2021, "Zen-NAS", algorithm 1): how much the feature map moves when Gaussian
//! images do, with the scale that BatchNorm takes out put back.
//!
//! Where it differs from the paper: residual connections stay, convolutions are the bundle's (He et al.
//! 2015 instead of N(0, 1), which the BatchNorms' variances make up for), the feature map is the head's
//! input, and one batch stands for the paper's mean over repetitions.

use nasbn_models::{Path, Supernet, sample};
use ndarray::Array4;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::{
    engine::EngineError,
    network::Network,
    parameters::{BnParameters, Layout, Statistics},
};

/// Size of the step from x to x', in standard deviations of x (the paper's alpha).
pub const ALPHA: f32 = 0.01;
/// Stream of the images; paths and weights use others.
const STREAM: u64 = 0x007a_656e;

/// Gaussian images and their neighbours.
pub struct Noise {
    /// `x`, `[N, C, H, W]`, standard normal.
    pub images: Array4<f32>,
    /// `x + alpha e`, `e` standard normal too.
    pub moved: Array4<f32>,
}

impl Noise {
    /// `count` images for a network, from a seed.
    pub fn new(network: &Network, count: usize, seed: u64) -> Self {
        let image = network.supernet().image();
        let shape = (count, image.channels as usize, image.height as usize, image.width as usize);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        let images = Array4::from_shape_simple_fn(shape, || normal(&mut rng));
        let moved = images.mapv(|x| x + ALPHA * normal(&mut rng));
        Self { images, moved }
    }
}

/// A standard normal number (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let mut uniform = || (f64::from(sample::below(rng, 1 << 24)) + 0.5) / f64::from(1 << 24);
    let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    (radius * angle.cos()) as f32
}

/// `log(mean over images of |f(x) - f(x')|_1) + sum over BatchNorms of log sqrt(mean over channels of var)`,
/// with gamma 1, beta 0 and the statistics of each batch of its own; the variances are those of x, and the BatchNorms
/// those before the head that x gets to: behind an empty node they see zeros. Minus infinity for a network that does
/// not see the noise.
///
/// # Errors
/// If a graph fails.
pub fn score(network: &mut Network, path: &Path, noise: &Noise) -> Result<f64, EngineError> {
    if !network.supernet().is_connected(path) {
        return Ok(f64::NEG_INFINITY);
    }
    let initial = BnParameters::initial(network.layout());
    let mut statistics = Statistics::standard(network.layout());
    let mut features = |images: &Array4<f32>, statistics: &mut Statistics| -> Result<Vec<f32>, EngineError> {
        let value = network.features(path, &initial, images.view(), statistics)?;
        Ok(value.read()?.1.to_vec())
    };
    let moved = features(&noise.moved, &mut statistics)?;
    let still = features(&noise.images, &mut statistics)?;
    let slots = scaled(network.supernet(), network.layout(), path);
    let scale = log_scale(network.layout(), &slots, &statistics);
    Ok(change(&still, &moved, noise.images.dim().0).ln() + scale)
}

/// The BatchNorms before the head that the image gets to.
fn scaled(supernet: &Supernet, layout: &Layout, path: &Path) -> Vec<usize> {
    let (reached, head) = (supernet.reached(path), supernet.edges.len().saturating_sub(1));
    let counts = |slot: &usize| {
        let edge = usize::from(layout.slots()[*slot].edge);
        edge < head && reached[usize::from(supernet.edges[edge].from)]
    };
    layout.path(supernet, path).filter(counts).collect()
}

/// Mean over images of the sum of absolute differences.
fn change(a: &[f32], b: &[f32], images: usize) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum::<f64>() / images as f64
}

/// Sum over BatchNorms of half the log of the mean variance.
fn log_scale(layout: &Layout, slots: &[usize], statistics: &Statistics) -> f64 {
    let mean = |slot: &usize| {
        let var = &statistics.var[layout.slots()[*slot].range.clone()];
        var.iter().map(|&v| f64::from(v)).sum::<f64>() / var.len() as f64
    };
    slots.iter().map(|slot| 0.5 * mean(slot).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chain;

    /// Sums of a few logarithms.
    const ROUNDING: f64 = 1e-12;

    #[test]
    fn noise_is_standard_normal() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(normal(&mut rng))).collect();
        let mean = |power: i32| draws.iter().map(|x| x.powi(power)).sum::<f64>() / draws.len() as f64;
        // Six standard deviations of each moment of 20000 draws.
        for (power, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2f64.sqrt()), (4, 3.0, 96f64.sqrt())] {
            let error = (mean(power) - expected).abs();
            assert!(error < 6.0 * deviation / 20_000f64.sqrt(), "moment {power}: {}", mean(power));
        }
    }

    #[test]
    fn the_change_is_a_mean_over_images_of_sums() {
        assert_eq!(change(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 4.0, 5.0], 2), 2.0);
        assert_eq!(change(&[1.0], &[1.0], 1).ln(), f64::NEG_INFINITY);
    }

    #[test]
    fn the_scale_is_a_sum_of_logs_of_deviations_of_the_slots_named() {
        let supernet = chain(1);
        let layout = Layout::new(&supernet);
        let mut statistics = Statistics::standard(&layout);
        // The stem, a 1x1 and a 3x3 convolution have a BatchNorm of four channels each.
        assert_eq!(layout.slots().len(), 3);
        for (slot, var) in layout.slots().iter().zip([[1.0, 2.0, 5.0, 8.0], [100.0; 4], [0.25, 0.25, 0.5, 0.0]]) {
            statistics.var[slot.range.clone()].copy_from_slice(&var);
        }
        // Deviations 2 and 1/2; and with the second, times 10.
        assert!((log_scale(&layout, &[0], &statistics) - 2f64.ln()).abs() < ROUNDING);
        assert!(log_scale(&layout, &[0, 2], &statistics).abs() < ROUNDING);
        assert!((log_scale(&layout, &[0, 1, 2], &statistics) - 10f64.ln()).abs() < ROUNDING);
        // A path's are the stem's and its own, not the other candidate's.
        let path = Path::new(&[2]).unwrap_or_default();
        assert_eq!(scaled(&supernet, &layout, &path), [0, 2]);
    }
}
