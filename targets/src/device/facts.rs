//! What is known of a device. Each part names its sources by their keys in `data/sources.toml`, and what none of them says.

use serde::{Deserialize, Serialize};

use crate::elf::GlibcVersion;

/// A document or file that facts come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Who says it, and where.
    pub title: String,
    /// Its address, if it has one.
    pub url: Option<String>,
}

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The processor.
    Cpu,
    /// The GPU through CUDA.
    Cuda,
    /// The GPU through TensorRT.
    TensorRt,
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        })
    }
}

/// Numbers that a GPU computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 16-bit floating point.
    Fp16,
}

/// What a board says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Contents of `/proc/device-tree/model`, without the zero at their end.
    pub texts: Vec<String>,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// Memory of the variants; processor and GPU of a Jetson share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Of each variant, as its name says (2^30 bytes, less what the firmware keeps).
    pub gigabytes: Vec<u32>,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// The GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// NVIDIA's name of its generation.
    pub architecture: String,
    /// CUDA compute capability, `major.minor`; the least of a family of devices.
    pub compute_capability: String,
    /// What it computes with, of what nasbn uses.
    pub precisions: Vec<Precision>,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// Releases of JetPack that run on the device, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jetpacks {
    /// Their versions, which `data/jetpacks.toml` describes.
    pub versions: Vec<String>,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// Power modes of `nvpmodel`. Their numbers differ between releases; a board's own list is in `/etc/nvpmodel.conf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Their names.
    pub modes: Vec<String>,
    /// The one to measure in.
    pub best: String,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// Where the board's state is read, below `/` (`docs/board.md`). Each list of places is in order of releases, with `*` for what
/// differs between boards; it is empty if there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Clock of the GPU.
    pub gpu_clock: Vec<String>,
    /// Power mode: all of them.
    pub power_mode: Vec<String>,
    /// Power monitors.
    pub rails: Vec<String>,
    /// Rails that are the power of the whole when summed; empty if none are.
    pub total_power: Vec<String>,
    /// Sources.
    pub sources: Vec<String>,
}

/// Whether there is an ONNX Runtime library with code for a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuOrigin {
    /// None that nasbn can load: the processor alone.
    None,
    /// It has to be built.
    Source,
    /// A package has it.
    Wheel,
}

/// The ONNX Runtime library that holds code for a GPU, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuLibrary {
    /// Whether there is one.
    pub origin: GpuOrigin,
    /// Which, and how one gets it.
    pub text: String,
    /// Sources.
    pub sources: Vec<String>,
    /// What none of them says.
    pub unverified: Option<String>,
}

/// A device, or a family of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name for `--target`.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Other names for `--target`.
    pub aliases: Vec<String>,
    /// Machine that programs are built for.
    pub triple: String,
    /// The oldest glibc that a board may have: that of its oldest JetPack.
    pub glibc: GlibcVersion,
    /// Key of its GPU library in `data/jetpacks.toml`, where that depends on no JetPack.
    pub gpu_library: Option<String>,
    /// What it says that it is, if that tells anything.
    pub models: Option<Models>,
    /// Its memory, if that is known.
    pub memory: Option<Memory>,
    /// Its GPU, if it has one.
    pub gpu: Option<Gpu>,
    /// Releases of JetPack, if it runs any.
    pub jetpacks: Option<Jetpacks>,
    /// Power modes, if it has any.
    pub power: Option<Power>,
    /// Where its state is read.
    pub board: Board,
}

impl Device {
    /// Whether `name` is one of its names or what it says that it is, whatever the case of letters.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.trim_end_matches('\0').trim();
        self.names().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Its name, the others, and what it says that it is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let models = self.models.iter().flat_map(|m| &m.texts);
        std::iter::once(&self.name).chain(&self.aliases).chain(models).map(String::as_str)
    }

    /// What each part cites, and what none of its sources says; the parts by name.
    pub fn parts(&self) -> Vec<(&'static str, &[String], Option<&str>)> {
        let mut parts: Vec<(_, &[String], _)> = Vec::new();
        macro_rules! part {
            ($($name:literal: $field:ident),*) => {
                $(if let Some(part) = &self.$field {
                    parts.push(($name, &part.sources, part.unverified.as_deref()));
                })*
            };
        }
        part!("model": models, "memory": memory, "GPU": gpu, "JetPack": jetpacks, "power modes": power);
        parts.push(("board", &self.board.sources, None));
        parts
    }
}
