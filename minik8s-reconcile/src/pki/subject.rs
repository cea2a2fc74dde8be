//! Subjects of certificates, in their binary form.
//!
//! A user may be in several groups, each an organisation of its own in the subject. The names of `rcgen` hold one value
//! of each type, so a certificate gets its subject here, and is signed again.

use rcgen::SigningKey;

use super::PkiError;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
/// The object identifiers 2.5.4.3 and 2.5.4.10, encoded.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];
/// Where the subject is among the fields of a certificate of version 3: behind version, serial number, algorithm,
/// issuer and validity.
const SUBJECT: usize = 5;

/// The subject of that name in these groups.
pub(super) fn encode(name: &str, groups: &[String]) -> Vec<u8> {
    let attribute = |kind: [u8; 5], value: &str| {
        let pair = element(SEQUENCE, &[kind.to_vec(), element(UTF8_STRING, value.as_bytes())].concat());
        element(SET, &pair)
    };
    let groups = groups.iter().map(|group| attribute(ORGANIZATION, group));
    let parts: Vec<Vec<u8>> = groups.chain([attribute(COMMON_NAME, name)]).collect();
    element(SEQUENCE, &parts.concat())
}

/// The certificate with another subject, signed with `key`.
///
/// # Errors
/// It is no certificate, or the key cannot sign.
pub(super) fn put(certificate: &[u8], subject: &[u8], key: &impl SigningKey) -> Result<Vec<u8>, PkiError> {
    let malformed = || PkiError::Malformed("no certificate of version 3".to_owned());
    let [outer] = children(certificate).ok_or_else(malformed)?[..] else { return Err(malformed()) };
    let [signed, algorithm, _] = children(content(outer).ok_or_else(malformed)?).ok_or_else(malformed)?[..]
    else {
        return Err(malformed());
    };
    let mut fields = children(content(signed).ok_or_else(malformed)?).ok_or_else(malformed)?;
    *fields.get_mut(SUBJECT).ok_or_else(malformed)? = subject;
    let signed = element(SEQUENCE, &fields.concat());
    // A bit string says first how many bits of its last byte do not count.
    let signature = [vec![0], key.sign(&signed)?].concat();
    Ok(element(SEQUENCE, &[signed, algorithm.to_vec(), element(BIT_STRING, &signature)].concat()))
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|&&b| b == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(short as u8),
        _ => {
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

/// The length of the first element's head and of its content.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.get(1)?;
    if first < 0x80 {
        return Some((2, first.into()));
    }
    let count = usize::from(first & 0x7f);
    let digits = bytes.get(2..2 + count).filter(|d| !d.is_empty() && d.len() <= 4)?;
    Some((2 + count, digits.iter().fold(0, |n, &b| n << 8 | usize::from(b))))
}

fn content(element: &[u8]) -> Option<&[u8]> {
    let (head, length) = lengths(element)?;
    element.get(head..head + length)
}

/// The elements that follow one another in `bytes`.
fn children(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, length) = lengths(bytes)?;
        let (element, rest) = bytes.split_at_checked(head + length)?;
        found.push(element);
        bytes = rest;
    }
    Some(found)
}
