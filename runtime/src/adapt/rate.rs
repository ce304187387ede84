//! Finding a learning rate: a short run with a growing rate (Smith 2017, section 3.3).

use super::{AdaptError, Trainer};
use crate::{data::Batch, network::Network};

/// One step of the search.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RatePoint {
    /// Learning rate.
    pub rate: f32,
    /// Loss, smoothed over steps (exponential mean with weight 0.9, bias-corrected).
    pub loss: f32,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RateCurve {
    /// The steps taken; fewer than asked for if the loss blew up.
    pub points: Vec<RatePoint>,
    /// Rate at which the smoothed loss was lowest, divided by three; none if it never fell.
    pub suggested: Option<f32>,
}

const SMOOTHING: f32 = 0.9;
/// The search ends when the smoothed loss exceeds this multiple of its least value.
const BLOWN_UP: f32 = 4.0;

/// Runs `trainer` over `batches` (in turn) for `steps` steps while the rate grows geometrically from
/// `low` to `high`. `after` is called after every step. The trainer is left as the search leaves it: use a fresh one to train.
///
/// # Errors
/// If a graph fails, or `after` does. A loss that is not finite only ends the search.
pub fn find_rate<E: From<AdaptError>>(
    network: &mut Network,
    trainer: &mut Trainer,
    batches: &[Batch],
    steps: u32,
    low: f32,
    high: f32,
    mut after: impl FnMut(&mut Network) -> Result<(), E>,
) -> Result<RateCurve, E> {
    let mut points: Vec<RatePoint> = Vec::new();
    let (mut mean, mut weight, mut least) = (0.0f32, 0.0f32, f32::INFINITY);
    for (step, batch) in (0..steps).zip(batches.iter().cycle()) {
        let rate = low * (high / low).powf(step as f32 / steps.saturating_sub(1).max(1) as f32);
        let report = match trainer.step_at(network, batch.images.view(), &batch.labels, rate) {
            Err(AdaptError::NonFinite { .. }) => break,
            other => other?,
        };
        after(network)?;
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * report.loss;
        weight = SMOOTHING * weight + (1.0 - SMOOTHING);
        let loss = mean / weight;
        points.push(RatePoint { rate, loss });
        least = least.min(loss);
        if loss > BLOWN_UP * least {
            break;
        }
    }
    let first = points.first().map(|p| p.loss);
    let best = points.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
    let suggested = best.filter(|p| Some(p.loss) < first).map(|p| p.rate / 3.0);
    Ok(RateCurve { points, suggested })
}
