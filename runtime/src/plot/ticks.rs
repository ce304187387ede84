//! Round numbers for axes.

/// Largest number that is drawn; what is beyond is drawn there.
const LARGEST: f64 = 1e300;

/// Least and greatest of the finite values, (0, 1) if there are none.
pub fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values = values.filter(|v| v.is_finite()).map(|v| v.clamp(-LARGEST, LARGEST));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// The range with some air at both ends; a range of one value gets some width.
pub fn padded((low, high): (f64, f64)) -> (f64, f64) {
    const AIR: f64 = 0.04;
    let span = high - low;
    let air = if span > low.abs().max(high.abs()) * 1e-12 { AIR * span } else { (0.05 * low.abs()).max(0.5) };
    (low - air, high + air)
}

/// About `wanted` round numbers (1, 2 or 5 times a power of ten apart) within a range
/// (Heckbert, "Nice numbers for graph labels", 1990).
pub fn ticks((low, high): (f64, f64), wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let factor = match rough / power {
        x if x < 1.5 => 1.0,
        x if x < 3.0 => 2.0,
        x if x < 7.0 => 5.0,
        _ => 10.0,
    };
    let step = factor * power;
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let count = (last - first).clamp(-1.0, 4.0 * wanted as f64 + 4.0) as i64;
    (0..=count).map(|i| (first + i as f64) * step).collect()
}

/// The ticks as text: as many decimals as tell them apart, thousands as k, M, G.
pub fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let largest = ticks.iter().fold(0.0_f64, |most, t| most.max(t.abs()));
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let step = if step.is_finite() && step > 0.0 { step } else { largest.max(1.0) };
    let (scale, unit) = match largest {
        x if !(1e-4..1e15).contains(&x) && x != 0.0 => {
            return ticks.iter().map(|t| if *t == 0.0 { "0".into() } else { format!("{t:.2e}") }).collect();
        }
        x if x >= 1e12 => (1e12, "T"),
        x if x >= 1e9 => (1e9, "G"),
        x if x >= 1e6 => (1e6, "M"),
        x if x >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let decimals = (-(step / scale).log10() - 1e-6).ceil().clamp(0.0, 12.0) as usize;
    let label = |t: &f64| {
        let t = t / scale + 0.0;
        if t == 0.0 { "0".to_owned() } else { format!("{t:.decimals$}{unit}") }
    };
    ticks.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let labels = |low, high| tick_labels(&ticks((low, high), 5)).join(" ");
        assert_eq!(labels(43.0, 95.0), "50 60 70 80 90");
        assert_eq!(labels(-0.31, 0.72), "-0.2 0 0.2 0.4 0.6");
        assert_eq!(labels(7.7e6, 105.7e6), "20M 40M 60M 80M 100M");
        assert_eq!(labels(0.0, 1.0), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(tick_labels(&ticks((0.0, 0.73), 6)).join(" "), "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7");
        assert_eq!(labels(2000.0, 6000.0), "2000 3000 4000 5000 6000");
        assert_eq!(labels(1e-7, 5e-7), "1.00e-7 2.00e-7 3.00e-7 4.00e-7 5.00e-7");
    }

    #[test]
    fn no_range_is_too_strange() {
        for range in [(0.0, 0.0), (5.0, 5.0), (-1e300, 1e300), (1e-320, 2e-320), (1e15, 1e15 + 1.0)] {
            let (low, high) = padded(range);
            assert!(low < high || range.0 != range.1, "{range:?}");
            let ticks = ticks((low, high), 6);
            assert!(ticks.len() <= 30 && ticks.iter().all(|t| t.is_finite()), "{range:?}: {ticks:?}");
            assert_eq!(tick_labels(&ticks).len(), ticks.len());
        }
        assert_eq!(extent([f64::NAN, 2.0, f64::INFINITY, -1.0].into_iter()), (-1.0, 2.0));
        assert_eq!(extent([f64::NAN].into_iter()), (0.0, 1.0));
        assert!(ticks((0.0, f64::NAN), 5).is_empty());
    }
}
