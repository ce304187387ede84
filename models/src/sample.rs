//! Random paths. Every function is a fixed function of the random stream, for ever: results must
//! not change between versions of this program or of its dependencies.

use alloc::vec::Vec;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::{MAX_CHOICES, Path, Supernet};

/// A whole number below `n`, unbiased (Lemire 2019: multiply, reject the short low part).
/// Takes one 32-bit word of the stream, seldom more; 0 for `n` of 0 or 1, taking none.
pub fn below(rng: &mut impl Rng, n: u32) -> u32 {
    if n <= 1 {
        return 0;
    }
    let reject = n.wrapping_neg() % n;
    loop {
        let product = u64::from(rng.next_u32()) * u64::from(n);
        if product as u32 >= reject {
            return (product >> 32) as u32;
        }
    }
}

/// Whether an event of probability `p` happens. Takes one 32-bit word of the stream.
fn happens(rng: &mut impl Rng, p: f64) -> bool {
    f64::from(rng.next_u32()) < p * 4_294_967_296.0
}

/// Shuffles in place (Fisher-Yates from the end).
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i as u32 + 1) as usize);
    }
}

/// A path whose choices are independent and uniform over their candidates, of all that lead from the
/// image to the logits: one that does not is drawn again as a whole, up to [`MAX_TRIES`] times; then the
/// last one is given as it is ([`Supernet::is_connected`] tells).
pub fn uniform(supernet: &Supernet, rng: &mut impl Rng) -> Path {
    let mut path = draw(supernet, rng);
    for _ in 1..MAX_TRIES {
        if supernet.is_connected(&path) {
            break;
        }
        path = draw(supernet, rng);
    }
    path
}

/// How often [`uniform`] draws before it gives up on a connected path.
pub const MAX_TRIES: usize = 1000;

fn draw(supernet: &Supernet, rng: &mut impl Rng) -> Path {
    let mut choices = [0; MAX_CHOICES];
    for (slot, choice) in choices.iter_mut().zip(&supernet.choices) {
        *slot = below(rng, choice.candidates.len() as u32) as u8;
    }
    Path::new(&choices[..supernet.choices.len().min(MAX_CHOICES)]).unwrap_or_default()
}

/// `path` with every choice drawn anew with probability `p`. Need not be connected, even if `path` is.
pub fn mutate(supernet: &Supernet, path: &Path, p: f64, rng: &mut impl Rng) -> Path {
    let mut mutated = path.clone();
    for (slot, choice) in mutated.choices_mut().iter_mut().zip(&supernet.choices) {
        if happens(rng, p) {
            *slot = below(rng, choice.candidates.len() as u32) as u8;
        }
    }
    mutated
}

/// Every choice from one of two parents, with equal chances. Need not be connected, even if they are.
pub fn crossover(first: &Path, second: &Path, rng: &mut impl Rng) -> Path {
    let mut child = first.clone();
    for (slot, &other) in child.choices_mut().iter_mut().zip(second.choices()) {
        if happens(rng, 0.5) {
            *slot = other;
        }
    }
    child
}

/// Strict fairness (FairNAS, Chu et al. 2021): every choice deals its candidates like a shuffled deck,
/// so that each is taken once before any is taken again. Decks of differing sizes are shuffled anew
/// each when it is used up, so the counts of a choice's candidates never differ by more than one.
///
/// Paths need not be connected, and every one is dealt. Where a path that is not cannot be trained, its user passes
/// over it, and its candidates lose that turn: the counts are then fair over what was dealt, not over what was
/// trained. The state can be serialised; with the random stream's position it resumes to the same paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FairSampler {
    /// Candidates still to be dealt, per choice; the last is next.
    decks: Vec<Vec<u8>>,
}

impl FairSampler {
    /// A sampler whose first paths begin new decks.
    pub fn new(supernet: &Supernet) -> Self {
        Self { decks: supernet.choices.iter().map(|_| Vec::new()).collect() }
    }

    /// The next path.
    pub fn next(&mut self, supernet: &Supernet, rng: &mut impl Rng) -> Path {
        self.decks.resize(supernet.choices.len(), Vec::new());
        let mut choices = [0; MAX_CHOICES];
        for ((slot, deck), choice) in choices.iter_mut().zip(&mut self.decks).zip(&supernet.choices) {
            let count = choice.candidates.len();
            deck.retain(|&candidate| usize::from(candidate) < count);
            if deck.is_empty() {
                deck.extend(0..count as u8);
                shuffle(rng, deck);
            }
            *slot = deck.pop().unwrap_or(0);
        }
        Path::new(&choices[..supernet.choices.len().min(MAX_CHOICES)]).unwrap_or_default()
    }
}
