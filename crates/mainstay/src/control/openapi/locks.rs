//! Calls of sessions, locks, semaphores and elections.

use mainstay_api::lock::{
    AcquireLock, AcquirePermits, Bind, Bound, Downgrade, ForceRelease, Granted, Leadership,
    OpenSession, Places, Proclaim, Release, Released, SECRET_HEADER, SessionChange, SessionOpened,
    SessionRenewed, SessionSnapshot, StandForElection, Status,
};
use mainstay_api::stream as names;
use mainstay_core::problem::Code;

use super::call::{Call, Schemas, call};
use super::registry::ended;
use crate::control::locks::status::After;

const TAG: &str = "locks";

pub(super) fn calls() -> Vec<Call> {
    let mut calls = vec![
        call("post", TAG, "openSession", "/sessions", "Opens a session.")
            .takes::<OpenSession>()
            .gives::<SessionOpened>(201, "It is open. The secret is told once.")
            .refuses(&[Code::TtlInvalid, Code::SessionsFull])
            .agreed(),
        with_secret(call("put", TAG, "renewSession", "/sessions/{id}/renew", "Renews a session."))
            .gives::<SessionRenewed>(200, "It lives for its whole ttl again."),
        with_secret(call(
            "delete",
            TAG,
            "endSession",
            "/sessions/{id}",
            "Ends a session, and gives back all it holds.",
        ))
        .done(204, "It is over."),
        with_secret(call(
            "get",
            TAG,
            "followSession",
            "/sessions/{id}/stream",
            "Follows what a session holds and loses.",
        ))
        .streams(vec![
            (names::SNAPSHOT, Schemas::reference::<SessionSnapshot>),
            (names::CHANGE, Schemas::reference::<SessionChange>),
            (names::PROBLEM, ended),
        ]),
        acquire("acquireLock", "locks", "Asks for a lock.")
            .takes::<AcquireLock>()
            .refuses(&[Code::LockAlreadyHeld, Code::LockUpgradeRefused]),
        acquire("acquirePermits", "semaphores", "Asks for permits of a semaphore.")
            .takes::<AcquirePermits>()
            .refuses(&[Code::SemaphoreLimitDiffers]),
        acquire("standForElection", "elections", "Stands in an election; the token is the term.")
            .takes::<StandForElection>()
            .refuses(&[Code::LockAlreadyHeld]),
        held("downgradeLock", "locks", "downgrade", "Lets others read what a session holds alone.")
            .takes::<Downgrade>()
            .done(204, "It is shared now."),
        held("proclaim", "elections", "proclaim", "Changes what a leader proclaims.")
            .takes::<Proclaim>()
            .done(204, "It is proclaimed."),
        call(
            "get",
            TAG,
            "observeElection",
            "/elections/{namespace}/{name}/observe",
            "Follows who leads.",
        )
        .streams(vec![
            (names::SNAPSHOT, Schemas::reference::<Leadership>),
            (names::CHANGE, Schemas::reference::<Leadership>),
            (names::PROBLEM, ended),
        ])
        .agreed(),
    ];
    for (area, one) in [("locks", "Lock"), ("semaphores", "Semaphore"), ("elections", "Election")] {
        calls.extend(of_area(area, one));
    }
    calls
}

/// The calls that all three have.
fn of_area(area: &'static str, one: &str) -> [Call; 5] {
    let thing = one.to_lowercase();
    [
        call(
            "get",
            TAG,
            format!("list{one}s"),
            format!("/{area}/{{namespace}}"),
            format!("Lists {area} that are held or waited for, by name."),
        )
        .query::<After>()
        .gives::<Places>(200, "A page of them.")
        .agreed(),
        call(
            "get",
            TAG,
            format!("show{one}"),
            format!("/{area}/{{namespace}}/{{name}}"),
            format!("Shows who holds the {thing}, and who waits."),
        )
        .gives::<Status>(200, "How it stands; without holders when nobody knows it.")
        .agreed(),
        held(
            &format!("release{one}"),
            area,
            "release",
            &format!("Gives back one count of the {thing}."),
        )
        .takes::<Release>()
        .gives::<Released>(200, "What is left."),
        held(
            &format!("bind{one}"),
            area,
            "bind",
            &format!("Hands the {thing} over to a global transaction."),
        )
        .takes::<Bind>()
        .gives::<Bound>(200, "The transaction holds it until it is final."),
        call(
            "post",
            TAG,
            format!("forceRelease{one}"),
            format!("/{area}/{{namespace}}/{{name}}/force-release"),
            format!("Takes the {thing} from whoever holds it."),
        )
        .takes::<ForceRelease>()
        .done(204, "Nobody holds it by that token.")
        .refuses(&[Code::LockNotHeld])
        .audited(),
    ]
}

fn with_secret(call: Call) -> Call {
    call.header(SECRET_HEADER, true, "The secret that was told when the session was opened.")
        .refuses(&[Code::SessionNotFound, Code::PermissionMissing])
        .agreed()
}

fn acquire(id: &str, area: &str, summary: &str) -> Call {
    let path = format!("/{area}/{{namespace}}/{{name}}/acquire");
    with_secret(call("post", TAG, id, path, summary))
        .gives::<Granted>(200, "It is held.")
        .refuses(&[Code::LockBusy, Code::LockWaitTimeout, Code::LockLost, Code::TooManyStreams])
}

fn held(id: &str, area: &str, verb: &str, summary: &str) -> Call {
    let path = format!("/{area}/{{namespace}}/{{name}}/{verb}");
    with_secret(call("post", TAG, id, path, summary)).refuses(&[Code::LockNotHeld])
}
