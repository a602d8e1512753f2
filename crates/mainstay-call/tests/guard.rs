//! What a guard promises: limits, retries, circuits, a deadline, and that all of it comes back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and read the time of their own runtime"
)]

use std::cell::Cell;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::guard::{Guard, GuardError, Judgement};
use mainstay_call::limit::LimitUsage;
use mainstay_call::{CallError, Policy};
use mainstay_core::Clock;
use mainstay_core::problem::Code;
use mainstay_resilience::circuit::State;
use tokio::time::{Instant as Tokio, sleep};

#[derive(Debug, PartialEq)]
enum DbError {
    NotFound,
    Deadlock,
    Busy,
    Gone,
    Mistake,
}

fn judge(error: &DbError) -> Judgement {
    match error {
        DbError::NotFound => Judgement::Fine,
        DbError::Deadlock => Judgement::Transient,
        DbError::Busy => Judgement::Refused,
        DbError::Gone => Judgement::Failed,
        DbError::Mistake => Judgement::Ignored,
    }
}

fn guard(text: &str) -> Guard<fn(&DbError) -> Judgement> {
    Guard::new("stock-db", Policy::from_toml(text).unwrap()).classify(judge)
}

fn code(result: Result<u32, GuardError<DbError>>) -> Code {
    match result {
        Err(GuardError::Stopped(stopped)) => stopped.code(),
        other => panic!("not stopped: {other:?}"),
    }
}

fn in_use(guard: &Guard<fn(&DbError) -> Judgement>) -> u64 {
    match guard.limits()[0].usage() {
        LimitUsage::InFlight { usage, .. } | LimitUsage::Lone(usage) => usage.used,
        LimitUsage::Keyed(_) => panic!("no keys here"),
    }
}

fn state(guard: &Guard<fn(&DbError) -> Judgement>) -> State {
    guard.circuits()[0].view(MonotonicClock.now()).state
}

async fn panics(_: mainstay_call::guard::Attempt) -> Result<u32, DbError> {
    panic!("as it happens")
}

