//! Quantities as Kubernetes writes them: `500m`, `1.5Gi`, `2e3`.
//!
//! The accepted texts are exactly those of the API server's own parser, oddities included, so that what passes here
//! never fails when a pod or a claim is created from it. One thing is stricter: a magnitude above 2^63-1 is refused
//! here, where the API server cuts it (`8Ei`) or prints it wrongly (`1000E` comes back as `1`).

use std::{cmp::Ordering, fmt, str::FromStr};

/// Largest magnitude: 2^63-1, in billionths.
const MOST_NANOS: i128 = i64::MAX as i128 * NANOS;
/// Billionths in one.
const NANOS: i128 = 1_000_000_000;
/// Decimal digits of [`MOST_NANOS`].
const MOST_DIGITS: i64 = 28;
/// Longest text, in bytes; no sensible quantity comes near it.
const MOST_BYTES: usize = 256;

/// Suffixes of powers of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Suffixes of powers of 1024.
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// An amount with a precision of one billionth and a magnitude of at most 2^63-1.
///
/// Two quantities are equal when their amounts are: `1024` equals `1Ki`. [`fmt::Display`] prints the canonical form:
/// no fraction, the largest suffix of the family it was written in that loses nothing.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// The family of suffixes that a quantity was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `n` to `E`, or none.
    Decimal,
    /// `Ki` to `Ei`.
    Binary,
    /// `e3` or `E3`.
    Exponent,
}

/// A text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing, or something else than a sign, digits with at most one point, and a suffix.
    #[error("not a quantity: write a number with an optional suffix, such as 500m, 2 or 1.5Gi")]
    Malformed,
    /// A suffix that means nothing.
    #[error("no suffix of quantities: use one of n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3")]
    Suffix,
    /// Longer than any quantity has to be.
    #[error("longer than {MOST_BYTES} bytes")]
    TooLong,
    /// A magnitude above 2^63-1, or an exponent without bound.
    #[error("out of range: at most 2^63-1 in magnitude")]
    OutOfRange,
}

impl Quantity {
    /// Whether it is exactly nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it has no fraction.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The amount in billionths.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// Mantissa and suffix of the canonical form.
    fn canonical(self) -> (i128, Suffix) {
        if self.nanos == 0 {
            return (0, Suffix::None);
        }
        match self.family {
            Family::Binary if self.is_whole() && self.nanos.abs() >= 1024 * NANOS => {
                let (mut mantissa, mut thousands) = (self.nanos / NANOS, 0);
                while mantissa % 1024 == 0 && thousands < BINARY.len() {
                    mantissa /= 1024;
                    thousands += 1;
                }
                let suffix = thousands.checked_sub(1).and_then(|n| BINARY.get(n));
                (mantissa, suffix.map_or(Suffix::None, |(name, _)| Suffix::Name(name)))
            }
            // A small or fractional amount of a binary suffix is printed as a decimal one, because nothing may be lost.
            Family::Binary | Family::Decimal => {
                let (mantissa, exponent) = self.thousands();
                let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent);
                (mantissa, suffix.map_or(Suffix::None, |(name, _)| Suffix::Name(name)))
            }
            Family::Exponent => match self.thousands() {
                (mantissa, 0) => (mantissa, Suffix::None),
                (mantissa, exponent) => (mantissa, Suffix::Exponent(exponent)),
            },
        }
    }

    /// The amount as a whole number of the largest power of a thousand.
    fn thousands(self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        (mantissa, exponent)
    }
}

