use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{Authority, PkiError, Subject, holder};

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().expect("a time")
}

#[test]
fn a_certificate_says_who_holds_it() {
    let (authority, _) = Authority::generate(now()).expect("an authority");
    let subject = Subject::client("system:node:n1").group("system:nodes").hosts(["n1", "10.0.0.1", "::1"]);
    let credentials = authority.issue(&subject, now()).expect("a certificate");
    let der = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).expect("PEM");
    let user = holder(&der).expect("a user");
    assert_eq!(&*user.name, "system:node:n1");
    assert_eq!(*user.groups, ["system:nodes", "system:authenticated"]);
    let nobody = authority.issue(&Subject::client(""), now()).expect("a certificate");
    let der = CertificateDer::from_pem_slice(nobody.certificate.as_bytes()).expect("PEM");
    assert_eq!(holder(&der), None);
}

#[test]
fn an_authority_is_made_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = Authority::open(dir.path(), now()).expect("a new one");
    let second = Authority::open(dir.path(), now()).expect("the same one");
    assert_eq!(first.certificate(), second.certificate());
    use std::os::unix::fs::PermissionsExt;
    let mode = dir.path().join("ca.key").metadata().expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn half_an_authority_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    Authority::open(dir.path(), now()).expect("a new one");
    std::fs::remove_file(dir.path().join("ca.key")).expect("it is there");
    let error = Authority::open(dir.path(), now()).expect_err("half of one");
    assert!(matches!(error, PkiError::Incomplete { .. }), "{error}");
    std::fs::write(dir.path().join("ca.key"), "no key").expect("a file");
    let error = Authority::open(dir.path(), now()).expect_err("not a key");
    assert!(error.to_string().contains("no certificate authority"), "{error}");
}

#[test]
fn hosts_must_be_names_or_addresses() {
    let (authority, _) = Authority::generate(now()).expect("an authority");
    let error = authority.issue(&Subject::server("x", ["ä b"]), now()).expect_err("no name");
    assert!(matches!(error, PkiError::Malformed(_)), "{error}");
}
