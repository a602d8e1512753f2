//! One thread: accepts, keeps time, drains.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay_call::pause::Heart;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::Settings;
use super::pace::{Order, Pace, Patience, TICK, Watch};
use super::{Handler, Incident, LiveLimits, OnIncident, tasks};
use crate::listener::{Caps, Counted};
use crate::tls::ServerTls;

/// A pause after the process ran out of descriptors, in which some may come back.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket of a worker.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<ServerTls>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) doors: Vec<Door>,
    pub(super) limits: LiveLimits,
    pub(super) caps: Arc<Caps>,
    pub(super) stop: CancellationToken,
    pub(super) on_incident: OnIncident,
}

impl Worker {
    /// Serves until told to stop, then drains; returns how many connections it had to cut.
    pub(super) fn run<H: Handler>(
        self,
        runtime: &LocalRuntime,
        handler: impl FnOnce() -> H,
    ) -> usize {
        runtime.block_on(async move {
            let floor = Rc::new(Floor::default());
            tasks::spawn(tick(Rc::clone(&floor), self.limits.clone(), self.on_incident.clone()));
            let settings = Settings::new(handler(), self.limits.clone(), self.on_incident);
            let settings = Rc::new(settings);
            for door in self.doors {
                let (caps, stop) = (Arc::clone(&self.caps), self.stop.clone());
                let accepting = accept(door, caps, stop, Rc::clone(&settings), Rc::clone(&floor));
                floor.doors.set(floor.doors.get() + 1);
                tasks::spawn(accepting);
            }
            self.stop.cancelled().await;
            floor.drain(self.limits.load().drain).await
        })
    }
}

/// All connections of a worker.
#[derive(Debug, Default)]
struct Floor {
    watches: RefCell<Vec<Watch>>,
    now: Cell<u64>,
    /// Accepting tasks.
    doors: Cell<usize>,
    draining: Cell<bool>,
    emptied: Notify,
}

impl Floor {
    fn enter(self: &Rc<Self>, counted: Counted) -> Present {
        let pace = Rc::new(Pace::default());
        pace.closing.set(self.draining.get());
        self.watches.borrow_mut().push(Watch::new(Rc::clone(&pace), self.now.get()));
        Present { floor: Rc::clone(self), pace, counted }
    }

    /// Tells everybody to finish, waits up to `grace`, cuts the rest and counts it.
    async fn drain(self: &Rc<Self>, grace: Duration) -> usize {
        self.draining.set(true);
        for watch in self.watches.borrow().iter() {
            watch.pace.closing.set(true); // The ticker gives the orders.
        }
        let empty = async {
            while self.doors.get() != 0 || !self.watches.borrow().is_empty() {
                self.emptied.notified().await;
            }
        };
        if tokio::time::timeout(grace, empty).await.is_ok() {
            return 0;
        }
        let left = self.watches.borrow().len();
        for watch in self.watches.borrow().iter() {
            watch.pace.order(Order::Cut);
        }
        tokio::task::yield_now().await; // They close their sockets in their own way.
        left
    }
}

/// One connection on the floor.
struct Present {
    floor: Rc<Floor>,
    pace: Rc<Pace>,
    counted: Counted,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut watches = self.floor.watches.borrow_mut();
        if let Some(index) = watches.iter().position(|watch| Rc::ptr_eq(&watch.pace, &self.pace)) {
            watches.swap_remove(index);
        }
        if watches.is_empty() {
            self.floor.emptied.notify_one();
        }
    }
}

/// Judges all connections at each tick.
async fn tick(floor: Rc<Floor>, limits: LiveLimits, on_incident: OnIncident) {
    let heart = Heart::start(TICK);
    loop {
        tokio::time::sleep(TICK).await;
        if let Some(paused) = heart.beat() {
            on_incident.tell(Incident::StoodStill(paused));
        }
        let now = floor.now.get() + 1;
        floor.now.set(now);
        let patience = Patience::from(&*limits.load());
        for watch in floor.watches.borrow_mut().iter_mut() {
            if let Some(order) = watch.judge(now, &patience) {
                watch.pace.order(order);
            }
        }
    }
}

/// Accepts until told to stop, then empties the queue: who is in it was promised an answer.
async fn accept<H: Handler>(
    door: Door,
    caps: Arc<Caps>,
    stop: CancellationToken,
    settings: Rc<Settings<H>>,
    floor: Rc<Floor>,
) {
    let open = Open(Rc::clone(&floor));
    let Ok(listener) = tokio::net::TcpListener::from_std(door.socket) else { return };
    let take_in = |tcp: tokio::net::TcpStream, peer: SocketAddr| {
        let setting = settings.current();
        // One that is passed on counts as its client's.
        let passed_on = setting.limits.announcing.contains(peer.ip());
        let Some(counted) = caps.admit((!passed_on).then(|| peer.ip())) else { return };
        let mut present = floor.enter(counted);
        let tls = door.tls.clone();
        tasks::spawn(async move {
            let pace = Rc::clone(&present.pace);
            let passed_on = passed_on.then_some(&mut present.counted);
            setting.serve(tcp, peer, passed_on, tls, pace).await;
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => take_in(tcp, peer),
            Err(error) if gone(&error) => (),
            Err(_exhausted) => tokio::time::sleep(EXHAUSTED_PAUSE).await,
        }
    }
    // The runtime knows the queue as it was when it last looked, and hands out so many a turn. The
    // socket itself knows who is there.
    if let Ok(socket) = listener.into_std() {
        loop {
            match socket.accept().and_then(|(tcp, peer)| {
                tcp.set_nonblocking(true)?;
                Ok((tokio::net::TcpStream::from_std(tcp)?, peer))
            }) {
                Ok((tcp, peer)) => take_in(tcp, peer),
                Err(error) if gone(&error) => (),
                Err(_empty_or_exhausted) => break,
            }
        }
    }
    drop(open);
}

/// Counts one accepting task.
struct Open(Rc<Floor>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.doors.set(self.0.doors.get() - 1);
        self.0.emptied.notify_one();
    }
}

/// The client left the queue before it was accepted.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

pub(super) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