/// What stands behind the mantissa.
enum Suffix {
    None,
    Name(&'static str),
    Exponent(i32),
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mantissa, suffix) = self.canonical();
        match suffix {
            Suffix::None => write!(f, "{mantissa}"),
            Suffix::Name(name) => write!(f, "{mantissa}{name}"),
            Suffix::Exponent(exponent) => write!(f, "{mantissa}e{exponent}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    /// Reads a quantity. What is finer than one billionth is rounded away from zero: who asks for a little gets some.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Malformed);
        }
        if text.len() > MOST_BYTES {
            return Err(QuantityError::TooLong);
        }
        let parts = Parts::of(text)?;
        let (scale, family) = suffix(parts.suffix)?;
        let digits = || parts.whole.bytes().chain(parts.fraction.bytes()).map(|digit| u64::from(digit - b'0'));
        if parts.whole.is_empty() && parts.fraction.is_empty() {
            // A number without any digit is nothing to the API server's quick path and an error to its slow one.
            let quick = match scale {
                Scale::Ten(exponent) => exponent >= -9,
                Scale::Two(power) => power <= 40,
            };
            return if quick { Ok(Self { nanos: 0, family }) } else { Err(QuantityError::Malformed) };
        }
        if digits().all(|digit| digit == 0) {
            return Ok(Self { nanos: 0, family });
        }
        let places = i64::try_from(parts.fraction.len()).map_err(|_| QuantityError::TooLong)?;
        let (digits, exponent): (Vec<u64>, i64) = match scale {
            Scale::Ten(exponent) => (digits().collect(), i64::from(exponent) - places),
            Scale::Two(power) => (times(digits(), 1 << power), -places),
        };
        let magnitude = nanos(&digits, exponent)?;
        Ok(Self { nanos: if parts.negative { -magnitude } else { magnitude }, family })
    }
}

/// A text cut into its parts; the suffix is not read yet.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, QuantityError> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split(unsigned, |c| c.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, |c| c.is_ascii_digit()),
            None => ("", rest),
        };
        let (_, exponent) = split(suffix, |c| "eEinumkKMGTP".contains(c));
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if !exponent.chars().all(|c| c.is_ascii_digit()) {
            return Err(QuantityError::Malformed);
        }
        Ok(Self { negative, whole, fraction, suffix })
    }
}

/// The longest start of which every character `belongs`, and the rest.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// What a suffix multiplies by.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// This power of ten.
    Ten(i32),
    /// This power of two.
    Two(u32),
}

fn suffix(text: &str) -> Result<(Scale, Family), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == text) {
        return Ok((Scale::Ten(*power), Family::Decimal));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == text) {
        return Ok((Scale::Two(*power), Family::Binary));
    }
    let exponent = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(QuantityError::Suffix);
    }
    let exponent = exponent.parse().map_err(|_| QuantityError::OutOfRange)?;
    Ok((Scale::Ten(exponent), Family::Exponent))
}

/// The decimal digits of a product.
fn times(digits: impl DoubleEndedIterator<Item = u64>, factor: u64) -> Vec<u64> {
    let mut product = Vec::new();
    let mut carry = 0_u128;
    for digit in digits.rev() {
        carry += u128::from(digit) * u128::from(factor);
        product.push(last_digit(carry));
        carry /= 10;
    }
    while carry > 0 {
        product.push(last_digit(carry));
        carry /= 10;
    }
    product.reverse();
    product
}

fn last_digit(number: u128) -> u64 {
    (number % 10) as u64
}

