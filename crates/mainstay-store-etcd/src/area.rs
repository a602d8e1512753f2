//! The task that watches one area: dials, resumes, audits, and ends when nobody reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mainstay_store::Revision;

use crate::audit::{Held, Verdict, compare};
use crate::backoff::Backoff;
use crate::draw;
use crate::events::{Mismatch, WatchLost};
use crate::hub::Area;
use crate::identity::revision;
use crate::session::{Fault, How, Session};
use crate::stub::{RangeRequest, range_request};
use crate::upstream::{End, News, PROGRESS_EVERY, Upstream};
use crate::wire::{Span, signed};

/// Watches `area` until nobody reads it, or the handle is closed. The first who reads it wants what
/// happens after `after`.
pub(crate) async fn watch(session: Arc<Session>, area: Arc<Area>, after: Revision) {
    let mut backoff = Backoff::default();
    let mut after = Some(after);
    loop {
        let over = tokio::select! {
            () = session.closing.cancelled() => Over::Closed,
            () = area.ended.notified() => Over::Closed,
            over = follow(&session, &area, &mut after, &mut backoff) => over,
        };
        match over {
            Over::Closed => return,
            Over::Replaced(found) => return session.areas.end(&area, found),
            Over::Idle => {
                if session.areas.drop_if_idle(&area) {
                    return;
                }
            }
            Over::Lost(gone) => area.lose(gone),
            Over::Broken(why) => {
                let next = area.resume_at().unwrap_or_default();
                WatchLost { area: &area.name(), next, why: &why }.emit();
                session.figures.watch_resumed();
                session.pause(backoff.failed(draw::next())).await;
            }
        }
    }
}

/// Why an upstream watch is over.
enum Over {
    Closed,
    /// Another history answers, which stands at this revision.
    Replaced(Revision),
    /// Nobody reads it.
    Idle,
    /// History up to this revision may be lost.
    Lost(Revision),
    /// It can go on.
    Broken(String),
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Replaced(found) => Self::Replaced(found),
            End::Compacted(compacted) => Self::Lost(compacted),
            End::Lost(why) => Self::Broken(why),
        }
    }
}

async fn follow(
    session: &Session,
    area: &Area,
    after: &mut Option<Revision>,
    backoff: &mut Backoff,
) -> Over {
    match try_follow(session, area, after, backoff).await {
        Ok(over) => over,
        Err(end) => end.into(),
    }
}

async fn try_follow(
    session: &Session,
    area: &Area,
    after: &mut Option<Revision>,
    backoff: &mut Backoff,
) -> Result<Over, End> {
    let from = match area.resume_at() {
        Some(next) => next,
        None => {
            let held = match session.held(area, *after).await {
                // Compacted meanwhile, or a member that is not so far: as of now.
                Err(Fault::Refused(_)) => session.held(area, None).await?,
                held => held?,
            };
            *after = None;
            area.begin(&held);
            held.at.next()
        }
    };
    let mut upstream = Upstream::open(session, &area.range, from).await?;
    backoff.succeeded();
    let _standing = area.stand();
    let mut ask = tokio::time::interval(PROGRESS_EVERY);
    let mut look = tokio::time::interval(IDLE_LOOK_EVERY);
    let mut idle_looks = 0;
    let mut audits = Box::pin(audit(session, area).fuse());
    loop {
        tokio::select! {
            news = upstream.next(session) => match news? {
                News::Changes(at, events) => area.push(at, events),
                News::Progress(at) => area.progress(at),
            },
            _ = ask.tick() => upstream.ask_progress(),
            _ = look.tick() => {
                idle_looks = if area.is_idle() { idle_looks + 1 } else { 0 };
                if IDLE_LOOKS < idle_looks {
                    return Ok(Over::Idle);
                }
            }
            over = &mut audits => return over.map_err(End::from),
        }
    }
}

/// Compares the area with what etcd holds, each minute, until they differ.
async fn audit(session: &Session, area: &Area) -> Result<Over, Fault> {
    loop {
        tokio::time::sleep(session.options.audit_every).await;
        let held = match session.held(area, None).await {
            Ok(held) => held,
            // Away for now: nothing can be said.
            Err(Fault::Away(_) | Fault::Busy | Fault::Refused(_) | Fault::Open) => continue,
            Err(other) => return Err(other),
        };
        session.figures.audited();
        let mut tries = 0;
        while area.told(held.at).is_some_and(|told| compare(&held, &told) == Verdict::Differs) {
            if LAG_LOOKS < tries {
                Mismatch { area: &area.name(), revision: held.at }.emit();
                session.figures.mismatched();
                return Ok(Over::Lost(held.at));
            }
            tries += 1;
            tokio::time::sleep(LAG_LOOK_EVERY).await;
        }
    }
}

impl Session {
    /// What etcd holds of an area at `at`, or now.
    async fn held(&self, area: &Area, at: Option<Revision>) -> Result<Held, Fault> {
        let Span { key, range_end } = self.space.span(&area.range);
        let newest = RangeRequest {
            key,
            range_end,
            limit: 1,
            revision: at.map_or(0, |at| signed(at.get())),
            keys_only: true,
            sort_order: range_request::SortOrder::Descend.into(),
            sort_target: range_request::SortTarget::Mod.into(),
            ..RangeRequest::default()
        };
        let answer = self.call(newest, How::READ).await?;
        let now = answer.header.map(|header| revision(header.revision)).unwrap_or_default();
        let newest = answer.kvs.first().map(|found| revision(found.mod_revision));
        Ok(Held {
            at: at.unwrap_or(now),
            count: u64::try_from(answer.count).unwrap_or(0),
            newest: newest.unwrap_or_default(),
        })
    }
}

const IDLE_LOOK_EVERY: Duration = Duration::from_mins(1);

/// Five minutes nobody reads an area before its watch is given up: a client that comes back in this
/// time finds its history here.
const IDLE_LOOKS: u32 = 5;

const LAG_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Ten seconds: events that are on their way arrive within.
const LAG_LOOKS: u32 = 40;
