//! Sessions, and what hangs on them, over gRPC.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use mainstay_api::grpc::lock_acquire_request::Want;
use mainstay_api::grpc::lock_observe_response::Item as Observed;
use mainstay_api::grpc::lock_server::Lock;
use mainstay_api::grpc::lock_session_request::Request as Asked;
use mainstay_api::grpc::lock_session_response::Item as Sent;
use mainstay_api::grpc::{
    self as proto, EndSession, HeldPlace, LockAcquireRequest, LockAcquireResponse, LockArea,
    LockObserveRequest, LockObserveResponse, LockReleaseRequest, LockReleaseResponse,
    LockSessionRequest, LockSessionResponse, OpenSession, RenewSession, SessionCredential,
    SessionEnded, SessionLost, SessionOpened, SessionOwner, SessionRenewed, SessionSnapshot,
};
use mainstay_api::lock::{self as document, SessionChange};
use mainstay_coord::keys::parse_session;
use mainstay_coord::lock::{Request as Ask, Token};
use mainstay_coord::name::{LockName, Namespace, RequestId};
use mainstay_coord::session::Secret;
use mainstay_coord::{Area, Credential, Place};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Agreed, Messages, ended, namespace};
use crate::cluster::Cluster;
use crate::control::answer::Refused;
use crate::control::items::Item;
use crate::control::locks::{self, seconds, session, status};
use crate::control::registry::named;

#[tonic::async_trait]
impl Lock for Agreed {
    type SessionStream = Messages<LockSessionResponse>;

    async fn session(
        &self,
        request: Request<Streaming<LockSessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut asked = request.into_inner();
        let first = asked.message().await?.and_then(|first| first.request);
        let (credential, opened) = match first {
            Some(Asked::Open(open)) => {
                let (credential, opened) = opened(&self.cluster, open).await?;
                (credential, Some(opened))
            }
            Some(Asked::Follow(given)) => (credential(Some(given))?, None),
            Some(Asked::Renew(_) | Asked::End(_)) | None => {
                let detail = "the first request of a session must be `open` or `follow`";
                return Err(Refused::invalid(detail).into());
            }
        };
        let locks = self.cluster.coordination.locks();
        let following = locks.follow(&credential).await.map_err(Refused::from)?;
        let over = CancellationToken::new();
        let is_over = over.clone();
        // Once the session has ended nobody's renewals are waited for.
        let news = session::told(following).map(|item| Some(told(item)));
        let news = news.chain(stream::once(async move {
            over.cancel();
            None
        }));
        let answers = answers(Arc::clone(&self.cluster), credential, asked);
        let answers = answers.take_until(is_over.cancelled_owned());
        let all = stream::select(news.filter_map(std::future::ready), answers);
        Ok(Response::new(self.until_the_end(stream::iter(opened).map(Ok).chain(all))))
    }

    async fn acquire(
        &self,
        request: Request<LockAcquireRequest>,
    ) -> Result<Response<LockAcquireResponse>, Status> {
        let LockAcquireRequest {
            credential: of,
            namespace: within,
            name,
            want,
            wait_seconds,
            request_id,
        } = request.into_inner();
        let credential = credential(of)?;
        let (within, name) =
            (named(Namespace::new(namespace(within)))?, named(LockName::new(name))?);
        let ask = match want {
            Some(Want::Lock(want)) => {
                let ask = if want.shared {
                    Ask::shared(within, name)
                } else {
                    Ask::exclusive(within, name)
                };
                let ask = if want.not_reentrant { ask.not_reentrant() } else { ask };
                let asked = seconds("lock_delay_seconds", want.lock_delay_seconds)?;
                let own = self.cluster.recipes_config.lock_delay;
                ask.lock_delay(if asked.is_zero() { own } else { asked })
            }
            Some(Want::Permits(want)) => Ask::permits(within, name, want.permits, want.limit),
            Some(Want::Leadership(want)) => {
                Ask::candidate(within, name, want.value).map(Ask::not_reentrant)
            }
            None => {
                let detail = "`want` must be `lock`, `permits` or `leadership`";
                return Err(Refused::invalid(detail).into());
            }
        };
        let ask = ask.map_err(Refused::from)?;
        let (cluster, kept) = (&self.cluster, &self.shared.streams);
        let granted =
            locks::acquire(cluster, kept, &credential, ask, wait_seconds, request_id).await?;
        let document::Granted { token, revision, valid_seconds, count } = granted;
        Ok(Response::new(LockAcquireResponse { token, revision, valid_seconds, count }))
    }

    async fn release(
        &self,
        request: Request<LockReleaseRequest>,
    ) -> Result<Response<LockReleaseResponse>, Status> {
        let ask = request.into_inner();
        let (area, credential) = (area(ask.area)?, credential(ask.credential)?);
        let (within, name) =
            (named(Namespace::new(namespace(ask.namespace)))?, named(LockName::new(ask.name))?);
        let (place, op) =
            (Place { area, namespace: within, name }, named(RequestId::new(ask.request_id))?);
        let locks = self.cluster.coordination.locks();
        let left = locks.release(&credential, &place, Token::new(ask.token), &op).await;
        let left = left.map_err(Refused::from)?;
        Ok(Response::new(LockReleaseResponse { count: left.count }))
    }

    type ObserveStream = Messages<LockObserveResponse>;

    async fn observe(
        &self,
        request: Request<LockObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let LockObserveRequest { namespace: within, name } = request.into_inner();
        let (within, name) =
            (named(Namespace::new(namespace(within)))?, named(LockName::new(name))?);
        let observer = self.cluster.coordination.locks().observe(within, name);
        Ok(Response::new(self.told(status::leaders(observer), observed)))
    }
}

