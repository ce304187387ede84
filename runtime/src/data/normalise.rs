//! From bytes to numbers: `(v / 255 - mean) / std` of each channel, by table.

/// Channel statistics of a training split on the 0 to 1 scale, and a table of 256 results a channel.
#[derive(Clone, Debug)]
pub struct Normaliser {
    mean: Vec<f64>,
    std: Vec<f64>,
    tables: Vec<[f32; 256]>,
}

impl Normaliser {
    /// Population mean and standard deviation over `images`, bytes `[N, C, pixels]`.
    ///
    /// Sums are integers, so the result does not depend on the order or the machine. A channel that
    /// never changes has no scale to divide by and gets a deviation of 1.
    pub fn of(images: &[u8], channels: usize, pixels: usize) -> Self {
        let mut counts = vec![[0_u64; 256]; channels];
        for image in images.chunks_exact((channels * pixels).max(1)) {
            for (plane, count) in image.chunks_exact(pixels.max(1)).zip(&mut counts) {
                for &value in plane {
                    count[usize::from(value)] += 1;
                }
            }
        }
        let (mean, std): (Vec<f64>, Vec<f64>) = counts.iter().map(statistics).unzip();
        let tables = mean.iter().zip(&std).map(|(mean, std)| table(*mean, *std)).collect();
        Self { mean, std, tables }
    }

    /// Mean of each channel, 0 to 1.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Standard deviation of each channel, above 0.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// For each channel, what each byte becomes.
    pub fn tables(&self) -> &[[f32; 256]] {
        &self.tables
    }
}

/// Mean and deviation (0 to 1 scale) of bytes counted by value.
fn statistics(counts: &[u64; 256]) -> (f64, f64) {
    let [mut total, mut sum, mut squares] = [0_u128; 3];
    for (value, &count) in (0_u128..).zip(counts) {
        total += u128::from(count);
        sum += u128::from(count) * value;
        squares += u128::from(count) * value * value;
    }
    if total == 0 {
        return (0.0, 1.0);
    }
    let mean = sum as f64 / total as f64 / 255.0;
    // total * squares - sum^2 is exact in integers: no cancellation, and exactly 0 for a constant.
    let spread = total * squares - sum * sum;
    let std = if spread == 0 { 1.0 } else { (spread as f64).sqrt() / total as f64 / 255.0 };
    (mean, std)
}

fn table(mean: f64, std: f64) -> [f32; 256] {
    std::array::from_fn(|value| ((value as f64 / 255.0 - mean) / std) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounding of a handful of f64 operations.
    const ROUNDING: f64 = 1e-12;

    #[test]
    fn statistics_are_those_of_the_definition() {
        let images: Vec<u8> = (0..2 * 2 * 6).map(|i| (i * 37 % 251) as u8).collect();
        let normaliser = Normaliser::of(&images, 2, 6);
        for channel in 0..2 {
            let values: Vec<f64> = (0..2)
                .flat_map(|image| (0..6).map(move |pixel| (image * 2 + channel) * 6 + pixel))
                .map(|index| f64::from(images[index]) / 255.0)
                .collect();
            let mean = values.iter().sum::<f64>() / 12.0;
            let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0;
            assert!((normaliser.mean()[channel] - mean).abs() < ROUNDING);
            assert!((normaliser.std()[channel] - var.sqrt()).abs() < ROUNDING);
            let expected = ((100.0 / 255.0 - mean) / var.sqrt()) as f32;
            assert!((normaliser.tables()[channel][100] - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn constant_channels_stay_finite() {
        for images in [vec![200_u8; 50], Vec::new()] {
            let normaliser = Normaliser::of(&images, 1, 25);
            assert_eq!(normaliser.std(), [1.0]);
            assert!(normaliser.tables()[0].iter().all(|value| value.is_finite()));
        }
        assert_eq!(Normaliser::of(&[200; 50], 1, 25).tables()[0][200], 0.0);
    }
}
