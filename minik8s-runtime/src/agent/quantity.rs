//! Amounts of resources, as whole numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The value in thousandths, rounded up; `None` if the text is no quantity or too large.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 3)
}

/// The value in whole units, rounded up; `None` if the text is no quantity or too large.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 0)
}

/// The value times 10^`scale`, rounded away from zero.
fn scaled(text: &str, scale: i32) -> Option<i64> {
    let text = text.trim();
    let end = text
        .char_indices()
        .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(end);
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (base, exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let power = exponent + scale - i32::try_from(fraction.len()).ok()?;
    let value = digits.checked_mul(base)?;
    let ten = |n: i32| 10i128.checked_pow(u32::try_from(n).ok()?);
    let value = if power >= 0 {
        value.checked_mul(ten(power)?)?
    } else {
        match ten(-power) {
            Some(divisor) => (value + divisor - 1) / divisor,
            None => i128::from(value > 0),
        }
    };
    i64::try_from(if negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation() {
        let units = |t: &str| super::units(&Quantity(t.to_owned()));
        let milli = |t: &str| super::milli(&Quantity(t.to_owned()));
        assert_eq!(milli("500m"), Some(500));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("2"), Some(2000));
        assert_eq!(milli("100u"), Some(1));
        assert_eq!(units("1Gi"), Some(1 << 30));
        assert_eq!(units("1.5Gi"), Some(3 << 29));
        assert_eq!(units("64M"), Some(64_000_000));
        assert_eq!(units("1e3"), Some(1000));
        assert_eq!(units("1E"), Some(1_000_000_000_000_000_000));
        assert_eq!(units("100m"), Some(1));
        assert_eq!(units("-1"), Some(-1));
        assert_eq!(units("x"), None);
        assert_eq!(units("1Qi"), None);
        assert_eq!(units(""), None);
    }
}
