//! From the copy to the gateway.
//!
//! One lock covers what is in force: the configuration, and the rules laid beside it. A reload of
//! the files and a change of rules take it in turn, so neither builds on what the other replaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::keys::RuleRef;
use mainstay_core::problem::Code;
use mainstay_proxy::config::Plane;
use mainstay_proxy::gateway::{Running, unusable};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Copies;
use super::book::{Book, Unfit, reason};
use super::copies::KeptRule;
use super::events::{Applied, Lingers, Refused, Shadowed, Unfit as IsUnfit};
use super::figures::{self, Figures};
use super::rule::Rule;
use crate::report::{Report, causes};
use crate::role::Shared;
use crate::settings::reload::Live;
use crate::settings::root::Meant;
use crate::settings::{Errors, Settings};

/// How long a change waits for those before it.
const TURN_MAX: Duration = Duration::from_secs(10);

/// The rules of the store, as this process serves by them.
#[derive(Debug, Default)]
pub struct Rules {
    /// Taken after the lock of the configuration, never before.
    book: Mutex<Book>,
    /// Held from the check of a change to the moment it is in force.
    turn: tokio::sync::Mutex<()>,
    figures: Figures,
}

/// A change takes its turn for as long as this lives.
pub type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Rules {
    /// What is in force, and what is not.
    pub fn book(&self) -> &Mutex<Book> {
        &self.book
    }

    /// What has been counted.
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Waits until changes before are in force; `None` when they take more than 10 s.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        tokio::time::timeout(TURN_MAX, self.turn.lock()).await.ok()
    }

    /// Lays what `copies` has beside the files of `live`, as far as it fits; `serve` then serves by
    /// it. Does nothing before everything was read once, or when nothing is new; `anew`, it looks
    /// again at what did not fit.
    pub(crate) fn settle(
        &self,
        live: &mut Live<Settings, Meant>,
        copies: &Copies,
        anew: bool,
        mut serve: impl FnMut(&Arc<Meant>) -> Result<(), Errors>,
    ) {
        let Some(all) = copies.all() else { return };
        let mut book = self.book.lock();
        let read = |(rule, kept): (RuleRef, Arc<KeptRule>)| {
            let revision = kept.edition.revision;
            // Of another store the same revision may be another text.
            let is_it = |known: &&Arc<Rule>| {
                known.revision == revision && known.place.body == *kept.content
            };
            let known = book.kept(&rule).filter(is_it);
            let read = || Arc::new(Rule::read(rule.clone(), revision, &kept.content));
            let read = known.map_or_else(read, Arc::clone);
            (rule, read)
        };
        let kept: BTreeMap<RuleRef, Arc<Rule>> = all.into_iter().map(read).collect();
        if !anew && book.has(&kept) {
            return;
        }
        let files = live.files().clone();
        let laid = book.settle(kept, &files, |grafts| live.lay(grafts, &mut serve));
        let outcome = match &laid {
            Err(errors) => {
                Refused { errors }.emit();
                figures::Applied::refused
            }
            Ok(changed) => {
                if !changed.is_empty() {
                    Applied { changed }.emit();
                }
                if report(&book) { figures::Applied::whole } else { figures::Applied::partly }
            }
        };
        self.figures.applied(outcome);
        self.figures.count(&book);
    }
}

/// Tells of every rule that is not in force as it is written; whether there is none.
fn report(book: &Book) -> bool {
    for (rule, unfit) in book.unfit() {
        match unfit {
            Unfit::Shadowed { place } => Shadowed { rule, place }.emit(),
            unfit => {
                let why = &reason(unfit);
                let revision = book.kept(rule).map_or(0, |kept| kept.revision);
                IsUnfit { rule, revision, in_force: book.revision_in_force(rule), why }.emit();
            }
        }
    }
    book.lingering().for_each(|rule| Lingers { rule }.emit());
    book.unfit().next().is_none() && book.lingering().next().is_none()
}

/// Whether every service of `plane` can be connected to; those that stay as they are `before` are
/// not asked again.
///
/// # Errors
///
/// A report for each that cannot, with the path of its table.
pub(crate) fn usable(plane: &Plane, before: Option<&Running>) -> Result<(), Errors> {
    let report = |(name, error)| {
        let path = format!("upstream.{name}");
        let message = format!("`{path}`: {}", causes(&error));
        Report::error(Code::ConfigContradiction, message).of(path)
    };
    let reports: Vec<Report> = unusable(plane, before).into_iter().map(report).collect();
    if reports.is_empty() { Ok(()) } else { Err(Errors { reports }) }
}

/// Serves by the rules of the store as they change, until told to stop.
///
/// # Cancel safety
///
/// Safe: a change that was not applied is applied with the next.
pub async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let Some(copies) = shared.copies() else { return };
    let mut changes = copies.listen();
    loop {
        // What came between the start and now is news, too.
        let shared = Arc::clone(&shared);
        // Files of services are read, and a large configuration takes its time.
        let applied = tokio::task::spawn_blocking(move || shared.apply_rules(false));
        if let Err(error) = applied.await {
            tracing::error!(%error, "rules were not applied");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = changes.next() => (),
        }
    }
}
