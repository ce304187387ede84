//! Choosing what fits within a budget.

use std::num::NonZeroUsize;

use nasbn_models::manifest::MemoryMode;
use serde::Serialize;

use super::Bytes;

/// What a plan leaves free whatever is expected: what the allocators hold back, and what is made for a moment (a session
/// while it is opened, a checkpoint while it is written). docs/performance.md has the measurements.
pub const MARGIN_BYTES: u64 = 12 << 20;
/// A plan leaves this part of what it expects free, too: paths part the arena otherwise than the path that was probed.
pub const MARGIN_PART: u64 = 16;
/// Where sessions are closed for others, what is kept lies scattered among what was freed, which the system's allocator cannot
/// give back: up to this part of what the heaviest path's sessions take.
const CHURN_PART: u64 = 2;
/// Smallest mini-batch that is chosen where none was named: below, the statistics of a BatchNorm say little.
pub const LEAST_BATCH: u32 = 8;
/// What is said to be the least is so much more than would be taken now, so that the next run, which measures otherwise, takes it:
/// what the system's allocator keeps of closed sessions was seen to differ by 10 MB between equal runs;
const REPEAT_BYTES: u64 = 12 << 20;
/// and at least by this part, as probes of large networks were seen to differ by 3 %.
const REPEAT_PART: u64 = 16;

/// Bytes that grow with the images of a mini-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Linear {
    /// Bytes whatever the mini-batch.
    pub fixed: u64,
    /// Bytes an image.
    pub per_image: u64,
}

impl Linear {
    /// The line through two measurements, each of images and bytes, the second of more images. It is nowhere below them.
    pub fn through(first: (u32, u64), second: (u32, u64)) -> Self {
        let images = u64::from(second.0.saturating_sub(first.0)).max(1);
        let per_image = second.1.saturating_sub(first.1).div_ceil(images);
        let fixed = |(images, bytes): (u32, u64)| bytes.saturating_sub(per_image.saturating_mul(images.into()));
        Self { fixed: fixed(first).max(fixed(second)), per_image }
    }

    /// The line that is higher by a `part`-th everywhere.
    pub fn higher_by(self, part: u64) -> Self {
        let higher = |bytes: u64| bytes.saturating_add(bytes / part.max(1));
        Self { fixed: higher(self.fixed), per_image: higher(self.per_image) }
    }

    /// Bytes for a mini-batch.
    pub fn at(self, images: u32) -> u64 {
        self.fixed.saturating_add(self.per_image.saturating_mul(images.into()))
    }
}

/// Sessions of a kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// That the heaviest path needs.
    pub of_path: usize,
    /// That all paths together need.
    pub all: usize,
    /// Bytes that those of the heaviest path take together.
    pub bytes: u64,
    /// Bytes that all others take together.
    pub others: u64,
}

impl Sessions {
    /// Where others are not measured: as if each took as much as those of the heaviest path, which take more.
    pub fn alike(of_path: usize, all: usize, bytes: u64) -> Self {
        let others = share(bytes, all.saturating_sub(of_path), of_path);
        Self { of_path, all: all.max(of_path), bytes, others }
    }

    /// Bytes of `kept` sessions: of the heaviest path first.
    fn of(&self, kept: usize) -> u64 {
        let own = share(self.bytes, kept.min(self.of_path), self.of_path);
        let others = share(self.others, kept.saturating_sub(self.of_path), self.all - self.of_path.min(self.all));
        let both = own.saturating_add(others);
        let churn = if kept < self.all { (self.bytes / CHURN_PART).min(both) } else { 0 };
        both.saturating_add(churn)
    }
}

/// `part` of `whole` of so many bytes, rounded up.
fn share(bytes: u64, part: usize, whole: usize) -> u64 {
    u64::try_from((u128::from(bytes) * part as u128).div_ceil(whole.max(1) as u128)).unwrap_or(u64::MAX)
}

/// Activations of a kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Bytes in the arena at most, sessions' own left out.
    pub bytes: Linear,
    /// Images in its mini-batches; none for as many as are asked for.
    pub images: Option<u32>,
}

/// A way to do the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What is kept for backward passes.
    pub memory: MemoryMode,
    /// Resident without its sessions and activations.
    pub resident: u64,
    /// Its sessions.
    pub sessions: Sessions,
    /// What is done one after another; the largest counts.
    pub works: Vec<Work>,
}

