//! What a handle counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident, $count:ident;)*) => {
        /// Counters of one handle since it was opened.
        #[derive(Debug, Default)]
        pub(crate) struct Figures {
            $($name: AtomicU64,)*
        }

        /// The counters as they stand.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Figures {
            $(pub(crate) fn $count(&self) {
                self.$name.fetch_add(1, Ordering::Relaxed);
            })*

            pub(crate) fn read(&self) -> Counted {
                Counted { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

figures! {
    /// Calls etcd answered, refusals among them.
    calls_answered, answered;
    /// Calls that did not reach it in time; nothing was done.
    calls_unanswered, unanswered;
    /// Writes of which it is not known whether they were done.
    outcomes_unknown, left_open;
    /// Times a call was made again, on another connection.
    calls_repeated, repeated;
    /// Calls refused because 8,192 were under way.
    calls_refused, refused;
    /// Connections that could not be made.
    dials_failed, dials_failed;
    /// Upstream watches that went on where they had ended.
    watch_resumes, watch_resumed;
    /// Events that came again, or from before what was asked for, and were dropped.
    watch_events_dropped, event_dropped;
    /// Events of keys the port cannot name, left out.
    watch_events_foreign, event_foreign;
    /// Watches that read history on a stream of their own.
    watch_own_streams, own_stream;
    /// Watches told to list again because too many read history already.
    watch_streams_refused, stream_refused;
    /// Watches told to list again, for whatever reason.
    watch_resyncs, resynced;
    /// Comparisons of a watched area with what etcd holds.
    audits, audited;
    /// Of these, those that found a difference.
    watch_mismatches, mismatched;
    /// Compactions this node made.
    compactions, compacted;
}
