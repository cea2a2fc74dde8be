//! Numbers as schemas see them.

use serde_json::{Number, Value};

/// Whether a number is whole: `3` and `3.0` are.
pub(super) fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// Whether `number` is a multiple of `factor`, but for the error of floating point.
pub(super) fn is_multiple(number: f64, factor: f64) -> bool {
    let times = number / factor;
    (times - times.round()).abs() <= f64::EPSILON * times.abs().max(1.0)
}

/// A limit as it is written: `10`, `0.5`.
pub(super) fn written(limit: f64) -> String {
    format!("{limit}")
}

/// Whether two values are the same, where `1` is `1.0`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|other| equal(v, other)))
        }
        _ => a == b,
    }
}
