//! Temperatures, trip points and cooling devices.
//!
//! Files and units are those of the kernel's `Documentation/driver-api/thermal/sysfs-api.rst`: `temp` and
//! `trip_point_*_temp` in thousandths of a degree Celsius.

use serde::{Deserialize, Serialize};

use super::files::Files;

const THERMAL: &str = "sys/class/thermal";
/// Lowest and highest temperature that is believed: what silicon is specified for, and some more.
const BELIEVED: std::ops::RangeInclusive<f64> = -60.0..=150.0;
/// A zone that says 100 degrees whatever the temperature; `jetson_stats` leaves it out, too
/// (`jtop/core/temperature.py`).
const ALWAYS_100: &str = "PMIC-Die";
/// Trip points of a zone that are looked at.
const MOST_TRIPS: usize = 32;

/// A thermal zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Its type: `CPU-therm`, `gpu-thermal`, `x86_pkg_temp`.
    pub name: String,
    /// Its temperature in degrees Celsius; none if it says none that can be believed.
    pub celsius: Option<f64>,
}

/// All zones.
pub(super) fn zones(files: &Files<'_>) -> Vec<Zone> {
    let zone = |name: String| {
        let path = format!("{THERMAL}/{name}");
        let name = files.line(&format!("{path}/type")).unwrap_or(name);
        Zone { celsius: celsius(files, &format!("{path}/temp"), &name), name }
    };
    files.names(THERMAL, "thermal_zone").into_iter().map(zone).collect()
}

/// The temperature in the file at `path`.
fn celsius(files: &Files<'_>, path: &str, zone: &str) -> Option<f64> {
    let celsius = files.number(path)? as f64 / 1000.0;
    if zone == ALWAYS_100 && celsius == 100.0 {
        files.note(path, format_args!("({zone}) says 100 °C whatever the temperature is; left out"));
        return None;
    }
    if !BELIEVED.contains(&celsius) {
        files.note(path, format_args!("({zone}) says {celsius} °C, which cannot be"));
        return None;
    }
    Some(celsius)
}

/// A trip point that a zone has reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reached {
    /// The zone's type.
    pub(super) zone: String,
    /// Its temperature.
    pub(super) celsius: f64,
    /// The trip point's.
    pub(super) trip_celsius: f64,
    /// The trip point's type: `passive` or `hot`.
    pub(super) kind: String,
}

/// Trip points at which hardware is slowed down and which are reached: `hot` ones anywhere, `passive` ones of zones
/// that are named after a processor (those of others, such as a laptop's skin, need not slow anything). Points that are
/// not set read 0 or less.
pub(super) fn reached(files: &Files<'_>) -> Vec<Reached> {
    let mut found = Vec::new();
    for directory in files.names(THERMAL, "thermal_zone") {
        let path = format!("{THERMAL}/{directory}");
        let zone = files.line(&format!("{path}/type")).unwrap_or(directory);
        let Some(celsius) = celsius(files, &format!("{path}/temp"), &zone) else { continue };
        let lower = zone.to_lowercase();
        let processor = ["cpu", "gpu", "soc", "tj", "pkg"].iter().any(|part| lower.contains(part));
        for trip in 0..MOST_TRIPS {
            let Some(kind) = files.line(&format!("{path}/trip_point_{trip}_type")) else { break };
            if kind != "hot" && !(kind == "passive" && processor) {
                continue;
            }
            let at = files.number(&format!("{path}/trip_point_{trip}_temp"));
            let Some(at) = at.map(|at| at as f64 / 1000.0).filter(|at| *at > 0.0) else { continue };
            if celsius >= at {
                found.push(Reached { zone: zone.clone(), celsius, trip_celsius: at, kind });
            }
        }
    }
    found
}

/// A cooling device that slows a processor down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cooling {
    /// `cooling_device0`.
    pub(super) name: String,
    /// Its type: `cpufreq-cpu0`, `17000000.gpu`, `gpu-throttle-alert`.
    pub(super) kind: String,
    /// How much it cools; 0 is not at all.
    pub(super) state: i64,
}

impl Cooling {
    /// Whether any state but 0 says that the hardware has throttled itself (`*-throttle-alert`, `hot-surface-alert` on
    /// Jetsons). Other devices hold the limit of a power mode in their state on some boards.
    pub(super) fn is_alert(&self) -> bool {
        self.kind.ends_with("-alert")
    }
}

/// Cooling devices, fans and those that only shift a threshold left out.
pub(super) fn cooling(files: &Files<'_>) -> Vec<Cooling> {
    const SLOWING: [&str; 8] = ["cpu", "gpu", "devfreq", "balanced", "throttle", "alert", "processor", "powerclamp"];
    let device = |name: String| {
        let kind = files.line(&format!("{THERMAL}/{name}/type"))?;
        let lower = kind.to_lowercase();
        if lower.contains("fan") || !SLOWING.iter().any(|part| lower.contains(part)) {
            return None;
        }
        let state = files.number(&format!("{THERMAL}/{name}/cur_state"))?;
        Some(Cooling { name, kind, state })
    };
    files.names(THERMAL, "cooling_device").into_iter().filter_map(device).collect()
}
