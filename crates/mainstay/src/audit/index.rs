//! From which to which id and time a bundle has records: what spares reading bundles that cannot
//! have what is asked for. It proves nothing, and is made anew where it is short.

use std::io;

use mainstay_coord::Moment;
use mainstay_coord::keys::AuditId;
use mainstay_security::audit::tile::{Level, Tile};
use mainstay_store::Revision;
use serde_json::Value;

use super::files::{Files, INDEX, lines};

/// Bytes of a line: two ids, two moments, as text of fixed length.
const LINE: usize = 2 * 34 + 2 * 17;

/// What one bundle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) ids: (AuditId, AuditId),
    pub(super) times: (Moment, Moment),
}

impl Span {
    /// Of nothing: no id, no moment is in it.
    pub(super) const EMPTY: Self = {
        let (first, last) =
            (AuditId::first_at(Revision::new(u64::MAX)), AuditId::first_at(Revision::NEVER));
        Self { ids: (first, last), times: (Moment::MAX, Moment::from_unix_millis(0)) }
    };

    pub(super) fn add(&mut self, id: AuditId, time: Moment) {
        self.ids = (self.ids.0.min(id), self.ids.1.max(id));
        self.times = (self.times.0.min(time), self.times.1.max(time));
    }

    pub(super) fn has(self, id: AuditId) -> bool {
        self.ids.0 <= id && id <= self.ids.1
    }

    fn line(self) -> String {
        let Self { ids: (first, last), times: (from, to) } = self;
        format!("{first} {last} {:016x} {:016x}\n", from.unix_millis(), to.unix_millis())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split_ascii_whitespace();
        let mut id = || AuditId::parse(parts.next()?);
        let ids = (id()?, id()?);
        let mut time =
            || Some(Moment::from_unix_millis(u64::from_str_radix(parts.next()?, 16).ok()?));
        Some(Self { ids, times: (time()?, time()?) })
    }
}

/// The id and the time of a record of the log.
pub(super) fn marks(record: &Value) -> Option<(AuditId, Moment)> {
    let text = |member| record.get(member).and_then(Value::as_str);
    let time = text("time").and_then(|time| Moment::parse(time).ok()).unwrap_or_default();
    Some((AuditId::parse(text("id")?)?, time))
}

/// The span of the records in a bundle.
pub(super) fn span(bundle: &[u8]) -> Span {
    let mut span = Span::EMPTY;
    let records = lines(bundle).filter_map(|line| serde_json::from_slice(line).ok());
    for (id, time) in records.filter_map(|record: Value| marks(&record)) {
        span.add(id, time);
    }
    span
}

/// The spans of the first `bundles` bundles; those the file lacks are made anew.
pub(super) fn read(files: &Files, bundles: u64) -> io::Result<Vec<Span>> {
    let text = files.read(INDEX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let whole = text.split_inclusive('\n').filter(|line| line.len() == LINE);
    let most = usize::try_from(bundles).unwrap_or(usize::MAX);
    let mut spans: Vec<Span> = whole.map_while(Span::parse).take(most).collect();
    let is_whole = spans.len() == most && text.len() == most * LINE;
    for bundle in spans.len() as u64..bundles {
        let bytes = files.read(&Tile::whole(Level::Entries, bundle).to_string())?;
        spans.push(bytes.map_or(Span::EMPTY, |bytes| span(&bytes)));
    }
    if !is_whole {
        let all: String = spans.iter().map(|span| span.line()).collect();
        files.write(INDEX, all.as_bytes())?;
    }
    Ok(spans)
}

/// Adds the span of the next bundle.
pub(super) fn add(files: &Files, span: Span) -> io::Result<()> {
    files.add(INDEX, span.line().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_was_written_and_what_is_cut_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path().to_owned());
        let mut one = Span::EMPTY;
        assert!(!one.has(AuditId::draw(Revision::new(3))));
        let id = AuditId::draw(Revision::new(7));
        one.add(id, Moment::from_unix_millis(5));
        one.add(AuditId::draw(Revision::new(9)), Moment::from_unix_millis(4));
        assert!(one.has(id) && !one.has(AuditId::first_at(Revision::new(7))));
        add(&files, one).unwrap();
        files.add(INDEX, b"cut").unwrap();
        assert_eq!(one.line().len(), LINE);
        assert_eq!(read(&files, 2).unwrap(), [one, Span::EMPTY]);
        assert_eq!(files.read(INDEX).unwrap().unwrap().len(), 2 * LINE);
        assert_eq!(read(&files, 1).unwrap(), [one]);
    }
}