/// The billionths in `digits` times ten to the `exponent`, rounded up.
fn nanos(digits: &[u64], exponent: i64) -> Result<i128, QuantityError> {
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = digits.get(leading..).unwrap_or_default();
    let length = i64::try_from(digits.len()).map_err(|_| QuantityError::TooLong)?;
    let exponent = exponent + 9;
    if length + exponent > MOST_DIGITS {
        return Err(QuantityError::OutOfRange);
    }
    let kept = usize::try_from(length + exponent.min(0)).unwrap_or(0);
    let (kept, lost) = digits.split_at(kept);
    let mut amount = kept.iter().fold(0_i128, |amount, digit| amount * 10 + i128::from(*digit));
    if lost.iter().any(|digit| *digit != 0) {
        amount += 1;
    }
    for _ in 0..exponent {
        amount *= 10;
    }
    if amount > MOST_NANOS { Err(QuantityError::OutOfRange) } else { Ok(amount) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn the_canonical_form_is_that_of_kubernetes() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.0Gi", "0"),
            ("0e400", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("1000k", "1M"),
            ("12e2", "1200"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("1e-1", "100e-3"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.1Mi", "1153433600m"),
            ("+5", "5"),
            ("-5.50", "-5500m"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1e-300", "1e-9"),
            ("1.G", "1G"),
            (".5", "500m"),
            ("007", "7"),
            ("9223372036854775807", "9223372036854775807"),
            ("7Ei", "7Ei"),
            ("9E", "9E"),
            // As odd as this is, it is what the API server does.
            (".", "0"),
            ("-", "0"),
            ("Ki", "0"),
            ("m", "0"),
            ("e-9", "0"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        let long = "0".repeat(MOST_BYTES + 1);
        for (text, error) in [
            ("", QuantityError::Malformed),
            (" 1", QuantityError::Malformed),
            ("1 ", QuantityError::Malformed),
            ("1 Gi", QuantityError::Malformed),
            ("1..5", QuantityError::Malformed),
            ("1,5", QuantityError::Malformed),
            ("--1", QuantityError::Suffix),
            ("ten", QuantityError::Malformed),
            ("1e1.5", QuantityError::Malformed),
            ("Ei", QuantityError::Malformed),
            ("e-10", QuantityError::Malformed),
            ("１", QuantityError::Malformed),
            ("1K", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
            ("1mi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e+", QuantityError::Suffix),
            ("1GiB", QuantityError::Malformed),
            ("1Gi5", QuantityError::Suffix),
            ("8Ei", QuantityError::OutOfRange),
            ("1000E", QuantityError::OutOfRange),
            ("-1e19", QuantityError::OutOfRange),
            ("9223372036854775808", QuantityError::OutOfRange),
            ("1e99999999999999999999", QuantityError::OutOfRange),
            (&long, QuantityError::TooLong),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn spellings_of_one_amount_are_equal() {
        assert_eq!(quantity("1Ki"), quantity("1024"));
        assert_eq!(quantity("1"), quantity("1000m"));
        assert!(quantity("1k") < quantity("1Ki"));
        assert!(quantity("-1") < quantity("0"));
        assert!(quantity("1.5").is_negative() == quantity("1.5").is_whole());
    }

    /// A text of every family, within range.
    fn text() -> impl Strategy<Value = String> {
        let suffix = prop_oneof![
            prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti"])
                .prop_map(str::to_owned),
            (-20_i32..6).prop_map(|exponent| format!("e{exponent}")),
        ];
        ("[+-]?", "[0-9]{1,3}", "(\\.[0-9]{0,12})?", suffix)
            .prop_map(|(sign, whole, fraction, suffix)| format!("{sign}{whole}{fraction}{suffix}"))
    }

    proptest! {
        #[test]
        fn the_canonical_form_means_the_same_and_stays(text in text()) {
            let read = quantity(&text);
            let canonical = read.to_string();
            let again = quantity(&canonical);
            prop_assert_eq!(read, again);
            prop_assert_eq!(again.to_string(), canonical.clone());
            prop_assert!(!canonical.contains(['.', '+']), "{}", canonical);
        }

        #[test]
        fn whole_numbers_are_ordered_as_numbers(a in any::<i64>(), b in any::<i64>()) {
            prop_assume!(a != i64::MIN && b != i64::MIN);
            let (one, two) = (quantity(&a.to_string()), quantity(&b.to_string()));
            prop_assert_eq!(one.cmp(&two), a.cmp(&b));
            prop_assert_eq!(one.nanos(), i128::from(a) * NANOS);
        }

        #[test]
        fn a_sign_mirrors(text in "[0-9]{1,18}(\\.[0-9]{1,20})?(m|k|Ki|e-5)?") {
            match (text.parse::<Quantity>(), format!("-{text}").parse::<Quantity>()) {
                (Ok(plus), Ok(minus)) => prop_assert_eq!(plus.nanos(), -minus.nanos()),
                (plus, minus) => prop_assert_eq!(plus, minus),
            }
        }

        #[test]
        fn zeros_that_mean_nothing_change_nothing(text in "[0-9]{1,15}", zeros in "0{0,40}", suffix in "(|m|k|Ki|Gi)") {
            let plain = format!("{text}{suffix}").parse::<Quantity>();
            let padded = format!("{zeros}{text}.{zeros}{suffix}").parse::<Quantity>();
            prop_assert_eq!(plain, padded);
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn no_near_miss_is_too_odd(text in "[-+0-9.eEinumkKMGTP]{0,24}") {
            if let Ok(read) = text.parse::<Quantity>() {
                prop_assert!(read.nanos().abs() <= MOST_NANOS);
            }
        }
    }
}
