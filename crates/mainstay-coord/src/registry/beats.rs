//! Heartbeats.
//!
//! Nearly all of them find all as it was and touch a moment in memory. The others are written: the
//! instance was marked late, or another node looked after it so far.

use futures_util::StreamExt;
use futures_util::stream;

use super::owned::Beat;
use super::{Invalid, Registry, RegistryError};
use crate::keys::InstanceRef;

/// Heartbeats in one request.
pub const HEARTBEATS_MAX: usize = 1_000;

/// Writes of one request under way at once: after a node died, all of a request's instances come
/// to another.
const WRITES_MAX: usize = 64;

/// What a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// All is as it was.
    Fresh,
    /// It had been marked late.
    Back,
    /// Another node looked after it.
    TakenOver,
}

impl Heard {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Back => "back",
            Self::TakenOver => "taken_over",
        }
    }

    /// Whether the beat counts though it could not be written. One that is looked after here was
    /// heard, and is written with the next beat.
    const fn counts_despite(self, error: &RegistryError) -> bool {
        matches!((self, error), (Self::Back, RegistryError::Store(error)) if error.is_retryable())
    }
}

impl Registry {
    /// Takes a heartbeat.
    ///
    /// While the store is away beats of instances looked after here are taken all the same.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InstanceNotFound`]: it registers again. Otherwise as every write.
    ///
    /// # Cancel safety
    ///
    /// Safe: the beat counts from the first poll on.
    pub async fn heartbeat(&self, at: &InstanceRef) -> Result<(), RegistryError> {
        let heard = self.hear(at)?;
        match self.answer(at, heard).await {
            Err(error) if heard.counts_despite(&error) => Ok(()),
            done => done,
        }
    }

    /// Takes up to 1,000 heartbeats; returns those of instances that are to register again.
    ///
    /// All of them are heard before anything is written, so a store that is away stops none that
    /// needs no write.
    ///
    /// # Errors
    ///
    /// As [`heartbeat`](Registry::heartbeat), after all others have been taken. What the store says
    /// to one write ends the other writes: it would say the same to them.
    ///
    /// # Cancel safety
    ///
    /// All beats of instances looked after here count from the first poll on; which of the others
    /// were taken over is open.
    pub async fn heartbeats(&self, of: &[InstanceRef]) -> Result<Vec<InstanceRef>, RegistryError> {
        if of.len() > HEARTBEATS_MAX {
            return Err(Invalid::new("heartbeats", "must be at most 1000").into());
        }
        let (mut missing, mut failed, mut rest) = (Vec::new(), None, Vec::new());
        for at in of {
            match self.hear(at) {
                Ok(Heard::Fresh) => {}
                Ok(heard) => rest.push((at.clone(), heard)),
                Err(RegistryError::InstanceNotFound { instance }) => missing.push(instance),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let mut writes = stream::iter(rest)
            .map(|(at, heard)| async move { (heard, self.answer(&at, heard).await) })
            .buffer_unordered(WRITES_MAX);
        while let Some((heard, done)) = writes.next().await {
            match done {
                Ok(()) => {}
                Err(RegistryError::InstanceNotFound { instance }) => missing.push(instance),
                Err(error) => {
                    let is_last = matches!(error, RegistryError::Store(_));
                    if !heard.counts_despite(&error) {
                        failed.get_or_insert(error);
                    }
                    if is_last {
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(missing), Err)
    }

    /// Takes a beat in memory.
    fn hear(&self, at: &InstanceRef) -> Result<Heard, RegistryError> {
        let (beat, is_known) = {
            let mut local = self.shared.local.lock();
            let beat = local.owned.beat(self.shared.now(), at);
            (beat, beat.is_some() || self.shared.known(&local, at)?)
        };
        let heard = match beat {
            Some(Beat::Fresh) => Heard::Fresh,
            Some(Beat::Back) => Heard::Back,
            None if is_known => Heard::TakenOver,
            None => {
                self.shared.figures.heartbeat("unknown");
                return Err(RegistryError::InstanceNotFound { instance: at.clone() });
            }
        };
        self.shared.figures.heartbeat(heard.as_str());
        Ok(heard)
    }

    /// Writes what a beat changed.
    async fn answer(&self, at: &InstanceRef, heard: Heard) -> Result<(), RegistryError> {
        match heard {
            Heard::Fresh => Ok(()),
            Heard::Back | Heard::TakenOver => self.shared.is_back(at).await,
        }
    }
}
