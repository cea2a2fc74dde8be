use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt;

use super::{Connection, Connections};
use crate::http::Limits;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn must_go(connection: &Connection) -> bool {
    connection.closed().now_or_never().is_some()
}

async fn pass(millis: u64) {
    tokio::time::advance(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_idle_longest_goes_and_strangers_go_first() {
    let all = Connections::new(Limits::default().connections(3));
    let used = all.admit(HERE).expect("room");
    drop(used.connection.request());
    pass(10).await;
    let busy = all.admit(HERE).expect("room");
    let _under_way = busy.connection.request();
    pass(10).await;
    let stranger = all.admit(THERE).expect("room");
    pass(10).await;
    let fourth = all.admit(HERE).expect("the stranger's");
    assert!(must_go(&stranger.connection) && !must_go(&used.connection));
    let _busy_too = fourth.connection.request();
    let fifth = all.admit(HERE).expect("the one that had been used");
    assert!(must_go(&used.connection) && !must_go(&busy.connection));
    let _all_busy = fifth.connection.request();
    assert!(all.admit(HERE).is_none(), "nobody is sent away in the middle of a request");
    // Those that had to go have given up their places already.
    drop((used, stranger));
    assert_eq!(all.count(), 3);
    drop(busy);
    assert!(all.admit(THERE).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_address_makes_room_for_itself() {
    let all = Connections::new(Limits::default().connections(100).connections_per_address(2));
    let first = all.admit(HERE).expect("room");
    pass(1).await;
    let other = all.admit(THERE).expect("room");
    let _second = all.admit(HERE).expect("room");
    let _third = all.admit(HERE).expect("that of the first");
    assert!(must_go(&first.connection) && !must_go(&other.connection));
}

#[tokio::test(start_paused = true)]
async fn idleness_and_slow_heads_end() {
    let limits = Limits::default().idle(Duration::from_secs(90)).header_time(Duration::from_secs(30));
    let all = Connections::new(limits);
    let [idle, slow, busy] = [(), (), ()].map(|()| all.admit(HERE).expect("room"));
    let _under_way = busy.connection.request();
    pass(1000).await;
    slow.connection.received();
    pass(20_000).await;
    slow.connection.received();
    pass(10_000).await;
    all.sweep();
    assert!(!must_go(&slow.connection), "30 seconds are not over");
    pass(1000).await;
    all.sweep();
    assert!(must_go(&slow.connection), "what trickles in does not make it younger");
    assert!(!must_go(&idle.connection));
    pass(60_000).await;
    all.sweep();
    assert!(must_go(&idle.connection) && !must_go(&busy.connection));
    // A complete head is none that is slow.
    let quick = all.admit(HERE).expect("room");
    quick.connection.received();
    drop(quick.connection.request());
    pass(40_000).await;
    all.sweep();
    assert!(!must_go(&quick.connection));
}
