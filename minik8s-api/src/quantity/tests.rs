use proptest::prelude::*;

use super::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn canonical_forms() {
    for (text, canonical) in [
        ("0", "0"),
        ("-0", "0"),
        ("0Ki", "0"),
        ("100m", "100m"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("1025Ki", "1025Ki"),
        ("0.0001Ki", "102400u"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1e-3", "1e-3"),
        ("1e1", "10"),
        ("12E", "12E"),
        ("1000E", "1000E"),
        ("+5", "5"),
        ("-5.", "-5"),
        (".5", "500m"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
        ("123Mi", "123Mi"),
        ("9223372036854775807", "9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("-16Ei", "-9223372036854775807"),
        ("1e99999999999", "100e27"),
        ("1e-99999999999", "1e-9"),
        ("0e99999999999", "0"),
    ] {
        assert_eq!(q(text).to_string(), canonical, "{text}");
        assert_eq!(q(canonical), q(text), "{text}");
    }
}

#[test]
fn what_is_refused() {
    use QuantityError::*;
    for (text, error) in [
        ("", Format),
        ("-", Format),
        ("x", Format),
        ("1 Gi", Format),
        ("1b", Format),
        (".", Number),
        ("1.2.3", Number),
        ("1ki", Suffix),
        ("1K", Suffix),
        ("1e", Suffix),
        ("1e3Mi", Suffix),
        ("1Mi3", Suffix),
        ("1e--3", Suffix),
    ] {
        assert_eq!(Quantity::parse(text), Err(error), "{text}");
    }
}

#[test]
fn values_round_away_from_zero() {
    assert_eq!((q("1.1").value(), q("-1.1").value(), q("2").value()), (2, -2, 2));
    assert_eq!((q("1100u").milli_value(), q("1n").milli_value()), (2, 1));
    assert_eq!((q("10E").value(), q("10E").milli_value()), (i64::MAX, i64::MAX));
    assert_eq!((q("1.5").percent_of(&q("2")), q("1").percent_of(&q("0"))), (75, 0));
}

#[test]
fn arithmetic_keeps_the_format() {
    assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
    assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
    assert_eq!((q("1") - q("1500m")).to_string(), "-500m");
    assert_eq!(["1", "2Ki"].map(q).into_iter().sum::<Quantity>().to_string(), "2049");
    assert!(q("1Gi") > q("1G"));
    assert_eq!(q("1e90") + q("1e90"), q("1e90"));
}

proptest! {
    #[test]
    fn canonical_form_is_stable(number in "[+-]?([0-9]{1,15}(\\.[0-9]{0,9})?|\\.[0-9]{1,9})",
                                suffix in "n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,2}|") {
        let first = q(&format!("{number}{suffix}"));
        let written = first.to_string();
        let second = q(&written);
        prop_assert_eq!(second, first, "{}", written);
        prop_assert_eq!(second.to_string(), written);
    }

    #[test]
    fn decimal_arithmetic(a in -1_000_000_000_000_i64..1_000_000_000_000,
                          b in -1_000_000_000_000_i64..1_000_000_000_000) {
        let (qa, qb) = (q(&format!("{a}u")), q(&format!("{b}u")));
        prop_assert_eq!(qa + qb, q(&format!("{}u", a + b)));
        prop_assert_eq!(qa - qb + qb, qa);
        prop_assert_eq!(qa.cmp(&qb), a.cmp(&b));
        let up = |n: i64, d: i64| n / d + (n % d).signum();
        prop_assert_eq!(qa.milli_value(), up(a, 1000));
        prop_assert_eq!(qa.value(), up(a, 1_000_000));
    }

    #[test]
    fn binary_amounts(whole in 0..1_000_000_i128, sixteenths in 0..16_i128, power in 1..5_u32) {
        let text = format!("{whole}.{:04}{}", sixteenths * 625, BINARY[power as usize - 1]);
        let expected = (whole * 16 + sixteenths) * 1024_i128.pow(power) / 16;
        prop_assert_eq!(i128::from(q(&text).value()), expected);
    }

    #[test]
    fn no_text_panics(text in "[0-9.+-]{0,60}[eEinumkKMGTP0-9+-]{0,6}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(q(&quantity.to_string()), quantity);
        }
    }
}
