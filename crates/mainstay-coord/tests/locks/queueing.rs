//! Who is granted what, in which order, and what is left behind.

use std::pin::pin;
use std::time::Duration;

use mainstay_coord::audit::Filter;
use mainstay_coord::keys::Slot;
use mainstay_coord::lock::{QUEUE_MAX, Reason, Want};
use mainstay_coord::name::{Gid, RequestId};
use mainstay_coord::session::Secret;
use mainstay_coord::{
    Area, Credential, Held, Leadership, LockError, Loss, Place, Request, Session, SessionError,
    Token, Wait,
};
use mainstay_core::problem::Code;
use mainstay_store::{Batch, Get, Key, LeaseId, Put, Range, RangeRequest, Select, Store as _};
use tokio::task::JoinHandle;

use crate::world::{World, exclusive, lock_name, namespace, owner, settle, shared};

/// Asks in a task of its own, and lets it come as far as it can.
async fn ask(session: &Session, request: Request) -> JoinHandle<Result<Held, LockError>> {
    let session = session.clone();
    let asking = tokio::task::spawn_local(async move { session.acquire(request).await });
    settle().await;
    asking
}

/// What was asked for has been granted.
async fn granted(asking: JoinHandle<Result<Held, LockError>>) -> Held {
    settle().await;
    assert!(asking.is_finished(), "it is not granted");
    asking.await.unwrap().unwrap()
}