/// What the process takes before the work, and what the work takes besides sessions and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Resident before anything was tried.
    pub resident: u64,
    /// Resident at most so far.
    pub peak: u64,
    /// Of that, images.
    pub images: u64,
    /// Mini-batches, parameters and what else the work will hold.
    pub buffers: Linear,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes that the process may take at most.
    pub budget: u64,
    /// Images in a mini-batch.
    pub batch: u32,
    /// Least images in a mini-batch; `batch` where that must not change.
    pub least_batch: u32,
}

impl Request {
    /// Mini-batches that may be taken, halved again and again.
    fn batches(&self) -> impl Iterator<Item = u32> {
        let least = self.least_batch;
        std::iter::successors(Some(self.batch), move |&batch| Some(batch / 2).filter(|&half| half >= least))
    }
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes that the process may take at most.
    pub budget: u64,
    /// What is kept for backward passes.
    pub memory: MemoryMode,
    /// Images in a mini-batch.
    pub batch: u32,
    /// Sessions that are kept at most.
    pub kept: NonZeroUsize,
    /// Sessions that all paths together need.
    pub sessions: usize,
    /// Bytes that the process is expected to take at most, without the margin.
    pub expected: u64,
}

impl Plan {
    /// Whether sessions must be closed for others.
    pub fn is_bounded(&self) -> bool {
        self.kept.get() < self.sessions
    }
}

/// No plan keeps the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a memory budget of {} is too small: about {} is the least that would do ({} are taken before the work begins, {} of them by images)",
    Bytes(*budget), Bytes(*least), Bytes(*before), Bytes(*images)
)]
pub struct TooSmall {
    /// The budget, bytes.
    pub budget: u64,
    /// The least budget that would do, bytes, whole MiB.
    pub least: u64,
    /// Taken before the work begins, bytes.
    pub before: u64,
    /// Of that, images, bytes.
    pub images: u64,
}

impl TooSmall {
    /// Whether the images alone stand in the way.
    pub fn is_of_images(&self) -> bool {
        self.least.saturating_sub(self.images) <= self.budget && 2 * self.images > self.least
    }
}

/// The first that fits: the mini-batch as asked for, in the first way with all sessions, then with fewer, then in the next
/// way; then half the mini-batch in the same order. What fits only with fewer sessions than a path needs, so that each step
/// opens some, comes after all others: slow is better than not at all.
///
/// # Errors
/// The least that would do, where nothing fits.
pub fn plan(request: &Request, ground: &Ground, ways: &[Way]) -> Result<Plan, TooSmall> {
    let all: Vec<(u32, &Way)> = request.batches().flat_map(|batch| ways.iter().map(move |way| (batch, way))).collect();
    let fitting = |&(batch, way): &(u32, &Way), least: usize| {
        let all = way.sessions.all.max(1);
        // All of them may take less than a few that change all the time.
        let fits = |kept| needed(ground, way, batch, kept) <= request.budget;
        let least = [least.clamp(1, all), all].into_iter().find(|&kept| fits(kept))?;
        Some(chosen(request, ground, way, batch, least))
    };
    let whole = all.iter().find_map(|option| fitting(option, option.1.sessions.of_path));
    // The other way round: what is smallest leaves most room for sessions.
    let few = || all.iter().rev().find_map(|option| fitting(option, 1));
    if let Some(plan) = whole.or_else(few) {
        return Ok(plan);
    }
    // The least that `fitting` takes: more than one session but not all of them never takes less than one.
    let ends = |way: &Way| [1, way.sessions.all.max(1)];
    let least = all.iter().flat_map(|&(batch, way)| ends(way).map(|kept| needed(ground, way, batch, kept))).min();
    let least = least.unwrap_or(ground.peak);
    Err(TooSmall {
        budget: request.budget,
        least: Bytes(least.saturating_add(REPEAT_BYTES.max(least / REPEAT_PART))).whole().0,
        before: ground.resident,
        images: ground.images,
    })
}

/// The plan with as many sessions as fit, `least` of which do.
fn chosen(request: &Request, ground: &Ground, way: &Way, batch: u32, least: usize) -> Plan {
    // With fewer than all, more sessions never take less.
    let all = way.sessions.all.max(least);
    let (mut kept, mut above) = match needed(ground, way, batch, all) <= request.budget {
        true => (all, all),
        false => (least, all),
    };
    while above.saturating_sub(kept) > 1 {
        let middle = kept + (above - kept) / 2;
        match needed(ground, way, batch, middle) <= request.budget {
            true => kept = middle,
            false => above = middle,
        }
    }
    Plan {
        budget: request.budget,
        memory: way.memory,
        batch,
        kept: NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN),
        sessions: way.sessions.all,
        expected: expected(ground, way, batch, kept).max(ground.peak),
    }
}

