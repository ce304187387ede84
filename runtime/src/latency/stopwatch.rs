//! Measures many things in turn, so that a drift of the machine does not look like a difference between them.
//!
//! In every round each thing is visited once, in an order drawn anew; a visit is a few runs one after another. Rounds go
//! on until everything has its least time and number of runs. What is kept of a round is for the caller to say: one in
//! which the device throttled is thrown away.

use std::time::Duration;

use nasbn_models::sample;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Serialize;

use super::timing::nanoseconds;

/// How long things are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Time that each thing runs before it is measured, at least one run.
    pub warmup: Duration,
    /// Least time that each is measured.
    pub min_time: Duration,
    /// Least number of runs that are measured.
    pub min_runs: u32,
    /// Time of one visit, at least one run.
    pub visit: Duration,
    /// Seed of the order.
    pub seed: u64,
}

/// What becomes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Keep,
    /// It does not count.
    Discard,
}

/// The runs of one thing in one round, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Which thing.
    pub item: usize,
    /// Its runs, in order.
    pub times: Vec<u64>,
}

/// Share of the measuring that is done, 0 to 1: times and runs that `times` holds against those that are asked for.
pub fn done<T: AsRef<[u64]>>(times: &[T], rules: &Rules) -> f64 {
    if times.is_empty() {
        return 1.0;
    }
    let share = |times: &T| {
        let times = times.as_ref();
        let time = total(times) as f64 / (nanoseconds(rules.min_time) as f64).max(1.0);
        let runs = times.len() as f64 / f64::from(rules.min_runs.max(1));
        time.min(runs).min(1.0)
    };
    times.iter().map(share).sum::<f64>() / times.len() as f64
}

/// Whether `times` hold all the time and runs that are asked for.
pub(super) fn is_done(times: &[u64], rules: &Rules) -> bool {
    times.len() >= rules.min_runs.max(1) as usize && total(times) >= nanoseconds(rules.min_time)
}

/// Nanoseconds together. Times of an earlier run stand in a file, and may be whatever somebody wrote there.
fn total(times: &[u64]) -> u64 {
    times.iter().copied().fold(0, u64::saturating_add)
}