/// A session and its secret.
fn credential(given: Option<SessionCredential>) -> Result<Credential, Refused> {
    let SessionCredential { session, secret } = given.unwrap_or_default();
    let Some(session) = parse_session(&session) else {
        return Err(Refused::invalid("a session is sixteen hexadecimal digits"));
    };
    Ok(Credential { session, secret: Secret::new(secret) })
}

/// Opens a session.
async fn opened(
    cluster: &Cluster,
    ask: OpenSession,
) -> Result<(Credential, LockSessionResponse), Refused> {
    let OpenSession { ttl_seconds, owner } = ask;
    let SessionOwner { host, pid, name } = owner.unwrap_or_default();
    let owner = document::Owner { host, pid, name };
    let opened = session::opened(cluster, document::OpenSession { ttl_seconds, owner }).await?;
    let credential = SessionCredential {
        session: opened.credential.session.to_string(),
        secret: opened.credential.secret.reveal().to_owned(),
    };
    let ttl_seconds = opened.ttl.as_secs_f64();
    let told = SessionOpened { credential: Some(credential), ttl_seconds };
    Ok((opened.credential, answer(Sent::Opened(told))))
}

const fn answer(item: Sent) -> LockSessionResponse {
    LockSessionResponse { item: Some(item) }
}

/// The answers to what is asked of a session once it is there.
fn answers(
    cluster: Arc<Cluster>,
    credential: Credential,
    asked: Streaming<LockSessionRequest>,
) -> impl Stream<Item = Result<LockSessionResponse, Status>> + Send {
    stream::unfold(Some((cluster, credential, asked)), |state| async move {
        let (cluster, credential, mut asked) = state?;
        let sessions = cluster.coordination.sessions();
        let next = match asked.message().await {
            Ok(Some(LockSessionRequest { request })) => request,
            // It only listens from now on.
            Ok(None) => return None,
            Err(broken) => return Some((Err(broken), None)),
        };
        let done = match next {
            Some(Asked::Renew(RenewSession { sequence })) => {
                sessions.renew(&credential).await.map_err(Refused::from).map(|ttl| {
                    answer(Sent::Renewed(SessionRenewed {
                        sequence,
                        ttl_seconds: ttl.as_secs_f64(),
                    }))
                })
            }
            Some(Asked::End(EndSession {})) => match sessions.end(&credential).await {
                // That it has ended is told as to everybody.
                Ok(()) => return None,
                Err(error) => Err(Refused::from(error)),
            },
            Some(Asked::Open(_) | Asked::Follow(_)) | None => {
                Err(Refused::invalid("only `renew` and `end` follow the first request"))
            }
        };
        match done {
            Ok(done) => Some((Ok(done), Some((cluster, credential, asked)))),
            Err(refused) => Some((Err(refused.into()), None)),
        }
    })
}

fn told(item: session::Item) -> Result<LockSessionResponse, Status> {
    let sent = match item {
        Item::Snapshot(_, told) | Item::Change(_, told) => match told {
            session::Told::Holds(holds) => {
                let held = holds.held.into_iter().map(held).collect();
                Sent::Snapshot(SessionSnapshot { revision: holds.revision, held })
            }
            session::Told::Change(SessionChange::Lost { place, reason }) => {
                Sent::Lost(SessionLost { place: Some(held(place)), reason: word(reason) })
            }
            session::Told::Change(SessionChange::Ended { reason }) => {
                Sent::Ended(SessionEnded { reason: word(reason) })
            }
        },
        Item::Problem(code, detail) => return Err(ended(code, detail)),
        Item::Bookmark(..) | Item::Resync(_) => return Ok(LockSessionResponse { item: None }),
    };
    Ok(answer(sent))
}

fn word(reason: document::LossReason) -> String {
    serde_json::json!(reason).as_str().unwrap_or_default().to_owned()
}

fn held(place: document::HeldPlace) -> HeldPlace {
    let document::HeldPlace { area, namespace, name, token } = place;
    let area = match area {
        document::Area::Lock => LockArea::Lock,
        document::Area::Semaphore => LockArea::Semaphore,
        document::Area::Election => LockArea::Election,
    };
    HeldPlace { area: area.into(), namespace, name, token }
}

fn area(given: i32) -> Result<Area, Refused> {
    match LockArea::try_from(given) {
        Ok(LockArea::Unspecified | LockArea::Lock) => Ok(Area::Lock),
        Ok(LockArea::Semaphore) => Ok(Area::Semaphore),
        Ok(LockArea::Election) => Ok(Area::Election),
        Err(unknown) => Err(Refused::invalid(format!("`area`: {unknown}"))),
    }
}

fn observed(item: status::Item) -> Result<LockObserveResponse, Status> {
    let item = match item {
        Item::Snapshot(_, told) => Some(Observed::Snapshot(leadership(told))),
        Item::Change(_, told) => Some(Observed::Change(leadership(told))),
        Item::Problem(code, detail) => return Err(ended(code, detail)),
        Item::Bookmark(..) | Item::Resync(_) => None,
    };
    Ok(LockObserveResponse { item })
}

fn leadership(told: document::Leadership) -> proto::Leadership {
    let leader = told.leader.map(|leader| proto::Leader {
        term: leader.term,
        owner: leader.owner.map(|owner| {
            let document::Owner { host, pid, name } = owner;
            SessionOwner { host, pid, name }
        }),
        value: leader.value,
    });
    proto::Leadership { leader }
}
