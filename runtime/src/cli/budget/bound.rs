//! What a process may take: its budget, or less where the system ends it before.

use crate::{
    cli::Failure,
    data::DataError,
    memory::{self, Bytes, MARGIN_BYTES, resident},
};

/// What the process may take at most.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The budget, bytes.
    pub(super) budget: u64,
    /// Where the system ends the process, bytes, if it tells.
    pub(super) limit: Option<u64>,
}

impl Bound {
    /// A budget, and the limit that the system has for this process.
    pub fn new(budget: u64) -> Self {
        Self { budget, limit: memory::limit() }
    }

    /// The lesser of both, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.system().unwrap_or(self.budget)
    }

    /// The system's limit, where that is what bounds.
    pub(super) fn system(&self) -> Option<u64> {
        self.limit.filter(|&limit| limit < self.budget)
    }

    /// What must be raised to have more.
    pub(super) fn name(&self) -> &'static str {
        if self.system().is_some() { "the limit of its memory cgroup" } else { "--memory-budget" }
    }

    /// How a hint begins that advises a budget of so many bytes: what is to be done first, where the system has a lower limit.
    pub(super) fn first(&self, budget: u64) -> String {
        let low = self.limit.filter(|&limit| limit < budget);
        low.map_or_else(String::new, |limit| {
            format!("raise the limit of its memory cgroup ({}) to {} or more, then ", Bytes(limit), Bytes(budget))
        })
    }

    /// Bytes that images may take at most within it.
    pub fn room_for_images(&self) -> u64 {
        let taken = resident().map_or(0, |resident| resident.anonymous).saturating_add(MARGIN_BYTES);
        self.limit.map_or(self.budget, |limit| self.budget.min(limit.saturating_sub(taken)))
    }
}

/// Images that cannot be read, which may be as there is only so much room for them within a bound.
pub fn refused_images(error: DataError, within: Option<(Bound, u64)>) -> Failure {
    match (&error, within) {
        (DataError::TooLarge { bound, needed, .. }, Some((most, room))) if *bound == room => {
            let taken = resident().map_or(0, |resident| resident.now).saturating_add(MARGIN_BYTES);
            let least = taken.saturating_add(*needed);
            let place = most.system().map_or_else(
                || "in the memory budget".to_owned(),
                |limit| format!("below {}, where the system ends this process", Bytes(limit)),
            );
            Failure::usage(format!("the images alone do not fit {place}: {error}")).hint(format!(
                "{}give it --memory-budget {} at the very least ({} are taken already or left free, and what the network takes comes \
                 besides), or {}",
                most.first(least),
                Bytes(least),
                Bytes(taken),
                error.hint()
            ))
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::{EngineError, room_for};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_lesser_of_budget_and_limit_bounds_and_is_named() {
        for (budget, limit, bytes, system) in [
            (GIB, None, GIB, None),
            (GIB, Some(2 * GIB), GIB, None),
            (GIB, Some(GIB), GIB, None),
            (8 * GIB, Some(GIB), GIB, Some(GIB)),
        ] {
            let bound = Bound { budget, limit };
            assert_eq!((bound.bytes(), bound.system()), (bytes, system), "{bound:?}");
            assert_eq!(bound.name() == "--memory-budget", system.is_none(), "{bound:?}");
        }
        let bound = Bound { budget: GIB, limit: Some(2 * GIB) };
        assert_eq!(bound.first(2 * GIB), "");
        assert_eq!(bound.first(3 * GIB), "raise the limit of its memory cgroup (2GiB) to 3GiB or more, then ");
    }

    #[test]
    fn work_that_would_come_near_to_the_limit_is_refused() {
        let taken = resident().unwrap().anonymous;
        assert!(room_for(u64::MAX, None).is_ok());
        assert!(room_for(GIB / 2, Some(taken + GIB)).is_ok());
        let refused = room_for(2 * GIB, Some(taken + GIB)).unwrap_err();
        assert!(matches!(refused, EngineError::NoRoom { taken, .. } if taken > 2 * GIB), "{refused}");
        assert!(room_for(u64::MAX, Some(u64::MAX - 1)).is_err());
    }

    #[test]
    fn images_that_do_not_fit_name_what_bounds_them() {
        let failure = |budget, limit| {
            let most = Bound { budget, limit };
            let room = most.room_for_images();
            let error = DataError::TooLarge { images: 400, image_bytes: MIB, needed: 400 * MIB, bound: room };
            refused_images(error, Some((most, room)))
        };
        let own = failure(GIB / 8, None);
        assert!(own.message().starts_with("the images alone do not fit in the memory budget: "), "{}", own.message());
        assert!(own.advice().unwrap().starts_with("give it --memory-budget "), "{:?}", own.advice());
        // More was given than is needed: what helps is another limit.
        let system = failure(8 * GIB, Some(GIB / 4));
        assert!(system.message().contains("below 256MiB, where the system ends this process"), "{}", system.message());
        assert!(system.advice().unwrap().starts_with("raise the limit of its memory cgroup (256MiB) to "));
        // Both are too low.
        let both = failure(GIB / 8, Some(GIB / 4));
        assert!(both.message().contains("memory budget"), "{}", both.message());
        assert!(both.advice().unwrap().starts_with("raise the limit of its memory cgroup (256MiB) to "));
    }
}
