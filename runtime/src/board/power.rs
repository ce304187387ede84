//! Power rails: the INA3221 monitors of Jetson boards.
//!
//! Two layouts below `/sys/bus/i2c/drivers`:
//!
//! * JetPack 4 (Nano, TX2, Xavier): `ina3221x/*/iio:device*/` with `rail_name_N`, `in_powerN_input` (mW),
//!   `in_voltageN_input` (mV) and `in_currentN_input` (mA), N from 0. NVIDIA Jetson Linux Developer Guide R32.7, "Clock
//!   Frequency and Power Management", "Power Monitors".
//! * JetPack 5 and later, and mainline kernels: `ina3221/*/hwmon/hwmon*/` with `inN_label`, `inN_input` (mV) and
//!   `currN_input` (mA), N from 1 to 3; power is their product. The kernel's `Documentation/hwmon/ina3221.rst` and
//!   NVIDIA Jetson Linux Developer Guide R36, "Jetson Orin Nano Series, Jetson Orin NX Series and Jetson AGX Orin
//!   Series", "Power Monitors". Channels 4 to 7 are voltages of shunts and their sum: no rails.
//!
//! Which rails are the whole board or module is told by their names:
//!
//! | board | total |
//! | --- | --- |
//! | Nano | `POM_5V_IN`: the 5 V input (<https://forums.developer.nvidia.com/t/power-consumption-monitoring/73608/8>) |
//! | TX2, Xavier NX, Orin NX, Orin Nano | `VDD_IN`: the module (<https://forums.developer.nvidia.com/t/interpretation-of-jetson-nx-power-rail/200883>) |
//! | AGX Xavier | `GPU` + `CPU` + `SOC` + `CV` + `VDDRQ` + `SYS5V` (<https://forums.developer.nvidia.com/t/xavier-jetson-total-power-consumption/81016>) |
//! | AGX Orin | `VDD_GPU_SOC` + `VDD_CPU_CV` + `VIN_SYS_5V0`; the guide says that `VDDQ_VDD2_1V8AO` is included in `VIN_SYS_5V0` |
//!
//! `jetson_stats` (`jtop/core/power.py`) takes the same single rails, and elsewhere the sum of all, which counts the
//! AGX Orin's memory twice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, Files, Unread};

/// Names of rails that are the total alone.
const SINGLE: [&str; 2] = ["POM_5V_IN", "VDD_IN"];
/// Names of rails whose sum is the total.
const SUMS: [&[&str]; 2] =
    [&["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], &["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]];
/// A rail that is not connected.
const NOT_CONNECTED: &str = "NC";
/// Most that a reading may be, in mV, mA or mW: far beyond any board.
const MOST: i64 = 1_000_000;

/// Why a rail gives no power.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// A file of the rail cannot be read.
    #[error("rail {rail}: {} {reason}", path.display())]
    Rail {
        /// Name of the rail.
        rail: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The rails are none whose total is documented.
    #[error("no total is known of the power rails {rails}")]
    NoTotal {
        /// Their names.
        rails: String,
    },
}

impl PowerError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Rail { .. } => "check that the file can be read without root rights; go on without energy otherwise",
            Self::NoTotal { .. } => "measure without energy, or with a meter at the board's supply",
        }
    }
}

/// What a rail carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RailReading {
    /// Its name: `VDD_IN`.
    pub name: String,
    /// Power in mW.
    pub milliwatts: f64,
    /// Whether the total is made of it.
    pub in_total: bool,
}

/// Where the power of a rail is read.
#[derive(Clone, Debug)]
enum Source {
    Milliwatts(PathBuf),
    Product { millivolts: PathBuf, milliamperes: PathBuf },
}

#[derive(Clone, Debug)]
struct Rail {
    name: String,
    source: Source,
    in_total: bool,
}

impl Rail {
    fn milliwatts(&self) -> Result<f64, PowerError> {
        let read = |path: &Path| {
            let sound = |number: i64| match number.checked_abs() {
                Some(size) if size <= MOST => Ok(number as f64),
                _ => Err(Unread::Bad(format!("holds {number}, which cannot be"))),
            };
            files::number(path).and_then(sound).map_err(|unread| PowerError::Rail {
                rail: self.name.clone(),
                path: path.to_owned(),
                reason: unread.to_string(),
            })
        };
        match &self.source {
            Source::Milliwatts(path) => read(path),
            Source::Product { millivolts, milliamperes } => Ok(read(millivolts)? * read(milliamperes)? / 1000.0),
        }
    }

    fn reading(&self) -> Result<RailReading, PowerError> {
        Ok(RailReading { name: self.name.clone(), milliwatts: self.milliwatts()?, in_total: self.in_total })
    }
}

/// The rails of a board.
#[derive(Clone, Debug)]
pub struct Rails {
    rails: Vec<Rail>,
}

