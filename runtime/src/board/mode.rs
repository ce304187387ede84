//! The power mode of a Jetson, as `nvpmodel` keeps it.
//!
//! `/etc/nvpmodel.conf` names the modes (`< POWER_MODEL ID=0 NAME=MAXN >`) and the default (`< PM_CONFIG DEFAULT=2 >`);
//! `/var/lib/nvpmodel/status` holds the one in force (`pmode:0000`, since JetPack 4.3 `pmode:0000 fmode:quiet`). Source:
//! NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance", "Power Mode Controls".

use serde::{Deserialize, Serialize};

use super::{MOST_ENTRIES, files::Files};
use crate::bounded;

const CONFIGURATION: &str = "etc/nvpmodel.conf";
const STATUS: &str = "var/lib/nvpmodel/status";
/// Modes that are looked at.
const MOST_MODES: usize = 64;

/// A power mode and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedMode {
    /// Its number, for `nvpmodel -m`.
    pub id: u32,
    /// Its name: `MAXN`, `15W`, `MODE_15W_6CORE`.
    pub name: String,
}

/// The power mode in force, among those there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerMode {
    /// Its number.
    pub id: u32,
    /// Its name, if the configuration has it.
    pub name: Option<String>,
    /// All modes of the board, in the configuration's order.
    #[serde(deserialize_with = "bounded::list::<MOST_ENTRIES, _, _>")]
    pub available: Vec<NamedMode>,
}

impl PowerMode {
    /// Whether this mode lifts all limits; none knows without a name.
    pub fn is_maximum(&self) -> Option<bool> {
        self.name.as_deref().map(|name| name.starts_with("MAXN"))
    }

    /// The mode that lifts all limits; `MAXN_SUPER` comes before `MAXN`.
    pub fn maximum(&self) -> Option<&NamedMode> {
        let named = |wanted: &str| self.available.iter().find(|mode| mode.name == wanted);
        named("MAXN_SUPER").or_else(|| named("MAXN")).or_else(|| {
            // `MAXN_SUPER_2`, `MAXN_CORE` and whatever comes yet.
            self.available.iter().find(|mode| mode.name.starts_with("MAXN"))
        })
    }
}

impl std::fmt::Display for PowerMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// The mode in force: the status, else the configuration's default (with a note).
pub(super) fn read(files: &Files<'_>) -> Option<PowerMode> {
    let configuration = files.text(CONFIGURATION);
    let available = configuration.as_deref().map(modes).unwrap_or_default();
    if configuration.is_some() && available.is_empty() {
        files.note(CONFIGURATION, "names no power mode");
    }
    let status = files.line(STATUS).and_then(|line| {
        let id = current(&line);
        if id.is_none() {
            files.note(STATUS, "does not say `pmode:` and a number");
        }
        id
    });
    let id = status.or_else(|| {
        let id = configuration.as_deref().and_then(default_mode)?;
        files.note(STATUS, format_args!("says no mode; {CONFIGURATION}'s default is taken for it"));
        Some(id)
    })?;
    let name = available.iter().find(|mode| mode.id == id).map(|mode| mode.name.clone());
    Some(PowerMode { id, name, available })
}

/// The number after `pmode:`.
fn current(status: &str) -> Option<u32> {
    status.split_whitespace().find_map(|word| word.strip_prefix("pmode:"))?.parse().ok()
}

/// What follows `key` in a line `< KIND key... >`.
fn value<'a>(line: &'a str, kind: &str, key: &str) -> Option<&'a str> {
    let inside = line.trim().strip_prefix('<')?.trim_end().strip_suffix('>')?;
    let mut words = inside.split_whitespace();
    (words.next()? == kind).then_some(())?;
    words.find_map(|word| word.strip_prefix(key))
}

fn modes(configuration: &str) -> Vec<NamedMode> {
    let mode = |line| {
        let id = value(line, "POWER_MODEL", "ID=")?.parse().ok()?;
        let name = value(line, "POWER_MODEL", "NAME=")?;
        let sound = (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic());
        sound.then(|| NamedMode { id, name: name.to_owned() })
    };
    configuration.lines().filter_map(mode).take(MOST_MODES).collect()
}

fn default_mode(configuration: &str) -> Option<u32> {
    configuration.lines().find_map(|line| value(line, "PM_CONFIG", "DEFAULT="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ORIN_NANO: &str = "# < POWER_MODEL ID=9 NAME=COMMENT >\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n\
        < POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n\
        < POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=x NAME=BAD >\n< PM_CONFIG DEFAULT=1 >\n";

    #[test]
    fn modes_and_the_default_are_read() {
        let found: Vec<(u32, String)> = modes(ORIN_NANO).into_iter().map(|mode| (mode.id, mode.name)).collect();
        assert_eq!(found, [(0, "15W".to_owned()), (1, "25W".to_owned()), (2, "MAXN_SUPER".to_owned())]);
        assert_eq!(default_mode(ORIN_NANO), Some(1));
        assert_eq!(default_mode("< POWER_MODEL ID=0 NAME=MAXN >"), None);
    }

    #[test]
    fn the_status_may_say_more_than_the_mode() {
        assert_eq!(current("pmode:0000"), Some(0));
        assert_eq!(current("pmode:0002 fmode:fan_mode_quiet"), Some(2));
        assert_eq!(current("fmode:quiet"), None);
        assert_eq!(current("pmode:-1"), None);
    }

    #[test]
    fn the_maximum_is_found_by_its_name_not_by_its_number() {
        let of = |names: &[&str]| {
            let named = |(id, name): (usize, &&str)| NamedMode { id: id as u32, name: (*name).to_owned() };
            PowerMode { id: 0, name: None, available: names.iter().enumerate().map(named).collect() }
        };
        assert_eq!(of(&["15W", "25W", "MAXN_SUPER"]).maximum().unwrap().id, 2);
        assert_eq!(of(&["MAXN", "MAXN_SUPER"]).maximum().unwrap().id, 1);
        assert_eq!(of(&["MAXN", "5W"]).maximum().unwrap().id, 0);
        assert_eq!(of(&["MODE_15W_2CORE"]).maximum(), None);
    }
}
