//! Every input that is kept, tried as an ordinary test: what fuzzers begin with, and what they found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use minik8s_properties::{ALL, try_on};

fn inputs(name: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let folders = ["seeds", "regressions"].map(|folder| fuzz.join(folder).join(name));
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "there is nothing to begin with");
    let mut broken = Vec::new();
    for path in inputs {
        let data = fs::read(&path).expect("an input");
        if std::panic::catch_unwind(|| try_on(name, &data)).is_err() {
            broken.push(path);
        }
    }
    assert!(broken.is_empty(), "{name} does not hold of {broken:#?}");
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! { apply cel json jwt patch protobuf request selector tls_hello yaml }

#[test]
fn every_property_is_replayed_and_fuzzed() {
    let names: BTreeSet<&str> = ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, REPLAYED.iter().copied().collect());
    for name in names {
        let target = format!("{}/../fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(Path::new(&target).exists(), "{name} has no fuzz target");
    }
}
