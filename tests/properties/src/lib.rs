//! What must hold of any bytes that reach minik8s from outside.
//!
//! A property is a function of bytes that panics if it does not hold. `tests/fuzz` has a fuzz target for each, which
//! searches for bytes that break it (`cargo xtask fuzz`); `tests/replay.rs` tries every input that is kept, seeds and
//! what was found once, as an ordinary test.

mod apply;
mod cel;
mod json;
mod jwt;
mod patch;
mod protobuf;
mod request;
mod selector;
mod tls_hello;
mod tree;
mod yaml;

use std::sync::OnceLock;

use minik8s_api::Registry;

/// A name, and what must hold.
pub type Property = (&'static str, fn(&[u8]));

/// All of them, by name.
pub const ALL: &[Property] = &[
    ("apply", apply::holds),
    ("cel", cel::holds),
    ("json", json::holds),
    ("jwt", jwt::holds),
    ("patch", patch::holds),
    ("protobuf", protobuf::holds),
    ("request", request::holds),
    ("selector", selector::holds),
    ("tls_hello", tls_hello::holds),
    ("yaml", yaml::holds),
];

/// Tries the property `name` on `data`.
///
/// # Panics
/// It does not hold, or there is none of that name.
pub fn try_on(name: &str, data: &[u8]) {
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, holds) = found.unwrap_or_else(|| panic!("there is no property {name:?}"));
    holds(data);
}

/// The kinds that every server knows.
fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}
