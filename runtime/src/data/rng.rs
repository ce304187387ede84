//! Randomness as a pure function of where it is used.
//!
//! Every draw comes from ChaCha8 keyed by (seed, purpose, two counters), so a resumed run, a
//! background thread and a synchronous twin see the same numbers without replaying any.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// What a stream is for; streams of different purposes are independent.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of the training images in an epoch.
    Shuffle = 1,
    /// Crop and flip of one image.
    Augment = 2,
    /// The split into train and validation.
    Split = 3,
    /// Class-balanced subsets.
    Subset = 4,
}

/// The stream of `purpose` at (`major`, `minor`), for instance (epoch, index in the epoch).
pub(crate) fn stream(seed: u64, purpose: Purpose, major: u64, minor: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (place, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, major, minor]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_the_key() {
        let first = |seed, purpose, major, minor| stream(seed, purpose, major, minor).next_u64();
        let base = first(1, Purpose::Shuffle, 2, 3);
        assert_eq!(base, first(1, Purpose::Shuffle, 2, 3));
        for other in [
            first(2, Purpose::Shuffle, 2, 3),
            first(1, Purpose::Augment, 2, 3),
            first(1, Purpose::Shuffle, 3, 3),
            first(1, Purpose::Shuffle, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }
}
