//! Networks of about the same cost, or of the same depth.

/// Groups smaller than this have no correlation worth a mean.
pub const MIN_GROUP: usize = 10;

/// Bands of multiply-accumulates: deciles.
pub const MAC_BANDS: usize = 10;

/// A group of networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Least value of what was grouped by.
    pub min: f64,
    /// Greatest value of what was grouped by.
    pub max: f64,
    /// Indices of the networks.
    pub members: Vec<usize>,
}

/// A group for every value, in order.
pub fn by_value(values: &[f64]) -> Vec<Group> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let equal = order.chunk_by(|&a, &b| values[a] == values[b]);
    equal.map(|members| Group { min: values[members[0]], max: values[members[0]], members: members.to_vec() }).collect()
}

/// `bands` bands of about as many networks each, in order of their values. Equal values are in one band: that of
/// the first of them in order; so bands may be missing.
pub fn by_quantile(values: &[f64], bands: usize) -> Vec<Group> {
    let n = values.len().max(1);
    let mut groups: Vec<(usize, Group)> = Vec::new();
    let mut before = 0;
    for equal in by_value(values) {
        let band = before * bands / n;
        before += equal.members.len();
        match groups.last_mut() {
            Some((last, group)) if *last == band => {
                group.max = equal.max;
                group.members.extend(equal.members);
            }
            _ => groups.push((band, equal)),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deciles_have_a_tenth_each() {
        let values: Vec<f64> = (0..95).map(|i| f64::from(i * 37 % 95)).collect();
        let groups = by_quantile(&values, MAC_BANDS);
        assert_eq!(groups.len(), MAC_BANDS);
        assert!(groups.iter().all(|g| (9..=10).contains(&g.members.len())));
        assert!(groups.windows(2).all(|pair| pair[0].max < pair[1].min));
        let mut all: Vec<usize> = groups.into_iter().flat_map(|g| g.members).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..95));
    }

    #[test]
    fn equal_values_are_never_parted() {
        let groups = by_quantile(&[2.0, 1.0, 2.0, 2.0, 2.0, 3.0], 3);
        let members: Vec<_> = groups.iter().map(|g| g.members.clone()).collect();
        assert_eq!(members, [vec![1, 0, 2, 3, 4], vec![5]]);
        assert_eq!((groups[0].min, groups[0].max), (1.0, 2.0));
        assert_eq!(
            by_value(&[2.0, 1.0, 2.0]).into_iter().map(|g| g.members).collect::<Vec<_>>(),
            [vec![1], vec![0, 2]]
        );
        assert!(by_value(&[]).is_empty() && by_quantile(&[], 10).is_empty());
    }
}
