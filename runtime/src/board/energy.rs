//! Energy: the power of the total rail, integrated over time.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::power::{PowerError, Rails};

/// Time between two samples, unless another is asked for. The monitor converts within a few milliseconds.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Shortest time between two samples.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Why energy cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EnergyError {
    /// No total can be read.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// It is being measured already.
    #[error("this meter already measures energy")]
    Running,
    /// The thread that samples does not start.
    #[error("the thread that samples power does not start: {0}")]
    Thread(io::Error),
}

impl EnergyError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Power(error) => error.hint(),
            Self::Running => "stop it before it is started again",
            Self::Thread(_) => "make room for another thread, or measure without energy",
        }
    }
}

/// What was measured between a start and a stop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Energy in mJ from the first sample to the last; none unless there are two.
    pub millijoules: Option<f64>,
    /// Mean power in mW over that time; none without a sample.
    pub mean_milliwatts: Option<f64>,
    /// Seconds from the first sample to the last.
    pub seconds: f64,
    /// Samples that were taken.
    pub samples: u64,
    /// Samples that could not be read; power is taken to change evenly across such a gap.
    pub errors: u64,
}

/// Energy in mJ of power samples (seconds, mW) by the trapezoid rule: the sum of `(t[i+1] - t[i]) (p[i] + p[i+1]) / 2`.
/// Samples that are not finite or go back in time are left out.
pub fn integrate(samples: &[(f64, f64)]) -> f64 {
    let mut integral = Integral::default();
    for &(seconds, milliwatts) in samples {
        integral.add(seconds, milliwatts);
    }
    integral.millijoules
}

/// A trapezoid integral that grows sample by sample.
#[derive(Clone, Copy, Debug, Default)]
struct Integral {
    first: Option<f64>,
    last: Option<(f64, f64)>,
    millijoules: f64,
    samples: u64,
    errors: u64,
}

impl Integral {
    fn add(&mut self, seconds: f64, milliwatts: f64) {
        let back = self.last.is_some_and(|(last, _)| seconds < last);
        if back || !seconds.is_finite() || !milliwatts.is_finite() {
            self.errors += 1;
            return;
        }
        if let Some((last, before)) = self.last {
            self.millijoules += (seconds - last) * (before + milliwatts) / 2.0;
        }
        self.first.get_or_insert(seconds);
        self.last = Some((seconds, milliwatts));
        self.samples += 1;
    }

    fn energy(&self) -> Energy {
        let seconds = self.first.zip(self.last).map_or(0.0, |(first, (last, _))| last - first);
        let mean = self.last.map(|(_, last)| if seconds > 0.0 { self.millijoules / seconds } else { last });
        Energy {
            millijoules: (self.samples >= 2).then_some(self.millijoules),
            mean_milliwatts: mean,
            seconds,
            samples: self.samples,
            errors: self.errors,
        }
    }
}

/// Tells the sampling thread to stop.
#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until stopped or `until`; whether it was stopped.
    fn stopped_before(&self, until: Instant) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            stopped = self.changed.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

struct Sampling {
    signal: Arc<Signal>,
    thread: JoinHandle<Integral>,
}

impl Sampling {
    fn end(self) -> Integral {
        self.signal.stop();
        // A sampler that panicked has nothing to say.
        self.thread.join().unwrap_or_default()
    }
}

/// Measures the energy of the whole board or module while something runs.
///
/// A thread of its own reads the total rail at even intervals, at the start and at the stop. Several threads may hold
/// the meter; it measures once at a time.
pub struct EnergyMeter {
    rails: Rails,
    interval: Duration,
    sampling: Mutex<Option<Sampling>>,
}

impl EnergyMeter {
    /// A meter of the total of `rails`, sampled every `interval` ([`SHORTEST_INTERVAL`] at least).
    ///
    /// # Errors
    /// [`EnergyError::Power`] if the total is not known or cannot be read now.
    pub fn new(rails: Rails, interval: Duration) -> Result<Self, EnergyError> {
        let _now = rails.total_milliwatts()?;
        Ok(Self { rails, interval: interval.max(SHORTEST_INTERVAL), sampling: Mutex::new(None) })
    }

    /// Names of the rails whose sum is measured.
    pub fn rails(&self) -> Vec<String> {
        self.rails.total_names()
    }

    /// Begins to measure.
    ///
    /// # Errors
    /// [`EnergyError::Running`] if it does already, [`EnergyError::Thread`] if no thread can be had.
    pub fn start(&self) -> Result<(), EnergyError> {
        let mut sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        if sampling.is_some() {
            return Err(EnergyError::Running);
        }
        let signal = Arc::new(Signal::default());
        let (rails, interval, watched) = (self.rails.clone(), self.interval, Arc::clone(&signal));
        let thread = thread::Builder::new()
            .name("nasbn-energy".into())
            .spawn(move || sample(&rails, interval, &watched))
            .map_err(EnergyError::Thread)?;
        *sampling = Some(Sampling { signal, thread });
        Ok(())
    }

    /// Ends the measurement and says what it was; none if there is none.
    pub fn stop(&self) -> Option<Energy> {
        let sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(sampling.end().energy())
    }
}

impl Drop for EnergyMeter {
    fn drop(&mut self) {
        let _unasked = self.stop();
    }
}

