//! What `nasbn-targets` knows of boards against what `nasbn` reads there: both programs have tables of their own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, fs, path::Path};

use nasbn_runtime::{board::Board, ort_library};
use nasbn_targets::{
    device::{Catalog, Device, catalog},
    library,
};

/// Releases of Jetson Linux among which `nasbn` is asked for those that it knows: R32.0.0 to R39.9.9.
const MAJORS: std::ops::RangeInclusive<u32> = 32..=39;
/// Releases of JetPack for boards of which there is no profile (Jetson Thor).
const OTHERS: [&str; 2] = ["7.0", "7.1"];
/// Of each rail here.
const MILLIWATTS: f64 = 1000.0;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// JetPack by release of Jetson Linux (`36.3.0`), as `nasbn` names it.
fn named_by_nasbn() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for major in MAJORS {
        for (minor, micro) in (0..100).map(|i| (i / 10, i % 10)) {
            write(
                dir.path(),
                "etc/nv_tegra_release",
                &format!("# R{major} (release), REVISION: {minor}.{micro}, GCID: 1"),
            );
            known.extend(Board::read(dir.path()).jetpack.map(|jetpack| (format!("{major}.{minor}.{micro}"), jetpack)));
        }
    }
    known
}

/// The same, as `nasbn-targets` has it.
fn named_by_targets(catalog: &Catalog) -> BTreeMap<String, String> {
    let three = |l4t: &str| if l4t.matches('.').count() < 2 { format!("{l4t}.0") } else { l4t.to_owned() };
    let mut known = BTreeMap::new();
    for jetpack in &catalog.jetpacks {
        known.insert(three(&jetpack.l4t), jetpack.version.clone());
        for (version, releases) in jetpack.alike.iter().flat_map(|alike| &alike.releases) {
            known.extend(releases.iter().map(|l4t| (three(l4t), version.clone())));
        }
    }
    known
}

#[test]
fn a_package_can_be_made_for_every_jetpack_that_doctor_names() {
    let catalog = catalog().unwrap();
    let mut known = named_by_nasbn();
    assert!(known.len() > 30, "{known:?}");
    known.retain(|_, jetpack| !OTHERS.contains(&jetpack.as_str()));
    assert_eq!(named_by_targets(&catalog), known);
    for jetpack in known.values() {
        let runs = |device: &&Device| catalog.glibc(device, Some(jetpack)).is_ok();
        assert!(catalog.devices.iter().any(|device| runs(&device)), "{jetpack}");
    }
}

/// A path with a number, then a name, in place of its `*`.
fn at(path: &str, number: usize) -> String {
    path.replacen('*', &format!("{number}-0040."), 1).replacen('*', &number.to_string(), 1)
}

/// Files of a board's state at the places that its profile names, of the release of each list that is asked for.
fn tree(root: &Path, device: &Device, release: usize) {
    let of = |places: &[String]| places.get(release).or(places.last()).unwrap().clone();
    write(root, &format!("{}/cur_freq", at(&of(&device.board.gpu_clock), 0)), "1000");
    for place in &device.board.power_mode {
        let text = if place.ends_with(".conf") { "< POWER_MODEL ID=3 NAME=MAXN >\n" } else { "pmode:0003" };
        write(root, place, text);
    }
    let rails = of(&device.board.rails);
    for (number, rail) in device.board.total_power.iter().enumerate() {
        let monitor = at(&rails, number);
        if rails.contains("iio") {
            write(root, &format!("{monitor}/rail_name_0"), rail);
            write(root, &format!("{monitor}/in_power0_input"), &MILLIWATTS.to_string());
        } else {
            for (file, text) in [("in1_label", rail.as_str()), ("in1_input", "1000"), ("curr1_input", "1000")] {
                write(root, &format!("{monitor}/{file}"), text);
            }
        }
    }
}

#[test]
fn the_state_of_a_board_is_read_where_its_profile_says() {
    let catalog = catalog().unwrap();
    for device in catalog.devices.iter().filter(|device| device.jetpacks.is_some()) {
        for release in 0..device.board.gpu_clock.len().max(device.board.rails.len()) {
            let dir = tempfile::tempdir().unwrap();
            tree(dir.path(), device, release);
            let board = Board::read(dir.path());
            let name = &device.name;
            assert!(board.gpu.is_some_and(|gpu| gpu.current_hz == Some(1000)), "{name}");
            assert!(board.power_mode.is_some_and(|mode| mode.name.as_deref() == Some("MAXN")), "{name}");
            assert_eq!(board.rails.len(), device.board.total_power.len(), "{name}");
            assert_eq!(board.total_milliwatts, Some(MILLIWATTS * board.rails.len() as f64), "{name}");
        }
    }
    // Of the others no place is told.
    for device in catalog.devices.iter().filter(|device| device.jetpacks.is_none()) {
        let told = &device.board;
        assert!(told.gpu_clock.is_empty() && told.rails.is_empty() && told.power_mode.is_empty(), "{}", device.name);
    }
}

#[test]
fn a_library_is_looked_for_where_it_is_provisioned() {
    assert_eq!(ort_library::PROVISIONED_DIR, library::PROVISIONED_DIR);
    assert_eq!(ort_library::LIBRARY_FILE, library::LIBRARY_FILE);
}
