//! Makes whole revisions of what a watch of etcd sends: a machine.
//!
//! etcd may send an event again after a reconnect (etcd#20221), may begin before the revision asked
//! for (etcd#15271), and splits what is too large for one message, in the middle of a revision if
//! need be. What leaves here is each revision once, whole, and in order. A revision is whole when
//! an event of a later one comes, or a message that is not continued by the next.

use mainstay_store::{Event, Revision};

use crate::identity::revision;
use crate::stub::WatchResponse;
use crate::wire::Space;

/// Puts together what one upstream watch sends.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The first revision not yet delivered.
    next: Revision,
    /// The revision whose events are still coming.
    open: Option<(Revision, Vec<Event>)>,
}

/// What a message amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The watch stands, as of the member's revision.
    Created(Revision),
    /// All events of one revision.
    Changes(Revision, Vec<Event>),
    /// Nothing at or before it follows.
    Progress(Revision),
    /// An event came again, or from before what was asked for.
    Dropped,
    /// An event of a key the port cannot name.
    Foreign,
    /// What was asked for is compacted, up to this revision.
    Compacted(Revision),
    /// etcd has ended the watch.
    Ended(String),
}

impl Reader {
    pub(crate) const fn new(from: Revision) -> Self {
        Self { next: from, open: None }
    }

    /// Takes one message.
    pub(crate) fn take(&mut self, space: &Space, message: WatchResponse) -> Vec<Read> {
        if message.compact_revision != 0 {
            return vec![Read::Compacted(revision(message.compact_revision))];
        }
        if message.canceled {
            return vec![Read::Ended(message.cancel_reason)];
        }
        let at = message.header.map(|header| revision(header.revision)).unwrap_or_default();
        if message.created {
            return vec![Read::Created(at)];
        }
        let is_progress = message.events.is_empty() && !message.fragment && self.open.is_none();
        let mut read = Vec::new();
        for event in message.events {
            let (at, event) = space.event(event);
            self.event(at, event, &mut read);
        }
        if !message.fragment {
            self.close(&mut read);
        }
        if is_progress {
            read.push(Read::Progress(at));
        }
        read
    }

    fn event(&mut self, at: Revision, event: Option<Event>, read: &mut Vec<Read>) {
        let is_known = match &self.open {
            Some((open, _)) => at < *open,
            None => at < self.next,
        };
        if is_known {
            read.push(Read::Dropped);
            return;
        }
        if self.open.as_ref().is_some_and(|(open, _)| *open < at) {
            self.close(read);
        }
        let (_, events) = self.open.get_or_insert_with(|| (at, Vec::new()));
        match event {
            Some(event) => events.push(event),
            None => read.push(Read::Foreign),
        }
    }

    /// The open revision is whole.
    fn close(&mut self, read: &mut Vec<Read>) {
        if let Some((at, events)) = self.open.take() {
            self.next = at.next();
            if !events.is_empty() {
                read.push(Read::Changes(at, events));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{self, KeyValue, ResponseHeader};

    /// A message in one line: `5a 5b 6c` are events (revision and key), a `+` at the end says that
    /// the next message goes on, `@7` is progress, `!7` is compaction, `created`, `ended`.
    fn message(script: &str) -> WatchResponse {
        let number = |text: &str| text.parse::<i64>().unwrap();
        let header = |revision| Some(ResponseHeader { revision, ..Default::default() });
        let mut message = WatchResponse { header: header(100), ..Default::default() };
        for word in script.split_whitespace() {
            match word.split_at(1) {
                ("+", _) => message.fragment = true,
                ("@", at) => message.header = header(number(at)),
                ("!", at) => message.compact_revision = number(at),
                ("c", "reated") => message.created = true,
                ("e", "nded") => message.canceled = true,
                _ => {
                    let (at, key) = word.split_at(word.len() - 1);
                    let key = format!("/p/{key}").into_bytes().into();
                    let kv = KeyValue { key, mod_revision: number(at), ..Default::default() };
                    message.events.push(stub::Event { kv: Some(kv), ..Default::default() });
                }
            }
        }
        message
    }

    /// What a reader from `from` makes of messages, in one line: `5ab` is a revision with its keys,
    /// `x` a dropped event, `f` one the port cannot name.
    #[track_caller]
    fn check(from: u64, messages: &[&str], want: &str, next: u64) {
        let space = Space::new("/p/");
        let mut reader = Reader::new(Revision::new(from));
        let mut got = Vec::new();
        for script in messages {
            got.extend(reader.take(&space, message(script)).into_iter().map(|read| match read {
                Read::Created(at) => format!("c{at}"),
                Read::Changes(at, events) => {
                    let keys = events.iter().map(|event| event.key().to_string());
                    format!("{at}{}", keys.collect::<String>())
                }
                Read::Progress(at) => format!("@{at}"),
                Read::Dropped => "x".to_owned(),
                Read::Foreign => "f".to_owned(),
                Read::Compacted(at) => format!("!{at}"),
                Read::Ended(_) => "e".to_owned(),
            }));
        }
        assert_eq!(got.join(" "), want, "{messages:?}");
        assert_eq!(reader.next, Revision::new(next), "{messages:?}");
    }

    #[test]
    fn each_revision_leaves_once_and_whole() {
        check(5, &["created", "5a 5b 6c", "7d"], "c100 5ab 6c 7d", 8);
        check(5, &["5a 5b +", "5c 6d +", "6e"], "5abc 6de", 7);
        check(5, &["5a +", "6b"], "5a 6b", 7);
    }

    #[test]
    fn what_comes_again_is_dropped_and_counted() {
        check(5, &["4a 5b"], "x 5b", 6);
        check(5, &["5a 6b", "5a 6b 7c"], "5a 6b x x 7c", 8);
        check(5, &["7a", "6b", "8c"], "7a x 8c", 9);
        check(5, &["7a +", "6b +", "7c"], "x 7ac", 8);
    }

    #[test]
    fn progress_is_passed_on_and_drops_nothing() {
        check(5, &["@9"], "@9", 5);
        check(5, &["@9", "10a", "@9"], "@9 10a @9", 11);
        // Inside a revision that is still coming, a message without events tells no progress.
        check(5, &["5a +", "@9 +", "5b"], "5ab", 6);
        // A progress that was told too early loses nothing that still comes.
        check(5, &["@9", "8a"], "@9 8a", 9);
    }

    #[test]
    fn ends_are_told() {
        check(5, &["created", "!7"], "c100 !7", 5);
        check(5, &["5a", "ended"], "5a e", 6);
    }
}
