//! All devices, releases of JetPack and sources, from the data that is part of the program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Device, DeviceError, GpuLibrary, GpuOrigin, Provider, Source};
use crate::elf::GlibcVersion;

/// Least likeness (Jaro-Winkler, 0 to 1) of a name that is suggested for a mistyped one.
const ALIKE: f64 = 0.8;

/// The files of `data/devices`, in the order in which devices are listed.
const DEVICES: [&str; 9] = [
    include_str!("../../data/devices/nano.toml"),
    include_str!("../../data/devices/tx2.toml"),
    include_str!("../../data/devices/xavier-nx.toml"),
    include_str!("../../data/devices/agx-xavier.toml"),
    include_str!("../../data/devices/orin-nano.toml"),
    include_str!("../../data/devices/orin-nx.toml"),
    include_str!("../../data/devices/agx-orin.toml"),
    include_str!("../../data/devices/generic-aarch64.toml"),
    include_str!("../../data/devices/generic-x86-64-cuda.toml"),
];

/// A release of JetPack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jetpack {
    /// Its version.
    pub version: String,
    /// Version of Jetson Linux.
    pub l4t: String,
    /// Version of Ubuntu.
    pub ubuntu: String,
    /// Version of glibc.
    pub glibc: GlibcVersion,
    /// Version of CUDA.
    pub cuda: String,
    /// Version of cuDNN.
    pub cudnn: String,
    /// Version of TensorRT.
    pub tensorrt: String,
    /// Key of the ONNX Runtime library with code for the GPU.
    pub gpu_library: String,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
    /// Other releases whose packages are the same.
    pub alike: Option<Alike>,
}

/// Releases of JetPack with the Ubuntu, and so the glibc, of the one that they stand with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alike {
    /// Their versions, with those of Jetson Linux.
    pub releases: BTreeMap<String, Vec<String>>,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

impl Jetpack {
    /// Its version, and those of the releases whose packages are the same.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.version).chain(self.alike.iter().flat_map(|a| a.releases.keys())).map(String::as_str)
    }
}

/// Everything that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Devices, the smallest first.
    pub devices: Vec<Device>,
    /// Releases of JetPack, oldest first.
    pub jetpacks: Vec<Jetpack>,
    /// GPU libraries by key.
    pub gpu_libraries: BTreeMap<String, GpuLibrary>,
    /// Sources by key.
    pub sources: BTreeMap<String, Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Releases {
    jetpack: Vec<Jetpack>,
    gpu_library: BTreeMap<String, GpuLibrary>,
}

/// Reads the data.
///
/// # Errors
/// Never in a tested build: it is part of the program.
pub fn catalog() -> Result<Catalog, toml::de::Error> {
    let releases: Releases = toml::from_str(include_str!("../../data/jetpacks.toml"))?;
    Ok(Catalog {
        devices: DEVICES.into_iter().map(toml::from_str).collect::<Result<_, _>>()?,
        jetpacks: releases.jetpack,
        gpu_libraries: releases.gpu_library,
        sources: toml::from_str(include_str!("../../data/sources.toml"))?,
    })
}

impl Catalog {
    /// The device with a name, an alias, or a text of `/proc/device-tree/model`.
    ///
    /// # Errors
    /// [`DeviceError::Unknown`], with the most similar name if one is similar.
    pub fn find(&self, name: &str) -> Result<&Device, DeviceError> {
        if let Some(device) = self.devices.iter().find(|d| d.is_called(name)) {
            return Ok(device);
        }
        let wanted = name.to_lowercase();
        let like = |d: &Device| {
            let names = d.names().map(|own| strsim::jaro_winkler(&own.to_lowercase(), &wanted));
            (names.fold(0.0, f64::max), d.name.clone())
        };
        let nearest = self.devices.iter().map(like).max_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = nearest.filter(|(alike, _)| *alike >= ALIKE).map(|(_, name)| name);
        Err(DeviceError::Unknown { name: name.to_owned(), nearest })
    }

    /// Releases of JetPack that a device runs, oldest first; none if it runs none.
    pub fn jetpacks_of<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Jetpack> {
        let runs = move |j: &&Jetpack| device.jetpacks.as_ref().is_some_and(|own| own.versions.contains(&j.version));
        self.jetpacks.iter().filter(runs)
    }

    /// The glibc that a board has at least: that of the JetPack named, or of the oldest that it may run.
    ///
    /// # Errors
    /// [`DeviceError::Jetpack`] if it does not run that one.
    pub fn glibc(&self, device: &Device, jetpack: Option<&str>) -> Result<GlibcVersion, DeviceError> {
        let Some(version) = jetpack else { return Ok(device.glibc) };
        let found = self.jetpacks_of(device).find(|j| j.versions().any(|own| own == version));
        found.map(|j| j.glibc).ok_or_else(|| {
            let known = self.jetpacks_of(device).flat_map(Jetpack::versions).collect::<Vec<_>>().join(", ");
            DeviceError::Jetpack {
                version: version.to_owned(),
                device: device.name.clone(),
                known: if known.is_empty() { "none".to_owned() } else { known },
            }
        })
    }

    /// GPU libraries of a device, each with the releases of JetPack that it is for, those alike included (none: it depends on no
    /// release).
    pub fn gpu_libraries_of<'a>(&'a self, device: &'a Device) -> Vec<(&'a GpuLibrary, Vec<&'a str>)> {
        let mut found: Vec<(&String, Vec<&str>)> = device.gpu_library.iter().map(|key| (key, Vec::new())).collect();
        for jetpack in self.jetpacks_of(device) {
            match found.iter_mut().find(|(key, _)| **key == jetpack.gpu_library) {
                Some((_, versions)) => versions.extend(jetpack.versions()),
                None => found.push((&jetpack.gpu_library, jetpack.versions().collect())),
            }
        }
        found.into_iter().filter_map(|(key, versions)| Some((self.gpu_libraries.get(key)?, versions))).collect()
    }

    /// Providers that can work on a device: those of its GPU if a library with code for it is to be had.
    pub fn providers(&self, device: &Device) -> Vec<Provider> {
        let gpu = self.gpu_libraries_of(device).iter().any(|(library, _)| library.origin != GpuOrigin::None);
        if gpu { vec![Provider::Cpu, Provider::Cuda, Provider::TensorRt] } else { vec![Provider::Cpu] }
    }
}
