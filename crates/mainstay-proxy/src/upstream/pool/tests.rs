//! The line, with connections put on the shelf by hand.

use bytes::Bytes;
use http_body_util::Full;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::upstream::UpstreamSettings;
use crate::upstream::wire::Link;

type TestPool = Rc<Pool<Full<Bytes>>>;

fn pool() -> TestPool {
    let settings = Arc::new(UpstreamSettings { connections_max: 8, ..Default::default() });
    Rc::new(Pool::new(Arc::new(Target { id: 0, address: "a:1".into(), settings })))
}

/// An idle connection of `pool`, and its peer.
async fn idle(pool: &TestPool) -> (Box<Live<Full<Bytes>>>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tcp, peer) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let Some(Grant::Slot(slot)) = pool.available() else { panic!("there is room") };
    (Live::open(Link::Plain(tcp.unwrap()), slot), peer.unwrap().0)
}

#[tokio::test]
async fn a_dead_connection_on_the_shelf_costs_no_good_one() {
    let pool = pool();
    let (first, _first_peer) = idle(&pool).await;
    let (second, _second_peer) = idle(&pool).await;
    let (mut dead, gone) = idle(&pool).await;
    drop(gone);
    while dead.is_reusable() {
        tokio::task::yield_now().await;
    }
    pool.inner.borrow_mut().idle.extend([(0, first), (0, second), (0, dead)]);
    let ticket = Rc::new(Ticket { state: RefCell::new(State::Waiting(None)) });
    pool.inner.borrow_mut().waiting.push_back(Rc::clone(&ticket));

    pool.serve_waiting();

    assert!(matches!(*ticket.state.borrow(), State::Granted(Grant::Live(_))), "{ticket:?}");
    assert_eq!((pool.open(), pool.idle()), (2, 1), "the other good one is still there");
    assert!(!pool.inner.borrow().failing, "no attempt was given up");
}
