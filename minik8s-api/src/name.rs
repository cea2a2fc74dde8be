//! The forms of names: DNS labels and subdomains, qualified names, label values, port names and what else the API
//! spells out, with Kubernetes' words for what is wrong (`k8s.io/apimachinery/pkg/util/validation`).
//!
//! Each check returns every complaint, so that a user sees all of them at once; none means that the name is good.

/// The longest DNS label: 63 bytes.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain: 253 bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORM: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                               with an alphanumeric character";

/// `must be no more than N bytes`.
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// A complaint that shows the pattern and names that fit it.
fn pattern(words: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{words} (e.g. {}regex used for validation is '{form}')", examples.join(" or "))
}

fn is_lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let bytes = s.as_bytes();
    let ends = |c: Option<&u8>| c.is_some_and(|&c| is_lower_alnum(c));
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&c| is_lower_alnum(c) || c == b'-')
}

fn is_name_part(s: &str) -> bool {
    let bytes = s.as_bytes();
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

/// What is wrong with `name` as a DNS label of RFC 1123, such as the name of a namespace or container.
pub fn dns_label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label(name) {
        let words = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
                     must start and end with an alphanumeric character";
        wrong.push(pattern(words, LABEL_FORM, &["my-name", "123-abc"]));
    }
    wrong
}

/// What is wrong with `name` as a DNS subdomain of RFC 1123, the form of most objects' names.
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if !name.split('.').all(is_label) {
        let words = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                     '.', and must start and end with an alphanumeric character";
        wrong.push(pattern(words, SUBDOMAIN_FORM, &["example.com"]));
    }
    wrong
}

/// What is wrong with `name` as a DNS label of RFC 1035, which begins with a letter.
pub fn dns_1035_label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label(name) || name.as_bytes()[0].is_ascii_digit() {
        let words = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                     alphabetic character, and end with an alphanumeric character";
        wrong.push(pattern(words, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    wrong
}

/// What is wrong with `name` as the key of a label or annotation: `name` or `prefix.example/name`.
pub fn qualified(name: &str) -> Vec<String> {
    let examples = ["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let part = match name.split_once('/') {
        None => name,
        Some((_, rest)) if rest.contains('/') => {
            let form = pattern(QUALIFIED_WORDS, QUALIFIED_FORM, &examples);
            return vec![format!(
                "a qualified name {form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", part)) => {
            wrong.push("prefix part must be non-empty".to_owned());
            part
        }
        Some((prefix, part)) => {
            wrong.extend(dns_subdomain(prefix).into_iter().map(|w| format!("prefix part {w}")));
            part
        }
    };
    if part.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if part.len() > LABEL_MAX {
        wrong.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_name_part(part) {
        wrong.push(format!("name part {}", pattern(QUALIFIED_WORDS, QUALIFIED_FORM, &examples)));
    }
    wrong
}

/// What is wrong with `value` as the value of a label; it may be empty.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !value.is_empty() && !is_name_part(value) {
        let words = format!("a valid label must be an empty string or {}", &QUALIFIED_WORDS["must ".len()..]);
        wrong.push(pattern(&words, &format!("({QUALIFIED_FORM})?"), &["MyValue", "my_value", "12345"]));
    }
    wrong
}

/// What is wrong with `name` as one segment of a path, the form of RBAC's names.
pub fn path_segment(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name == "." || name == ".." {
        wrong.push(format!("may not be '{name}'"));
    }
    wrong.extend(['/', '%'].iter().filter(|&&c| name.contains(c)).map(|c| format!("may not contain '{c}'")));
    wrong
}

/// What is wrong with `name` as the name of a port (an IANA service name).
pub fn port_name(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 15 {
        wrong.push(too_long(15));
    }
    if name.is_empty() || !name.bytes().all(|c| is_lower_alnum(c) || c == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// What is wrong with `port` as the number of a port.
pub fn port_number(port: i32) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// What is wrong with `name` as the name of an environment variable.
pub fn env_var(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=') {
        return Vec::new();
    }
    let words =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    vec![pattern(words, "^[ -<>-~]+$", &["my.env-name", "MY_ENV.NAME", "MyEnvName1"])]
}

/// What is wrong with `key` as a key of a ConfigMap's or Secret's data: it becomes the name of a file.
pub fn data_key(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if key.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if key.is_empty() || !key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        wrong.push(pattern(words, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    if key == "." || key == ".." {
        wrong.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// What is wrong with `value` as an IP address, version 4 or 6.
pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_kubernetes() {
        assert_eq!(
            dns_label("Bad_Name"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
              and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            label_value("-a"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
              for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
    }

    #[test]
    fn good_and_bad() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: [(Check, &[&str], &[&str]); 8] = [
            (dns_label, &["a", "0", "a-b", &long[..63]], &["", "-a", "a-", "a.b", "A", "é", &long]),
            (dns_subdomain, &["a", "a.b", "0.a-b"], &["", ".", "a.", ".a", "a..b", "a_b", &"a".repeat(254)]),
            (dns_1035_label, &["a", "a1"], &["1a", "", "a-"]),
            (
                qualified,
                &["a", "A_b.c", "x.y/Z", &long[..63]],
                &["", "/a", "a/", "a/b/c", "X/a", "-a", &long],
            ),
            (label_value, &["", "A", "a.b_c-d"], &[".", "a-", "a b", &long]),
            (path_segment, &["system:node", "a b"], &[".", "..", "a/b", "50%"]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "Http", "abcdefghijklmnop"]),
            (data_key, &["a", ".a", "A_b-c.d", "a..b"], &["", ".", "..", "..a", "a/b"]),
        ];
        for (i, (check, good, bad)) in cases.into_iter().enumerate() {
            for name in good {
                assert_eq!(check(name), Vec::<String>::new(), "check {i}, {name:?}");
            }
            for name in bad {
                assert!(!check(name).is_empty(), "check {i} takes {name:?}");
            }
        }
    }
}
