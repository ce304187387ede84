//! Versions of glibc.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A version of glibc, such as 2.27: whatever was built against it runs with it and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlibcVersion {
    /// The number before the point.
    pub major: u16,
    /// The number after it.
    pub minor: u16,
}

/// A text is no version of glibc.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of glibc such as 2.27")]
pub struct NotAVersion(String);

impl GlibcVersion {
    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The least glibc that has a symbol version: 2.17 of `GLIBC_2.17` and of `GLIBC_2.17.1`. None of versions of
    /// other libraries, and of `GLIBC_PRIVATE`, which tells none.
    pub fn of_symbol(version: &[u8]) -> Option<Self> {
        // Relative relocations (`DT_RELR`) came with glibc 2.36 and a version of their own.
        const RELR: (&str, GlibcVersion) = ("ABI_DT_RELR", GlibcVersion::new(2, 36));
        let version = std::str::from_utf8(version).ok()?.strip_prefix("GLIBC_")?;
        if version == RELR.0 {
            return Some(RELR.1);
        }
        let mut parts = version.split('.');
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        Some(Self::new(number(parts.next()?)?, number(parts.next()?)?))
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for GlibcVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parts = text.split_once('.').filter(|(major, minor)| digits(major) && digits(minor));
        let version = parts.and_then(|(major, minor)| Some(Self::new(major.parse().ok()?, minor.parse().ok()?)));
        version.ok_or_else(|| NotAVersion(text.to_owned()))
    }
}

impl Serialize for GlibcVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GlibcVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
