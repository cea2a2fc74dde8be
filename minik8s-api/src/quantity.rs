//! Quantities: `100m`, `1.5Gi`, `1e3`. Exact, no floating point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const NANO: i128 = 1_000_000_000;
/// Decimal quantities are capped here: 10²⁹, with billionths still within an `i128`.
const DECIMAL_MAX: i128 = 100 * NANO * NANO * NANO * NANO;
/// Binary quantities are capped at 2⁶³ − 1, as in Kubernetes.
const BINARY_MAX: i128 = i64::MAX as i128 * NANO;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Powers of 1000: `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// Powers of 1024: `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e` and a power of ten.
    DecimalExponent,
}

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not look like one at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The digits make no number.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of something, to a billionth. Two quantities are equal if their amounts are, however written;
/// `Display` writes the canonical form.
///
/// More than nine decimal places are rounded away from zero; amounts that are too large are capped.
///
/// ```
/// use minik8s_api::Quantity;
///
/// let half: Quantity = "0.5".parse().unwrap();
/// assert_eq!(half.to_string(), "500m");
/// assert_eq!(half.milli_value(), 500);
/// assert_eq!(half.value(), 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// `n` whole ones.
    pub fn new(n: i64, format: Format) -> Self {
        Self { nanos: i128::from(n) * NANO, format }
    }

    /// `n` thousandths.
    pub fn from_milli(n: i64) -> Self {
        Self { nanos: i128::from(n) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// It has another form, or an unknown suffix.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        if number.is_empty() {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Number);
        }
        let (unit, format) = unit(suffix)?;
        let mut nanos = scale(whole, fraction, unit);
        let cap = if format == Format::BinarySi { BINARY_MAX } else { DECIMAL_MAX };
        nanos = nanos.min(cap);
        Ok(Self { nanos: if text.starts_with('-') { -nanos } else { nanos }, format })
    }

    /// The amount in whole ones, rounded away from zero; the nearest `i64` if it has more.
    pub fn value(&self) -> i64 {
        self.in_units(NANO)
    }

    /// The amount in thousandths, rounded away from zero; the nearest `i64` if it has more.
    pub fn milli_value(&self) -> i64 {
        self.in_units(NANO / 1000)
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The part of `whole` that it is, in percent, rounded down; 0 of nothing.
    pub fn percent_of(&self, whole: &Self) -> i64 {
        if whole.nanos == 0 {
            return 0;
        }
        let percent = self.nanos.saturating_mul(100) / whole.nanos;
        percent.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn in_units(self, unit: i128) -> i64 {
        let away = if self.nanos % unit == 0 { 0 } else { self.nanos.signum() };
        let units = self.nanos / unit + away;
        units.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn with(self, nanos: i128, other: &Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: nanos.clamp(-DECIMAL_MAX, DECIMAL_MAX), format }
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// The sum, written like the first that is not nothing.
    fn add(self, other: Self) -> Self {
        self.with(self.nanos.saturating_add(other.nanos), &other)
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    /// The difference, written like the first that is not nothing.
    fn sub(self, other: Self) -> Self {
        self.with(self.nanos.saturating_sub(other.nanos), &other)
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, |a, b| a + b)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && whole.abs() >= 1024 {
            let (mut n, mut power) = (whole, 0);
            while n % 1024 == 0 && power < BINARY.len() {
                n /= 1024;
                power += 1;
            }
            return write!(f, "{n}{}", if power == 0 { "" } else { BINARY[power - 1] });
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let exponents = self.format == Format::DecimalExponent;
        let (mut n, mut exponent) = (self.nanos, -9);
        while n % 1000 == 0 && (exponents || exponent < 18) {
            n /= 1000;
            exponent += 3;
        }
        match exponent {
            0 => write!(f, "{n}"),
            _ if exponents => write!(f, "{n}e{exponent}"),
            _ => write!(f, "{n}{}", DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s)),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, QuantityError> {
        Self::parse(&quantity.0)
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// What one of the given number is.
#[derive(Clone, Copy)]
enum Unit {
    PowerOfTen(i32),
    Whole(i128),
}

fn unit(suffix: &str) -> Result<(Unit, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Unit::PowerOfTen(*exponent), Format::DecimalSi));
    }
    if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((Unit::Whole(1 << (10 * (i + 1))), Format::BinarySi));
    }
    match suffix.strip_prefix(['e', 'E']) {
        Some(exponent) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err(QuantityError::Suffix);
            }
            // An exponent that no i32 holds is beyond the cap, or below a billionth, like one of four digits.
            let limit = if exponent.starts_with('-') { -9999 } else { 9999 };
            Ok((Unit::PowerOfTen(exponent.parse().unwrap_or(limit)), Format::DecimalExponent))
        }
        None => {
            let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
            Err(if suffix.chars().all(known) { QuantityError::Suffix } else { QuantityError::Format })
        }
    }
}

/// `whole.fraction` units in billionths, rounded up, as far as an `i128` goes.
fn scale(whole: &str, fraction: &str, unit: Unit) -> i128 {
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|c| c - b'0').collect();
    let (exponent, factor) = match unit {
        Unit::PowerOfTen(exponent) => (exponent, 1),
        Unit::Whole(factor) => (0, factor),
    };
    // Where the decimal point of the amount in billionths stands among the digits.
    let point = whole.len() as i64 + i64::from(exponent) + 9;
    if factor == 1 {
        let kept = point.clamp(0, digits.len() as i64) as usize;
        let mut n = number(&digits[..kept]);
        if digits[kept..].iter().any(|&d| d != 0) {
            n = n.saturating_add(1);
        }
        if n == 0 {
            return 0;
        }
        let zeros = (point - kept as i64).clamp(0, 40) as u32;
        return 10_i128.checked_pow(zeros).and_then(|p| n.checked_mul(p)).unwrap_or(i128::MAX);
    }
    // factor * 0.fraction, digit by digit; all that is left over rounds up.
    let (mut nanos, mut rest) = (0_i128, factor * NANO);
    let mut leftover = false;
    for &digit in &digits[whole.len()..] {
        leftover |= rest % 10 != 0 && digit != 0;
        rest /= 10;
        nanos += rest * i128::from(digit);
    }
    let whole = number(&digits[..whole.len()]).saturating_mul(factor).saturating_mul(NANO);
    whole.saturating_add(nanos).saturating_add(i128::from(leftover))
}

/// The number that `digits` write, as far as an `i128` goes.
fn number(digits: &[u8]) -> i128 {
    digits.iter().fold(0, |n, &d| if n > DECIMAL_MAX { n } else { n * 10 + i128::from(d) })
}

#[cfg(test)]
mod tests;
