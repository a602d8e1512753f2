//! Holds a lock in its own process, writes under it, gives it back or vanishes.

use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::keys::Slot;
use mainstay_coord::name::{LockName, Namespace, OwnerName};
use mainstay_coord::{Held, LockError, Owner, Request, Session, Wait};
use mainstay_store::{Batch, Compare, Get, Op, Put, Revision, Store as _};
use parking_lot::Mutex;

use super::pairs::key;
use super::{Believer, EXCLUSIVE, Granted, REGISTER, SHARED, Seen, UNSEEN};
use crate::check::locks::What;
use crate::clock::spawn;
use crate::mutant::Mutant;
use crate::node::Node;

/// What is held, while it is believed in.
type Hand = Arc<Mutex<Option<Held>>>;

/// Holds and gives back until it is told to stop.
pub async fn run(node: Node, seen: Seen) {
    let client = seen.client();
    let mut session: Option<Session> = None;
    while !node.is_over() {
        node.sleep(node.draw.millis(20, 400)).await;
        let current = match session.take().filter(|session| session.check().is_ok()) {
            Some(session) => session,
            None => {
                let ttl = Duration::from_secs(2 + node.draw.below(7));
                match node.ground.sessions().start(owner(&node), ttl).await {
                    Ok(session) => session,
                    Err(_) => continue,
                }
            }
        };
        let kept = match node.server.mutant() {
            Some(Mutant::LooksThenTakes) => naive(&node, &seen, &current).await,
            _ => once(&node, &seen, &current, client).await,
        };
        // After some endings the session may still stand in a queue: it is left to its own end.
        session = kept.then_some(current);
    }
}

/// Asks, holds, works, ends; whether the session can be used again.
async fn once(node: &Node, seen: &Seen, session: &Session, client: u32) -> bool {
    let exclusive = !node.draw.once_in(3);
    let request = request(node, exclusive).wait(wait(node));
    let called = node.server.order();
    let held = match session.acquire(request).await {
        Ok(held) => held,
        Err(LockError::Busy { .. } | LockError::WaitTimeout { .. }) => return true,
        Err(_) => return false,
    };
    let (token, granted_at) = (held.token().get(), node.server.order());
    let is_x = held.place().name.as_str() == EXCLUSIVE;
    if is_x {
        seen.lock_call(client, What::Acquire(token), called, granted_at);
    }
    let slot = Slot { session: session.id(), request: None };
    let granted = Granted { key: held.place().slot(&slot), token, revision: held.revision() };
    let lock = if is_x { EXCLUSIVE } else { SHARED };
    let hand: Hand = Arc::new(Mutex::new(Some(held)));
    let watched = Arc::clone(&hand);
    let believes = move || watched.lock().as_ref().is_some_and(|held| held.check().is_ok());
    let believes = Arc::new(believes);
    seen.granted(granted, Believer { node: node.clone(), lock, exclusive, token, believes });
    let lost = !work(node, seen, &hand, is_x).await;
    let end = node.draw.below(8);
    let Some(held) = hand.lock().take() else { return false };
    let returning = node.server.order();
    let release = |called, returned| {
        if is_x {
            seen.lock_call(client, What::Release(token), called, returned);
        }
    };
    match end {
        _ if lost => {
            release(granted_at, UNSEEN);
            seen.count("locks lost");
            false
        }
        0 => {
            // Its session ends under it, and what it held goes too.
            release(granted_at, UNSEEN);
            seen.count("sessions ended under a lock");
            drop(session.clone().end().await);
            drop(held);
            false
        }
        1 => {
            release(returning, UNSEEN);
            drop(held);
            seen.progress(node, "locks held");
            false
        }
        _ => {
            let released = held.release().await;
            if released.is_ok() {
                release(returning, node.server.order());
                seen.progress(node, "locks held");
            } else {
                release(granted_at, UNSEEN);
            }
            released.is_ok()
        }
    }
}

/// Writes under the lock, now and then; whether it was held to the end.
async fn work(node: &Node, seen: &Seen, hand: &Hand, writes: bool) -> bool {
    for _ in 0..=node.draw.below(4) {
        node.sleep(node.draw.millis(20, 900)).await;
        let (token, guard) = match hand.lock().as_ref() {
            Some(held) if held.check().is_ok() => (held.token().get(), held.guard()),
            _ => return false,
        };
        if writes {
            send(node, seen, token, guard).await;
        }
    }
    hand.lock().as_ref().is_some_and(|held| held.check().is_ok())
}

/// One write to the store, guarded, and one to the resource, which may take its time.
pub(crate) async fn send(node: &Node, seen: &Seen, token: u64, guard: Compare) {
    let late =
        if node.draw.once_in(4) { node.draw.millis(500, 15_000) } else { node.draw.millis(0, 9) };
    let (seen, node_name, server) = (seen.clone(), node.name.clone(), node.server.clone());
    spawn(async move {
        tokio::time::sleep(late).await;
        server.note(|| format!("{node_name}: a write with token {token} arrives"));
        seen.write_resource(token);
    });
    let put = Put::new(key(REGISTER), token.to_string());
    drop(node.link.apply(Batch::new().when(guard).then(put)).await);
}

/// The mistake of looking whether it is free, and then taking it.
async fn naive(node: &Node, seen: &Seen, session: &Session) -> bool {
    let name = key("naive");
    match node.link.get(Get::new(name.clone())).await {
        Ok(got) if got.entry.is_none() => {}
        _ => return true,
    }
    let taken = Batch::new().then(Put::new(name.clone(), "mine").lease(session.id()));
    let Ok(applied) = node.link.apply(taken).await else { return false };
    let believer = session.clone();
    let believes = Arc::new(move || believer.check().is_ok());
    let token = applied.revision.get();
    let granted = Granted { key: name.clone(), token, revision: Revision::new(token) };
    let (lock, exclusive) = ("naive", true);
    seen.granted(granted, Believer { node: node.clone(), lock, exclusive, token, believes });
    node.sleep(node.draw.millis(50, 900)).await;
    seen.look();
    if session.check().is_ok() {
        drop(node.link.apply(Batch::new().then(Op::delete(&name))).await);
    }
    seen.progress(node, "locks held");
    false
}

/// How long it waits: not at all, a while, or longer than anybody holds.
pub(crate) fn wait(node: &Node) -> Wait {
    match node.draw.below(6) {
        0 => Wait::Try,
        1 => Wait::AtMost(node.draw.millis(10, 2_000)),
        _ => Wait::AtMost(Duration::from_secs(20)),
    }
}

pub(crate) fn request(node: &Node, exclusive: bool) -> Request {
    let namespace = Namespace::new("sim").expect("a-z");
    let lock = |name| LockName::new(name).expect("a-z");
    match (exclusive, node.draw.once_in(4)) {
        (true, false) => Request::exclusive(namespace, lock(EXCLUSIVE)),
        (true, true) => Request::exclusive(namespace, lock(SHARED)),
        (false, _) => Request::shared(namespace, lock(SHARED)),
    }
}

pub(crate) fn owner(node: &Node) -> Owner {
    let name = |text: &str| OwnerName::new(text).expect("short");
    Owner::new(name(&node.name), 1, name("client"))
}
