//! The energy of one run of a network: as its time is measured, warm, and thrown away where the device throttled.

use std::{
    path::Path as FsPath,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::board::{
    energy::{Energy, EnergyMeter},
    throttle::Snapshot,
};

/// How energy is measured.
pub(super) struct Metering<'a> {
    /// What measures it.
    pub meter: &'a EnergyMeter,
    /// Root of the files that tell the board's state.
    pub root: &'a FsPath,
    /// Time that the network runs before, at least one run.
    pub warmup: Duration,
    /// Time that it runs while it is measured, at least one run.
    pub time: Duration,
    /// Time to cool down after an attempt in which the device throttled.
    pub cool: Duration,
    /// Attempts one after another that may be lost to throttling before it is given up.
    pub patience: u32,
    /// Set when it is to stop.
    pub interrupted: &'a AtomicBool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Metered {
    /// Nanojoules of one run.
    Nanojoules(u64),
    /// The rails tell none, and why.
    Nothing(String),
    /// The device throttled in every attempt, the last time for these reasons.
    Throttled(String),
    /// It was stopped.
    Stopped,
}

impl Metering<'_> {
    /// Measures; `run` runs the network once. `lost` hears why each attempt that is thrown away does not count.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn measure<E>(&self, mut run: impl FnMut() -> Result<(), E>, mut lost: impl FnMut(&str)) -> Result<Metered, E> {
        let mut reasons = String::new();
        for attempt in 0..self.patience {
            if attempt > 0 {
                std::thread::sleep(self.cool);
            }
            self.repeat(self.warmup, &mut run)?;
            let before = Snapshot::take(self.root);
            if let Err(error) = self.meter.start() {
                return Ok(Metered::Nothing(error.to_string()));
            }
            let runs = self.repeat(self.time, &mut run);
            let energy = self.meter.stop();
            let throttled = Snapshot::take(self.root).throttled_since(&before);
            let runs = runs?;
            if self.is_interrupted() {
                return Ok(Metered::Stopped);
            }
            if throttled.is_empty() {
                return Ok(of_one_run(energy, runs));
            }
            reasons = throttled.join("; ");
            lost(&reasons);
        }
        Ok(Metered::Throttled(reasons))
    }

    /// Runs for `time`, and at least once, unless it is to stop; the number of runs.
    fn repeat<E>(&self, time: Duration, run: &mut impl FnMut() -> Result<(), E>) -> Result<u32, E> {
        let (start, mut runs) = (Instant::now(), 0u32);
        while !self.is_interrupted() && (runs == 0 || start.elapsed() < time) {
            run()?;
            runs = runs.saturating_add(1);
        }
        Ok(runs)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// The share of one of `runs`.
fn of_one_run(energy: Option<Energy>, runs: u32) -> Metered {
    let Some(Energy { millijoules, errors, .. }) = energy else {
        return Metered::Nothing("the meter was stopped by something else".into());
    };
    let nanojoules = |millijoules: f64| millijoules * 1e6 / f64::from(runs.max(1));
    match millijoules.map(nanojoules) {
        Some(nanojoules) if nanojoules >= 1.0 => Metered::Nanojoules(nanojoules as u64),
        Some(_) => Metered::Nothing("the rails show no power".into()),
        None => Metered::Nothing(format!("the rails could not be read twice ({errors} readings failed)")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{cell::RefCell, convert::Infallible, fs};

    use super::*;
    use crate::board::{
        energy::SHORTEST_INTERVAL,
        fixtures::{self, Kind},
        power::Rails,
    };

    const COUNTER: &str = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
    /// Nothing here waits: every part is one run.
    const AT_ONCE: Duration = Duration::ZERO;

    /// A meter of the board at `root`, and how it is used.
    fn on<T>(root: &FsPath, interrupted: &AtomicBool, then: impl FnOnce(&Metering<'_>) -> T) -> T {
        let meter = EnergyMeter::new(Rails::find(root).unwrap(), SHORTEST_INTERVAL).unwrap();
        let (warmup, time, cool) = (AT_ONCE, AT_ONCE, AT_ONCE);
        then(&Metering { meter: &meter, root, warmup, time, cool, patience: 4, interrupted })
    }

    #[test]
    fn an_attempt_in_which_the_device_throttled_does_not_count() {
        let board = fixtures::tree(Kind::Nano);
        let root = board.path();
        fixtures::write(root, COUNTER, "0");
        // Runs, in turn: warm-up, measured, warm-up, measured ... The counter rises in the first two that are measured.
        let (runs, told) = (RefCell::new(0), RefCell::new(Vec::new()));
        let run = || {
            *runs.borrow_mut() += 1;
            if let count @ (2 | 4) = *runs.borrow() {
                fixtures::write(root, COUNTER, count.to_string());
            }
            Ok::<_, Infallible>(())
        };
        let metered = on(root, &AtomicBool::new(false), |metering| {
            metering.measure(run, |reasons| told.borrow_mut().push(reasons.to_owned())).unwrap()
        });
        assert!(matches!(metered, Metered::Nanojoules(1..)), "{metered:?}");
        assert_eq!(*runs.borrow(), 6, "a warm-up and a measured run for each of three attempts");
        let told = told.borrow();
        assert!(told.len() == 2 && told.iter().all(|reasons| reasons.contains("throttle")), "{told:?}");
    }

    #[test]
    fn a_device_that_throttles_all_the_time_is_given_up() {
        let board = fixtures::tree(Kind::Nano);
        let (root, runs) = (board.path(), RefCell::new(0));
        fixtures::write(root, COUNTER, "0");
        let run = || {
            *runs.borrow_mut() += 1;
            fixtures::write(root, COUNTER, runs.borrow().to_string());
            Ok::<_, Infallible>(())
        };
        let metered = on(root, &AtomicBool::new(false), |metering| metering.measure(run, |_| {}).unwrap());
        assert!(matches!(&metered, Metered::Throttled(reasons) if reasons.contains("throttle")), "{metered:?}");
        assert_eq!(*runs.borrow(), 8);
    }

    #[test]
    fn rails_that_tell_nothing_are_no_energy_and_it_is_said_why() {
        let board = fixtures::tree(Kind::Nano);
        let gone = |_: &FsPath| fs::remove_dir_all(board.path().join("sys/bus")).unwrap();
        let metered = on(board.path(), &AtomicBool::new(false), |metering| {
            gone(metering.root);
            metering.measure(|| Ok::<_, Infallible>(()), |_| {}).unwrap()
        });
        assert!(matches!(&metered, Metered::Nothing(why) if why.contains("could not be read twice")), "{metered:?}");
        let energy = |millijoules| Energy { millijoules, mean_milliwatts: None, seconds: 1.0, samples: 9, errors: 0 };
        assert_eq!(of_one_run(Some(energy(Some(3.0))), 2), Metered::Nanojoules(1_500_000));
        assert_eq!(of_one_run(Some(energy(Some(-3.0))), 2), Metered::Nothing("the rails show no power".into()));
        assert!(matches!(of_one_run(Some(energy(Some(f64::NAN))), 2), Metered::Nothing(_)));
        assert!(matches!(of_one_run(None, 2), Metered::Nothing(_)));
    }

    #[test]
    fn a_stop_and_an_error_end_it() {
        let board = fixtures::tree(Kind::Nano);
        let interrupted = AtomicBool::new(false);
        let stop = || {
            interrupted.store(true, Ordering::SeqCst);
            Ok::<_, Infallible>(())
        };
        let stopped = on(board.path(), &interrupted, |metering| metering.measure(stop, |_| {}).unwrap());
        assert_eq!(stopped, Metered::Stopped);
        let failed = on(board.path(), &AtomicBool::new(false), |metering| {
            let error = metering.measure(|| Err("gone"), |_| {});
            assert!(metering.meter.start().is_ok(), "the meter is free again");
            error
        });
        assert_eq!(failed, Err("gone"));
    }
}
