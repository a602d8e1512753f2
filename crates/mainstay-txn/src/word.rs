//! The words of a transaction: modes, states, operations, votes.
//!
//! Each has one spelling, which documents, headers, metrics and the log use alike.

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $word:literal,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$item])* $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word used in documents, headers, metrics and the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The one `word` stands for.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        })*
    };
}

words! {
    /// How a transaction holds its branches together.
    Mode {
        /// Two-phase commit: branches prepare and vote, then all commit or all roll back.
        Xa = "xa",
        /// Try, confirm, cancel: branches reserve, then all confirm or all cancel.
        Tcc = "tcc",
        /// Steps that are done at once, and compensated when a later one fails.
        Saga = "saga",
        /// Delivered if, and only if, the local part of its sender was committed.
        Message = "message",
    }

    /// Whose rules about retries and order hold.
    Dialect {
        /// Our own.
        Native = "native",
        /// Those of the DTM protocol.
        Dtm = "dtm",
    }

    /// Where a transaction stands.
    State {
        /// Branches join; nothing is decided.
        Active = "active",
        /// Branches are asked to prepare. Never in the log: after a failover it is active again.
        Preparing = "preparing",
        /// The sender of a message is asked. Never in the log, as preparing.
        Querying = "querying",
        /// Decided; branches are told.
        Committing = "committing",
        /// Decided against; branches are told.
        Aborting = "aborting",
        /// Every branch has committed.
        Committed = "committed",
        /// Every branch has rolled back.
        Aborted = "aborted",
        /// Every branch has ended, and one of them against the decision. An operator ends it.
        Mixed = "mixed",
    }

    /// What was decided.
    Decision {
        /// Every branch is to take effect.
        Commit = "commit",
        /// None is.
        Abort = "abort",
    }

    /// What a branch is asked to do.
    Op {
        /// A step of a saga or message.
        Action = "action",
        /// Undoes a step of a saga.
        Compensate = "compensate",
        /// Reserves; asked by the initiator itself.
        Try = "try",
        /// Makes a reservation good.
        Confirm = "confirm",
        /// Gives a reservation up.
        Cancel = "cancel",
        /// Promises to be able to commit. Of a resource: whether it holds the branch prepared.
        Prepare = "prepare",
        /// Makes what was prepared good.
        Commit = "commit",
        /// Undoes what was or will be prepared.
        Rollback = "rollback",
        /// Asks the sender of a message whether its local part was committed.
        Check = "msg",
    }

    /// How far an operation is. It only moves down this list; repeating it moves nothing.
    OpState {
        /// Not asked for.
        Waiting = "waiting",
        /// Asked for the first time, no answer yet.
        Running = "running",
        /// What became of it is not known.
        Unknown = "unknown",
        /// The branch says that it could not, or it ended against the decision.
        Failed = "failed",
        /// Done.
        Done = "done",
    }

    /// A branch's word on the first phase.
    Vote {
        /// Prepared, and will be able to commit whatever happens.
        Yes = "yes",
        /// Not prepared, and never will be.
        No = "no",
        /// Nothing was written: the branch leaves before the second phase.
        ReadOnly = "read-only",
    }

    /// When an endpoint branch of a two-phase commit prepares.
    Prepare {
        /// As part of its business call; the initiator passes its vote on.
        Own = "self",
        /// When the coordinator calls it.
        Called = "called",
    }

    /// Why a transaction was decided as it was.
    Why {
        /// Its initiator asked for it.
        Asked = "asked",
        /// A branch voted no.
        VoteNo = "vote-no",
        /// A branch that had joined was missing in the vote list.
        VoteMissing = "vote-missing",
        /// Its deadline passed.
        Deadline = "deadline",
        /// A step failed for good.
        StepFailed = "step-failed",
        /// A step was tried as often as it may be.
        RetryLimit = "retry-limit",
        /// The sender of the message says that its local part was not committed.
        CheckRefused = "check-refused",
        /// The message could not be delivered in its time.
        GaveUp = "gave-up",
        /// An operator did.
        Operator = "operator",
        /// A branch was found prepared that no record speaks of.
        Orphan = "orphan",
    }
}

impl State {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Committed | Self::Aborted)
    }

    /// Whether the outcome is open.
    pub const fn is_undecided(self) -> bool {
        matches!(self, Self::Active | Self::Preparing | Self::Querying)
    }
}

impl OpState {
    /// Whether an answer has settled it.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Failed | Self::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written() {
        fn check<T: Copy + PartialEq + std::fmt::Debug>(
            all: &[T],
            write: fn(T) -> &'static str,
            read: fn(&str) -> Option<T>,
        ) {
            for word in all {
                assert_eq!(read(write(*word)), Some(*word));
            }
            assert_eq!(read("nonsense"), None);
        }
        check(Mode::ALL, Mode::as_str, Mode::parse);
        check(State::ALL, State::as_str, State::parse);
        check(Op::ALL, Op::as_str, Op::parse);
        check(Why::ALL, Why::as_str, Why::parse);
        check(Vote::ALL, Vote::as_str, Vote::parse);
        check(OpState::ALL, OpState::as_str, OpState::parse);
    }
}
