//! Random crop and mirror image of a training picture, normalised in the same pass.

use rand_core::Rng;

use super::normalise::Normaliser;
use nasbn_models::sample::below;

/// Border of a random crop, in pixels, at a side of [`BORDER_SIDE`] pixels; scaled with the side.
const BORDER: usize = 4;
const BORDER_SIDE: usize = 32;

/// How one picture is moved and mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Rows by which the window moves down.
    pub down: isize,
    /// Columns by which the window moves right.
    pub right: isize,
    /// Whether the window is mirrored left to right.
    pub mirrored: bool,
}

impl Change {
    /// Crop out of a picture with a black border of 4/32 of its side (at 32 pixels the usual 4), and a
    /// mirror image half of the time where `flip` allows it.
    pub(crate) fn draw(rng: &mut impl Rng, height: usize, width: usize, flip: bool) -> Self {
        let mut shift = |side: usize| {
            let border = (side * BORDER + BORDER_SIDE / 2) / BORDER_SIDE;
            below(rng, 2 * border as u32 + 1) as isize - border as isize
        };
        let (down, right) = (shift(height), shift(width));
        Self { down, right, mirrored: flip && below(rng, 2) == 1 }
    }
}

/// Writes `image`, bytes `[C, H, W]`, changed and normalised, to `out`, numbers of the same shape.
pub(crate) fn write(image: &[u8], width: usize, normaliser: &Normaliser, change: Change, out: &mut [f32]) {
    let channels = normaliser.tables().len().max(1);
    let plane = (image.len() / channels).max(1);
    let planes = image.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).zip(normaliser.tables());
    for ((from, to), table) in planes {
        if change == Change::default() {
            for (to, &value) in to.iter_mut().zip(from) {
                *to = table[usize::from(value)];
            }
            continue;
        }
        // Columns of the window that lie inside the picture.
        let start = change.right.min(0).unsigned_abs().min(width);
        let skip = change.right.max(0).unsigned_abs().min(width);
        let inside = width - start - skip.min(width - start);
        for (row, to) in to.chunks_exact_mut(width.max(1)).enumerate() {
            to.fill(table[0]);
            let source = row.checked_add_signed(change.down).and_then(|row| from.chunks_exact(width.max(1)).nth(row));
            if let Some(source) = source {
                for (to, &value) in to[start..start + inside].iter_mut().zip(&source[skip..]) {
                    *to = table[usize::from(value)];
                }
            }
            if change.mirrored {
                to.reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::{Purpose, stream};
    use super::*;

    /// 2 channels of 3 x 3 pixels; the tables then differ between the channels.
    fn image() -> Vec<u8> {
        (1..=18).collect()
    }

    fn written(change: Change) -> Vec<u8> {
        let (image, normaliser) = (image(), Normaliser::of(&image(), 2, 9));
        let mut out = vec![f32::NAN; 18];
        write(&image, 3, &normaliser, change, &mut out);
        let back = |(index, value): (usize, &f32)| {
            let table = &normaliser.tables()[index / 9];
            (0..=255).find(|&byte: &u8| table[usize::from(byte)] == *value).unwrap_or(u8::MAX)
        };
        out.iter().enumerate().map(back).collect()
    }

    #[test]
    fn no_change_is_only_normalised() {
        assert_eq!(written(Change::default()), image());
    }

    #[test]
    fn windows_move_over_a_black_border() {
        let moved = written(Change { down: 1, right: -1, mirrored: false });
        assert_eq!(moved, [0, 4, 5, 0, 7, 8, 0, 0, 0, 0, 13, 14, 0, 16, 17, 0, 0, 0]);
        let moved = written(Change { down: -1, right: 2, mirrored: true });
        assert_eq!(moved, [0, 0, 0, 0, 0, 3, 0, 0, 6, 0, 0, 0, 0, 0, 12, 0, 0, 15]);
    }

    #[test]
    fn mirrors_and_far_moves() {
        let mirrored = written(Change { mirrored: true, ..Change::default() });
        assert_eq!(mirrored[..9], [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        for far in [-9, 9] {
            assert_eq!(written(Change { down: 0, right: far, mirrored: false }), [0; 18]);
            assert_eq!(written(Change { down: far, right: 0, mirrored: false }), [0; 18]);
        }
    }

    #[test]
    fn draws_cover_the_border_and_mirror_only_where_allowed() {
        let mut rng = stream(3, Purpose::Augment, 0, 0);
        let draws: Vec<Change> = (0..2000).map(|_| Change::draw(&mut rng, 64, 32, true)).collect();
        assert_eq!((draws.iter().map(|c| c.down).min(), draws.iter().map(|c| c.down).max()), (Some(-8), Some(8)));
        assert_eq!((draws.iter().map(|c| c.right).min(), draws.iter().map(|c| c.right).max()), (Some(-4), Some(4)));
        let mirrored = draws.iter().filter(|c| c.mirrored).count();
        assert!((850..1150).contains(&mirrored), "{mirrored}");
        assert!((0..200).all(|_| !Change::draw(&mut rng, 8, 8, false).mirrored));
    }
}