/// Plays `script`, one letter an attempt: `.` succeeds, `n` not found, `d` deadlock, `b` busy, `g`
/// gone, `m` mistake. Returns how often the work was run, and what it came to.
async fn play(
    guard: &Guard<fn(&DbError) -> Judgement>,
    script: &str,
) -> (u32, Result<u32, GuardError<DbError>>) {
    let runs = Cell::new(0);
    let work = |call: mainstay_call::guard::Attempt| {
        runs.set(runs.get() + 1);
        assert_eq!(call.number(), runs.get());
        let end = script.as_bytes().get(runs.get() as usize - 1).copied();
        async move {
            Err(match end {
                Some(b'n') => DbError::NotFound,
                Some(b'd') => DbError::Deadlock,
                Some(b'b') => DbError::Busy,
                Some(b'g') => DbError::Gone,
                Some(b'm') => DbError::Mistake,
                _ => return Ok(7),
            })
        }
    };
    let result = guard.run(work).await;
    (runs.get(), result)
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_done_again_is_done_again() {
    let guard = guard("circuit = { consecutive_failures = 0, failure_rate_percent = 0 }");
    for (script, runs, good) in
        [(".", 1, true), ("d.", 2, true), ("bd.", 3, true), ("ddd", 3, false), ("g.", 1, false)]
    {
        let (ran, result) = play(&guard, script).await;
        assert_eq!((ran, result.is_ok()), (runs, good), "{script}");
    }
    for (script, want) in [("n", DbError::NotFound), ("m", DbError::Mistake), ("dg", DbError::Gone)]
    {
        match play(&guard, script).await.1 {
            Err(GuardError::Failed(error)) => assert_eq!(error, want),
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_stops_a_storm() {
    let guard = guard(
        "retry = { budget = { ratio_percent = 0, min_per_second = 1, ttl_seconds = 10 } }
         circuit = { consecutive_failures = 0, failure_rate_percent = 0 }",
    );
    let mut runs = 0;
    for _ in 0..100 {
        runs += play(&guard, "ddd").await.0;
    }
    assert!((110..=125).contains(&runs), "{runs} runs of 100 calls");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_and_refuses_and_what_it_learns_is_judged() {
    let guard = guard("retry = { attempts = 1 }");
    for _ in 0..20 {
        drop(play(&guard, "n").await);
        drop(play(&guard, "m").await);
    }
    assert_eq!(state(&guard), State::Closed);
    for _ in 0..5 {
        drop(play(&guard, "g").await);
    }
    assert_eq!(state(&guard), State::Open);
    let (ran, result) = play(&guard, ".").await;
    assert_eq!((ran, code(result)), (0, Code::CircuitOpen));
    sleep(Duration::from_secs(5)).await;
    assert!(play(&guard, ".").await.1.is_ok());
}

#[tokio::test(start_paused = true)]
async fn work_that_hangs_is_given_up_at_the_deadline_and_counts_as_a_timeout() {
    let guard = guard("timeout_seconds = 2\nretry = { try_seconds = 5 }");
    let began = Tokio::now();
    let result = guard
        .run(async |call| {
            assert_eq!(call.remaining(), Duration::from_secs(2));
            assert_eq!(call.deadline(), Tokio::now().into_std() + Duration::from_secs(2));
            pending().await
        })
        .await;
    assert_eq!(code(result), Code::UpstreamTimeout);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let view = guard.circuits()[0].view(MonotonicClock.now());
    assert_eq!((view.total.calls, view.total.timeouts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_could_not_begin_in_time_is_not_waited_for() {
    let text = "timeout_seconds = 2
        retry = { backoff = { shape = \"constant\", base_seconds = 3, jitter = \"none\" } }";
    let began = Tokio::now();
    let (ran, result) = play(&guard(text), "d.").await;
    assert!(matches!(result, Err(GuardError::Failed(DbError::Deadlock))));
    assert_eq!((ran, began.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn limits_refuse_wait_and_give_back() {
    let rate = guard("[limit.all]\nmax = 2");
    assert!(play(&rate, ".").await.1.is_ok() && play(&rate, ".").await.1.is_ok());
    assert_eq!(code(play(&rate, ".").await.1), Code::Limited);

    let queue = "[limit.all]\nkind = \"concurrency\"\nmax = 1\nqueue_max = 1\nwait_max_seconds = 3";
    let queued = guard(queue);
    let slow = async |_| {
        sleep(Duration::from_secs(1)).await;
        Ok(1)
    };
    let began = Tokio::now();
    let (a, b, c) = tokio::join!(queued.run(slow), queued.run(slow), queued.run(slow));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(code(c), Code::Shed);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(in_use(&queued), 0);

    let paced = guard("[limit.all]\nkind = \"pacing\"\nmax = 10");
    let began = Tokio::now();
    for _ in 0..4 {
        assert!(play(&paced, ".").await.1.is_ok());
    }
    assert_eq!(began.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_or_panics_gives_everything_back() {
    let text = "[limit.all]\nkind = \"concurrency\"\nmax = 1\n[circuit]\nprobes = 1\n";
    let guard = guard(text);
    let hangs = guard.run(async |_| pending::<Result<u32, DbError>>().await);
    assert!(tokio::time::timeout(Duration::from_secs(1), hangs).await.is_err());
    assert_eq!(in_use(&guard), 0);
    let run = guard.run(panics);
    assert!(std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err());
    assert_eq!(in_use(&guard), 0);
    assert!(play(&guard, ".").await.1.is_ok());
    // A probe that panics is not lost either.
    for _ in 0..5 {
        drop(play(&guard, "g").await);
    }
    sleep(Duration::from_secs(5)).await;
    let run = guard.run(panics);
    assert!(std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err());
    assert!(play(&guard, ".").await.1.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_is_not_counted() {
    let guard = guard("[limit.all]\nkind = \"pacing\"\nmax = 1\nwait_max_seconds = 9");
    assert!(play(&guard, ".").await.1.is_ok());
    let waiting = guard.run(async |_| Ok(1));
    assert!(tokio::time::timeout(Duration::from_millis(500), waiting).await.is_err());
    let began = Tokio::now();
    assert!(play(&guard, ".").await.1.is_ok());
    assert!(began.elapsed() <= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn guards_can_be_shared_by_tasks() {
    let guard = Arc::new(guard("[limit.all]\nkind = \"concurrency\"\nmax = 64"));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let guard = Arc::clone(&guard);
        tasks.spawn(async move { guard.run(async |_| Ok(n)).await.is_ok() });
    }
    assert!(tasks.join_all().await.into_iter().all(|good| good));
    assert_eq!(in_use(&guard), 0);
}

#[test]
fn an_error_shows_what_it_holds() {
    let stopped: GuardError<std::fmt::Error> =
        CallError::from(mainstay_resilience::Failure::RequestTimeout).into();
    assert_eq!(stopped.to_string(), "upstream-timeout");
    assert_eq!(GuardError::Failed(std::fmt::Error).to_string(), std::fmt::Error.to_string());
}
