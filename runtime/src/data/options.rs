//! What images are brought to, and how a source is read.

use nasbn_models::supernet::{IMAGE_CHANNELS, MAX_CLASSES, MAX_IMAGE_SIDE, MIN_CLASSES};

use super::error::DataError;

/// The images that a bundle was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Colour planes: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Number of classes, at least 2.
    pub classes: usize,
}

impl ImageSpec {
    /// Bytes (and elements) of one image.
    pub const fn elements(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Refuses shapes that images cannot be brought to.
    ///
    /// # Errors
    /// [`DataError::Spec`] for other than 1 or 3 channels, sides of 0 or above 4096 pixels, and fewer
    /// than 2 or more than 65535 classes.
    pub fn check(&self) -> Result<(), DataError> {
        let sides = 1..=MAX_IMAGE_SIDE as usize;
        let reason = if !IMAGE_CHANNELS.iter().any(|&channels| channels as usize == self.channels) {
            "expected 1 or 3 channels"
        } else if !sides.contains(&self.height) || !sides.contains(&self.width) {
            "expected sides of 1 to 4096 pixels"
        } else if !(MIN_CLASSES as usize..=MAX_CLASSES as usize).contains(&self.classes) {
            "expected 2 to 65535 classes"
        } else {
            return Ok(());
        };
        let Self { channels, height, width, classes } = self;
        Err(DataError::Spec { given: format!("{channels}x{height}x{width} with {classes} classes"), reason })
    }
}

/// How a source is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// Leave out images that cannot be decoded (listed and logged) instead of refusing the source.
    pub skip_unreadable: bool,
    /// Share of the images held back, above 0 and below 1, where the source has no test part.
    pub validation_fraction: f64,
    /// Seed of that split.
    pub seed: u64,
    /// Most bytes that the decoded images may take in memory (twice that for a moment where CIFAR files
    /// without a test file are split).
    pub max_bytes: u64,
}

impl Default for LoadOptions {
    /// Unreadable images refused, a fifth held back, seed 0, 2 GiB.
    fn default() -> Self {
        Self { skip_unreadable: false, validation_fraction: 0.2, seed: 0, max_bytes: 2 << 30 }
    }
}

impl LoadOptions {
    /// Refuses fractions that leave one part empty.
    ///
    /// # Errors
    /// [`DataError::Option`].
    pub fn check(&self) -> Result<(), DataError> {
        if self.validation_fraction > 0.0 && self.validation_fraction < 1.0 {
            return Ok(());
        }
        Err(DataError::Option {
            option: "the validation fraction",
            given: self.validation_fraction.to_string(),
            expected: "a number above 0 and below 1",
        })
    }

    /// Refuses `images` images of `spec` where they would pass the bound.
    pub(crate) fn check_memory(&self, images: u64, spec: &ImageSpec) -> Result<(), DataError> {
        let image_bytes = spec.elements() as u64;
        let needed = images.saturating_mul(image_bytes);
        if needed > self.max_bytes || usize::try_from(needed).is_err() {
            return Err(DataError::TooLarge { images, image_bytes, needed, bound: self.max_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: ImageSpec = ImageSpec { channels: 3, height: 32, width: 32, classes: 10 };

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(SPEC.check().is_ok());
        for bad in [
            ImageSpec { channels: 2, ..SPEC },
            ImageSpec { height: 0, ..SPEC },
            ImageSpec { width: 5000, ..SPEC },
            ImageSpec { classes: 1, ..SPEC },
            ImageSpec { classes: 70_000, ..SPEC },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fractions_outside_zero_to_one_are_refused() {
        for bad in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(LoadOptions { validation_fraction: bad, ..Default::default() }.check().is_err(), "{bad}");
        }
        assert!(LoadOptions::default().check().is_ok());
    }

    #[test]
    fn memory_is_bounded_before_it_is_taken() {
        let options = LoadOptions { max_bytes: 3072 * 10, ..Default::default() };
        assert!(options.check_memory(10, &SPEC).is_ok());
        let message = options.check_memory(11, &SPEC).map_err(|e| e.to_string());
        assert!(matches!(&message, Err(text) if text.contains("33792") && text.contains("30720")), "{message:?}");
        assert!(options.check_memory(u64::MAX, &SPEC).is_err());
    }
}
