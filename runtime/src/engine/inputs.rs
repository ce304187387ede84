//! The inputs of a run, without the heap where they are as many as usual.

use ort::session::SessionInputValue;

/// Inputs up to which the heap is not asked: an operator of eight BatchNorms has 42 at most.
const FEW: usize = 48;

/// Inputs in the order of a graph's.
#[allow(clippy::large_enum_variant, reason = "the stack is what it is for")]
pub(super) enum Inputs<'v> {
    Few(heapless::Vec<SessionInputValue<'v>, FEW>),
    Many(Vec<SessionInputValue<'v>>),
}

impl<'v> Inputs<'v> {
    /// Room for `count`.
    pub(super) fn new(count: usize) -> Self {
        if count <= FEW { Self::Few(heapless::Vec::new()) } else { Self::Many(Vec::with_capacity(count)) }
    }

    /// Adds one; beyond the room that was asked for it goes to the heap.
    pub(super) fn push(&mut self, value: SessionInputValue<'v>) {
        match self {
            Self::Few(few) => {
                if let Err(value) = few.push(value) {
                    let mut many: Vec<_> = std::mem::take(few).into_iter().collect();
                    many.push(value);
                    *self = Self::Many(many);
                }
            }
            Self::Many(many) => many.push(value),
        }
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[SessionInputValue<'v>] {
        match self {
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }
}
