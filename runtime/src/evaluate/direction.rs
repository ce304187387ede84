//! Which columns are better when they are lower.

use crate::indicators::catalogue::{self, Direction};

/// Usual columns of truth that are better when lower.
const LOWER_IS_BETTER: [&str; 2] = ["loss", "latency_ms"];

/// Whether lower values of the column are better: of `nasbn score`'s columns, as their catalogue says; of others, as far
/// as the name tells. Costs and depth count as better when higher: as predictors, that is what their baselines say.
pub fn lower_is_better(column: &str) -> bool {
    match catalogue::find(column) {
        Some(indicator) => indicator.direction == Direction::Lower,
        None => LOWER_IS_BETTER.contains(&column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_better_when_lower_and_costs_are_not() {
        assert!(["validation_loss", "loss", "ntk_condition", "mc_nll"].iter().all(|c| lower_is_better(c)));
        assert!(["macs", "depth", "validation_accuracy", "composite"].iter().all(|c| !lower_is_better(c)));
    }
}
