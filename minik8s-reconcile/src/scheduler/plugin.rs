//! What a scheduler is made of: filters and scores, the stock ones and those of a program of one's own.

use std::borrow::Cow;

use super::demand::Demand;
use super::queue::Change;
use super::snapshot::{NodeInfo, Snapshot};

/// What a filter has against a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    /// The filter's name.
    pub by: &'static str,
    /// Why, as users are told it after the number of nodes it holds for: `node(s) had no GPU`.
    pub reason: Cow<'static, str>,
    /// Whether it holds even if all other pods went: then none has to.
    pub never: bool,
}

/// Looks at one node after the other for one pod.
pub type Check<'a> = Box<dyn Fn(&NodeInfo) -> Option<Against> + 'a>;

/// Looks at one node after the other for one pod: the more, the better.
pub type Rate<'a> = Box<dyn Fn(&NodeInfo) -> i64 + 'a>;

/// Says which nodes will do for a pod.
///
/// It must decide by what it is given alone: the same input, the same answer.
pub trait Filter: Send + Sync + 'static {
    /// Its name. Those of Kubernetes' plugins are taken.
    fn name(&self) -> &'static str;

    /// How it looks at nodes for that pod; `None` if it has nothing against any. What is the same for all nodes is best
    /// worked out here.
    fn check<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot) -> Option<Check<'a>>;

    /// Whether a pod that this filter had something against is to be looked at again after `change`. Always, unless it
    /// knows better.
    fn helped_by(&self, demand: &Demand, change: &Change) -> bool {
        let _ = (demand, change);
        true
    }
}

/// Says which of the nodes that will do are better.
///
/// It must decide by what it is given alone: the same input, the same answer.
pub trait Score: Send + Sync + 'static {
    /// Its name. Those of Kubernetes' plugins are taken.
    fn name(&self) -> &'static str;

    /// How much it counts beside others.
    fn weight(&self) -> i64 {
        1
    }

    /// How it rates nodes for that pod; `None` if all are the same to it.
    fn rate<'a>(&'a self, demand: &'a Demand, cluster: &'a Snapshot, feasible: &[usize]) -> Option<Rate<'a>>;

    /// Brings the rates of all nodes that will do to between 0 and 100. Unless it knows better: in proportion to the
    /// highest, and none below 0.
    fn normalize(&self, rates: &mut [i64]) {
        let highest = rates.iter().copied().max().unwrap_or(0);
        for rate in rates {
            *rate = if highest > 0 { (*rate).max(0) * 100 / highest } else { 0 };
        }
    }
}