/// Samples until stopped, once at the start and once after the stop.
fn sample(rails: &Rails, interval: Duration, signal: &Signal) -> Integral {
    let start = Instant::now();
    let mut integral = Integral::default();
    let mut take = || match rails.total_milliwatts() {
        Ok(milliwatts) => integral.add(start.elapsed().as_secs_f64(), milliwatts),
        Err(_) => integral.errors += 1,
    };
    let mut next = start;
    take();
    loop {
        // A sample that came late does not make the next ones come in a rush.
        next = (next + interval).max(Instant::now());
        let stopped = signal.stopped_before(next);
        take();
        if stopped {
            break;
        }
    }
    integral
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::board::fixtures::{self, Kind};

    /// Rounding of sums of some thousand terms in f64.
    const ROUNDING: f64 = 1e-9;
    /// Of an error of 1.7e-7, what rounding leaves of it.
    const CLOSED_FORM: f64 = 1e-6;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= ROUNDING * b.abs().max(1.0)
    }

    #[test]
    fn the_trapezoid_rule_is_exact_for_lines_and_knows_uneven_steps() {
        assert_eq!(integrate(&[]), 0.0);
        assert_eq!(integrate(&[(1.0, 500.0)]), 0.0);
        assert!(close(integrate(&[(0.0, 1000.0), (2.0, 1000.0)]), 2000.0));
        // p = 100 t from 0 to 3: 450 mJ, however it is sampled.
        assert!(close(integrate(&[(0.0, 0.0), (0.5, 50.0), (0.6, 60.0), (3.0, 300.0)]), 450.0));
        // Against the closed form of t^2 on [0, 1], whose error is h^2 / 6.
        let steps = 1000;
        let samples: Vec<(f64, f64)> =
            (0..=steps).map(|i| f64::from(i) / f64::from(steps)).map(|t| (t, t * t)).collect();
        let beyond = 1.0 / (6.0 * f64::from(steps * steps));
        assert!((integrate(&samples) - 1.0 / 3.0 - beyond).abs() < beyond * CLOSED_FORM);
    }

    #[test]
    fn samples_that_cannot_be_are_left_out_and_counted() {
        let good = [(0.0, 10.0), (1.0, 20.0), (2.0, 30.0)];
        let bad = [(0.0, 10.0), (f64::NAN, 5.0), (1.0, 20.0), (0.5, 9.0), (1.5, f64::INFINITY), (2.0, 30.0)];
        assert_eq!(integrate(&good), integrate(&bad));
        let mut integral = Integral::default();
        bad.iter().for_each(|&(seconds, milliwatts)| integral.add(seconds, milliwatts));
        let energy = integral.energy();
        assert_eq!((energy.samples, energy.errors), (3, 3));
        assert!(close(energy.mean_milliwatts.unwrap(), 20.0) && energy.seconds == 2.0);
    }

    #[test]
    fn without_samples_there_is_no_energy() {
        let nothing = Integral::default().energy();
        assert_eq!((nothing.millijoules, nothing.mean_milliwatts, nothing.seconds), (None, None, 0.0));
        let mut one = Integral::default();
        one.add(3.0, 250.0);
        assert_eq!((one.energy().millijoules, one.energy().mean_milliwatts), (None, Some(250.0)));
    }

    #[test]
    fn constant_power_is_its_mean_however_long_it_took() {
        let dir = fixtures::tree(Kind::OrinNano);
        let meter = EnergyMeter::new(Rails::find(dir.path()).unwrap(), SHORTEST_INTERVAL).unwrap();
        assert_eq!(meter.rails(), ["VDD_IN"]);
        assert_eq!(meter.stop(), None);
        for _ in 0..2 {
            meter.start().unwrap();
            assert!(matches!(meter.start(), Err(EnergyError::Running)));
            let energy = meter.stop().unwrap();
            assert!(energy.samples >= 2 && energy.errors == 0, "{energy:?}");
            assert!(close(energy.mean_milliwatts.unwrap(), 5040.0 * 960.0 / 1000.0), "{energy:?}");
            assert!(close(energy.millijoules.unwrap(), 5040.0 * 960.0 / 1000.0 * energy.seconds), "{energy:?}");
        }
    }

    #[test]
    fn a_rail_that_disappears_is_counted_and_ends_nothing() {
        let dir = fixtures::tree(Kind::Nano);
        let meter = EnergyMeter::new(Rails::find(dir.path()).unwrap(), INTERVAL).unwrap();
        fs::remove_dir_all(dir.path().join("sys")).unwrap();
        meter.start().unwrap();
        let energy = meter.stop().unwrap();
        assert_eq!((energy.samples, energy.millijoules, energy.mean_milliwatts), (0, None, None));
        assert!(energy.errors >= 2);
        assert!(matches!(EnergyMeter::new(meter.rails.clone(), INTERVAL), Err(EnergyError::Power(_))));
    }

    #[test]
    fn a_meter_may_be_dropped_while_it_measures_and_shared_between_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        let dir = fixtures::tree(Kind::AgxOrin);
        let meter = EnergyMeter::new(Rails::find(dir.path()).unwrap(), INTERVAL).unwrap();
        shared(&meter);
        meter.start().unwrap();
        let stopped = thread::scope(|scope| {
            let ends: Vec<_> = (0..4).map(|_| scope.spawn(|| meter.stop())).collect();
            ends.into_iter().filter_map(|end| end.join().unwrap()).count()
        });
        assert_eq!(stopped, 1, "one measurement has one end");
        meter.start().unwrap();
        drop(meter);
    }
}