/// Runs `test`, which may ask from several tasks.
async fn local(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

const QUEUE: &str = "lock/shop/stock/q/";

#[tokio::test]
async fn waiters_come_in_the_order_they_asked_and_tokens_rise() {
    local(async {
        let world = World::new();
        let node = world.node();
        let mut asking = Vec::new();
        for name in ["a", "b", "c", "d"] {
            asking.push(ask(&node.session(name, 15).await, exclusive()).await);
        }
        let mut last = Token::new(0);
        for asked in asking {
            let held = granted(asked).await;
            assert!(last < held.token());
            last = held.token();
            held.check().unwrap();
            assert_eq!(held.release().await.unwrap().count, 0);
        }
        assert_eq!(world.keys(QUEUE).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_try_that_fails_says_who_holds_and_writes_nothing() {
    let world = World::new();
    let node = world.node();
    let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
    let held = a.acquire(exclusive()).await.unwrap();
    let before = world.revision().await;
    let error = b.acquire(exclusive().wait(Wait::Try)).await.unwrap_err();
    assert_eq!(world.revision().await, before);
    let LockError::Busy { holder: Some(holder), queued: 1, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((holder.owner.as_ref(), holder.token), (Some(&owner("a")), held.token()));
    assert_eq!(error.to_string(), "lock is busy: 1 hold it or wait, first a (process 7 on host)");
    assert_eq!((error.code(), error.is_retryable()), (Code::LockBusy, true));
}

#[tokio::test]
async fn a_try_never_overtakes_somebody_who_waits() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b, c) =
            (node.session("a", 15).await, node.session("b", 15).await, node.session("c", 15).await);
        let reading = a.acquire(shared()).await.unwrap();
        let writing = ask(&b, exclusive()).await;
        let error = c.acquire(shared().wait(Wait::Try)).await.unwrap_err();
        let LockError::Busy { retry_after: Some(after), queued: 3, .. } = error else {
            panic!("{error:?}")
        };
        assert!(after <= Duration::from_secs(15));
        assert_eq!(world.keys(QUEUE).await.len(), 2, "the try left its place");
        reading.release().await.unwrap();
        granted(writing).await.release().await.unwrap();
        c.acquire(shared().wait(Wait::Try)).await.unwrap().release().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_waits_too_long_leaves_the_queue() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
        let held = a.acquire(exclusive()).await.unwrap();
        let wait = Wait::AtMost(Duration::from_secs(3));
        let asking = ask(&b, exclusive().wait(wait)).await;
        world.pass(2_900).await;
        assert!(!asking.is_finished());
        world.pass(200).await;
        let error = asking.await.unwrap().unwrap_err();
        let LockError::WaitTimeout { holder: Some(_), queued: 1 } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(error.code(), Code::LockWaitTimeout);
        assert_eq!(world.keys(QUEUE).await.len(), 1);
        held.release().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_session_that_asks_again_holds_once_more_with_the_same_token() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let first = a.acquire(exclusive()).await.unwrap();
    // Raising the base of tokens changes those of later grants, not of this one.
    node.ground.raise_fence_base(1_000).await.unwrap();
    let second = a.acquire(exclusive()).await.unwrap();
    assert_eq!((first.count(), second.count()), (1, 2));
    assert_eq!(first.token(), second.token());
    let third = a.acquire(exclusive().not_reentrant()).await.unwrap_err();
    assert_eq!(third, LockError::AlreadyHeld { count: 2 });
    let reader = a.acquire(shared()).await.unwrap();
    assert_eq!(reader.count(), 3, "a writer may read");
    assert_eq!(reader.release().await.unwrap().count, 2);
    assert_eq!(first.release().await.unwrap().count, 1);
    second.check().unwrap();
    let token = second.token();
    assert_eq!(second.release().await.unwrap().count, 0);
    assert!(token.get() + 1_000 < a.acquire(exclusive()).await.unwrap().token().get());
}

#[tokio::test]
async fn the_same_request_never_counts_twice() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let request = || exclusive().id(RequestId::new("one").unwrap());
    let first = a.acquire(request()).await.unwrap();
    let again = a.acquire(request()).await.unwrap();
    assert_eq!((again.count(), again.token()), (1, first.token()));
    let other = a.acquire(exclusive()).await.unwrap();
    assert_eq!(other.count(), 2);
    assert_eq!(a.acquire(request()).await.unwrap().count(), 2);
}

#[tokio::test]
async fn a_reader_cannot_become_a_writer_and_a_writer_can_let_others_read() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b, c) =
            (node.session("a", 15).await, node.session("b", 15).await, node.session("c", 15).await);
        let reading = a.acquire(shared()).await.unwrap();
        assert_eq!(a.acquire(exclusive()).await.unwrap_err(), LockError::UpgradeRefused);
        reading.release().await.unwrap();

        let mut writing = a.acquire(exclusive()).await.unwrap();
        let token = writing.token();
        let reader = ask(&b, shared()).await;
        let writer = ask(&c, exclusive()).await;
        assert!(!reader.is_finished());
        writing.downgrade().await.unwrap();
        let reader = granted(reader).await;
        assert_eq!((writing.token(), writing.want()), (token, Want::Shared));
        writing.release().await.unwrap();
        settle().await;
        assert!(!writer.is_finished(), "a reader is before it");
        reader.release().await.unwrap();
        granted(writer).await.release().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_semaphore_lets_in_whoever_is_next_as_soon_as_it_fits() {
    local(async {
        let world = World::new();
        let node = world.node();
        let ask_for =
            |permits, limit| Request::permits(namespace(), lock_name(), permits, limit).unwrap();
        let (a, b, c) =
            (node.session("a", 15).await, node.session("b", 15).await, node.session("c", 15).await);
        let one = a.acquire(ask_for(1, 3)).await.unwrap();
        let two = b.acquire(ask_for(2, 3)).await.unwrap();
        let waiting = ask(&c, ask_for(1, 3)).await;
        assert!(!waiting.is_finished());
        let error = c.acquire(ask_for(1, 4)).await.unwrap_err();
        assert_eq!(error, LockError::LimitDiffers { limit: 3 });
        one.release().await.unwrap();
        let three = granted(waiting).await;
        // Each request takes its own permits, also those of one session.
        let more = ask(&b, ask_for(1, 3)).await;
        assert!(!more.is_finished());
        three.release().await.unwrap();
        granted(more).await.release().await.unwrap();
        two.release().await.unwrap();
        assert_eq!(world.keys("sem/").await, ["sem/shop/stock/last"]);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_session_frees_everything_in_one_revision() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let (lock, read) = (a.acquire(exclusive()).await.unwrap(), {
        let other = mainstay_coord::name::LockName::new("other").unwrap();
        a.acquire(Request::shared(namespace(), other)).await.unwrap()
    });
    let before = world.revision().await;
    a.clone().end().await.unwrap();
    assert_eq!(world.revision().await, before.next());
    assert_eq!(world.keys("lock/").await, [""; 0]);
    for held in [lock, read] {
        assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::SessionGone));
        assert_eq!(held.lost().await, Loss::SessionGone);
        assert_eq!(held.release().await.unwrap_err(), LockError::Lost(Loss::SessionGone));
    }
    assert_eq!(a.acquire(exclusive()).await.unwrap_err(), LockError::Lost(Loss::SessionGone));
}

#[tokio::test]
async fn the_last_clone_of_a_session_ends_it_but_not_while_something_is_held() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    drop(a);
    world.pass(60_000).await;
    held.check().unwrap();
    drop(held);
    settle().await;
    assert_eq!(world.keys("").await, ["lock/shop/stock/last"]);
}

#[tokio::test]
async fn what_a_transaction_holds_survives_its_caller_until_it_is_finished() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
        let held = a.acquire(exclusive()).await.unwrap();
        let token = held.token();
        let gid = Gid::new("tx-1").unwrap();
        let bound = held.bind(&gid).await.unwrap();
        assert_eq!(bound.token(), token);
        let error = a.acquire(exclusive()).await.unwrap_err();
        assert_eq!(error, LockError::Bound { gid: "tx-1".to_owned() });
        a.end().await.unwrap();
        let waiting = ask(&b, exclusive()).await;
        world.pass(60_000).await;
        assert!(!waiting.is_finished());

        let locks = node.ground.locks();
        let page = locks.bound(None).await.unwrap();
        assert_eq!((page.places.as_slice(), page.next), ([bound.place().clone()].as_slice(), None));
        let place = exclusive().place().clone();
        let status = locks.status(&place).await.unwrap();
        assert_eq!(status.line.holders()[0].bound_gid(), Some("tx-1"));
        locks.finish(bound.place()).await.unwrap();
        let next = granted(waiting).await;
        assert!(token < next.token());
        locks.finish(bound.place()).await.unwrap();
        next.check().unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_held_twice_cannot_be_bound_or_downgraded() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let mut first = a.acquire(exclusive()).await.unwrap();
    let second = a.acquire(exclusive()).await.unwrap();
    assert_eq!(first.downgrade().await.unwrap_err(), LockError::AlreadyHeld { count: 2 });
    let gid = Gid::new("tx").unwrap();
    assert_eq!(second.bind(&gid).await.unwrap_err(), LockError::AlreadyHeld { count: 2 });
    settle().await;
    first.downgrade().await.unwrap();
}

