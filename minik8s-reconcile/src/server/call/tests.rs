use super::{Target, at};

#[test]
fn urls_are_of_https() {
    let found = at("https://hooks.example:8443/a?b=c", None).unwrap();
    let expected = Target {
        host: "hooks.example".to_owned(),
        addresses: vec!["hooks.example:8443".to_owned()],
        path: "/a?b=c".to_owned(),
        url: "https://hooks.example:8443/a?b=c".to_owned(),
        authorities: None,
    };
    assert_eq!(found, expected);
    let found = at("https://[::1]", None).unwrap();
    assert_eq!(
        (found.host.as_str(), found.addresses[0].as_str(), found.path.as_str()),
        ("::1", "[::1]:443", "/")
    );
    for wrong in ["http://a", "a", "ftp://a/b", "https:///x"] {
        assert!(at(wrong, None).is_err(), "{wrong}");
    }
}
