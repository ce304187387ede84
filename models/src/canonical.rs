//! Canonical paths: equal networks have one, and are scored, cached and counted once.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use crate::{Edge, Form, MAX_CHOICES, Path, Selection, Supernet};

/// A run of interchangeable choices.
#[derive(Clone, Debug)]
struct Run {
    choices: Range<usize>,
    /// Which of their candidates is the identity.
    identity: u8,
}

/// What [`Supernet::canonical`] needs to know of a supernet, worked out once.
///
/// Choices are interchangeable but for their identities where their edges follow one another in a chain
/// with the same candidates, the same shapes, stride 1 and a choice of their own.
#[derive(Clone, Debug)]
pub struct CanonicalTable {
    runs: Vec<Run>,
}

impl CanonicalTable {
    /// The table of a validated supernet.
    pub fn new(supernet: &Supernet) -> Self {
        let nodes = supernet.nodes.len();
        let (mut outgoing, mut incoming, mut uses) = (vec![0u16; nodes], vec![0u16; nodes], [0u16; MAX_CHOICES]);
        for edge in &supernet.edges {
            outgoing[usize::from(edge.from)] += 1;
            incoming[usize::from(edge.to)] += 1;
            if let Some(uses) = mixed(edge).and_then(|choice| uses.get_mut(choice)) {
                *uses += 1;
            }
        }
        // The choice of an edge whose identity changes nothing, and that identity.
        let repeatable = |edge: &Edge| {
            let choice = mixed(edge)?;
            let from = supernet.nodes[usize::from(edge.from)].shape;
            let alone = incoming[usize::from(edge.to)] == 1
                && outgoing[usize::from(edge.from)] == 1
                && uses.get(choice) == Some(&1);
            let is_identity = |&o: &u8| supernet.operators[usize::from(o)].form.is_identity();
            let identity = supernet.candidates(edge).iter().position(is_identity)? as u8;
            (alone && edge.stride == 1 && from == supernet.edge_shape(edge)).then_some((choice, identity))
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut previous: Option<&Edge> = None;
        for edge in &supernet.edges {
            let found = repeatable(edge);
            if let Some((choice, identity)) = found {
                let follows = previous.is_some_and(|p| {
                    p.to == edge.from
                        && p.channels == edge.channels
                        && supernet.candidates(p) == supernet.candidates(edge)
                });
                match runs.last_mut() {
                    Some(run) if follows && run.choices.end == choice => run.choices.end += 1,
                    _ => runs.push(Run { choices: choice..choice + 1, identity }),
                }
            }
            previous = found.map(|_| edge);
        }
        runs.retain(|run| run.choices.len() > 1);
        Self { runs }
    }

    /// The canonical path: see [`Supernet::canonical`]. Allocates nothing.
    pub fn of(&self, path: &Path) -> Path {
        let mut canonical = path.clone();
        for run in &self.runs {
            let Some(choices) = canonical.choices_mut().get_mut(run.choices.clone()) else { continue };
            let mut filled = 0;
            for i in 0..choices.len() {
                if choices[i] != run.identity {
                    choices[filled] = choices[i];
                    filled += 1;
                }
            }
            choices[filled..].fill(run.identity);
        }
        canonical
    }

    /// Whether a path is its own canonical path.
    pub fn is_canonical(&self, path: &Path) -> bool {
        self.of(path) == *path
    }

    /// Number of canonical paths: of networks, as far as runs of identities tell them apart. The largest number
    /// there is if it is larger.
    pub fn count(&self, supernet: &Supernet) -> u128 {
        let mut count: u128 = 1;
        let mut next = 0;
        for run in &self.runs {
            for choice in supernet.choices.get(next..run.choices.start).unwrap_or_default() {
                count = count.saturating_mul(choice.candidates.len() as u128);
            }
            // With k operators besides the identity: k^0 + k^1 + ... + k^length fillings.
            let others = supernet.choices[run.choices.start].candidates.len().saturating_sub(1) as u128;
            let fillings = (0..run.choices.len()).fold(1, |sum: u128, _| sum.saturating_mul(others).saturating_add(1));
            count = count.saturating_mul(fillings);
            next = run.choices.end;
        }
        let rest = supernet.choices.get(next..).unwrap_or_default();
        rest.iter().fold(count, |count, choice| count.saturating_mul(choice.candidates.len() as u128))
    }
}

/// The choice of a mixed edge.
fn mixed(edge: &Edge) -> Option<usize> {
    match edge.selection {
        Selection::Fixed(_) => None,
        Selection::Mixed(choice) => Some(usize::from(choice)),
    }
}

impl Supernet {
    /// The representative of all paths that describe the same network once trained by itself: within a
    /// run of interchangeable layers identities stand last. Idempotent; keeps costs.
    ///
    /// For many paths, [`CanonicalTable`] does the same faster.
    pub fn canonical(&self, path: &Path) -> Path {
        CanonicalTable::new(self).of(path)
    }

    /// Whether the path leads from the image to the logits.
    pub fn is_connected(&self, path: &Path) -> bool {
        // Every node has an edge that leads to it, so without absent edges nothing can be cut off.
        if self.operators.iter().all(|o| o.form != Form::Absent) {
            return true;
        }
        // Training asks at every step: spaces of a usual size take no memory for it.
        const FEW: usize = 1024;
        let (mut few, mut many) = ([false; FEW], Vec::new());
        let reached = match few.get_mut(..self.nodes.len()) {
            Some(few) => few,
            None => {
                many.resize(self.nodes.len(), false);
                &mut many[..]
            }
        };
        self.spread(path, reached);
        reached.last().copied().unwrap_or(false)
    }

    /// Whether the image gets to each node along the path. What stands on the others is zero, or nothing at all.
    pub fn reached(&self, path: &Path) -> Vec<bool> {
        let mut reached: Vec<bool> = vec![false; self.nodes.len()];
        self.spread(path, &mut reached);
        reached
    }

    /// Notes which nodes the image gets to; `reached` is false for each of them.
    fn spread(&self, path: &Path, reached: &mut [bool]) {
        reached[0] = true;
        for edge in &self.edges {
            let operator = self.operator_on(edge, path);
            if reached[usize::from(edge.from)] && self.operators[usize::from(operator)].form != Form::Absent {
                reached[usize::from(edge.to)] = true;
            }
        }
    }

    /// Number of paths, different networks or not; the largest number there is if it is larger.
    pub fn path_count(&self) -> u128 {
        self.choices.iter().fold(1, |count: u128, choice| count.saturating_mul(choice.candidates.len() as u128))
    }

    /// Every path, in lexicographic order.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        let first = Path::new(&vec![0; self.choices.len()]);
        core::iter::successors(first, |path| {
            let mut next = path.clone();
            for (i, choice) in self.choices.iter().enumerate().rev() {
                let slot = next.choices_mut().get_mut(i)?;
                if usize::from(*slot) + 1 < choice.candidates.len() {
                    *slot += 1;
                    return Some(next);
                }
                *slot = 0;
            }
            None
        })
    }
}