#[tokio::test]
async fn a_remote_session_needs_its_secret_and_a_release_its_token() {
    let world = World::new();
    let node = world.node();
    let (sessions, locks) = (node.ground.sessions(), node.ground.locks());
    let opened = sessions.open(owner("far"), Duration::from_secs(15)).await.unwrap();
    let own = opened.credential;
    let thief = Credential { secret: Secret::new("guess"), ..own.clone() };
    let place = exclusive().place().clone();
    let grant = locks.acquire(&own, exclusive()).await.unwrap();
    let op = RequestId::random();

    let session = own.session;
    let wrong = SessionError::SecretWrong { session };
    assert_eq!(sessions.renew(&thief).await.unwrap_err(), wrong);
    assert_eq!(sessions.end(&thief).await.unwrap_err(), wrong);
    let error = locks.release(&thief, &place, grant.token, &op).await.unwrap_err();
    assert_eq!(error, LockError::Session(wrong));
    let other = Token::new(grant.token.get() + 1);
    let error = locks.release(&own, &place, other, &op).await.unwrap_err();
    assert_eq!(error, LockError::NotHeld { token: other });

    assert_eq!(sessions.renew(&own).await.unwrap(), Duration::from_secs(15));
    let status = sessions.status(session).await.unwrap();
    assert_eq!((status.owner, status.lease.keys.len()), (owner("far"), 2));
    let again = locks.acquire(&own, exclusive()).await.unwrap();
    assert_eq!((again.count, again.token), (2, grant.token));
    for _repeated in 0..3 {
        let released = locks.release(&own, &place, grant.token, &op).await.unwrap();
        assert_eq!(released.count, 1);
    }
    let listed = locks.list(Area::Lock, &namespace(), None).await.unwrap().places;
    assert_eq!(listed, std::slice::from_ref(&place));
    assert_eq!(locks.list(Area::Lock, &namespace(), Some(&place)).await.unwrap().places, []);
    sessions.end(&own).await.unwrap();
    let gone = SessionError::NotFound { session };
    assert_eq!(sessions.renew(&own).await.unwrap_err(), gone);
    let error = locks.acquire(&own, exclusive()).await.unwrap_err();
    assert_eq!(error, LockError::Session(gone));
    assert!(!format!("{own:?}").contains(own.secret.reveal()));
}

