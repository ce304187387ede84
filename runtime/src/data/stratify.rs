//! Splits and subsets that keep the classes' shares.

use nasbn_models::sample;

use super::error::DataError;
use super::rng::{self, Purpose};

/// Indices of each class, each list in an order drawn from (`seed`, `purpose`, class).
pub(crate) fn shuffled_by_class(labels: &[u16], classes: usize, seed: u64, purpose: Purpose) -> Vec<Vec<usize>> {
    let mut lists = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        if let Some(list) = lists.get_mut(usize::from(label)) {
            list.push(index);
        }
    }
    for (class, list) in (0..).zip(&mut lists) {
        sample::shuffle(&mut rng::stream(seed, purpose, class, 0), list);
    }
    lists
}

/// Ascending indices of `held_back` images, each class giving its share.
///
/// Shares are rounded by largest remainders (lower class first on ties), so they sum to `held_back`,
/// except that a class always keeps at least one image on either side.
///
/// # Errors
/// [`DataError::SmallClass`] where a class has fewer than two images.
pub(crate) fn held_back(
    labels: &[u16],
    names: &[String],
    held_back: usize,
    seed: u64,
) -> Result<Vec<usize>, DataError> {
    let lists = shuffled_by_class(labels, names.len(), seed, Purpose::Split);
    if let Some((list, class)) = lists.iter().zip(names).find(|(list, _)| list.len() < 2) {
        return Err(DataError::SmallClass { class: class.clone(), found: list.len(), needed: 2 });
    }
    let (total, wanted) = (labels.len().max(1) as u128, held_back as u128);
    let share = |list: &Vec<usize>| list.len() as u128 * wanted;
    let mut takes: Vec<usize> = lists.iter().map(|list| (share(list) / total) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..lists.len()).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(share(&lists[class]) % total));
    let missing = held_back.saturating_sub(takes.iter().sum());
    for &class in by_remainder.iter().take(missing) {
        takes[class] += 1;
    }
    let mut chosen: Vec<usize> = Vec::with_capacity(held_back);
    for (list, take) in lists.iter().zip(takes) {
        chosen.extend(list.iter().take(take.clamp(1, list.len() - 1)));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

/// The first `count` images of a class-balanced order: every round takes one image of each class that
/// has one left, in an order of classes drawn anew; which image is drawn from `seed` too.
pub(crate) fn balanced(labels: &[u16], classes: usize, count: usize, seed: u64) -> Vec<usize> {
    let lists = shuffled_by_class(labels, classes, seed, Purpose::Subset);
    let count = count.min(labels.len());
    let mut chosen = Vec::with_capacity(count);
    let mut order: Vec<usize> = (0..classes).collect();
    for round in 0..labels.len() as u64 {
        if chosen.len() >= count {
            break;
        }
        sample::shuffle(&mut rng::stream(seed, Purpose::Subset, u64::MAX, round), &mut order);
        let left = count - chosen.len();
        chosen.extend(order.iter().filter_map(|&class| lists[class].get(round as usize)).take(left));
    }
    chosen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(counts: &[usize]) -> Vec<u16> {
        (0..).zip(counts).flat_map(|(label, &count)| std::iter::repeat_n(label, count)).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("class{i}")).collect()
    }

    fn counts(labels: &[u16], chosen: &[usize], classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        chosen.iter().for_each(|&index| counts[usize::from(labels[index])] += 1);
        counts
    }

    #[test]
    fn every_class_gives_its_share() {
        let labels = labels(&[50, 30, 20]);
        let chosen = held_back(&labels, &names(3), 10, 0).unwrap();
        assert_eq!(counts(&labels, &chosen, 3), [5, 3, 2]);
        assert!(chosen.is_sorted());
        assert_eq!(chosen, held_back(&labels, &names(3), 10, 0).unwrap());
        assert_ne!(chosen, held_back(&labels, &names(3), 10, 1).unwrap());
        // 11 of 100: remainders .5, .3, .2, so the first class gives one more.
        assert_eq!(counts(&labels, &held_back(&labels, &names(3), 11, 0).unwrap(), 3), [6, 3, 2]);
    }

    #[test]
    fn both_sides_keep_every_class() {
        let labels = labels(&[2, 100]);
        assert_eq!(counts(&labels, &held_back(&labels, &names(2), 1, 0).unwrap(), 2), [1, 1]);
        assert_eq!(counts(&labels, &held_back(&labels, &names(2), 102, 0).unwrap(), 2), [1, 99]);
    }

    #[test]
    fn a_class_of_one_cannot_be_split() {
        let error = held_back(&labels(&[5, 1]), &names(2), 2, 0).unwrap_err();
        assert!(error.to_string().contains("'class1' has 1"), "{error}");
    }

    #[test]
    fn subsets_are_balanced_and_never_repeat() {
        let labels = labels(&[10, 10, 3]);
        let chosen = balanced(&labels, 3, 7, 5);
        let mut by_class = counts(&labels, &chosen, 3);
        by_class.sort_unstable();
        assert_eq!(by_class, [2, 2, 3]);
        let mut all = balanced(&labels, 3, 99, 5);
        assert_eq!(&all[..7], chosen);
        all.sort_unstable();
        assert_eq!(all, (0..23).collect::<Vec<_>>());
    }
}
