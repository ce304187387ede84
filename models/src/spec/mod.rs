//! Space files: supernets written as TOML, so that a new space needs no Rust. The schema is in
//! `docs/spaces.md`.

mod build;
mod cell;
mod file;
mod operator;

use alloc::string::{String, ToString};

use crate::{BnPlacement, Supernet};

/// Spaces that come with the program: name and text of the file.
pub const BUILTIN: &[(&str, &str)] = &[
    ("nas-bench-macro", include_str!("../../spaces/nas-bench-macro.toml")),
    ("mobilenet", include_str!("../../spaces/mobilenet.toml")),
    ("mnasnet", include_str!("../../spaces/mnasnet.toml")),
    ("fbnet", include_str!("../../spaces/fbnet.toml")),
];

/// Text of a built-in space.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What the user may change about a space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpaceOptions {
    /// Side of the square image, pixels; the file's own if absent.
    pub image_size: Option<u32>,
    /// Number of classes; the file's own if absent.
    pub classes: Option<u32>,
    /// Factor of all channels but the image's and the classes', rounded to the file's divisor.
    pub width: f64,
    /// BatchNorm placement.
    pub placement: BnPlacement,
}

/// What is wrong with a space file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct SpecError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub problem: String,
}

impl SpecError {
    /// What a user can do.
    pub fn hint(&self) -> Option<String> {
        Some("docs/spaces.md has the schema; `nasbn-export spaces NAME` prints a file to start from".to_string())
    }
}

/// A problem at a place of the text, in bytes.
struct Problem {
    at: usize,
    text: String,
}

/// How the channels of a file are scaled.
struct Scale {
    width: f64,
    divisor: u32,
}

impl Scale {
    /// Channels times the width, to the nearest multiple of the divisor and not below it. A width of
    /// exactly 1 leaves them as they are.
    fn channels(&self, channels: u32) -> u32 {
        if self.width == 1.0 {
            return channels;
        }
        let multiples = (f64::from(channels) * self.width / f64::from(self.divisor) + 0.5) as u32;
        multiples.max(1).saturating_mul(self.divisor)
    }
}

/// Reads a space file; `file` is its name in messages.
///
/// # Errors
/// With line and column, what is wrong and what was expected.
pub fn parse(text: &str, file: &str, options: &SpaceOptions) -> Result<Supernet, SpecError> {
    let located = |problem: Problem| {
        let before = text.get(..problem.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        SpecError {
            file: file.to_string(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem.text,
        }
    };
    let parsed: file::SpaceFile = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        located(Problem { at, text: e.message().to_string() })
    })?;
    build::build(&parsed, options).map_err(located)
}
