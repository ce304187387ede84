//! A labelled image set in memory: bytes for the images, numbers only when a batch is made.

use sha2::{Digest, Sha256};

use super::error::{DataError, Skipped};
use super::normalise::Normaliser;
use super::options::ImageSpec;

/// Which part of a [`Dataset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is trained on.
    Train,
    /// What is only evaluated on.
    Validation,
}

impl Part {
    /// The part's name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// Images of one shape with their labels: bytes `[len, C, H, W]`, 0 black and 255 white.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    images: Vec<u8>,
    labels: Vec<u16>,
    elements: usize,
}

impl Split {
    /// A split from its parts.
    ///
    /// # Errors
    /// [`DataError::Extent`] where `images` is not a whole image of `spec` for each label, or a label is
    /// no class of it.
    pub fn new(spec: &ImageSpec, images: Vec<u8>, labels: Vec<u16>) -> Result<Self, DataError> {
        let expected = spec.elements().checked_mul(labels.len());
        if expected != Some(images.len()) || u32::try_from(labels.len()).is_err() {
            return Err(DataError::Extent {
                what: "bytes of images",
                found: images.len(),
                expected: format!("{} labels times {} bytes", labels.len(), spec.elements()),
            });
        }
        if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= spec.classes) {
            let expected = format!("below {}", spec.classes);
            return Err(DataError::Extent { what: "a label", found: usize::from(*label), expected });
        }
        Ok(Self { images, labels, elements: spec.elements() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels, in the order of the images.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Bytes `[C, H, W]` of one image; `None` beyond the end.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        self.images.chunks_exact(self.elements.max(1)).nth(index)
    }

    /// Number of images of each class.
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            if let Some(count) = counts.get_mut(usize::from(label)) {
                *count += 1;
            }
        }
        counts
    }

    /// Parts this split in two: the images in `held_back` (ascending), and the rest, orders kept.
    pub(crate) fn part(self, held_back: &[usize]) -> (Self, Self) {
        let mut rest = Self { elements: self.elements, ..Self::default() };
        let mut held = rest.clone();
        let mut next = held_back.iter().peekable();
        for (index, (image, label)) in self.images.chunks_exact(self.elements.max(1)).zip(&self.labels).enumerate() {
            let goes_to = if next.next_if(|&&held| held == index).is_some() { &mut held } else { &mut rest };
            goes_to.images.extend_from_slice(image);
            goes_to.labels.push(*label);
        }
        (rest, held)
    }
}

/// What a source says about itself besides its images.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name and place, as in "CIFAR-10 in ./data".
    pub source: String,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Whether mirrored images are still of the same class (not so for digits).
    pub flip: bool,
    /// Images that were left out.
    pub skipped: Vec<Skipped>,
}

/// A training and a validation split of one shape, with what is needed to make batches of them.
#[derive(Clone, Debug)]
pub struct Dataset {
    spec: ImageSpec,
    train: Split,
    validation: Split,
    normaliser: Normaliser,
    about: About,
}

impl Dataset {
    /// A data set from its splits; mean and standard deviation are those of `train`.
    ///
    /// # Errors
    /// [`ImageSpec::check`]'s; [`DataError::ClassCount`] where the names are not as many as the classes;
    /// [`DataError::TooFewImages`] where a split is empty; [`DataError::Extent`] where a split was made
    /// for another image shape; [`DataError::OneLabel`] where all images of `train` are of one class.
    pub fn new(spec: ImageSpec, train: Split, validation: Split, about: About) -> Result<Self, DataError> {
        spec.check()?;
        if about.classes.len() != spec.classes {
            let found = about.classes.len();
            return Err(DataError::ClassCount { what: about.source, found, expected: spec.classes });
        }
        for (part, split) in [(Part::Train, &train), (Part::Validation, &validation)] {
            if split.is_empty() {
                let request = about.source.clone();
                return Err(DataError::TooFewImages { part: part.name(), images: 0, wanted: 1, request });
            }
            // Checked again because a split may come from another spec than this.
            if split.elements != spec.elements() || split.labels.iter().any(|&l| usize::from(l) >= spec.classes) {
                let expected = format!("{} and labels below {}", spec.elements(), spec.classes);
                return Err(DataError::Extent { what: "bytes of an image", found: split.elements, expected });
            }
        }
        if let [first, rest @ ..] = train.labels.as_slice()
            && rest.iter().all(|label| label == first)
        {
            let class = about.classes.get(usize::from(*first)).cloned().unwrap_or_default();
            return Err(DataError::OneLabel { origin: about.source, class, images: train.len() });
        }
        let normaliser = Normaliser::of(&train.images, spec.channels, spec.height * spec.width);
        Ok(Self { spec, train, validation, normaliser, about })
    }

