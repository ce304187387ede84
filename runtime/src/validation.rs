//! Loss and accuracy of a path with inherited BatchNorm, its statistics recalibrated.

use std::borrow::Borrow;

use nasbn_models::Path;
use serde::Serialize;

use crate::{
    data::Batch,
    engine::EngineError,
    network::Network,
    parameters::{BnParameters, Layout, Statistics},
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
#[derive(Clone, Debug)]
pub struct Moments {
    /// Per slot of the path and channel: sums of means, of their squares, and of variances.
    sums: Vec<(usize, Vec<[f64; 3]>)>,
    batches: usize,
}

impl Moments {
    /// Of no mini-batch yet.
    pub fn new(network: &Network, path: &Path) -> Self {
        let layout = network.layout();
        let zeros = |slot: usize| (slot, vec![[0.0; 3]; layout.slots()[slot].range.len()]);
        Self { sums: layout.path(network.supernet(), path).map(zeros).collect(), batches: 0 }
    }

    /// Takes in the statistics of one mini-batch.
    pub fn add(&mut self, layout: &Layout, statistics: &Statistics) {
        for (slot, sums) in &mut self.sums {
            let range = layout.slots()[*slot].range.clone();
            let moments = statistics.mean[range.clone()].iter().zip(&statistics.var[range]);
            for (sum, (&mean, &var)) in sums.iter_mut().zip(moments) {
                let mean = f64::from(mean);
                *sum = [sum[0] + mean, sum[1] + mean * mean, sum[2] + f64::from(var)];
            }
        }
        self.batches += 1;
    }

    /// The statistics of all mini-batches together; slots of other paths are standard.
    pub fn statistics(&self, layout: &Layout) -> Statistics {
        let count = self.batches.max(1) as f64;
        let mut statistics = Statistics::standard(layout);
        for (slot, sums) in &self.sums {
            for (channel, [mean, square, var]) in layout.slots()[*slot].range.clone().zip(sums) {
                let mean = mean / count;
                statistics.mean[channel] = mean as f32;
                statistics.var[channel] = (var / count + (square / count - mean * mean).max(0.0)) as f32;
            }
        }
        statistics
    }
}

/// [`Moments`] of a path over mini-batches.
///
/// # Errors
/// If a graph fails.
pub fn recalibrate(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    batches: &[Batch],
) -> Result<Statistics, EngineError> {
    let mut moments = Moments::new(network, path);
    let mut current = Statistics::standard(network.layout());
    for batch in batches {
        network.forward(path, parameters, batch.images.view(), &mut current, false)?;
        moments.add(network.layout(), &current);
    }
    Ok(moments.statistics(network.layout()))
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
    batches: impl IntoIterator<Item = impl Borrow<Batch>>,
) -> Result<Validation, EngineError> {
    let (mut loss, mut correct, mut images) = (0.0, 0usize, 0usize);
    for batch in batches {
        let batch = batch.borrow();
        let logits = network.evaluate(path, parameters, statistics, batch.images.view())?;
        let output = network.loss(&logits, &batch.labels)?;
        loss += output.sample_loss()?.iter().map(|&l| f64::from(l)).sum::<f64>();
        let (_, values) = logits.read()?;
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
