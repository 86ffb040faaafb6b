//! Counts as numbers, percentiles, and the Mann-Whitney test of whether two sets of times can be told apart.

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
#[must_use]
pub fn number(count: usize) -> f64 {
    count as f64
}

/// `part` of `whole` in percent; 0 when `whole` is 0.
#[must_use]
pub fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * number(part) / number(whole) }
}

/// The number as a count: rounded, and 0 when negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and negative counts are zero")]
#[must_use]
pub fn count(number: f64) -> usize {
    number.max(0.0).round() as usize
}

/// The nearest-rank percentile: the smallest value that `share` (0 to 1) of all values do not exceed; NaN when there is none.
#[must_use]
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = count((share * number(values.len())).ceil()).clamp(1, values.len().max(1));
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The area under the ROC curve: how well one value tells which of two sets it is from.
#[derive(Debug, Clone, Copy)]
pub struct Auc {
    /// The chance that a value of the second set is larger than one of the first: 0.5 tells nothing.
    pub value: f64,
    /// The standard error under the hypothesis that the sets do not differ, with ties taken into account.
    pub standard_error: f64,
}

/// Computes the area under the ROC curve from the Mann-Whitney U of both sets; ties count half.
#[must_use]
pub fn auc(first: &[f64], second: &[f64]) -> Auc {
    let mut all: Vec<(f64, bool)> =
        first.iter().map(|value| (*value, false)).chain(second.iter().map(|value| (*value, true))).collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (n1, n2, n) = (number(first.len()), number(second.len()), number(all.len()));
    let (mut before, mut rank_sum, mut ties) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let size = number(tied.len());
        // All of a tie share the middle of its ranks.
        rank_sum += (before + f64::midpoint(size, 1.0)) * number(tied.iter().filter(|value| value.1).count());
        ties += size * size * size - size;
        before += size;
    }
    let value = (rank_sum - n2 * (n2 + 1.0) / 2.0) / (n1 * n2);
    let variance = (n + 1.0 - ties / (n * (n - 1.0))) / (12.0 * n1 * n2);
    Auc { value, standard_error: variance.max(0.0).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!(near(percentile(&mut values, 0.5), 50.0));
        assert!(near(percentile(&mut values, 0.99), 99.0));
        assert!(near(percentile(&mut values, 0.999), 100.0));
        assert!(near(percentile(&mut values, 1.0), 100.0));
        assert!(near(percentile(&mut values, 0.0), 1.0));
        assert!(near(percentile(&mut [7.0], 0.99), 7.0));
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn sets_that_do_not_overlap_are_told_apart_with_certainty() {
        assert!(near(auc(&[1.0, 2.0, 3.0], &[4.0, 5.0]).value, 1.0));
        assert!(near(auc(&[4.0, 5.0], &[1.0, 2.0, 3.0]).value, 0.0));
    }

    #[test]
    fn equal_sets_tell_nothing_and_ties_count_half() {
        assert!(near(auc(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]).value, 0.5));
        let same = auc(&[1.0, 1.0], &[1.0, 1.0, 1.0]);
        assert!(near(same.value, 0.5) && near(same.standard_error, 0.0));
        // Of the six pairs, four are larger and one is tied.
        assert!(near(auc(&[1.0, 3.0], &[2.0, 3.0, 4.0]).value, 4.5 / 6.0));
    }

    #[test]
    fn the_standard_error_is_the_textbooks() {
        let first: Vec<f64> = (0..100).map(|i| f64::from(2 * i)).collect();
        let second: Vec<f64> = (0..50).map(|i| f64::from(2 * i + 51)).collect();
        assert!(near(auc(&first, &second).standard_error, (151.0_f64 / (12.0 * 100.0 * 50.0)).sqrt()));
    }
}
