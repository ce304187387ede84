//! Sizes in words that `--memory-budget` reads, too.

use std::fmt;

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// A number of bytes, shown in whole MiB, rounded up: `141MiB`; as `2GiB` where that is the same, and below a MiB in
/// whole KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Rounded up to whole MiB.
    pub fn whole(self) -> Self {
        Self(self.0.div_ceil(MIB).saturating_mul(MIB))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= MIB => match bytes.div_ceil(MIB) {
                whole if whole.is_multiple_of(1024) => write!(f, "{}GiB", whole / 1024),
                whole => write!(f, "{whole}MiB"),
            },
            bytes if bytes >= 1024 => write!(f, "{}KiB", bytes.div_ceil(1024)),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        let shown = |bytes: u64| Bytes(bytes).to_string();
        assert_eq!(shown(0), "0B");
        assert_eq!(shown(1025), "2KiB");
        assert_eq!(shown(MIB), "1MiB");
        assert_eq!(shown(MIB + 1), "2MiB");
        assert_eq!((shown(1023 * MIB), shown(1025 * MIB)), ("1023MiB".into(), "1025MiB".into()));
        assert_eq!((shown(1 << 30), shown((2 << 30) - 1)), ("1GiB".into(), "2GiB".into()));
        assert_eq!(Bytes(MIB + 1).whole(), Bytes(2 * MIB));
        assert_eq!(Bytes(u64::MAX).whole().0 / MIB, u64::MAX / MIB);
    }
}
