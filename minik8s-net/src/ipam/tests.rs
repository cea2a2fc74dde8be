use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn subnet() -> Subnet {
    "10.9.8.0/29".parse().unwrap()
}

fn open(dir: &tempfile::TempDir) -> Pool {
    Pool::open(dir.path(), subnet()).unwrap()
}

#[test]
fn an_owner_keeps_its_address_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    let a = pool.allocate("a").unwrap();
    assert_eq!(pool.allocate("a").unwrap(), a);
    let b = pool.allocate("b").unwrap();
    assert_ne!(a, b);
    let mut pool = open(&dir);
    assert_eq!(pool.list().collect::<Vec<_>>(), [("a", a), ("b", b)]);
    assert_eq!((pool.get("a"), pool.get("c")), (Some(a), None));
    assert!(pool.release("a").unwrap());
    assert!(!pool.release("a").unwrap());
    assert_eq!(open(&dir).get("a"), None);
}

#[test]
fn the_last_address_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    let given: BTreeSet<IpAddr> = (0..5).map(|n| pool.allocate(&n.to_string()).unwrap()).collect();
    assert_eq!(given.len(), 5);
    assert!(matches!(pool.allocate("more"), Err(Error::Exhausted(_))));
    pool.release("3").unwrap();
    assert!(pool.allocate("more").is_ok());
    assert!(matches!(pool.allocate(""), Err(Error::InvalidUid(_))));
}

#[test]
fn what_a_power_cut_leaves_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).allocate("a").unwrap();
    for (name, text) in [("10.9.8.3.new", "b"), ("10.9.8.4", ""), ("192.168.0.9", "c"), ("last.new", "x")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let pool = open(&dir);
    assert_eq!(pool.list().map(|(owner, _)| owner).collect::<Vec<_>>(), ["a"]);
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["10.9.8.2", "last", "lock"]);
}

#[test]
fn processes_that_share_a_pool_see_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(&dir), open(&dir));
    let given: BTreeSet<IpAddr> = (0..5)
        .map(|n| (if n % 2 == 0 { &mut one } else { &mut two }).allocate(&n.to_string()).unwrap())
        .collect();
    assert_eq!(given.len(), 5);
    assert!(matches!(one.allocate("more"), Err(Error::Exhausted(_))));
    assert!(two.release("4").unwrap(), "whoever gave it out");
    assert!(one.allocate("more").is_ok());
    two.refresh().unwrap();
    assert_eq!(two.list().collect::<Vec<_>>(), one.list().collect::<Vec<_>>());
    // Many at a time.
    let dir = tempfile::tempdir().unwrap();
    let subnet: Subnet = "10.9.0.0/24".parse().unwrap();
    let all: BTreeSet<IpAddr> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let mut pool = Pool::open(dir.path(), subnet).unwrap();
            (0..20).map(|m| pool.allocate(&format!("{n}-{m}")).unwrap()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(all.len(), 160);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u8),
    Release(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..8u8).prop_map(Step::Allocate),
        4 => (0..8u8).prop_map(Step::Release),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a naive model: the owners by number, and the number after the one given out last.
    #[test]
    fn a_pool_is_its_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut pool = open(&dir);
        let capacity = usize::try_from(subnet().capacity()).unwrap();
        let mut model: Vec<Option<u8>> = vec![None; capacity];
        let mut next = 0;
        for step in steps {
            match step {
                Step::Allocate(owner) => {
                    let has = model.iter().position(|slot| *slot == Some(owner));
                    let free = (0..capacity).map(|n| (next + n) % capacity).find(|&n| model[n].is_none());
                    match (pool.allocate(&owner.to_string()), has.or(free)) {
                        (Ok(address), Some(number)) => {
                            prop_assert_eq!(address, subnet().pod_address(number as u128));
                            if has.is_none() {
                                next = number + 1;
                            }
                            model[number] = Some(owner);
                        }
                        (Err(Error::Exhausted(_)), None) => {}
                        (got, want) => prop_assert!(false, "{:?}, not {:?}", got, want),
                    }
                }
                Step::Release(owner) => {
                    let has = model.iter().position(|slot| *slot == Some(owner));
                    prop_assert_eq!(pool.release(&owner.to_string()).unwrap(), has.is_some());
                    if let Some(number) = has {
                        model[number] = None;
                    }
                }
                Step::Reopen => pool = open(&dir),
            }
            let mut want: Vec<(String, IpAddr)> = model
                .iter()
                .enumerate()
                .filter_map(|(n, owner)| Some((owner.as_ref()?.to_string(), subnet().pod_address(n as u128))))
                .collect();
            want.sort();
            let got: Vec<_> = pool.list().map(|(owner, address)| (owner.to_owned(), address)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
