//! Which columns are better when they are lower.

/// Columns of `nasbn score`, and usual columns of truth, that are better when lower. All others, costs and
/// depth among them, count as better when higher: as predictors, that is what their baselines say.
const LOWER_IS_BETTER: [&str; 3] = ["validation_loss", "loss", "latency_ms"];

/// Whether lower values of the column are better, as far as its name tells.
pub fn lower_is_better(column: &str) -> bool {
    LOWER_IS_BETTER.contains(&column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_better_when_lower_and_costs_are_not() {
        assert!(lower_is_better("validation_loss"));
        assert!(["macs", "depth", "validation_accuracy", "composite"].iter().all(|c| !lower_is_better(c)));
    }
}
