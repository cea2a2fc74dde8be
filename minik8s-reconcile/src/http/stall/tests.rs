use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::Guarded;
use crate::http::Limits;
use crate::http::connections::Connections;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_is_left_and_who_reads_slowly_is_not() {
    let place = Connections::new(Limits::default()).admit([127, 0, 0, 1].into()).expect("room");
    let (ours, mut theirs) = tokio::io::duplex(4);
    let mut guarded = Guarded::new(ours, place.connection.clone(), LIMIT, true);
    let slow = async {
        let mut byte = [0];
        for _ in 0..10 {
            tokio::time::sleep(LIMIT / 2).await;
            theirs.read_exact(&mut byte).await.expect("a byte");
        }
    };
    let (written, ()) = tokio::join!(guarded.write_all(&[0; 14]), slow);
    written.expect("it took long, but went on");
    let before = Instant::now();
    let error = guarded.write_all(&[0; 1]).await.expect_err("nobody reads");
    assert_eq!((error.kind(), before.elapsed()), (ErrorKind::TimedOut, LIMIT));
    // Where a person reads, it may stand still.
    place.connection.be_patient();
    let waits = tokio::time::timeout(10 * LIMIT, guarded.write_all(&[0; 1])).await;
    waits.expect_err("it waits");
}
