//! The Zen-score (Lin et al. 2021, "Zen-NAS", algorithm 1): how much the feature map moves when Gaussian
//! images do, with the scale that BatchNorm takes out put back.
//!
//! Where it differs from the paper: residual connections stay, convolutions are the bundle's (He et al.
//! 2015 instead of N(0, 1), which the BatchNorms' variances make up for), the feature map is the head's
//! input, and one batch stands for the paper's mean over repetitions.

use nasbn_models::{Path, sample};
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
/// with gamma 1, beta 0 and the statistics of each batch of its own; the variances are those of x. Minus
/// infinity for a network that does not see the noise.
///
/// # Errors
/// If a graph fails.
pub fn score(network: &mut Network, path: &Path, noise: &Noise) -> Result<f64, EngineError> {
    let initial = BnParameters::initial(network.layout());
    let mut statistics = Statistics::standard(network.layout());
    let mut features = |images: &Array4<f32>, statistics: &mut Statistics| -> Result<Vec<f32>, EngineError> {
        let value = network.features(path, &initial, images.view(), statistics)?;
        Ok(value.try_extract_tensor::<f32>()?.1.to_vec())
    };
    let moved = features(&noise.moved, &mut statistics)?;
    let still = features(&noise.images, &mut statistics)?;
    let (layout, head) = (network.layout(), network.supernet().edges.len().saturating_sub(1));
    let before = |slot: &usize| usize::from(layout.slots()[*slot].edge) < head;
    let slots: Vec<usize> = layout.path(network.supernet(), path).filter(before).collect();
    let scale = log_scale(network.layout(), &slots, &statistics);
    Ok(change(&still, &moved, noise.images.dim().0).ln() + scale)
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
    fn change_and_scale_are_their_definitions() {
        assert_eq!(change(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 4.0, 5.0], 2), 2.0);
        assert_eq!(change(&[1.0], &[1.0], 1).ln(), f64::NEG_INFINITY);
    }
}