/// Measures every thing, adding to `times` (one list for each, which may hold runs of an earlier measurement) in nanoseconds.
/// `run` runs thing number `i` once and says how long that took; `judge` hears the visits of a round when it is over.
///
/// # Errors
/// Those of `run`, which is how it is stopped, and of `judge`; the rounds that were kept until then stay.
pub fn measure<E>(
    times: &mut [Vec<u64>],
    rules: &Rules,
    mut run: impl FnMut(usize) -> Result<Duration, E>,
    mut judge: impl FnMut(&[Visit]) -> Result<Verdict, E>,
) -> Result<(), E> {
    let mut rng = ChaCha8Rng::seed_from_u64(rules.seed);
    let open: Vec<usize> = (0..times.len()).filter(|&i| !is_done(&times[i], rules)).collect();
    for &item in &open {
        let mut spent = Duration::ZERO;
        loop {
            spent += run(item)?.max(Duration::from_nanos(1));
            if spent >= rules.warmup {
                break;
            }
        }
    }
    let mut open = open;
    while !open.is_empty() {
        sample::shuffle(&mut rng, &mut open);
        let mut round = Vec::with_capacity(open.len());
        for &item in &open {
            let (mut visit, mut spent) = (Visit { item, times: Vec::new() }, Duration::ZERO);
            while visit.times.is_empty() || spent < rules.visit {
                // A clock that stands still would never end a visit.
                let time = run(item)?.max(Duration::from_nanos(1));
                spent += time;
                visit.times.push(nanoseconds(time));
            }
            round.push(visit);
        }
        match judge(&round)? {
            Verdict::Keep => round.into_iter().for_each(|visit| times[visit.item].extend(visit.times)),
            Verdict::Discard => {}
        }
        open.retain(|&i| !is_done(&times[i], rules));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;

    const RULES: Rules = Rules {
        warmup: Duration::from_millis(5),
        min_time: Duration::from_millis(100),
        min_runs: 10,
        visit: Duration::from_millis(4),
        seed: 7,
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn everything_gets_its_time_and_its_runs_after_a_warm_up() {
        let (mut times, mut runs) = (vec![Vec::new(); 3], [0; 3]);
        // 1, 30 and 0 ms a run: bound by time, by runs, and by neither but a clock that stands still.
        let took = [ms(1), ms(30), Duration::ZERO];
        let rules = Rules { min_time: Duration::from_nanos(200), visit: Duration::from_nanos(4), ..RULES };
        measure(&mut times, &rules, |i| Ok::<_, Infallible>(took[i]), |_| Ok(Verdict::Keep)).unwrap();
        assert_eq!(times[2].len(), 200);
        let mut times = vec![Vec::new(); 2];
        let run = |i: usize| {
            runs[i] += 1;
            Ok::<_, Infallible>(took[i])
        };
        measure(&mut times, &RULES, run, |_| Ok(Verdict::Keep)).unwrap();
        assert_eq!((times[0].len(), times[1].len()), (100, 10));
        assert!(times[0].iter().all(|&t| t == 1_000_000));
        assert_eq!(runs, [105, 11, 0]);
        assert_eq!(done(&times, &RULES), 1.0);
        assert_eq!(done(&[vec![1_000_000; 50], times[1].clone()], &RULES), 0.75);
        assert_eq!(done::<Vec<u64>>(&[], &RULES), 1.0);
    }

    #[test]
    fn a_drift_of_the_machine_falls_on_everything_alike() {
        // Two equal things on a machine that slows down by half while it is measured.
        let (mut times, mut clock) = (vec![Vec::new(); 2], 0.0);
        let run = |_: usize| {
            let took = 1e-3 * (1.0 + clock / 0.4);
            clock += took;
            Ok::<_, Infallible>(Duration::from_secs_f64(took))
        };
        measure(&mut times, &RULES, run, |_| Ok(Verdict::Keep)).unwrap();
        let mean = |t: &[u64]| t.iter().sum::<u64>() as f64 / t.len() as f64;
        let ratio = mean(&times[0]) / mean(&times[1]);
        assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
        // One after the other they would look different by far more than that.
        let grown = times[0].last().unwrap() - times[0][0];
        assert!(grown as f64 > 0.2 * times[0][0] as f64);
    }

    #[test]
    fn rounds_that_do_not_count_are_measured_again_and_stops_keep_what_there_was() {
        let (mut times, mut rounds) = (vec![Vec::new(); 1], 0);
        let judge = |visits: &[Visit]| {
            rounds += 1;
            assert_eq!(visits[0].times.len(), 4);
            Ok::<_, Infallible>(if rounds % 2 == 0 { Verdict::Discard } else { Verdict::Keep })
        };
        measure(&mut times, &RULES, |_| Ok(ms(1)), judge).unwrap();
        assert_eq!((times[0].len(), rounds), (100, 49));
        // Stopped in the third round: after the warm-up and two whole rounds.
        let mut runs = 0;
        let stopped = |_: usize| {
            runs += 1;
            if runs == 5 + 2 * 4 + 2 { Err("stopped") } else { Ok(ms(1)) }
        };
        let mut times = vec![Vec::new(); 1];
        assert_eq!(measure(&mut times, &RULES, stopped, |_| Ok(Verdict::Keep)), Err("stopped"));
        assert_eq!(times[0].len(), 8);
        // While it warms up, too.
        let mut none = vec![Vec::new(); 2];
        assert_eq!(measure(&mut none, &RULES, |_| Err("stopped"), |_| Ok(Verdict::Keep)), Err("stopped"));
        assert!(none.iter().all(Vec::is_empty));
        // Gone on from there, only what is missing is measured.
        let mut more = 0;
        let run = |_| {
            more += 1;
            Ok::<_, Infallible>(ms(1))
        };
        measure(&mut times, &RULES, run, |_| Ok(Verdict::Keep)).unwrap();
        assert_eq!((times[0].len(), more), (100, 97));
    }

    #[test]
    fn times_that_nobody_can_have_measured_overflow_nothing() {
        let mut times = vec![vec![u64::MAX, 3, 1]];
        let rules = Rules { min_runs: 3, ..RULES };
        assert_eq!(done(&times, &rules), 1.0);
        measure(&mut times, &rules, |_| Err(()), |_| Ok(Verdict::Keep)).unwrap();
    }

    #[test]
    fn an_error_ends_it() {
        let mut times = vec![Vec::new(); 2];
        let run = |i: usize| if i == 1 { Err("gone") } else { Ok(ms(1)) };
        assert_eq!(measure(&mut times, &RULES, run, |_| Ok(Verdict::Keep)), Err("gone"));
    }
}
