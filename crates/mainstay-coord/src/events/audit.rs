//! What the audit outbox tells its operator.

/// Records were dropped since no log takes them over.
#[derive(Debug)]
pub(crate) struct OutboxTrimmed {
    pub(crate) records: u64,
    /// By all nodes, ever.
    pub(crate) total: u64,
}

impl OutboxTrimmed {
    pub(crate) fn emit(self) {
        let Self { records, total } = self;
        tracing::warn!(records, total, "audit outbox is full: its oldest records were dropped");
    }
}

/// What is too much could not be dropped; it is tried again.
#[derive(Debug)]
pub(crate) struct TrimFailed<'a> {
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl TrimFailed<'_> {
    pub(crate) fn emit(self) {
        let error = self.error;
        tracing::warn!(error, "audit outbox could not be trimmed");
    }
}

/// What was refused, and could not be recorded.
#[derive(Debug)]
pub(crate) struct RefusalsLost<'a> {
    pub(crate) records: usize,
    pub(crate) error: &'a (dyn std::error::Error + 'static),
}

impl RefusalsLost<'_> {
    pub(crate) fn emit(self) {
        let Self { records, error } = self;
        tracing::warn!(error, records, "refusals could not be recorded");
    }
}
