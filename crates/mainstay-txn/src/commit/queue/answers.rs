//! What answers of the store mean for a batch, and for those who wait for it.

use std::collections::BTreeMap;

use mainstay_core::Effect;
use mainstay_store::{Answer, Applied, Entry, Error, Key};

use super::{LaneQueue, Place, Stage, Told, Waiting, tell};
use crate::commit::LogError;
use crate::log;

impl<T> LaneQueue<T> {
    /// Takes the answer to [`Next::Send`](super::Next::Send); returns who is told what.
    pub fn answered(&mut self, answer: Result<Applied, Error>) -> Told<T> {
        match answer {
            Ok(applied) if applied.succeeded => {
                self.applied = (self.sent, applied.revision);
                self.finish(&Ok(()))
            }
            Ok(applied) => self.resolved(Ok(applied)),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) -> Told<T> {
        let Some(flight) = &mut self.flight else { return Vec::new() };
        let has_copies = flight.numbers.len() > 1;
        match error {
            // Only a restart can tell what lies on the disk.
            Error::Failed | Error::Regressed { .. } => self.lose(&error.to_string()),
            Error::LeaseNotFound { .. } => self.lose("the session of this node has ended"),
            // Nothing came of this copy, but an earlier one may be under way.
            _ if error.effect() != Effect::None || has_copies => {
                flight.stage = Stage::Doubtful;
                Vec::new()
            }
            error => self.give_up(error),
        }
    }

    /// Nothing was written: whoever waited hears it, and what nobody waited for waits again, unless
    /// the node has given its shard up, or no store would ever take it.
    fn give_up(&mut self, error: &Error) -> Told<T> {
        let mut told = Vec::new();
        let Some(flight) = self.flight.take() else { return told };
        let unavailable = Err(LogError::Unavailable { why: error.to_string() });
        // What is too large goes by itself, so nobody else is in its batch.
        let is_too_large = flight.records.len() == 1
            && matches!(error, Error::ValueTooLarge { .. } | Error::BatchTooLarge { .. });
        for record in flight.records {
            let Waiting { gid, shard, created, lazy, tickets, patient, .. } = record;
            tell(tickets, &unavailable, &mut told);
            if lazy.is_empty() || is_too_large || !self.is_of(shard, created) {
                tell(patient, &unavailable, &mut told);
                continue;
            }
            // It comes before what has come since.
            let waiting = self.waiting_of(Place { gid: &gid, shard, created });
            let later = std::mem::replace(&mut waiting.lazy, lazy);
            waiting.lazy.merge(later);
            waiting.patient.extend(patient);
        }
        told
    }

    /// Takes what was read about a batch whose outcome was not known; returns who is told what.
    pub fn resolved(&mut self, answer: Result<Applied, Error>) -> Told<T> {
        let Some(flight) = &mut self.flight else { return Vec::new() };
        let applied = match answer {
            Ok(applied) => applied,
            Err(error @ (Error::Failed | Error::Regressed { .. })) => {
                return self.lose(&error.to_string());
            }
            Err(_) => {
                flight.stage = Stage::Doubtful; // Ask again.
                return Vec::new();
            }
        };
        let entries: BTreeMap<Key, Entry> = entries(&applied);
        let lane = entries.get(&self.key);
        let read = lane.and_then(|entry| log::Lane::read(&entry.value).ok());
        let Some((entry, read)) = lane.zip(read).filter(|(_, read)| read.session == self.session)
        else {
            return self.lose("the session of this node has ended");
        };
        if flight.numbers.contains(&read.batch) {
            self.applied = (read.batch, entry.mod_revision);
            return self.finish(&Ok(()));
        }
        // An owner's key that is made anew has another create revision for ever: no copy can be
        // applied any more. What this node has given up and nobody has taken yet may still be.
        let is_owned = |record: &Waiting<T>| {
            let owner = entries.get(&log::shard(record.shard));
            owner.is_some_and(|owner| owner.create_revision == record.created)
        };
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut flight.records).into_iter().partition(is_owned);
        flight.records = kept;
        let mut told = Vec::new();
        for record in gone {
            if self.is_of(record.shard, record.created) {
                told.extend(self.disown(record.shard));
            }
            tell(record.everybody(), &Err(LogError::NotOwner), &mut told);
        }
        // The rest is sent again, under another number, so that it shows which copy was applied.
        match &mut self.flight {
            Some(flight) if flight.records.is_empty() && flight.numbers.len() == 1 => {
                self.flight = None;
            }
            Some(flight) => flight.stage = Stage::Again,
            None => {}
        }
        told
    }

    fn finish(&mut self, outcome: &Result<(), LogError>) -> Told<T> {
        let mut told = Vec::new();
        for record in self.flight.take().into_iter().flat_map(|flight| flight.records) {
            tell(record.everybody(), outcome, &mut told);
        }
        told
    }

    /// The session has ended: nothing more is written, and nobody knows of the last batch.
    pub fn lose(&mut self, why: &str) -> Told<T> {
        self.lost = true;
        let lost = Err(LogError::Lost { why: why.to_owned() });
        let mut told = self.finish(&lost);
        for waiting in std::mem::take(&mut self.waiting) {
            tell(waiting.everybody(), &Err(LogError::NotOwner), &mut told);
        }
        self.places.clear();
        told
    }
}

/// What the reads of a batch found.
fn entries(applied: &Applied) -> BTreeMap<Key, Entry> {
    let pages = applied.answers.iter().filter_map(|answer| match answer {
        Answer::Range(page) => Some(&page.entries),
        Answer::Put { .. } | Answer::Delete { .. } => None,
    });
    pages.flatten().map(|entry| (entry.key.clone(), entry.clone())).collect()
}
