//! An instance that is registered as long as the stream of its program lives.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use mainstay_api::grpc::{RegisterRequest, RegisterResponse};
use mainstay_api::grpc::{RegistrySessionRequest, RegistrySessionResponse};
use mainstay_coord::audit::Author;
use mainstay_coord::keys::{InstanceRef, ServiceRef};
use mainstay_coord::registry::{Registration, RegistryError};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use super::namespace;
use super::registry::{asked, registered};
use crate::cluster::Cluster;
use crate::control::answer::Refused;
use crate::control::registry::{service, write};

/// An instance, and the program at the other end.
struct Kept {
    cluster: Arc<Cluster>,
    author: Author,
    asks: Streaming<RegistrySessionRequest>,
    service: ServiceRef,
    registration: Registration,
    instance: InstanceRef,
    /// Which of its registrations this stream made.
    made: String,
    beats: Interval,
}

/// What is answered next, and whether anything is after that.
type Turn = Option<(Result<RegistrySessionResponse, Status>, Option<Kept>)>;

/// Registers the instance of the first request and tells so; keeps it until the program ends its
/// side, which deregisters it, or the stream breaks, which leaves it its ttl.
///
/// # Errors
///
/// What the first request is refused for.
pub(super) async fn kept(
    cluster: Arc<Cluster>,
    author: Author,
    mut asks: Streaming<RegistrySessionRequest>,
) -> Result<impl Stream<Item = Result<RegistrySessionResponse, Status>> + Send, Status> {
    let Some(RegistrySessionRequest { register }) = asks.message().await? else {
        return Err(Refused::invalid("the first request says which instance it is").into());
    };
    let (service, registration) = wanted(&cluster, register)?;
    let done = cluster.registry.register(&service, &registration).await.map_err(Refused::from)?;
    let instance = service.instance(&registration.id);
    let (made, beats) = (done.registration.clone(), every(done.beat_every_seconds));
    let kept = Kept { cluster, author, asks, service, registration, instance, made, beats };
    let first = stream::iter([Ok(answer(registered(done)))]);
    let rest = stream::unfold(Some(kept), |kept| async { Box::pin(kept?.turn()).await });
    Ok(stream::StreamExt::chain(first, rest))
}

impl Kept {
    /// Beats until there is something to tell.
    async fn turn(mut self) -> Turn {
        loop {
            tokio::select! {
                asked = self.asks.message() => return match asked {
                    Ok(Some(RegistrySessionRequest { register })) => self.changes(register).await,
                    Ok(None) => self.leaves().await,
                    Err(broken) => Some((Err(broken), None)),
                },
                _moment = self.beats.tick() => {
                    // A store that is away takes the next one; nothing is removed meanwhile.
                    let beaten = self.cluster.registry.heartbeat(&self.instance).await;
                    if let Err(RegistryError::InstanceNotFound { .. }) = beaten {
                        return self.registers().await;
                    }
                }
            }
        }
    }

    async fn changes(mut self, register: Option<RegisterRequest>) -> Turn {
        let wanted = wanted(&self.cluster, register).and_then(|(service, registration)| {
            if service.instance(&registration.id) == self.instance {
                return Ok(registration);
            }
            Err(Refused::invalid("a stream keeps one instance: open another one for another"))
        });
        match wanted {
            Ok(registration) => self.registration = registration,
            Err(refused) => return Some((Err(refused.into()), None)),
        }
        self.registers().await
    }

    async fn registers(mut self) -> Turn {
        match self.cluster.registry.register(&self.service, &self.registration).await {
            Ok(done) => {
                self.beats = every(done.beat_every_seconds);
                self.made.clone_from(&done.registration);
                Some((Ok(answer(registered(done))), Some(self)))
            }
            Err(error) => Some((Err(Refused::from(error).into()), None)),
        }
    }

    /// The program has ended its side: it is no more, and nobody waits for its ttl. If it has come
    /// back by another stream meanwhile, this one's end means nothing.
    async fn leaves(self) -> Turn {
        let Self { cluster, instance, made, author, .. } = &self;
        match cluster.registry.withdraw(instance, made, Some(author)).await {
            Ok(_) | Err(RegistryError::RegistrationGone { .. }) => None,
            Err(error) => Some((Err(Refused::from(error).into()), None)),
        }
    }
}

fn wanted(
    cluster: &Cluster,
    register: Option<RegisterRequest>,
) -> Result<(ServiceRef, Registration), Refused> {
    let RegisterRequest { namespace: within, service: name, registration } =
        register.unwrap_or_default();
    let service = service((namespace(within), name))?;
    let registration = write::checked(cluster, asked(registration.unwrap_or_default())?)?;
    Ok((service, registration))
}

/// The moments of its beats. Registering is one, so the first comes a while later.
fn every(seconds: u32) -> Interval {
    let mut beats = interval(Duration::from_secs(seconds.max(1).into()));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.reset();
    beats
}

const fn answer(registered: RegisterResponse) -> RegistrySessionResponse {
    RegistrySessionResponse { registered: Some(registered) }
}
