//! Loss and accuracy of a path with inherited BatchNorm, its statistics recalibrated.

use std::collections::HashMap;

use nasbn_models::Path;
use serde::Serialize;

use crate::{
    data::Batch,
    engine::EngineError,
    network::Network,
    parameters::{BnParameters, Statistics},
};

/// Accuracy and loss of a path.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Validation {
    /// Mean cross-entropy, nats; not a number if a logit is none.
    pub loss: f64,
    /// Share of images whose highest logit (the first of equal ones) is their class, 0 to 1. Images with a logit
    /// that is not a number count as wrong.
    pub accuracy: f64,
    /// Number of images.
    pub images: usize,
}

/// Statistics of a path's BatchNorms over mini-batches: the mean of the batches' means, and the mean
/// of their variances plus the variance of their means (the exact moments for equal batches).
/// This is the recalibration that inherited weights need (SPOS, section 3.4).
///
/// # Errors
/// If a graph fails.
pub fn recalibrate(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    batches: &[Batch],
) -> Result<Statistics, EngineError> {
    let slots: Vec<usize> = network.layout().path(network.supernet(), path).collect();
    let mut current = Statistics::standard(network.layout());
    let mut sums: HashMap<usize, Vec<[f64; 3]>> = HashMap::new();
    for batch in batches {
        network.forward(path, parameters, batch.images.view(), &mut current, false)?;
        for &slot in &slots {
            let range = network.layout().slots()[slot].range.clone();
            let sums = sums.entry(slot).or_insert_with(|| vec![[0.0; 3]; range.len()]);
            for ((sum, &mean), &var) in sums.iter_mut().zip(&current.mean[range.clone()]).zip(&current.var[range]) {
                let mean = f64::from(mean);
                *sum = [sum[0] + mean, sum[1] + mean * mean, sum[2] + f64::from(var)];
            }
        }
    }
    let count = batches.len().max(1) as f64;
    let mut statistics = Statistics::standard(network.layout());
    for (slot, sums) in sums {
        for (channel, [mean, square, var]) in network.layout().slots()[slot].range.clone().zip(sums) {
            let mean = mean / count;
            statistics.mean[channel] = mean as f32;
            statistics.var[channel] = (var / count + (square / count - mean * mean).max(0.0)) as f32;
        }
    }
    Ok(statistics)
}

/// Loss and accuracy of a path with the given statistics over mini-batches.
///
/// # Errors
/// If a graph fails.
pub fn validate(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    statistics: &Statistics,
    batches: &[Batch],
) -> Result<Validation, EngineError> {
    let (mut loss, mut correct, mut images) = (0.0, 0usize, 0usize);
    for batch in batches {
        let logits = network.evaluate(path, parameters, statistics, batch.images.view())?;
        let output = network.loss(&logits, &batch.labels)?;
        loss += output.sample_loss.iter().map(|&l| f64::from(l)).sum::<f64>();
        let (_, values) = logits.try_extract_tensor::<f32>()?;
        let classes = network.supernet().classes() as usize;
        for (row, &label) in values.chunks_exact(classes).zip(&batch.labels) {
            match highest(row) {
                Some(class) => correct += usize::from(class as i64 == label),
                None => loss = f64::NAN,
            }
        }
        images += batch.labels.len();
    }
    let count = images.max(1) as f64;
    Ok(Validation { loss: loss / count, accuracy: correct as f64 / count, images })
}

/// Class of the highest logit, the first of equal ones as in PyTorch's `argmax`; none if one is not a number.
fn highest(logits: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (class, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((class, logit));
        }
    }
    best.map(|(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_logits_is_the_class_and_what_is_no_number_has_none() {
        assert_eq!(highest(&[0.0, 2.0, 2.0]), Some(1));
        assert_eq!(highest(&[-0.0, 0.0]), Some(0));
        assert_eq!(highest(&[f32::NEG_INFINITY; 2]), Some(0));
        assert_eq!(highest(&[1.0, f32::NAN, 0.0]), None);
        assert_eq!(highest(&[f32::NAN, 1.0]), None);
        assert_eq!(highest(&[]), None);
    }
}
