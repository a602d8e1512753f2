//! What only one node is to do: timers, sweeps.
//!
//! Every node stands for every duty, each by itself, with a session of 10 s. The one elected works
//! until its own clock says that it may no longer be the one, which is before another is elected.
//! What a duty does must all the same be harmless when done twice: it compares what it was based
//! on, as every write here does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::coordination::Coordination;
use crate::events::rules::DutyHeld;
use crate::lock::{LockError, Request};
use crate::name::LockName;
use crate::session::Owner;

/// What only one node is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Switches that go back, plans that end.
    Timers,
    /// Revisions that are too old.
    Sweep,
    /// Notes of locks that nobody uses.
    Locks,
    /// Backups that are taken by themselves.
    Backup,
    /// Audit records that go into the log.
    Audit,
}

impl Duty {
    /// Its name, in keys and log lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timers => "switch-timers",
            Self::Sweep => "rules-sweep",
            Self::Locks => "lock-sweep",
            Self::Backup => "backup",
            Self::Audit => "audit",
        }
    }
}

/// How long a duty is nobody's when the node that had it vanished, at most.
pub const TTL: Duration = Duration::from_secs(10);

/// Pause after a failure to stand.
const PAUSE: Duration = Duration::from_secs(1);

/// Does `work` whenever this node has `duty`, until told to stop. The work has no end; it is dropped
/// when the duty is lost. `owner` is shown to whoever asks who has it.
///
/// # Cancel safety
///
/// Safe: a duty that is dropped is given back in the background.
pub async fn run<F: Future<Output = ()> + Send>(
    ground: &Coordination,
    duty: Duty,
    owner: Owner,
    stop: CancellationToken,
    work: impl Fn() -> F + Send + Sync,
) {
    loop {
        // Says nothing new: whoever failed, or is no longer the one, stands again.
        drop(once(ground, duty, &owner, &stop, &work).await);
        if stop.is_cancelled() {
            return;
        }
        let until = ground.now().plus(PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = ground.timer().sleep_until(until) => {}
        }
    }
}

async fn once<F: Future<Output = ()> + Send>(
    ground: &Coordination,
    duty: Duty,
    owner: &Owner,
    stop: &CancellationToken,
    work: &(impl Fn() -> F + Send + Sync),
) -> Result<(), LockError> {
    let standing = async {
        let session = ground.sessions().start(owner.clone(), TTL).await?;
        let name = LockName::new(duty.as_str()).expect("a-z and dashes");
        let leader = session.stand(Request::duty(name)).await?;
        Ok::<_, LockError>((session, leader))
    };
    let Some(stood) = stop.run_until_cancelled(standing).await else { return Ok(()) };
    let (_session, leader) = stood?;
    DutyHeld { duty, is_held: true }.emit();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _loss = leader.deposed() => {}
        () = work() => {}
    }
    DutyHeld { duty, is_held: false }.emit();
    // Given back by `Drop` where this does not get through.
    leader.resign().await.map(drop)
}
