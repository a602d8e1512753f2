//! Lists of transactions, page by page.
//!
//! What is live comes first, the newest first; then what has ended, the last to end first. Of both
//! it is known without reading what they are in order; what a filter asks beyond that is read, at
//! most so much for one answer, and the next page goes on from there.

use mainstay_txn::run::{Glance, VerbError};
use mainstay_txn::{Coordinator, Gid, Moment, Transaction};

use super::list::LIMIT_MAX;

/// Transactions that one answer reads: of ended ones each is two reads of the store.
const READ_MAX: usize = 2_000;

/// What a list picks.
#[derive(Debug)]
pub(in crate::control) struct Picks<M, T> {
    /// Whether what is seen of a live one says nothing against it.
    pub(in crate::control) might: M,
    /// Whether it is picked.
    pub(in crate::control) takes: T,
    /// Whether those that have ended can be.
    pub(in crate::control) also_ended: bool,
}

/// A page.
#[derive(Debug, Default)]
pub(in crate::control) struct Walked {
    /// What was picked, in order.
    pub(in crate::control) items: Vec<Transaction>,
    /// Where the next page begins; `None` at the end.
    pub(in crate::control) next: Option<Place>,
    /// Whether some could not be seen yet.
    pub(in crate::control) partial: bool,
}

/// At most `limit` transactions from `place` on.
///
/// # Errors
///
/// [`VerbError`] when one cannot be read for now.
pub(in crate::control) async fn walk<M, T>(
    coordinator: &Coordinator,
    mut place: Place,
    limit: usize,
    Picks { might, takes, also_ended }: Picks<M, T>,
) -> Result<Walked, VerbError>
where
    M: Fn(&Glance) -> bool,
    T: Fn(&Transaction) -> bool,
{
    let mut page = Walked::default();
    let mut left = READ_MAX;
    loop {
        let most = left.min(LIMIT_MAX);
        let (marks, more) = match &place {
            Place::Live(mark) => {
                let found = coordinator.glances(mark.as_ref(), &might, most);
                page.partial |= found.partial;
                (found.items.iter().map(Glance::mark).collect::<Vec<_>>(), found.more)
            }
            Place::Ended(mark) => {
                let found = coordinator.ended_before(mark.as_ref(), most);
                page.partial |= found.partial;
                let more = found.items.len() == most;
                (found.items, more)
            }
        };
        for mark in marks {
            left = left.saturating_sub(1);
            if let Some(transaction) = read_one(coordinator, &mark.1).await?
                && place.is_of(&transaction)
                && takes(&transaction)
            {
                page.items.push(transaction);
            }
            place = place.behind(mark);
            if page.items.len() == limit || left == 0 {
                page.next = Some(place);
                return Ok(page);
            }
        }
        if !more {
            match place {
                Place::Live(_) if also_ended => place = Place::Ended(None),
                Place::Live(_) | Place::Ended(_) => return Ok(page),
            }
        }
    }
}

async fn read_one(coordinator: &Coordinator, gid: &Gid) -> Result<Option<Transaction>, VerbError> {
    match coordinator.get(gid).await {
        Ok(seen) => Ok(Some(seen.transaction)),
        // Forgotten, or gone to another node, since it was listed; or damaged.
        Err(VerbError::Unknown { .. } | VerbError::Log(_) | VerbError::Unreadable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a list goes on: behind a transaction that is live, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Place {
    /// Among those that are live.
    Live(Option<(Moment, Gid)>),
    /// Among those that have ended.
    Ended(Option<(Moment, Gid)>),
}

impl Place {
    fn behind(&self, mark: (Moment, Gid)) -> Self {
        match self {
            Self::Live(_) => Self::Live(Some(mark)),
            Self::Ended(_) => Self::Ended(Some(mark)),
        }
    }

    /// Whether `transaction` is listed here: one that ends while the list is made is listed among
    /// those that have ended.
    fn is_of(&self, transaction: &Transaction) -> bool {
        transaction.state().is_final() == matches!(self, Self::Ended(_))
    }

    /// As text, for the next page.
    pub(in crate::control) fn text(&self) -> String {
        let (kind, mark) = match self {
            Self::Live(mark) => ("live", mark),
            Self::Ended(mark) => ("ended", mark),
        };
        match mark {
            Some((at, gid)) => format!("{kind}:{}:{gid}", at.unix_millis()),
            None => kind.to_owned(),
        }
    }

    /// What [`Place::text`] wrote; `None` for anything else.
    pub(in crate::control) fn read(text: &str) -> Option<Self> {
        let (kind, mark) = match text.split_once(':') {
            None => (text, None),
            Some((kind, rest)) => {
                let (millis, gid) = rest.split_once(':')?;
                let at = Moment::from_unix_millis(millis.parse().ok()?);
                (kind, Some((at, Gid::new(gid).ok()?)))
            }
        };
        match kind {
            "live" => Some(Self::Live(mark)),
            "ended" => Some(Self::Ended(mark)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let mark = (Moment::from_unix_millis(7), Gid::new("a:b 转").unwrap());
        for place in [Place::Live(None), Place::Live(Some(mark.clone())), Place::Ended(Some(mark))]
        {
            assert_eq!(Place::read(&place.text()), Some(place));
        }
        for bad in ["", "live:", "live:x:g", "later:1:g", "ended:1:"] {
            assert_eq!(Place::read(bad), None, "{bad:?}");
        }
    }
}