#[tokio::test]
async fn a_session_has_a_ttl_within_bounds() {
    let world = World::new();
    let sessions = world.node().ground.sessions();
    for (millis, legal) in [(1_999, false), (2_000, true), (3_600_000, true), (3_600_001, false)] {
        let opened = sessions.open(owner("o"), Duration::from_millis(millis)).await;
        assert_eq!(opened.is_ok(), legal, "{millis} ms");
    }
}

#[tokio::test]
async fn force_takes_a_lock_by_the_token_shown_and_tells_the_holder() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    let (locks, place) = (node.ground.locks(), held.place().clone());
    let other = Token::new(1);
    let error = node.force_release(&place, other).await.unwrap_err();
    assert_eq!(error, LockError::NotHeld { token: other });
    held.check().unwrap();
    node.force_release(&place, held.token()).await.unwrap();
    settle().await;
    assert_eq!(held.check().unwrap_err(), LockError::Lost(Loss::Revoked));
    assert_eq!(held.lost().await, Loss::Revoked);
    a.check().unwrap();
    let past = locks.status(&place).await.unwrap().past.unwrap();
    assert_eq!((past.token, past.reason), (held.token(), Reason::Forced));
    // One record, of the one that took it.
    let records = node.outbox().list(&Filter::default(), None, 10).await.unwrap().items;
    let [told] = &records[..] else { panic!("{records:?}") };
    assert_eq!(
        (&*told.record.action, &*told.record.target.id),
        ("lock:force-release", "shop/stock")
    );
    assert_eq!(told.record.before["token"], held.token().get());
    assert_eq!(told.record.reason.as_deref(), Some("its host is gone"));
}

#[tokio::test]
async fn an_election_shows_who_leads_in_which_term_and_what_it_says() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
        let stand = |value: &str| Request::candidate(namespace(), lock_name(), value).unwrap();
        let mut observer = node.ground.locks().observe(namespace(), lock_name());
        assert_eq!(observer.next().await.unwrap(), None);
        let leader = a.stand(stand("at a")).await.unwrap();
        let seen = observer.next().await.unwrap();
        let value = "at a".to_owned();
        let want = Leadership { term: leader.term(), owner: Some(owner("a")), value };
        assert_eq!(seen, Some(want));
        let follower = tokio::task::spawn_local(async move { b.stand(stand("at b")).await });
        settle().await;
        leader.proclaim("busy").await.unwrap();
        assert_eq!(observer.next().await.unwrap().unwrap().value, "busy");
        let term = leader.term();
        leader.resign().await.unwrap();
        let next = follower.await.unwrap().unwrap();
        assert!(term < next.term());
        let seen = loop {
            match observer.next().await.unwrap() {
                Some(seen) if seen.term == next.term() => break seen,
                _between => {}
            }
        };
        assert_eq!(seen.value, "at b");
        let error = a.stand(exclusive()).await.unwrap_err();
        assert!(matches!(error, LockError::RequestInvalid { .. }));
    })
    .await;
}

