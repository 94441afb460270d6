//! Amounts of CPU and memory (Kubernetes API, "Quantity").

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

/// An amount, as Kubernetes writes it: `100m`, `128Mi`, `1.5`, `2e3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: u128,
}

impl Quantity {
    /// One.
    pub const ONE: Self = Self { milli: 1000 };

    /// Reads an amount that is not negative and less than 2^63.
    pub fn parse(text: &str) -> Option<Self> {
        let number_end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.len() > 9 {
            return None;
        }
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        // Up, as Kubernetes rounds what is smaller than its unit.
        let milli = digits.checked_mul(milli_per(suffix)?)?.div_ceil(scale);
        let most = u128::from(u64::MAX >> 1).checked_mul(1000)?;
        (milli <= most).then_some(Self { milli })
    }

    /// In thousandths, rounded up.
    pub fn milli(self) -> i64 {
        i64::try_from(self.milli).unwrap_or(i64::MAX)
    }

    /// In units, rounded up.
    pub fn units(self) -> i64 {
        i64::try_from(self.milli.div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// How often the divisor fits, rounded up; a divisor of zero counts as one.
    pub fn divided_by(self, divisor: Self) -> u128 {
        self.milli.div_ceil(divisor.milli.max(1))
    }
}

/// Thousandths in one unit of a suffix (Kubernetes API, "Quantity").
fn milli_per(suffix: &str) -> Option<u128> {
    let ten = |power: u32| 10_u128.checked_pow(power);
    let two = |power: u32| 1_u128.checked_shl(power).map(|n| n * 1000);
    match suffix {
        "m" => Some(1),
        "" => ten(3),
        "k" => ten(6),
        "M" => ten(9),
        "G" => ten(12),
        "T" => ten(15),
        "P" => ten(18),
        "E" => ten(21),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            ten(exponent.parse::<u32>().ok().filter(|e| *e <= 18)? + 3)
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 500m, 2 or 128Mi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        Quantity::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases: [(&str, Option<(i64, i64)>); 17] = [
            ("1", Some((1000, 1))),
            ("100m", Some((100, 1))),
            ("1.5", Some((1500, 2))),
            (".5", Some((500, 1))),
            ("0", Some((0, 0))),
            ("0.0001", Some((1, 1))),
            ("2k", Some((2_000_000, 2000))),
            ("128Mi", Some((134_217_728_000, 134_217_728))),
            ("1.5Gi", Some((1_610_612_736_000, 1_610_612_736))),
            ("2e3", Some((2_000_000, 2000))),
            ("1E", Some((i64::MAX, 1_000_000_000_000_000_000))),
            ("8Ei", None),
            ("-1", None),
            ("", None),
            ("Mi", None),
            ("1 Mi", None),
            ("1Kb", None),
        ];
        for (text, expected) in cases {
            let read = Quantity::parse(text).map(|q| (q.milli(), q.units()));
            assert_eq!(read, expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_round_trip(number in 0_u64..=u64::MAX >> 1) {
            let units = Quantity::parse(&number.to_string()).map(Quantity::units);
            proptest::prop_assert_eq!(units, i64::try_from(number).ok());
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Quantity::parse(&text);
        }
    }
}
