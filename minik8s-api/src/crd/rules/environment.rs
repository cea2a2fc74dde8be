//! The functions that rules may call: CEL's own, and those that Kubernetes adds.

use std::sync::{Arc, LazyLock};

use cel::{Env, extensions};

use super::{access, lists, network, quantities, text};

/// The environment of all rules.
pub(super) fn shared() -> &'static Arc<Env> {
    static SHARED: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(environment()));
    &SHARED
}

/// The environment of expressions of admission, which may ask for rights.
pub(super) fn of_admission() -> &'static Arc<Env> {
    static SHARED: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = environment();
        env.add_extension(access::extension).expect("its names are its own");
        Arc::new(env)
    });
    &SHARED
}

fn environment() -> Env {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings).expect("its names are its own");
    env.add_extension(lists::extension).expect("its names are its own");
    env.add_extension(text::extension).expect("its names are its own");
    env.add_extension(quantities::extension).expect("its names are its own");
    env.add_extension(network::extension).expect("its names are its own");
    env
}

/// The functions that exist, under the names that rules call them by. Operators and the internals of macros are spelt
/// so that nobody can write them.
pub(super) const FUNCTIONS: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "family",
    "find",
    "findAll",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getScheme",
    "getSeconds",
    "hasValue",
    "indexOf",
    "int",
    "ip",
    "ip.isCanonical",
    "isCIDR",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "masked",
    "matches",
    "max",
    "min",
    "none",
    "of",
    "ofNonZeroValue",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "prefixLength",
    "quantity",
    "quote",
    "replace",
    "reverse",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "sign",
    "size",
    "split",
    "startsWith",
    "string",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "equivalent",
    "intersects",
    "url",
    "value",
];

/// The names that are no variables of a rule and yet may stand where one does.
pub(super) const NAMES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "google",
    "int",
    "ip",
    "list",
    "map",
    "null_type",
    "optional",
    "sets",
    "string",
    "strings",
    "timestamp",
    "type",
    "uint",
];
