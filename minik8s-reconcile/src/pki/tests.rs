use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::serves;
use super::{
    Authority, CertificateRequest, PkiError, Signer, Subject, Usage, Validity, ask, fingerprint, holder,
};

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

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

/// Whether the authority signed that.
fn is_signed_by(certificate: &CertificateDer<'_>, authority: &Authority) -> bool {
    let (_, issuer) = x509_parser::parse_x509_certificate(authority.der()).expect("a certificate");
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

#[test]
fn a_user_is_in_several_groups() {
    let (authority, _) = Authority::generate(now()).expect("an authority");
    let long = "g".repeat(300);
    let subject = Subject::client("jane").group("a").group(long.as_str()).group("ö");
    let certificate = der(&authority.issue(&subject, now()).expect("a certificate").certificate);
    let user = holder(&certificate).expect("a user");
    assert_eq!(
        (&*user.name, &*user.groups),
        ("jane", &["a", &long, "ö", "system:authenticated"].map(String::from)[..])
    );
    assert!(is_signed_by(&certificate, &authority));
    let (other, _) = Authority::generate(now()).expect("an authority");
    assert!(!is_signed_by(&certificate, &other));
    assert_ne!(authority.fingerprint(), other.fingerprint());
    assert_eq!(fingerprint(authority.der()), Some(authority.fingerprint()));
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

#[test]
fn what_is_asked_for_is_signed() {
    let (authority, _) = Authority::generate(now()).expect("an authority");
    let (_, request) =
        ask("system:node:n1", "system:nodes", &strings(&["n1", "10.0.0.1"])).expect("a request");
    let request = CertificateRequest::parse(request.as_bytes()).expect("a request");
    let usages = Signer::NodeServing.check(&request, &strings(&["server auth", "digital signature"]));
    let usages = usages.expect("a node's serving certificate");
    assert_eq!(usages, [Usage::DigitalSignature, Usage::ServerAuth]);
    let hour = jiff::SignedDuration::from_hours(1);
    let certificate = der(&authority.sign(&request, &usages, Some(hour), now()).expect("a certificate"));
    assert!(is_signed_by(&certificate, &authority));
    assert_eq!(&*holder(&certificate).expect("a user").name, "system:node:n1");
    let valid = Validity::of(&certificate).expect("a certificate");
    assert_eq!(valid.until, now() + hour);
    assert!(valid.from < now() && valid.renewal() < valid.until);
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    let extended = parsed.extended_key_usage().expect("usages").expect("usages").value;
    assert!(extended.server_auth && !extended.client_auth);
    assert!(!parsed.is_ca());
    assert!(serves(&certificate, &strings(&["n1", "10.0.0.1"])) && !serves(&certificate, &strings(&["n2"])));
    let client = authority.issue(&Subject::client("system:node:n1"), now()).expect("a certificate");
    assert!(!serves(&der(&client.certificate), &[]), "it is for a client");
    // Nothing outlives the authority.
    let late = authority.validity().until - hour;
    let certificate = der(&authority.sign(&request, &usages, None, late).expect("a certificate"));
    assert_eq!(Validity::of(&certificate).expect("a certificate").until, authority.validity().until);
}

#[test]
fn signers_sign_what_is_theirs() {
    let client = &["client auth", "digital signature"][..];
    let serving = &["server auth", "digital signature", "key encipherment"][..];
    let node = ("system:node:n1", "system:nodes");
    let table = [
        (Signer::Client, ("jane", "developers"), &[][..], client, ""),
        (Signer::Client, ("jane", "developers"), &["jane.example.com"], client, ""),
        (Signer::Client, ("jane", "developers"), &[], serving, "does not sign for the usage \"server auth\""),
        (
            Signer::Client,
            ("jane", "developers"),
            &[],
            &["digital signature"],
            "needs the usage \"client auth\"",
        ),
        (
            Signer::Client,
            ("jane", "developers"),
            &[],
            &["cert sign"],
            "does not sign for the usage \"cert sign\"",
        ),
        (Signer::NodeClient, node, &[], client, ""),
        (Signer::NodeClient, ("jane", "system:nodes"), &[], client, "the subject must be"),
        (Signer::NodeClient, ("system:node:", "system:nodes"), &[], client, "the subject must be"),
        (Signer::NodeClient, ("system:node:n1", "system:masters"), &[], client, "the subject must be"),
        (Signer::NodeClient, node, &["n1"], client, "no names to serve under"),
        (Signer::NodeServing, node, &["n1", "10.0.0.1"], serving, ""),
        (Signer::NodeServing, node, &[], serving, "needs a host name or an address"),
        (Signer::NodeServing, node, &["n1"], client, "does not sign for the usage \"client auth\""),
    ];
    for (signer, (name, group), hosts, usages, why) in table {
        let (_, request) = ask(name, group, &strings(hosts)).expect("a request");
        let request = CertificateRequest::parse(request.as_bytes()).expect("a request");
        match (signer.check(&request, &strings(usages)), why) {
            (Ok(_), "") => {}
            (Err(words), why) if !why.is_empty() && words.contains(why) => {}
            (result, why) => panic!("{signer:?} {name} {hosts:?} {usages:?}: {result:?}, not {why:?}"),
        }
    }
    assert_eq!(Signer::find("kubernetes.io/kubelet-serving"), Some(Signer::NodeServing));
    assert_eq!(Signer::find("example.com/mine"), None);
}

#[test]
fn a_request_that_was_changed_is_none() {
    let (_, request) = ask("jane", "developers", &[]).expect("a request");
    let (_, other) = ask("john", "developers", &[]).expect("a request");
    let middle = request.len() / 2;
    for bad in [
        String::new(),
        request.replace("REQUEST", "REQUESTS"),
        format!("{}{}", &request[..middle], &other[middle..]),
    ] {
        assert!(CertificateRequest::parse(bad.as_bytes()).is_err(), "{bad}");
    }
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

#[test]
fn an_authority_of_another_time_or_with_another_key_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let valid = Authority::open(dir.path(), now()).expect("a new one").validity();
    let early = valid.from - jiff::SignedDuration::from_hours(1);
    let error = Authority::open(dir.path(), early).expect_err("before its time").to_string();
    assert!(error.ends_with("set the clock") && error.contains("2029-12-31T23:55:00Z"), "{error}");
    let error = Authority::open(dir.path(), valid.until).expect_err("after its time").to_string();
    assert!(error.contains("needs a new authority"), "{error}");
    let other = tempfile::tempdir().expect("a folder");
    Authority::open(other.path(), now()).expect("a new one");
    std::fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).expect("a copy");
    let error = Authority::open(dir.path(), now()).expect_err("another's key").to_string();
    assert!(error.contains("is not the key of the certificate"), "{error}");
}
