use super::*;
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
    woken: Arc<Woken>,
}

impl Client {
    fn enter(queue: &Arc<Queue>, most: u32) -> Option<Self> {
        Some(Self {
            ticket: queue.enter(most, ([10, 0, 0, 1], 5).into(), Instant::now())?,
            woken: Arc::default(),
        })
    }

    fn has_turn(&self) -> bool {
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
