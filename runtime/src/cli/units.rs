//! Numbers with units, as arguments have them.

use std::{ops::RangeInclusive, time::Duration};

/// Most of what is counted.
const MOST: f64 = 1e18;

/// A number with an optional k, M or G.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)])
        .and_then(whole)
        .ok_or_else(|| format!("`{text}` is not a whole number from 1 to {MOST:e} such as 12000000, 12M or 1.2G"))
}

/// A number of bytes with an optional unit; K, M and G are KiB, MiB and GiB.
pub fn bytes(text: &str) -> Result<u64, String> {
    const KIB: f64 = 1024.0;
    let units = [
        ("KiB", KIB),
        ("MiB", KIB * KIB),
        ("GiB", KIB * KIB * KIB),
        ("TiB", KIB * KIB * KIB * KIB),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
        ("K", KIB),
        ("M", KIB * KIB),
        ("G", KIB * KIB * KIB),
        ("T", KIB * KIB * KIB * KIB),
    ];
    scaled(text, &units).and_then(whole).ok_or_else(|| {
        format!("`{text}` is not a whole number of bytes from 1 to {MOST:e} such as 500000, 512KiB or 2MiB")
    })
}

/// A time in milliseconds; the unit must be there, since milliseconds and seconds are easily mixed up.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    /// A nanosecond, and an hour.
    const RANGE: RangeInclusive<f64> = 1e-6..=3.6e6;
    let value = with_unit(text, &[("us", 1e-3), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)]);
    value.filter(|ms| RANGE.contains(ms)).ok_or_else(|| {
        format!("`{text}` is not a time from a nanosecond to an hour with its unit, such as 8ms, 750us or 1.5s")
    })
}

/// A time as [`milliseconds`] reads it.
pub fn duration(text: &str) -> Result<Duration, String> {
    milliseconds(text).map(|ms| Duration::from_secs_f64(ms / 1e3))
}

/// An energy in millijoules; the unit must be there.
pub fn millijoules(text: &str) -> Result<f64, String> {
    /// A nanojoule, and a megajoule.
    const RANGE: RangeInclusive<f64> = 1e-6..=1e9;
    let value = with_unit(text, &[("uJ", 1e-3), ("µJ", 1e-3), ("mJ", 1.0), ("J", 1e3)]);
    value
        .filter(|mj| RANGE.contains(mj))
        .ok_or_else(|| format!("`{text}` is not an energy from 1 nJ to 1 MJ with its unit, such as 25mJ or 1.5J"))
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, scale) = units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let value = number.trim().parse::<f64>().ok()? * scale;
    value.is_finite().then_some(value)
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    with_unit(text, units).or_else(|| text.trim().parse::<f64>().ok())
}

/// A whole number; what units multiply may miss it by a rounding.
fn whole(value: f64) -> Option<u64> {
    let rounded = value.round();
    let is_whole = (value - rounded).abs() <= 2.0 * f64::EPSILON * rounded;
    (is_whole && (1.0..=MOST).contains(&rounded)).then_some(rounded as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_scale() {
        assert_eq!((count("12"), count("1.2k"), count("3M")), (Ok(12), Ok(1200), Ok(3_000_000)));
        // No f64 is 1.1, and the product is not whole.
        assert_eq!((count("1.1M"), count("4.35k"), count("0.29k")), (Ok(1_100_000), Ok(4350), Ok(290)));
        assert_eq!((bytes("2KiB"), bytes("3kB"), bytes("5B"), bytes("7")), (Ok(2048), Ok(3000), Ok(5), Ok(7)));
        assert_eq!((bytes("1G"), bytes("1.5 M"), bytes("1TiB")), (Ok(1 << 30), Ok(3 << 19), Ok(1 << 40)));
        assert_eq!(
            (milliseconds("8ms"), milliseconds("1.5s"), milliseconds("750 us")),
            (Ok(8.0), Ok(1500.0), Ok(0.75))
        );
        assert_eq!((millijoules("25mJ"), millijoules("2J")), (Ok(25.0), Ok(2000.0)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_an_example() {
        for text in ["", "0", "-1", "nan", "inf", "1e19", "k", "1x", "12 k M", "1.9", "0.4", "1e-3"] {
            assert!(count(text).is_err_and(|e| e.contains("12M")), "{text}");
            assert!(bytes(text).is_err_and(|e| e.contains("512KiB")), "{text}");
        }
        for text in ["8", "0ms", "-3ms", "ms", "nanms", "infs", "1h", "2e9s", "1e-400s", "1e-300ms"] {
            assert!(milliseconds(text).is_err_and(|e| e.contains("8ms")), "{text}");
            assert!(millijoules(&text.replace('s', "J")).is_err_and(|e| e.contains("25mJ")), "{text}");
        }
    }
}
