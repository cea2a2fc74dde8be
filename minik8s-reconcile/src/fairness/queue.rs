//! Who is next. A plain data structure: no clock, no waiting, no IO.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Requests of two flows within that many milliseconds are in one another's way.
const CONTENTION_MS: u64 = 100;
/// Flows that are remembered though nothing of theirs is under way.
const REMEMBERED: usize = 256;

/// How much there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Requests at once.
    pub(super) seats: usize,
    /// Requests at once of one flow.
    pub(super) flow_seats: usize,
    /// Requests of one flow that wait.
    pub(super) flow_queue: usize,
}

/// Where a request stands that waits. Unique.
pub(super) type Ticket = u64;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It begins.
    Now,
    /// It waits until its ticket is called.
    Wait(Ticket),
    /// Too many of its flow wait already.
    Full,
}

/// Requests under way and waiting, by flow. Time goes in rounds: in each, every flow may begin as many requests as its
/// quantum says. That is deficit round robin with all requests alike.
#[derive(Debug)]
pub(super) struct Queue {
    shares: Shares,
    flows: BTreeMap<Arc<str>, Flow>,
    /// The flows in which somebody waits, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    under_way: usize,
    round: u64,
    /// When the last round began for want of anybody who waits.
    round_ms: u64,
    tickets: Ticket,
    /// Whose request came last, and when that changed last.
    last: Option<Arc<str>>,
    changed_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Flow {
    quantum: u32,
    /// How many began in the round.
    began: (u64, u32),
    under_way: usize,
    waiting: VecDeque<Ticket>,
}

impl Flow {
    fn left(&self, round: u64) -> u32 {
        let began = if self.began.0 == round { self.began.1 } else { 0 };
        self.quantum.saturating_sub(began)
    }

    fn begin(&mut self, round: u64) {
        let began = if self.began.0 == round { self.began.1 } else { 0 };
        self.began = (round, began.saturating_add(1));
        self.under_way += 1;
    }
}

impl Queue {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            shares,
            flows: BTreeMap::new(),
            turns: VecDeque::new(),
            under_way: 0,
            round: 0,
            round_ms: 0,
            tickets: 0,
            last: None,
            changed_ms: None,
        }
    }

    /// A request of the flow `name`, of which `quantum` may begin in a round.
    pub(super) fn admit(&mut self, name: &Arc<str>, quantum: u32, now_ms: u64) -> Admission {
        if self.last.as_ref() != Some(name) {
            // The first one of all is in nobody's way.
            self.changed_ms = self.last.is_some().then_some(now_ms);
            self.last = Some(name.clone());
        }
        if self.turns.is_empty() && self.round_ms != now_ms {
            // Nobody turns the rounds, and there is no need to hold anybody back.
            self.round += 1;
            self.round_ms = now_ms;
        }
        let contended = self.changed_ms.is_some_and(|at| now_ms.saturating_sub(at) < CONTENTION_MS);
        let (shares, round, full) = (self.shares, self.round, self.under_way >= self.shares.seats);
        let flow = match self.flows.get_mut(&**name) {
            Some(flow) => flow,
            None => {
                if self.flows.len() >= REMEMBERED {
                    self.flows.retain(|_, flow| flow.under_way > 0 || !flow.waiting.is_empty());
                }
                self.flows.entry(name.clone()).or_default()
            }
        };
        flow.quantum = quantum.max(1);
        let turn = !contended || flow.left(round) > 0;
        if turn && !full && flow.under_way < shares.flow_seats && flow.waiting.is_empty() {
            flow.begin(round);
            self.under_way += 1;
            return Admission::Now;
        }
        if flow.waiting.len() >= shares.flow_queue {
            return Admission::Full;
        }
        let ticket = self.tickets;
        self.tickets += 1;
        if flow.waiting.is_empty() {
            self.turns.push_back(name.clone());
        }
        flow.waiting.push_back(ticket);
        Admission::Wait(ticket)
    }

    /// A request of the flow that has begun is over. Returns who begins in its stead.
    pub(super) fn release(&mut self, name: &str) -> Vec<Ticket> {
        if let Some(flow) = self.flows.get_mut(name) {
            flow.under_way = flow.under_way.saturating_sub(1);
            self.under_way = self.under_way.saturating_sub(1);
        }
        if self.turns.is_empty() { Vec::new() } else { self.call() }
    }

    /// Somebody does not wait any longer. `false` if the ticket has been called.
    pub(super) fn leave(&mut self, name: &str, ticket: Ticket) -> bool {
        let Some(flow) = self.flows.get_mut(name) else { return false };
        let Some(at) = flow.waiting.iter().position(|t| *t == ticket) else { return false };
        flow.waiting.remove(at);
        if flow.waiting.is_empty() {
            self.turns.retain(|turn| &**turn != name);
        }
        true
    }

    /// Begins another round. Returns who begins in it.
    pub(super) fn next_round(&mut self) -> Vec<Ticket> {
        self.round += 1;
        self.call()
    }

    /// Whether somebody waits for nothing but another round.
    pub(super) fn wants_round(&self) -> bool {
        let able =
            |name| self.flows.get(name).is_some_and(|flow: &Flow| flow.under_way < self.shares.flow_seats);
        self.under_way < self.shares.seats && self.turns.iter().any(able)
    }

    /// Everybody who can begin in this round, one of each flow after the other.
    fn call(&mut self) -> Vec<Ticket> {
        let mut called = Vec::new();
        let mut passed_over = 0;
        while passed_over < self.turns.len() && self.under_way < self.shares.seats {
            let Some(name) = self.turns.pop_front() else { break };
            let Some(flow) = self.flows.get_mut(&*name) else { continue };
            if flow.left(self.round) == 0 || flow.under_way >= self.shares.flow_seats {
                self.turns.push_back(name);
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            if let Some(ticket) = flow.waiting.pop_front() {
                flow.begin(self.round);
                self.under_way += 1;
                called.push(ticket);
            }
            if !flow.waiting.is_empty() {
                self.turns.push_back(name);
            }
        }
        called
    }

    /// Requests under way, and requests that wait.
    pub(super) fn count(&self) -> (usize, usize) {
        (
            self.under_way,
            self.turns.iter().filter_map(|name| self.flows.get(name)).map(|f| f.waiting.len()).sum(),
        )
    }
}
