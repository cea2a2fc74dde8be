//! Members of etcd that die under two API servers.

use std::time::Duration;

use minik8s_tests::Etcd;

use crate::load::Load;
use crate::server::Server;

/// The leader and the others, by turns; each is back before the next one goes.
pub(crate) async fn die(times: usize) -> anyhow::Result<String> {
    let mut etcd = Etcd::start(3).await?;
    let servers = Server::two(&etcd).await?;
    let maps = [servers[0].maps().await?, servers[1].maps().await?];
    let mut longest = [Duration::ZERO; 2];
    let seen = Load::run(&maps, async |load| {
        for time in 0..times {
            load.acknowledged(50).await?;
            let leader = etcd.leader().await?;
            let victim = (leader + time) % etcd.len();
            etcd.kill_member(victim)?;
            // More than there are writers: some were sent after the member's death.
            let took = load.acknowledged(10).await?;
            let longest = &mut longest[usize::from(victim != leader)];
            *longest = took.max(*longest);
            etcd.start_member(victim)?;
            etcd.ready().await?;
        }
        Ok(())
    })
    .await?;
    let [leader, other] = longest;
    Ok(format!(
        "{}; writes resume {leader:.1?} after a leader's death, {other:.1?} after another's",
        seen.judge()?
    ))
}
