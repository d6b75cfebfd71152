//! Rounding that keeps sums: numbers of a column are rounded to a digit so that they still add up to the last one, the
//! node's. Integers throughout.

/// An integer with so many decimals.
pub fn decimal(value: i64, decimals: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let one = 10_u64.pow(u32::try_from(decimals).unwrap_or_default());
    format!("{sign}{}.{:0decimals$}", value.unsigned_abs() / one, value.unsigned_abs() % one)
}

/// A factor in millionths.
pub fn millionths(factor: f64) -> i64 {
    (factor * 1e6).round() as i64
}

/// Values times `by` in millionths, divided by `unit`: all but the last one, the node's, add up to it as they did
/// before. The node's is rounded to the nearest.
pub fn apportioned(values: &[i64], by: i64, unit: i64) -> Vec<i64> {
    let divisor = i128::from(unit) * 1_000_000;
    let scaled: Vec<i128> = values.iter().map(|value| i128::from(*value) * i128::from(by)).collect();
    let Some((node, entries)) = scaled.split_last() else { return Vec::new() };
    let whole = narrow((node + divisor / 2).div_euclid(divisor));
    let mut digits = spread_scaled(entries, divisor, (entries.iter().sum::<i128>() == *node).then_some(whole));
    digits.push(whole);
    digits
}

/// Values divided by `unit`, so that they add up to `whole`, which is their sum divided by `unit` and rounded up or
/// down.
pub fn spread(values: &[i64], unit: i64, whole: i64) -> Vec<i64> {
    let values: Vec<i128> = values.iter().map(|value| i128::from(*value)).collect();
    spread_scaled(&values, i128::from(unit), Some(whole))
}

/// What rounding down leaves of `whole` goes to the values that lost the most by it. Without a whole, each value is
/// rounded to the nearest.
fn spread_scaled(values: &[i128], divisor: i128, whole: Option<i64>) -> Vec<i64> {
    let Some(whole) = whole else {
        return values.iter().map(|value| narrow((value + divisor / 2).div_euclid(divisor))).collect();
    };
    let mut digits: Vec<i64> = values.iter().map(|value| narrow(value.div_euclid(divisor))).collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(values[*at].rem_euclid(divisor)));
    let missing = whole.saturating_sub(digits.iter().sum::<i64>());
    for at in order.into_iter().take(usize::try_from(missing).unwrap_or_default()) {
        digits[at] += 1;
    }
    digits
}

fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apportioning_keeps_sums() {
        assert_eq!(apportioned(&[1, 1, 1, 3], 1_300_000, 1), [2, 1, 1, 4]);
        assert_eq!(apportioned(&[-5, 6, 1], 1_500_000, 1), [-7, 9, 2]);
        assert_eq!(apportioned(&[], 1, 1), [0; 0]);
        assert_eq!((decimal(-5, 3), decimal(1_234_567, 6)), ("-0.005".into(), "1.234567".into()));
    }

    #[test]
    fn a_sum_may_be_rounded_up_or_down() {
        assert_eq!(spread(&[14, 14, 12], 10, 4), [2, 1, 1]);
        assert_eq!((spread(&[14, 13], 10, 2), spread(&[14, 13], 10, 3)), (vec![1, 1], vec![2, 1]));
        assert_eq!((spread(&[-14, 13], 10, -1), spread(&[-14, 13], 10, 0)), (vec![-2, 1], vec![-1, 1]));
        assert_eq!((spread(&[20, 10], 10, 3), spread(&[], 10, 0)), (vec![2, 1], vec![]));
    }
}
