#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::{
    elf::{GlibcVersion, Machine},
    library::pinned,
};

#[test]
fn every_profile_is_complete_and_its_names_are_its_own() {
    let catalog = catalog().unwrap();
    let mut names = BTreeSet::new();
    for device in &catalog.devices {
        for name in device.names() {
            assert!(names.insert(name.to_lowercase()), "{name} is told of two devices");
            assert!(!name.is_empty() && name == name.trim());
        }
        assert!(Machine::of_triple(&device.triple).is_some_and(|m| !matches!(m, Machine::Other(_))), "{}", device.name);
        let jetson = device.title.starts_with("Jetson");
        assert_eq!(device.jetpacks.is_some(), jetson, "{}", device.name);
        assert_eq!(device.gpu_library.is_none(), jetson, "{}", device.name);
        for part in [device.models.is_some(), device.memory.is_some(), device.power.is_some()] {
            assert_eq!(part, jetson, "{}", device.name);
        }
        assert!(device.gpu.is_some() || device.name == "generic-aarch64");
        if let Some(power) = &device.power {
            assert!(power.modes.contains(&power.best), "{}", device.name);
        }
        if let Some(memory) = &device.memory {
            assert!(memory.gigabytes.is_sorted() && memory.gigabytes[0] >= 2, "{}", device.name);
        }
        if let Some(gpu) = &device.gpu {
            let (major, minor) = gpu.compute_capability.split_once('.').unwrap();
            assert!(major.parse::<u8>().unwrap() >= 5 && minor.parse::<u8>().unwrap() <= 9, "{}", device.name);
            assert!(gpu.precisions.contains(&Precision::Fp32));
        }
    }
    let expected = ["nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin"];
    let names: Vec<_> = catalog.devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names[..7], expected);
    assert_eq!(names[7..], ["generic-aarch64", "generic-x86-64-cuda"]);
}

#[test]
fn every_fact_has_a_source_that_exists_and_every_source_is_cited() {
    let catalog = catalog().unwrap();
    let mut cited = BTreeSet::new();
    let mut cite = |what: &str, sources: &[String]| {
        assert!(!sources.is_empty(), "{what} has no source");
        for key in sources {
            assert!(catalog.sources.contains_key(key), "{what} cites {key}, which does not exist");
            cited.insert(key.clone());
        }
    };
    for device in &catalog.devices {
        for (part, sources, _) in device.parts() {
            cite(&format!("{} of {}", part, device.name), sources);
        }
    }
    for jetpack in &catalog.jetpacks {
        cite(&jetpack.version, &jetpack.sources);
        if let Some(alike) = &jetpack.alike {
            cite(&format!("what is like {}", jetpack.version), &alike.sources);
        }
    }
    for (key, library) in &catalog.gpu_libraries {
        cite(key, &library.sources);
    }
    let unused: Vec<_> = catalog.sources.keys().filter(|key| !cited.contains(*key)).collect();
    assert!(unused.is_empty(), "{unused:?} is cited nowhere");
    for source in catalog.sources.values() {
        assert!(source.url.as_ref().is_none_or(|url| url.starts_with("https://")), "{source:?}");
    }
}

