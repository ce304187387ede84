//! Whether work stays within its budget.

use std::num::NonZeroUsize;

use super::{MARGIN_BYTES, MARGIN_PART, Plan, Resident};

/// Memory must have grown by this much since sessions were last closed before more are: what they left is used again.
const GROWTH: u64 = 1 << 20;

/// Looks at the memory of a process that has a plan.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    budget: u64,
    kept: NonZeroUsize,
    /// Resident when sessions were last closed.
    level: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Keep no more than so many sessions from now on: half of the margin is used up.
    Close(NonZeroUsize),
    /// Stop: the process has taken more than the budget, so many bytes.
    Exceeded(u64),
}

impl Watch {
    /// A watch over a plan.
    pub fn new(plan: &Plan) -> Self {
        let kept = NonZeroUsize::new(plan.kept.get().min(plan.sessions)).unwrap_or(plan.kept);
        Self { budget: plan.budget, kept, level: 0 }
    }

    /// Sessions that are kept at most.
    pub fn kept(&self) -> NonZeroUsize {
        self.kept
    }

    /// What is to be done, given what the process takes.
    pub fn look(&mut self, resident: Resident) -> Verdict {
        if resident.peak > self.budget {
            return Verdict::Exceeded(resident.peak);
        }
        let half = (MARGIN_BYTES + self.budget / (MARGIN_PART + 1)) / 2;
        let close = resident.now > self.budget.saturating_sub(half) && resident.now >= self.level + GROWTH;
        match NonZeroUsize::new(self.kept.get() / 2) {
            Some(half) if close => {
                (self.kept, self.level) = (half, resident.now);
                Verdict::Close(half)
            }
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::manifest::MemoryMode;

    use super::*;

    #[test]
    fn sessions_are_halved_as_memory_grows_and_beyond_the_budget_it_ends() {
        let plan = Plan {
            budget: 100 << 20,
            memory: MemoryMode::Fast,
            batch: 8,
            kept: NonZeroUsize::new(9).unwrap(),
            sessions: 5,
            expected: 80 << 20,
        };
        let mut watch = Watch::new(&plan);
        assert_eq!(watch.kept().get(), 5);
        let mut look = |mib: f64| {
            let now = (mib * f64::from(1 << 20)) as u64;
            watch.look(Resident { now, anonymous: now, peak: now })
        };
        let close = |kept| Verdict::Close(NonZeroUsize::new(kept).unwrap());
        // The margin is 12 MiB and a seventeenth: 17.9.
        assert_eq!(look(91.0), Verdict::Fine);
        assert_eq!(look(91.5), close(2));
        assert_eq!(look(92.0), Verdict::Fine, "what closing freed had no time to be used");
        assert_eq!(look(92.5), close(1));
        assert_eq!(look(99.0), Verdict::Fine, "one session is the least");
        assert_eq!(look(100.0), Verdict::Fine);
        assert_eq!(look(101.0), Verdict::Exceeded(101 << 20));
        // What was exceeded once stays so.
        let after = Resident { now: 50 << 20, anonymous: 50 << 20, peak: 101 << 20 };
        assert_eq!(watch.look(after), Verdict::Exceeded(101 << 20));
    }
}
