//! Numbers with units, as arguments have them.

use std::time::Duration;

/// A number with an optional k, M or G.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)])
        .and_then(whole)
        .ok_or_else(|| format!("`{text}` is not a count above 0 such as 12000000, 12M or 1.2G"))
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
    scaled(text, &units)
        .and_then(whole)
        .ok_or_else(|| format!("`{text}` is not a size above 0 such as 500000, 512KiB or 2MiB"))
}

/// A time in milliseconds; the unit must be there, since milliseconds and seconds are easily mixed up.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    /// An hour.
    const MOST: f64 = 3.6e6;
    let value = with_unit(text, &[("us", 1e-3), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)]);
    value.filter(|&ms| ms > 0.0 && ms <= MOST).ok_or_else(|| {
        format!("`{text}` is not a time above 0 and up to an hour with its unit, such as 8ms, 750us or 1.5s")
    })
}

/// A time as [`milliseconds`] reads it.
pub fn duration(text: &str) -> Result<Duration, String> {
    milliseconds(text).map(|ms| Duration::from_secs_f64(ms / 1e3))
}

/// An energy in millijoules; the unit must be there.
pub fn millijoules(text: &str) -> Result<f64, String> {
    let value = with_unit(text, &[("uJ", 1e-3), ("µJ", 1e-3), ("mJ", 1.0), ("J", 1e3)]);
    value
        .filter(|&mj| mj > 0.0 && mj < 1e9)
        .ok_or_else(|| format!("`{text}` is not an energy above 0 with its unit, such as 25mJ or 1.5J"))
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, scale) = units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let value = number.trim().parse::<f64>().ok()? * scale;
    value.is_finite().then_some(value)
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    with_unit(text, units).or_else(|| text.trim().parse::<f64>().ok())
}

fn whole(value: f64) -> Option<u64> {
    (1.0..1e18).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_scale() {
        assert_eq!((count("12"), count("1.2k"), count("3M")), (Ok(12), Ok(1200), Ok(3_000_000)));
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
        for text in ["", "0", "-1", "nan", "inf", "1e19", "k", "1x", "12 k M"] {
            assert!(count(text).is_err_and(|e| e.contains("12M")), "{text}");
            assert!(bytes(text).is_err_and(|e| e.contains("512KiB")), "{text}");
        }
        for text in ["8", "0ms", "-3ms", "ms", "nanms", "infs", "1h", "2e9s", "1e-400s"] {
            assert!(milliseconds(text).is_err_and(|e| e.contains("8ms")), "{text}");
            assert!(millijoules(&text.replace('s', "J")).is_err_and(|e| e.contains("25mJ")), "{text}");
        }
    }
}
