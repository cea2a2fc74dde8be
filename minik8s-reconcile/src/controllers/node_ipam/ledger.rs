//! Which block goes to whom, told before it is written.
//!
//! A write takes its time to come back as news, or fails without saying whether it was done. So a block that was offered
//! to a node is that node's while it has none: it is offered to nobody else, and to that node again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use minik8s_api::Cidr;

use super::{Blocks, has, is_given};

/// The offers that have not been seen in their nodes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By the node's uid.
    offers: BTreeMap<String, Cidr>,
    /// Where to look first: a block that was given back is the last to be given out again, since other nodes may still
    /// have routes to its former owner.
    next: u64,
}

impl Ledger {
    /// The block for `node`, which has none; `None` if none is free. `nodes` are all that there are.
    pub(super) fn offer(&mut self, blocks: &Blocks, node: &Node, nodes: &[Arc<Node>]) -> Option<Cidr> {
        let uid = |node: &Node| node.metadata.uid.clone().unwrap_or_default();
        let wait = |known: &String| nodes.iter().any(|n| uid(n) == *known && !is_given(n));
        self.offers.retain(|known, _| wait(known));
        let own = uid(node);
        let taken = nodes.iter().filter(|n| uid(n) != own).flat_map(|n| has(n)).collect::<Vec<_>>();
        if let Some(offered) = self.offers.get(&own).filter(|o| !taken.iter().any(|t| t.overlaps(o))) {
            return Some(*offered);
        }
        let others = self.offers.iter().filter(|(known, _)| **known != own).map(|(_, block)| *block);
        let index = free(blocks, self.next, taken.into_iter().chain(others))?;
        let block = blocks.cluster.block(blocks.mask, index)?;
        self.next = index + 1;
        self.offers.insert(own, block);
        Some(block)
    }
}

/// The number of the first block from `from` on, and around, that shares no address with any that is taken.
fn free(blocks: &Blocks, from: u64, taken: impl Iterator<Item = Cidr>) -> Option<u64> {
    let all = blocks.cluster.blocks(blocks.mask)?;
    let mut ranges: Vec<(u64, u64)> =
        taken.filter_map(|cidr| blocks.cluster.touched(blocks.mask, &cidr)).collect();
    ranges.sort_unstable();
    let first = |from: u64| {
        let at = ranges.iter().fold(
            from,
            |at, &(first, last)| {
                if (first..=last).contains(&at) { last + 1 } else { at }
            },
        );
        (at < all).then_some(at)
    };
    first(from).or_else(|| first(0))
}