#[tokio::test]
async fn a_history_that_was_compacted_under_a_waiter_does_not_leave_it_waiting() {
    local(async {
        let world = World::new();
        let node = world.node();
        let (a, b) = (node.session("a", 600).await, node.session("b", 600).await);
        let held = a.acquire(exclusive()).await.unwrap();
        let waiting = ask(&b, exclusive()).await;
        let revision = world.revision().await;
        mainstay_store::Store::compact(&world.memory, revision).await.unwrap();
        settle().await;
        held.release().await.unwrap();
        granted(waiting).await.release().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn shutdown_ends_sessions_and_waits() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let held = a.acquire(exclusive()).await.unwrap();
    let b = node.session("b", 15).await;
    let mut waiting = pin!(b.acquire(exclusive()));
    tokio::select! { biased; _ = &mut waiting => panic!("granted"), () = settle() => {} }
    assert_eq!(node.ground.shutdown(Duration::from_secs(5)).await, 0);
    assert!(matches!(waiting.await.unwrap_err(), LockError::Stopped | LockError::Lost(_)));
    assert!(held.check().is_err());
    assert_eq!(world.keys("ses/").await, [""; 0]);
    assert_eq!(world.keys(QUEUE).await, [""; 0]);
}

#[tokio::test]
async fn places_of_other_kinds_and_namespaces_do_not_meet() {
    let world = World::new();
    let node = world.node();
    let a = node.session("a", 15).await;
    let b = node.session("b", 15).await;
    let other = mainstay_coord::name::Namespace::new("other").unwrap();
    let _one = a.acquire(exclusive()).await.unwrap();
    let elsewhere = Request::exclusive(other, lock_name()).wait(Wait::Try);
    let _two = b.acquire(elsewhere).await.unwrap();
    let candidate = Request::candidate(namespace(), lock_name(), "x").unwrap();
    let _three = b.stand(candidate.wait(Wait::Try)).await.unwrap();
    let place = Place { area: Area::Semaphore, namespace: namespace(), name: lock_name() };
    assert!(node.ground.locks().status(&place).await.unwrap().line.waiters().is_empty());
}

/// How many stand in the queue.
async fn queued(world: &World) -> usize {
    let count = RangeRequest::new(Select::new(Range::prefix(QUEUE)).count_only());
    usize::try_from(world.memory.range(count).await.unwrap().count).unwrap()
}

#[tokio::test]
async fn nobody_comes_into_a_queue_that_is_full_and_nothing_of_them_is_left() {
    let world = World::new();
    let node = world.node();
    let (a, b) = (node.session("a", 15).await, node.session("b", 15).await);
    let held = a.acquire(exclusive()).await.unwrap();
    // What others wrote who came before, put there at once: each reads the whole queue as it comes.
    let place = Place { area: Area::Lock, namespace: namespace(), name: lock_name() };
    let key = Key::new(world.keys(QUEUE).await.remove(0)).unwrap();
    let record = world.memory.get(Get::new(key)).await.unwrap().entry.unwrap().value;
    let sessions: Vec<u64> = (1..QUEUE_MAX as u64).collect();
    for some in sessions.chunks(128) {
        let session = |id: &u64| LeaseId::new(1_000_000 + id).unwrap();
        let slot = |id: &u64| Slot { session: session(id), request: None };
        let put = |id: &u64| Put::new(place.slot(&slot(id)), record.clone());
        let batch = some.iter().fold(Batch::new(), |batch, id| batch.then(put(id)));
        world.memory.apply(batch).await.unwrap();
    }
    let error = b.acquire(exclusive()).await.unwrap_err();
    let LockError::Busy { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
    assert_eq!((holder.token, error.code()), (held.token(), Code::LockBusy));
    assert_eq!(queued(&world).await, QUEUE_MAX, "nobody came in");
    held.release().await.unwrap();
    local(async {
        drop(ask(&b, exclusive()).await);
        assert_eq!(queued(&world).await, QUEUE_MAX, "there was room for one more");
    })
    .await;
}