impl Rails {
    /// The rails below `root` (`/` on a board); none if it shows none.
    pub fn find(root: &Path) -> Option<Self> {
        Self::find_in(&Files::new(root))
    }

    /// [`find`](Self::find) with notes on what cannot be read.
    pub(super) fn find_in(files: &Files<'_>) -> Option<Self> {
        let mut rails = iio(files);
        if rails.is_empty() {
            rails = hwmon(files);
        }
        let total = total(&rails);
        for index in total {
            if let Some(rail) = rails.get_mut(index) {
                rail.in_total = true;
            }
        }
        (!rails.is_empty()).then_some(Self { rails })
    }

    /// What every rail carries now.
    ///
    /// # Errors
    /// [`PowerError::Rail`] for the first rail that cannot be read.
    pub fn read(&self) -> Result<Vec<RailReading>, PowerError> {
        self.rails.iter().map(Rail::reading).collect()
    }

    /// What every rail carries now, those that cannot be read for themselves.
    pub(super) fn read_each(&self) -> impl Iterator<Item = Result<RailReading, PowerError>> {
        self.rails.iter().map(Rail::reading)
    }

    /// Names of the rails whose sum is the total; empty if no total is known.
    pub fn total_names(&self) -> Vec<String> {
        self.rails.iter().filter(|rail| rail.in_total).map(|rail| rail.name.clone()).collect()
    }

    /// Power of the whole board or module now, in mW.
    ///
    /// # Errors
    /// [`PowerError::NoTotal`] where the documentation knows none for these rails, [`PowerError::Rail`] where one of its
    /// rails cannot be read.
    pub fn total_milliwatts(&self) -> Result<f64, PowerError> {
        let mut parts = self.rails.iter().filter(|rail| rail.in_total).peekable();
        if parts.peek().is_none() {
            let names: Vec<&str> = self.rails.iter().map(|rail| rail.name.as_str()).collect();
            return Err(PowerError::NoTotal { rails: names.join(", ") });
        }
        parts.map(Rail::milliwatts).sum()
    }
}

/// Indices of the rails that make the total.
fn total(rails: &[Rail]) -> Vec<usize> {
    let index = |name: &&str| rails.iter().position(|rail| rail.name == *name);
    if let Some(index) = SINGLE.iter().find_map(index) {
        return vec![index];
    }
    SUMS.iter().find_map(|names| names.iter().map(index).collect()).unwrap_or_default()
}

/// Directories `sys/bus/i2c/drivers/DRIVER/*/INSIDE PREFIX*`.
fn monitors(files: &Files<'_>, driver: &str, inside: &str, prefix: &str) -> Vec<String> {
    let driver = format!("sys/bus/i2c/drivers/{driver}");
    // `1-0040`: bus and address; the driver's other files are `bind`, `module`, `uevent`.
    let addressed =
        |name: &String| name.split_once('-').is_some_and(|(bus, _)| bus.bytes().all(|b| b.is_ascii_digit()));
    let devices = files.names(&driver, "").into_iter().filter(addressed);
    devices
        .flat_map(|device| {
            let directory = format!("{driver}/{device}{inside}");
            files.names(&directory, prefix).into_iter().map(move |name| format!("{directory}/{name}"))
        })
        .collect()
}

fn iio(files: &Files<'_>) -> Vec<Rail> {
    let rails = |directory: String| {
        files.names(&directory, "rail_name_").into_iter().filter_map(move |file| {
            let channel: u8 = file.strip_prefix("rail_name_")?.parse().ok()?;
            let name = files.line(&format!("{directory}/{file}"))?;
            let path = |what: &str| files.root().join(format!("{directory}/in_{what}{channel}_input"));
            let power = path("power");
            let source = if power.exists() {
                Source::Milliwatts(power)
            } else {
                Source::Product { millivolts: path("voltage"), milliamperes: path("current") }
            };
            Some(Rail { name, source, in_total: false })
        })
    };
    connected(monitors(files, "ina3221x", "", "iio:device").into_iter().flat_map(rails))
}

fn hwmon(files: &Files<'_>) -> Vec<Rail> {
    let rails = |directory: String| {
        (1..=3).filter_map(move |channel| {
            let name = files.line(&format!("{directory}/in{channel}_label"))?;
            let path = |what: &str| format!("{directory}/{what}");
            if files.exists(&path(&format!("in{channel}_enable")))
                && files.number(&path(&format!("in{channel}_enable"))) == Some(0)
            {
                return None;
            }
            let source = Source::Product {
                millivolts: files.root().join(path(&format!("in{channel}_input"))),
                milliamperes: files.root().join(path(&format!("curr{channel}_input"))),
            };
            Some(Rail { name, source, in_total: false })
        })
    };
    connected(monitors(files, "ina3221", "/hwmon", "hwmon").into_iter().flat_map(rails))
}

fn connected(rails: impl Iterator<Item = Rail>) -> Vec<Rail> {
    rails.filter(|rail| rail.name != NOT_CONNECTED).collect()
}
