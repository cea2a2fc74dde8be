use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};

use super::queue::{Admission, Queue, Shares, Ticket};
use super::{FairLayer, Fairness};
use crate::ApiServer;
use crate::request::{ListParams, Operation, User};
use crate::storage::memory::MemoryStorage;

fn names() -> [Arc<str>; 3] {
    ["a", "b", "c"].map(Into::into)
}

#[derive(Clone, Debug)]
enum Op {
    Admit(usize),
    Release(usize),
    Leave(prop::sample::Index),
    Round,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Op::Admit),
        4 => (0..3_usize).prop_map(Op::Release),
        1 => any::<prop::sample::Index>().prop_map(Op::Leave),
        2 => Just(Op::Round),
        1 => (0..200_u64).prop_map(Op::Pass),
    ]
}

/// What a queue should be, said in the simplest way: who is under way and who waits.
#[derive(Default)]
struct Model {
    under_way: BTreeMap<usize, usize>,
    waiting: BTreeMap<usize, VecDeque<Ticket>>,
}

impl Model {
    fn total(&self) -> usize {
        self.under_way.values().sum()
    }

    fn called(&mut self, tickets: Vec<Ticket>) -> Result<(), TestCaseError> {
        for ticket in tickets {
            let whose = self.waiting.iter().find(|(_, w)| w.front() == Some(&ticket)).map(|(flow, _)| *flow);
            let Some(flow) = whose else {
                return Err(TestCaseError::fail("called out of the order of its flow, or twice"));
            };
            self.waiting.entry(flow).or_default().pop_front();
            *self.under_way.entry(flow).or_default() += 1;
        }
        Ok(())
    }
}

proptest! {
    /// Seats and queues have bounds; flows keep their order; nobody is called twice, and nobody is forgotten.
    #[test]
    fn a_queue_keeps_its_promises(
        (seats, flow_seats, flow_queue) in (1..6_usize, 1..4_usize, 1..5_usize),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut queue = Queue::new(Shares { seats, flow_seats, flow_queue });
        let (mut model, mut now, names) = (Model::default(), 0, names());
        for op in ops {
            match op {
                Op::Admit(flow) => match queue.admit(&names[flow], 2, now) {
                    Admission::Now => {
                        prop_assert!(model.waiting.get(&flow).is_none_or(VecDeque::is_empty));
                        *model.under_way.entry(flow).or_default() += 1;
                    }
                    Admission::Wait(ticket) => model.waiting.entry(flow).or_default().push_back(ticket),
                    Admission::Full => {
                        prop_assert_eq!(model.waiting.get(&flow).map_or(0, VecDeque::len), flow_queue);
                    }
                },
                Op::Release(flow) => {
                    if let Some(count) = model.under_way.get_mut(&flow).filter(|c| **c > 0) {
                        *count -= 1;
                        model.called(queue.release(&names[flow]))?;
                    }
                }
                Op::Leave(which) => {
                    let all: Vec<_> =
                        model.waiting.iter().flat_map(|(f, w)| w.iter().map(|t| (*f, *t))).collect();
                    if !all.is_empty() {
                        let (flow, ticket) = *which.get(&all);
                        prop_assert!(queue.leave(&names[flow], ticket));
                        prop_assert!(!queue.leave(&names[flow], ticket));
                        model.waiting.entry(flow).or_default().retain(|t| *t != ticket);
                    }
                }
                Op::Round => model.called(queue.next_round())?,
                Op::Pass(ms) => now += ms,
            }
            prop_assert!(model.total() <= seats);
            prop_assert!(model.under_way.values().all(|c| *c <= flow_seats));
            let waiting: usize = model.waiting.values().map(VecDeque::len).sum();
            prop_assert_eq!(queue.count(), (model.total(), waiting));
        }
        // Everybody gets a turn once those before are done.
        for _ in 0..1000 {
            let flow = model.under_way.iter().find(|(_, c)| **c > 0).map(|(flow, _)| *flow);
            if let Some(flow) = flow {
                *model.under_way.entry(flow).or_default() -= 1;
                model.called(queue.release(&names[flow]))?;
            }
            model.called(queue.next_round())?;
        }
        prop_assert_eq!(queue.count(), (0, 0));
    }

    /// However much others have sent, who sends little begins at once or in the next round.
    #[test]
    fn a_flood_is_in_nobodys_way(flood in 1..300_usize, quantum in 1..8_u32) {
        let mut queue = Queue::new(Shares { seats: 400, flow_seats: 100, flow_queue: 512 });
        let [noisy, quiet, _] = names();
        queue.admit(&quiet, 4, 0);
        queue.release(&quiet);
        let mut begun = 0;
        for _ in 0..flood {
            begun += usize::from(queue.admit(&noisy, quantum, 1) == Admission::Now);
        }
        prop_assert!(begun <= quantum as usize, "{} began", begun);
        prop_assert_eq!(queue.admit(&quiet, 4, 1), Admission::Now);
        // From then on in each round a quantum of the one, and whatever the other sends.
        for _ in 0..20 {
            prop_assert!(queue.next_round().len() <= quantum as usize);
            prop_assert_eq!(queue.admit(&quiet, 4, 2), Admission::Now);
            queue.release(&quiet);
        }
    }

    /// Those who send as much as they can get equal parts.
    #[test]
    fn equals_get_equal_parts(rounds in 1..50_usize) {
        let mut queue = Queue::new(Shares { seats: 400, flow_seats: 400, flow_queue: 512 });
        let mut began: BTreeMap<Ticket, usize> = BTreeMap::new();
        let mut parts = [0_usize; 3];
        for _ in 0..512 {
            for (flow, name) in names().iter().enumerate() {
                match queue.admit(name, 4, 0) {
                    Admission::Wait(ticket) => drop(began.insert(ticket, flow)),
                    _ => parts[flow] += 1,
                }
            }
        }
        // All but the first have begun when they were not alone.
        let before = parts;
        for _ in 0..rounds {
            for ticket in queue.next_round() {
                parts[began[&ticket]] += 1;
                queue.release(&names()[began[&ticket]]);
            }
        }
        let got: Vec<_> = parts.iter().zip(before).map(|(all, before)| all - before).collect();
        prop_assert!(got.iter().max().unwrap() - got.iter().min().unwrap() <= 4, "{:?}", got);
    }
}

