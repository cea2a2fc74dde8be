//! Protobuf's wire format.

use super::ProtobufError;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Whether it is its type's zero value.
    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Varint(n) | Self::Fixed64(n) => n == 0,
            Self::Fixed32(n) => n == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// The fields of a message in their order, by number; the first error ends them.
pub(super) fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), ProtobufError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), ProtobufError> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
    let number = number.ok_or(ProtobufError::Malformed("a field number is out of range"))?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(fixed(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
            let (bytes, after) = rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => Value::Fixed32(u32::from_le_bytes(fixed(rest)?)),
        // 3 and 4 were groups, which Kubernetes never had.
        _ => return Err(ProtobufError::Malformed("a field has a wire type that does not exist")),
    };
    Ok((number, value))
}

const ENDS_EARLY: ProtobufError = ProtobufError::Malformed("it ends early");

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProtobufError> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
    *rest = after;
    Ok(*bytes)
}

/// Takes a number of seven bits a byte off `rest`.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(ENDS_EARLY)?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Malformed("a number is longer than 64 bits"))
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Malformed("a text is not UTF-8"))
}
