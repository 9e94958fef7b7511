use proptest::prelude::*;

use crate::route::load::{Count, Limit};

use super::*;
use std::cell::Cell;
use std::task::Wake;

/// A waker that says whether it was called.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, SeqCst)
    }
}

struct Client {
    ticket: Ticket,
    has_looked: Cell<bool>,
    woken: Arc<Woken>,
}

impl Client {
    fn enter(queue: &Arc<Queue>, most: u32) -> Option<Self> {
        Some(Self {
            ticket: queue.enter(most, ([10, 0, 0, 1], 5).into(), Instant::now())?,
            has_looked: Cell::new(false),
            woken: Arc::default(),
        })
    }

    /// Looks for a place whenever it is its turn, as a task does: until it has one, or has to wait.
    fn looks(&self, count: &Count, limit: Limit) -> bool {
        while self.has_turn() {
            if count.admit(limit) {
                return true;
            }
        }
        false
    }

    fn has_turn(&self) -> bool {
        self.has_looked.set(true);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.ticket
            .poll_turn(&mut Context::from_waker(&waker))
            .is_ready()
    }
}

#[test]
fn turns_come_in_order_and_only_when_a_place_may_be_free() {
    let queue = Arc::new(Queue::default());
    let clients: Vec<_> = (0..3).map(|_| Client::enter(&queue, 3).unwrap()).collect();
    assert!(Client::enter(&queue, 3).is_none(), "full");
    let [a, b, c] = &clients[..] else { panic!() };
    assert!(
        a.has_turn(),
        "it looks once: a place may have come free before it was here"
    );
    assert!(!a.has_turn() && !b.has_turn() && !c.has_turn());
    queue.wake();
    assert!(a.woken.take() && !b.woken.take() && !c.woken.take());
    assert!(!b.has_turn() && a.has_turn());
    queue.wake();
    assert!(
        b.woken.take(),
        "while the first one looks, the second one has the next turn"
    );
    assert!(b.has_turn());
    assert_eq!([a, b, c].map(|client| client.ticket.position()), [0, 1, 2]);
    assert_eq!(queue.waiting().len(), 3);
}

#[test]
fn who_leaves_passes_the_turn_on() {
    let queue = Arc::new(Queue::default());
    let a = Client::enter(&queue, 9).unwrap();
    let b = Client::enter(&queue, 9).unwrap();
    assert!(a.has_turn() && !b.has_turn());
    drop(a);
    assert!(b.woken.take() && b.has_turn());
    drop(b);
    assert!(queue.is_empty());
}

#[test]
fn a_place_that_came_free_while_nobody_waited_is_found_by_the_next_one() {
    let queue = Arc::new(Queue::default());
    queue.wake();
    let a = Client::enter(&queue, 1).unwrap();
    assert!(a.has_turn());
}

/// What happens to a crowd.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// Somebody comes: takes a place where nobody waits, else joins the queue.
    Comes,
    /// This one who waits leaves.
    GivesUp(usize),
    /// This one who has a place leaves.
    Leaves(usize),
    /// This one who waits is looked after, though nothing may have happened.
    IsPolled(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        3 => Just(Happens::Comes),
        1 => any::<usize>().prop_map(Happens::GivesUp),
        2 => any::<usize>().prop_map(Happens::Leaves),
        1 => any::<usize>().prop_map(Happens::IsPolled),
    ];
    prop::collection::vec(one, 0..200)
}

/// A place; dropping it frees it, and says so.
struct Place<'a>(&'a Count, &'a Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.release();
        self.1.wake();
    }
}

proptest! {
    #[test]
    fn nothing_leaks_and_nobody_waits_beside_a_free_place(
        happenings in happenings(),
        most in 1..5_u32,
        room in 0..6_u32,
    ) {
        let (count, queue) = (Count::default(), Arc::new(Queue::default()));
        let limit = Limit::new(Some(most), 100);
        let mut inside: Vec<Place<'_>> = Vec::new();
        let mut waiting: Vec<Client> = Vec::new();
        for happens in happenings {
            match happens {
                Happens::Comes if queue.is_empty() && count.admit(limit) => {
                    inside.push(Place(&count, &queue));
                }
                Happens::Comes => {
                    let entered = Client::enter(&queue, room);
                    prop_assert_eq!(entered.is_none(), waiting.len() == room as usize);
                    waiting.extend(entered);
                }
                Happens::GivesUp(at) if !waiting.is_empty() => {
                    drop(waiting.remove(at % waiting.len()));
                }
                Happens::Leaves(at) if !inside.is_empty() => {
                    drop(inside.remove(at % inside.len()));
                }
                Happens::IsPolled(at) if !waiting.is_empty() => {
                    let at = at % waiting.len();
                    if waiting[at].looks(&count, limit) {
                        prop_assert_eq!(at, 0, "the first one is the first");
                        drop(waiting.remove(at));
                        inside.push(Place(&count, &queue));
                    }
                }
                _ => {}
            }
            // Whoever was woken, or has not looked yet, looks, as its task would.
            let mut at = 0;
            while at < waiting.len() {
                let client = &waiting[at];
                let is_due = client.woken.take() || !client.has_looked.get();
                if is_due && client.looks(&count, limit) {
                    prop_assert_eq!(at, 0, "the first one is the first");
                    drop(waiting.remove(at));
                    inside.push(Place(&count, &queue));
                    at = 0;
                } else {
                    at += 1;
                }
            }
            let is_free = count.has_room(limit) && !waiting.is_empty();
            prop_assert!(!is_free, "a free place, and {} wait", waiting.len());
            prop_assert_eq!(count.active() as usize, inside.len());
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert!(inside.len() <= most as usize);
        }
        drop(waiting);
        inside.clear();
        prop_assert!(queue.is_empty() && count.active() == 0);
    }
}
