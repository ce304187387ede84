//! Lines of a run's metrics.

use std::io;

use nasbn_models::{Path, Supernet};
use serde::{Serialize, Serializer};

use super::StepReport;

/// What a line takes at most, about, bytes.
pub const LINE: usize = 224;

/// A line.
#[derive(Serialize)]
struct Metric<'a> {
    step: u64,
    epoch: f64,
    #[serde(serialize_with = "path")]
    path: (&'a Supernet, &'a Path),
    loss: f32,
    rate: f32,
    gradient_norm: f64,
    images_per_s: f64,
}

fn path<S: Serializer>((supernet, path): &(&Supernet, &Path), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&supernet.path_text(path))
}

/// Adds the line of a step, a JSON object, to `lines`: `epoch` counts passes over the images, `per_epoch` steps each; `path` is
/// in the space's text form; `images_per_s` is rounded to tenths. It asks the allocator for nothing where `lines` has room for [`LINE`] bytes more.
///
/// # Errors
/// If a number cannot be written, which no number of a step is.
pub fn line(
    lines: &mut Vec<u8>,
    report: &StepReport,
    supernet: &Supernet,
    per_epoch: u64,
    images_per_s: f64,
) -> io::Result<()> {
    let metric = Metric {
        step: report.step,
        epoch: report.step as f64 / per_epoch as f64,
        path: (supernet, &report.path),
        loss: report.loss,
        rate: report.rate,
        gradient_norm: report.gradient_norm,
        images_per_s: (images_per_s * 10.0).round() / 10.0,
    };
    serde_json::to_writer(&mut *lines, &metric)?;
    lines.push(b'\n');
    Ok(())
}
