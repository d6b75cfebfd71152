//! Exact decimal numbers, as meters write them: `1234.567`, `1.5e3`. Knows no unit.

use std::fmt::Display;

/// An exact decimal number: `mantissa / 10^decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Whether it is below zero.
    pub negative: bool,
    mantissa: u128,
    decimals: u32,
}

impl Decimal {
    /// Reads a JSON number. `None`: larger or finer than any that a meter gives.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, number) = number.strip_prefix('-').map_or((false, number), |number| (true, number));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() || whole.len() + fraction.len() > 30 || !(-30..=30).contains(&exponent) {
            return None;
        }
        let mut mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
        let decimals = fraction.len() as i32 - exponent;
        if decimals < 0 {
            mantissa = mantissa.checked_mul(10u128.checked_pow(decimals.unsigned_abs())?)?;
        }
        let decimals = u32::try_from(decimals.max(0)).ok().filter(|decimals| *decimals <= 30)?;
        Some(Self { negative: negative && mantissa > 0, mantissa, decimals })
    }

    /// The product with `factor`, rounded down. `None`: negative, or too large.
    pub fn times(self, factor: u64) -> Option<u64> {
        if self.negative {
            return None;
        }
        let product = self.mantissa.checked_mul(u128::from(factor))?;
        u64::try_from(product / 10u128.checked_pow(self.decimals)?).ok()
    }

    /// The smallest step that numbers of this precision can show, times `factor`: one of its last digit, or where it
    /// is a single-precision float written in full, the distance to the next float.
    pub fn step(self, factor: u64) -> u64 {
        let digit = (u128::from(factor) / 10u128.pow(self.decimals)).max(1) as u64;
        let value = self.mantissa as f64 / 10f64.powi(self.decimals as i32);
        let single = value as f32;
        // A single-precision float has 7 significant digits. A number with more of them that equals one was converted
        // from one.
        if self.mantissa > 99_999_999 && self.decimals > 0 && (f64::from(single) - value).abs() <= value * 1e-15 {
            let ulp = f64::from(single.next_up()) - f64::from(single);
            return digit.max((ulp * factor as f64) as u64);
        }
        digit
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.mantissa as f64 / 10f64.powi(self.decimals as i32);
        write!(f, "{}{value}", if self.negative { "-" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KWH: u64 = 3_600_000_000_000;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(decimal("1234.567").times(KWH), Some(4_444_441_200_000_000));
        assert_eq!(decimal("0.1").times(1_000_000), Some(100_000));
        assert_eq!(decimal("1.5e3").times(1), Some(1500));
        assert_eq!(decimal("15e-1").times(10), Some(15));
        assert_eq!((decimal("-0.0").times(1), decimal("-0.1").times(1)), (Some(0), None));
        assert_eq!(decimal("18446744073709551616").times(1), None);
        for bad in ["", "-", ".", "NaN", "1e99", "1e", "1.0.0", "99999999999999999999999999999999"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_counter_is_as_fine_as_it_is_written() {
        assert_eq!(decimal("1234.567").step(KWH), 3_600_000_000);
        assert_eq!(decimal("123456").step(1_000_000), 1_000_000);
        assert_eq!(decimal("123456.5").step(1_000_000), 100_000);
        // 1234.56 from a BMC that keeps a float: its next number is 0.00012 kWh higher.
        let float = decimal(&f64::from(1234.56f32).to_string()).step(KWH);
        assert!((430_000_000..450_000_000).contains(&float), "{float}");
    }

    proptest! {
        #[test]
        fn any_json_number_is_read_or_refused(value: f64) {
            if let Some(number) = serde_json::Number::from_f64(value) {
                let _ = Decimal::parse(&number.to_string()).map(|decimal| (decimal.times(KWH), decimal.step(KWH)));
            }
        }

        #[test]
        fn thousandths_come_back(value in 0u64..10_000_000_000) {
            let float = value as f64 / 1000.0;
            let number = serde_json::Number::from_f64(float).unwrap();
            prop_assert_eq!(Decimal::parse(&number.to_string()).unwrap().times(1000), Some(value));
        }
    }
}
