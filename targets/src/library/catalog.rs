//! The pinned libraries, as data.

use std::env::consts::{ARCH, OS};

use serde::{Deserialize, Serialize};

use super::ProvisionError;
use crate::elf::GlibcVersion;

/// Who fetches a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Python's pip.
    Pip,
    /// Node's npm.
    Npm,
}

/// A package that holds a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Who fetches it.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Platform tag of the wheel (pip only).
    pub platform: Option<String>,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A file whose bytes are known beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Its name: of an archive, or of a member inside one.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// A pinned library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Version of ONNX Runtime.
    pub version: String,
    /// Machine it runs on.
    pub triple: String,
    /// The oldest glibc that it runs with.
    pub glibc: GlibcVersion,
    /// Package it comes in.
    pub package: Package,
    /// The file that the package manager leaves.
    pub archive: PinnedFile,
    /// The library inside the archive.
    pub member: PinnedFile,
    /// Licences of what the library is made of, inside the archive, or inside that of [`Library::notices_in`].
    pub notices: PinnedFile,
    /// Another package of the same version, which holds the notices where the library's own does not.
    pub notices_in: Option<Holder>,
}

/// A package that holds what a library's own lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The package.
    pub package: Package,
    /// The file that the package manager leaves.
    pub archive: PinnedFile,
}

impl Library {
    /// What is fetched for the notices if the library's own package holds none: they are its member.
    pub fn of_notices(&self) -> Option<Self> {
        let Holder { package, archive } = self.notices_in.clone()?;
        Some(Self { package, archive, member: self.notices.clone(), notices_in: None, ..self.clone() })
    }
}

impl std::fmt::Display for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = self.archive.bytes / 1_000_000;
        write!(f, "ONNX Runtime {} for {} ({}, {megabytes} MB)", self.version, self.triple, self.package)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    library: Vec<Library>,
}

/// Every pinned library, the preferred one of each machine first.
///
/// # Errors
/// Never in a tested build: the text is part of the program.
pub fn pinned() -> Result<Vec<Library>, toml::de::Error> {
    toml::from_str::<Catalog>(include_str!("../../data/onnxruntime.toml")).map(|catalog| catalog.library)
}

/// The library of `libraries` for a machine: the named version, or the preferred one.
///
/// # Errors
/// [`ProvisionError::NotPinned`], which lists what there is.
pub fn choose<'a>(
    libraries: &'a [Library],
    triple: &str,
    version: Option<&str>,
) -> Result<&'a Library, ProvisionError> {
    let fits = |l: &&Library| l.triple == triple && version.is_none_or(|wanted| wanted == l.version);
    libraries.iter().find(fits).ok_or_else(|| ProvisionError::NotPinned {
        version: version.map(|v| format!(" {v}")).unwrap_or_default(),
        triple: triple.to_owned(),
        known: libraries.iter().map(|l| format!("{} for {}", l.version, l.triple)).collect::<Vec<_>>().join(", "),
    })
}

/// The library of `libraries` for a machine with a glibc: the preferred one that runs with it.
///
/// # Errors
/// [`ProvisionError::NotPinned`], which lists what there is.
pub fn choose_for<'a>(
    libraries: &'a [Library],
    triple: &str,
    glibc: GlibcVersion,
) -> Result<&'a Library, ProvisionError> {
    libraries.iter().find(|l| l.triple == triple && l.glibc <= glibc).ok_or_else(|| ProvisionError::NotPinned {
        version: String::new(),
        triple: format!("{triple} with glibc {glibc}"),
        known: libraries.iter().map(|l| format!("{} for {}", l.version, l.triple)).collect::<Vec<_>>().join(", "),
    })
}

/// Triple of the machine that this program runs on, in the form of the pinned ones where it is Linux with glibc.
pub fn host_triple() -> String {
    let abi = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    if OS == "linux" { format!("{ARCH}-unknown-linux-{abi}") } else { format!("{ARCH}-{OS}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_entry_is_complete_and_unique() {
        let libraries = pinned().unwrap();
        for (i, library) in libraries.iter().enumerate() {
            let holder = library.notices_in.as_ref().map(|holder| &holder.archive);
            for PinnedFile { sha256, bytes, .. } in [&library.archive, &library.member].into_iter().chain(holder) {
                let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                assert!(sha256.len() == 64 && sha256.bytes().all(hexadecimal), "{sha256}");
                assert!(*bytes > 1 << 20);
            }
            assert!(library.archive.name.contains(&library.package.version) && !library.archive.name.contains('/'));
            assert!(library.member.name.ends_with(&format!("libonnxruntime.so.{}", library.version)));
            for one in [library.clone()].into_iter().chain(library.of_notices()) {
                assert_eq!(one.package.platform.is_some(), one.package.manager == Manager::Pip);
                assert!(one.archive.name.contains(&library.version));
            }
            assert_eq!(library.notices.name, "onnxruntime/ThirdPartyNotices.txt");
            let same = |other: &Library| other.version == library.version && other.triple == library.triple;
            assert!(!libraries[..i].iter().any(same));
        }
    }

    #[test]
    fn each_machine_has_a_preferred_and_an_oldest_library() {
        let libraries = pinned().unwrap();
        for triple in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
            assert_eq!(choose(&libraries, triple, None).unwrap().version, "1.32.0");
            assert_eq!(choose(&libraries, triple, Some("1.17.3")).unwrap().triple, triple);
        }
    }

    #[test]
    fn an_old_glibc_gets_the_library_that_runs_with_it() {
        let libraries = pinned().unwrap();
        let chosen = |glibc| choose_for(&libraries, "aarch64-unknown-linux-gnu", glibc).map(|l| l.version.as_str());
        assert_eq!(chosen(GlibcVersion::new(2, 31)).unwrap(), "1.32.0");
        assert_eq!(chosen(GlibcVersion::new(2, 28)).unwrap(), "1.32.0");
        assert_eq!(chosen(GlibcVersion::new(2, 27)).unwrap(), "1.17.3");
        let error = chosen(GlibcVersion::new(2, 26)).unwrap_err();
        assert!(error.to_string().contains("aarch64-unknown-linux-gnu with glibc 2.26"), "{error}");
    }

    #[test]
    fn what_is_not_pinned_is_refused_with_what_is() {
        let libraries = pinned().unwrap();
        for (triple, version, words) in [
            ("riscv64-unknown-linux-gnu", None, "no ONNX Runtime is pinned for riscv64-unknown-linux-gnu"),
            ("x86_64-unknown-linux-gnu", Some("1.16.0"), "no ONNX Runtime 1.16.0 is pinned for x86_64"),
        ] {
            let error = choose(&libraries, triple, version).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.to_string().contains("1.17.3 for aarch64-unknown-linux-gnu"), "{error}");
            assert!(error.hint().contains("ORT_DYLIB_PATH"));
        }
    }
}