fn user(name: &str) -> User {
    User::named(name, &[])
}

#[tokio::test]
async fn alone_nobody_waits() {
    let fairness = Fairness::new(40);
    let jane = user("jane");
    let mut seats = Vec::new();
    for _ in 0..10 {
        seats.push(fairness.admit(&jane).now_or_never().expect("at once").expect("a seat"));
    }
    // A quarter of all is for one flow; the next waits until one of its own is over.
    let mut next = Box::pin(fairness.admit(&jane));
    assert!((&mut next).now_or_never().is_none());
    let other = fairness.admit(&user("joe")).now_or_never().expect("at once").expect("a seat");
    assert_eq!((fairness.under_way(), fairness.waiting()), (11, 1));
    seats.pop();
    let seat = next.await.expect("a seat");
    drop((seat, other, seats));
    assert_eq!((fairness.under_way(), fairness.waiting(), fairness.totals()), (0, 0, (1, 0)));
}

#[tokio::test]
async fn who_gives_up_gives_the_place_back() {
    let fairness = Fairness::new(1);
    let jane = user("jane");
    let seat = fairness.admit(&jane).await.expect("a seat");
    let mut gives_up = Box::pin(fairness.admit(&jane));
    assert!((&mut gives_up).now_or_never().is_none());
    // Once before it is called, and once after.
    drop(gives_up);
    let mut gives_up = Box::pin(fairness.admit(&jane));
    assert!((&mut gives_up).now_or_never().is_none());
    drop(seat);
    drop(gives_up);
    assert_eq!((fairness.under_way(), fairness.waiting()), (0, 0));
    drop(fairness.admit(&jane).await.expect("a seat"));
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let fairness = Fairness::with(Shares { seats: 1, flow_seats: 1, flow_queue: 1 });
    let jane = user("jane");
    let _seat = fairness.admit(&jane).await.expect("a seat");
    let mut waits = Box::pin(fairness.admit(&jane));
    assert!((&mut waits).now_or_never().is_none());
    let error = fairness.admit(&jane).await.expect_err("full");
    assert_eq!((error.code(), error.reason(), error.retry_after_s()), (429, "TooManyRequests", Some(1)));
}

#[tokio::test]
async fn rounds_turn_by_themselves() {
    let fairness = Fairness::default();
    let (noisy, quiet) = (user("noisy"), user("quiet"));
    drop(fairness.admit(&noisy).await);
    drop(fairness.admit(&quiet).await);
    let flood: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let (fairness, noisy) = (fairness.clone(), noisy.clone());
                async move { drop(fairness.admit(&noisy).await.expect("a seat")) }
            })
        })
        .collect();
    for request in flood {
        request.await.expect("it got its turn");
    }
    let (queued, refused) = fairness.totals();
    assert!(queued > 0 && refused == 0, "{queued} waited");
}

#[tokio::test]
async fn a_layer_in_front_of_a_server() {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("namespaces");
    let fairness = Fairness::default();
    let fair = FairLayer::new(fairness.clone()).layer(server.clone());
    let kind = server.registry().by_path("", "v1", "namespaces").expect("a kind").clone();
    let request = server.client().request(kind, None, Operation::List(ListParams::default()));
    fair.oneshot(request).await.expect("an answer");
    assert_eq!(fairness.under_way(), 0);
}