    /// Shape and classes.
    pub const fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// One of the two splits.
    pub const fn split(&self, part: Part) -> &Split {
        match part {
            Part::Train => &self.train,
            Part::Validation => &self.validation,
        }
    }

    /// Class names, in the order of the labels.
    pub fn classes(&self) -> &[String] {
        &self.about.classes
    }

    /// Whether mirrored images are still of the same class.
    pub const fn flip(&self) -> bool {
        self.about.flip
    }

    /// Images that were left out because they could not be read.
    pub fn skipped(&self) -> &[Skipped] {
        &self.about.skipped
    }

    /// Mean and deviation of the training split, and the tables that apply them.
    pub const fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// One line for people: source, sizes, classes and shape.
    pub fn description(&self) -> String {
        let ImageSpec { channels, height, width, classes } = self.spec;
        let skipped = match self.about.skipped.len() {
            0 => String::new(),
            count => format!(", {count} unreadable left out"),
        };
        format!(
            "{}: {} training and {} validation images, {classes} classes, {channels}x{height}x{width}{skipped}",
            self.about.source,
            self.train.len(),
            self.validation.len(),
        )
    }

    /// SHA-256 over shape, labels and pixels of both splits, in hexadecimal: equal only where every
    /// batch is equal, so a resumed run can tell that it sees the data it began with.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let ImageSpec { channels, height, width, classes } = self.spec;
        for size in [channels, height, width, classes, self.train.len(), self.validation.len()] {
            hash.update((size as u64).to_le_bytes());
        }
        hash.update([u8::from(self.about.flip)]);
        for split in [&self.train, &self.validation] {
            for label in &split.labels {
                hash.update(label.to_le_bytes());
            }
            hash.update(&split.images);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SPEC: ImageSpec = ImageSpec { channels: 1, height: 1, width: 2, classes: 2 };

    fn about() -> About {
        About { source: "test".into(), classes: vec!["a".into(), "b".into()], ..About::default() }
    }

    fn split(labels: &[u16]) -> Split {
        let images = (0..labels.len() * 2).map(|i| i as u8).collect();
        Split::new(&SPEC, images, labels.to_vec()).unwrap()
    }

    #[test]
    fn splits_must_fit_their_labels() {
        assert!(Split::new(&SPEC, vec![0; 3], vec![0, 1]).is_err());
        assert!(Split::new(&SPEC, vec![0; 4], vec![0, 2]).is_err());
        assert_eq!(split(&[0, 1, 1]).class_counts(2), [1, 2]);
        assert_eq!(split(&[0, 1]).image(1), Some(&[2, 3][..]));
        assert_eq!(split(&[0, 1]).image(2), None);
    }

    #[test]
    fn parting_keeps_images_with_their_labels_and_order() {
        let (rest, held) = split(&[0, 1, 0, 1]).part(&[1, 2]);
        assert_eq!((rest.labels(), held.labels()), (&[0, 1][..], &[1, 0][..]));
        assert_eq!((rest.image(1), held.image(0)), (Some(&[6, 7][..]), Some(&[2, 3][..])));
    }

    #[test]
    fn empty_splits_and_wrong_names_are_refused() {
        assert!(Dataset::new(SPEC, split(&[]), split(&[0]), about()).is_err());
        assert!(Dataset::new(SPEC, split(&[0, 1]), split(&[]), about()).is_err());
        let one = About { classes: vec!["a".into()], ..about() };
        assert!(matches!(Dataset::new(SPEC, split(&[0]), split(&[0]), one), Err(DataError::ClassCount { .. })));
        let wider = ImageSpec { width: 3, ..SPEC };
        assert!(matches!(Dataset::new(wider, split(&[0]), split(&[0]), about()), Err(DataError::Extent { .. })));
    }

    #[test]
    fn training_images_of_one_class_are_refused_by_its_name() {
        for labels in [&[1][..], &[1, 1, 1]] {
            let error = Dataset::new(SPEC, split(labels), split(&[0, 1]), about()).unwrap_err();
            assert!(
                matches!(&error, DataError::OneLabel { class, images, .. } if class == "b" && *images == labels.len())
            );
        }
        // Held-back images may be few, and of one class then.
        assert!(Dataset::new(SPEC, split(&[1, 0]), split(&[1]), about()).is_ok());
    }

    #[test]
    fn fingerprints_tell_data_apart() {
        let base = Dataset::new(SPEC, split(&[0, 1]), split(&[0]), about()).unwrap();
        let same = Dataset::new(SPEC, split(&[0, 1]), split(&[0]), about()).unwrap();
        let other = Dataset::new(SPEC, split(&[1, 0]), split(&[0]), about()).unwrap();
        assert_eq!(base.fingerprint(), same.fingerprint());
        assert_ne!(base.fingerprint(), other.fingerprint());
        assert_eq!(base.fingerprint().len(), 64);
    }
}