#[test]
fn releases_are_in_order_and_each_is_used() {
    let catalog = catalog().unwrap();
    let number = |version: &str| version.split('.').map(|p| p.parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert!(catalog.jetpacks.is_sorted_by_key(|j| number(&j.version)));
    assert!(catalog.jetpacks.is_sorted_by_key(|j| number(&j.l4t)));
    assert!(catalog.jetpacks.is_sorted_by_key(|j| j.glibc));
    for jetpack in &catalog.jetpacks {
        assert!(catalog.gpu_libraries.contains_key(&jetpack.gpu_library), "{}", jetpack.version);
        assert!(catalog.devices.iter().any(|d| catalog.jetpacks_of(d).any(|j| j == jetpack)), "{}", jetpack.version);
    }
    for device in &catalog.devices {
        let listed = device.jetpacks.iter().flat_map(|j| &j.versions).count();
        assert_eq!(catalog.jetpacks_of(device).count(), listed, "{} names a release that is not there", device.name);
    }
}

#[test]
fn the_glibc_of_a_device_is_its_oldest_release_s_and_a_pinned_library_runs_with_it() {
    let catalog = catalog().unwrap();
    let libraries = pinned().unwrap();
    for device in &catalog.devices {
        if let Some(oldest) = catalog.jetpacks_of(device).map(|j| j.glibc).min() {
            assert_eq!(device.glibc, oldest, "{}", device.name);
        }
        let fits = libraries.iter().any(|l| l.triple == device.triple && l.glibc <= device.glibc);
        assert!(fits, "no pinned library runs on {}", device.name);
    }
    let glibc = |name: &str, jetpack| catalog.glibc(catalog.find(name).unwrap(), jetpack);
    assert_eq!(glibc("xavier-nx", None), Ok(GlibcVersion::new(2, 27)));
    assert_eq!(glibc("xavier-nx", Some("5.1.2")), Ok(GlibcVersion::new(2, 31)));
    // Releases whose packages are those of another one.
    assert_eq!(glibc("xavier-nx", Some("4.6.6")), Ok(GlibcVersion::new(2, 27)));
    assert_eq!(glibc("orin-nano", Some("6.2.2")), Ok(GlibcVersion::new(2, 35)));
    assert!(glibc("nano", Some("5.1.5")).unwrap_err().to_string().contains("it runs 4.6.1, 4.2"));
    let error = glibc("nano", Some("5.1.2")).unwrap_err();
    assert!(error.to_string().contains("it runs 4.6.1") && error.hint().contains("--jetpack"), "{error}");
    assert!(glibc("generic-aarch64", Some("6.0")).unwrap_err().to_string().contains("it runs none"));
}

#[test]
fn jetpack_4_has_the_processor_alone_and_says_why() {
    let catalog = catalog().unwrap();
    for name in ["nano", "tx2", "generic-aarch64"] {
        assert_eq!(catalog.providers(catalog.find(name).unwrap()), [Provider::Cpu], "{name}");
    }
    let nano = catalog.gpu_libraries_of(catalog.find("nano").unwrap());
    assert!(nano[0].0.text.contains("1.11") && nano[0].0.text.contains("1.17"), "{}", nano[0].0.text);
    for name in ["xavier-nx", "orin-nano", "agx-orin", "generic-x86-64-cuda"] {
        assert_eq!(catalog.providers(catalog.find(name).unwrap()).len(), 3, "{name}");
    }
    let orin = catalog.gpu_libraries_of(catalog.find("orin-nano").unwrap());
    let versions: Vec<_> = orin.iter().map(|(library, versions)| (library.origin, versions.as_slice())).collect();
    assert_eq!(versions[0], (GpuOrigin::Source, &["5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.5"][..]));
    assert_eq!(versions[2], (GpuOrigin::Wheel, &["6.1", "6.2", "6.2.1", "6.2.2"][..]));
}

#[test]
fn a_device_is_found_by_what_its_board_says_and_a_mistyped_name_is_mended() {
    let catalog = catalog().unwrap();
    for (called, name) in [
        ("orin-nano", "orin-nano"),
        ("Jetson-Orin-Nano", "orin-nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0", "orin-nano"),
        ("quill", "tx2"),
        ("Jetson-AGX", "agx-xavier"),
        ("NVIDIA Jetson Nano Developer Kit\n", "nano"),
        ("x86_64", "generic-x86-64-cuda"),
    ] {
        assert_eq!(catalog.find(called).unwrap().name, name, "{called}");
    }
    for (mistyped, nearest) in
        [("orin-nao", Some("orin-nano")), ("xaviernx", Some("xavier-nx")), ("orin-nxx", Some("orin-nx")), ("zzz", None)]
    {
        let error = catalog.find(mistyped).unwrap_err();
        let nearest = nearest.map(ToOwned::to_owned);
        assert_eq!(error, DeviceError::Unknown { name: mistyped.into(), nearest }, "{error}");
        assert!(error.hint().contains("nasbn-targets list"));
    }
    assert!(catalog.find("orin-nao").unwrap_err().to_string().contains("is it `orin-nano`?"));
}
