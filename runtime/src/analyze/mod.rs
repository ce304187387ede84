//! What BatchNorm-only training does, made visible: the two claims of arXiv 2112.00265.
//!
//! [`operators`]: a BatchNorm on convolutions alone makes indicators read from gamma prefer convolutions. [`drift`]:
//! the tangent kernel of the BatchNorm parameters hardly moves while they are trained, the less the wider the network.

pub mod drift;
pub mod linear;
pub mod operators;

use nasbn_models::{Supernet, supernet::Edge};

/// Mean and sample standard deviation (divided by n - 1; none for a single value).
pub fn spread(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}

/// In what supernets may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// What can be chosen, and how it hangs together.
    Space,
    /// Size of the image.
    Image,
    /// Number of classes.
    Classes,
    /// Width multiplier.
    Width,
    /// BatchNorm placement.
    Placement,
}

impl Trait {
    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Space => "space",
            Self::Image => "image size",
            Self::Classes => "classes",
            Self::Width => "width",
            Self::Placement => "BatchNorm placement",
        }
    }
}

/// In what two supernets differ. Channels are compared where widths and classes are equal.
pub fn differences(a: &Supernet, b: &Supernet) -> Vec<Trait> {
    let names = |s: &Supernet| s.operators.iter().map(|o| o.name.clone()).collect::<Vec<_>>();
    let hung = |s: &Supernet| {
        let of = |e: &Edge| (e.from, e.to, e.stride, e.selection);
        (s.edges.iter().map(of).collect::<Vec<_>>(), s.nodes.iter().map(|n| n.combine).collect::<Vec<_>>())
    };
    let channels = |s: &Supernet| s.nodes.iter().map(|n| n.shape.channels).collect::<Vec<_>>();
    let (width, classes) = (a.width_permille != b.width_permille, a.classes() != b.classes());
    let space = (&a.name, &a.choices, &a.alphabet, a.text_form, names(a), hung(a))
        != (&b.name, &b.choices, &b.alphabet, b.text_form, names(b), hung(b))
        || (!width && !classes && (channels(a), &a.operators) != (channels(b), &b.operators));
    let found = [
        (space, Trait::Space),
        (a.image() != b.image(), Trait::Image),
        (classes, Trait::Classes),
        (width, Trait::Width),
        (a.placement != b.placement, Trait::Placement),
    ];
    found.into_iter().filter_map(|(differs, of)| differs.then_some(of)).collect()
}

#[cfg(test)]
mod tests {
    use nasbn_models::BnPlacement;

    use super::*;
    use crate::testing::chain;

    #[test]
    fn each_difference_is_told_by_itself() {
        let whole = chain(3);
        let differing = |change: &dyn Fn(&mut Supernet)| {
            let mut other = whole.clone();
            change(&mut other);
            differences(&whole, &other)
        };
        assert_eq!(differing(&|_| {}), []);
        assert_eq!(differing(&|s| s.name = "other".into()), [Trait::Space]);
        assert_eq!(differing(&|s| s.choices[0].candidates.reverse()), [Trait::Space]);
        assert_eq!(differing(&|s| s.nodes[2].shape.channels = 5), [Trait::Space]);
        assert_eq!(differing(&|s| s.edges[1].stride = 2), [Trait::Space]);
        assert_eq!(differing(&|s| s.nodes[0].shape.height = 8), [Trait::Image]);
        assert_eq!(differing(&|s| s.nodes[5].shape.channels = 7), [Trait::Classes]);
        assert_eq!(differing(&|s| s.placement = BnPlacement::EveryOperator), [Trait::Placement]);
        let wider = |s: &mut Supernet| {
            s.width_permille = 2000;
            s.nodes[2].shape.channels = 8;
        };
        assert_eq!(differing(&wider), [Trait::Width]);
        assert_eq!(differences(&whole, &chain(2)), [Trait::Space]);
    }

    #[test]
    fn a_spread_is_that_of_a_sample() {
        assert_eq!(spread(&[2.0, 4.0, 9.0]), (5.0, Some(13f64.sqrt())));
        assert_eq!(spread(&[3.0]), (3.0, None));
        assert!(spread(&[]).0.is_nan());
    }
}