/// Bytes that the process will take with `kept` sessions.
fn expected(ground: &Ground, way: &Way, batch: u32, kept: usize) -> u64 {
    let activations = way.works.iter().map(|work| work.bytes.at(work.images.unwrap_or(batch))).max().unwrap_or(0);
    let parts = [way.resident, ground.buffers.at(batch), activations, way.sessions.of(kept)];
    parts.into_iter().fold(0, u64::saturating_add)
}

/// The budget that it takes.
fn needed(ground: &Ground, way: &Way, batch: u32, kept: usize) -> u64 {
    let expected = expected(ground, way, batch, kept);
    expected.saturating_add(MARGIN_BYTES).saturating_add(expected.div_ceil(MARGIN_PART)).max(ground.peak)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: u64 = 1 << 20;
    const GROUND: Ground = Ground {
        resident: 40 * MIB,
        peak: 50 * MIB,
        images: 20 * MIB,
        buffers: Linear { fixed: MIB, per_image: MIB / 16 },
    };

    fn way(memory: MemoryMode, per_image: u64) -> Way {
        Way {
            memory,
            resident: 40 * MIB,
            sessions: Sessions::alike(20, 60, 20 * MIB),
            works: vec![
                Work { bytes: Linear { fixed: MIB, per_image }, images: None },
                Work { bytes: Linear { fixed: 0, per_image: MIB / 2 }, images: Some(32) },
            ],
        }
    }

    fn ways() -> [Way; 2] {
        [way(MemoryMode::Fast, 5 * MIB), way(MemoryMode::Lean, 3 * MIB)]
    }

    fn planned(budget: u64, batch: u32, least_batch: u32) -> Result<(MemoryMode, u32, usize), u64> {
        let plan = plan(&Request { budget: budget * MIB, batch, least_batch }, &GROUND, &ways());
        plan.map(|p| (p.memory, p.batch, p.kept.get())).map_err(|e| e.least / MIB)
    }

    #[test]
    fn lines_are_nowhere_below_what_was_measured() {
        let line = Linear::through((2, 100), (4, 141));
        assert_eq!((line.per_image, line.at(2), line.at(4)), (21, 100, 142));
        assert_eq!(Linear::through((2, 100), (4, 90)), Linear { fixed: 100, per_image: 0 });
        assert_eq!(Linear { fixed: 1, per_image: u64::MAX }.at(2), u64::MAX);
    }

    #[test]
    fn as_asked_then_fewer_sessions_then_lean_then_smaller_batches_then_thrashing() {
        use MemoryMode::{Fast, Lean};
        // Fast at 64: 40 + 1 + 4 + 321 + 60 = 426 MiB, and 12 + 27 of margin.
        assert_eq!(planned(1024, 64, 8), Ok((Fast, 64, 60)));
        assert_eq!(planned(465, 64, 8), Ok((Fast, 64, 60)));
        assert!(matches!(planned(464, 64, 8), Ok((Fast, 64, 20..60))));
        // With a path's 20 sessions 386 MiB, 10 of churn, and 12 + 24.75 of margin.
        assert_eq!(planned(433, 64, 8), Ok((Fast, 64, 20)));
        assert!(matches!(planned(432, 64, 8), Ok((Lean, 64, 60))));
        assert!(matches!(planned(297, 64, 8), Ok((Lean, 64, 20..60))));
        assert_eq!(planned(296, 64, 8), Ok((Fast, 32, 60)));
        assert!(matches!(planned(120, 64, 8), Ok((Lean, 8, 20..60))));
        // Less than a path's sessions comes last, and only where nothing else is left.
        let (memory, batch, kept) = planned(110, 64, 8).unwrap();
        assert!(memory == Lean && batch == 8 && kept < 20, "{memory:?} {batch} {kept}");
        // A batch that was named stays as it is.
        let (memory, batch, kept) = planned(290, 64, 64).unwrap();
        assert!(memory == Lean && batch == 64 && kept < 20, "{memory:?} {batch} {kept}");
    }

    #[test]
    fn the_least_that_is_told_would_do_and_much_less_would_not() {
        for (batch, least_batch) in [(64, 8), (64, 64), (2, 2), (9, 8)] {
            let least = planned(1, batch, least_batch).unwrap_err();
            assert!(planned(least, batch, least_batch).is_ok(), "{batch} {least}");
            // It is what is taken, found the long way round, and what is told besides, each rounded up.
            let taken = (1..least).find(|&budget| planned(budget, batch, least_batch).is_ok()).unwrap();
            let besides = (REPEAT_BYTES / MIB).max(taken / REPEAT_PART);
            assert!(least.abs_diff(taken + besides) <= 1, "{batch} {least} {taken}");
        }
        // All sessions may take less than one at a time, which leaves them scattered.
        let all =
            Way { sessions: Sessions { of_path: 1, all: 2, bytes: 20 * MIB, others: 0 }, ..way(MemoryMode::Lean, 0) };
        let taken = |budget| {
            plan(&Request { budget: budget * MIB, batch: 8, least_batch: 8 }, &GROUND, std::slice::from_ref(&all))
        };
        let first = (1..1024).find(|&budget| taken(budget).is_ok()).unwrap();
        let least = taken(1).unwrap_err().least / MIB;
        assert!(!taken(first).unwrap().is_bounded() && (first + 11..=first + 12).contains(&least), "{first} {least}");
        let error = plan(&Request { budget: 70 * MIB, batch: 8, least_batch: 8 }, &GROUND, &ways()).unwrap_err();
        assert!(error.to_string().starts_with("a memory budget of 70MiB is too small: "), "{error}");
        assert!(!error.is_of_images());
        let images = Ground { resident: 400 * MIB, peak: 400 * MIB, images: 380 * MIB, ..GROUND };
        let error = plan(&Request { budget: 300 * MIB, batch: 8, least_batch: 8 }, &images, &ways()).unwrap_err();
        assert!(error.is_of_images());
    }

    #[test]
    fn what_was_taken_before_counts_and_other_works_do_too() {
        // The peak before the work is above all that the work takes.
        let high = Ground { peak: 400 * MIB, ..GROUND };
        let request = |budget| Request { budget, batch: 8, least_batch: 8 };
        assert!(plan(&request(399 * MIB), &high, &ways()).is_err());
        assert_eq!(plan(&request(400 * MIB), &high, &ways()).unwrap().expected, 400 * MIB);
        // 32 images of half a MiB in the other work are more than 2 of 3 MiB in the first.
        let two = Request { budget: 1 << 30, batch: 2, least_batch: 2 };
        let expected = plan(&two, &GROUND, &ways()[1..]).unwrap().expected;
        assert_eq!(expected, (40 + 1 + 16 + 60) * MIB + MIB / 8);
    }

    #[test]
    fn sessions_of_other_paths_count_as_they_were_measured() {
        let sessions = Sessions { of_path: 20, all: 60, bytes: 20 * MIB, others: 10 * MIB };
        let of = |kept| sessions.of(kept) / (MIB / 4);
        // Churn is as much again, but at most half of 20 MiB, and none where nothing is closed.
        assert_eq!([0, 1, 10, 20, 24, 60].map(of), [0, 8, 80, 120, 124, 120]);
        let alike = Sessions::alike(20, 60, 20 * MIB);
        assert_eq!([0, 1, 20, 60].map(|kept| alike.of(kept) / MIB), [0, 2, 30, 60]);
        let path = Sessions::alike(20, 20, 20 * MIB);
        assert_eq!((path.others, path.of(20), path.of(21)), (0, 20 * MIB, 20 * MIB));
    }

    #[test]
    fn absurd_numbers_are_no_overflow() {
        let huge = Way {
            memory: MemoryMode::Fast,
            resident: 0,
            sessions: Sessions { of_path: 0, all: usize::MAX, bytes: u64::MAX, others: u64::MAX },
            works: vec![Work { bytes: Linear { fixed: u64::MAX, per_image: u64::MAX }, images: None }],
        };
        let request = Request { budget: u64::MAX - 1, batch: u32::MAX, least_batch: 1 };
        let error = plan(&request, &GROUND, &[huge]).unwrap_err();
        assert!(error.least > u64::MAX / 2);
        assert!(plan(&request, &GROUND, &[]).is_err());
    }
}
