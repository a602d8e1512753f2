//! Where a body ends: by length, by chunks, or by the end of the connection.

use super::field::{Line, forbidden_trailer, line};
use super::rule::Rule;
use super::scan::find_lf;

/// Longest extension of one chunk, in bytes.
const EXTENSION_BYTES_MAX: usize = 256;
/// Longest extensions of one body, in bytes: four full ones, then no more.
const EXTENSIONS_BYTES_MAX: usize = 1024;
/// Digits of a chunk size; 16 fill a `u64`.
const SIZE_DIGITS_MAX: usize = 16;
/// Longest trailer section, in bytes.
const TRAILER_BYTES_MAX: usize = 4096;

/// The body of one message, being read.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// Bytes of content so far; framing does not count.
    received: u64,
    /// Most bytes of content.
    bytes_max: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Length { left: u64 },
    Chunked { stage: Stage, extensions: usize },
    ToTheEnd,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailer,
}

/// How far a body came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advance {
    /// Bytes that belong to the body and are well formed. What follows in the input is the next
    /// message if the body is complete, else the beginning of a chunk line or a trailer section.
    pub(crate) passed: usize,
    /// The body is complete.
    pub(crate) complete: bool,
}

/// The defect, and how many bytes before it were in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) passed: usize,
    pub(crate) rule: Rule,
}

impl Body {
    pub(crate) fn length(length: u64) -> Self {
        Self { kind: Kind::Length { left: length }, received: 0, bytes_max: u64::MAX }
    }

    pub(crate) fn chunked(bytes_max: u64) -> Self {
        let kind = Kind::Chunked { stage: Stage::Size, extensions: 0 };
        Self { kind, received: 0, bytes_max }
    }

    pub(crate) fn to_the_end() -> Self {
        Self { kind: Kind::ToTheEnd, received: 0, bytes_max: u64::MAX }
    }

    /// Bytes of content so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Reads on. Elements of framing (a chunk line, the CRLF after a chunk, the trailer section)
    /// are taken whole or not at all.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Advance, Defect> {
        match &mut self.kind {
            Kind::ToTheEnd => {
                self.received += bytes.len() as u64;
                Ok(Advance { passed: bytes.len(), complete: false })
            }
            Kind::Length { left } => {
                let passed = take(left, bytes.len());
                self.received += passed as u64;
                Ok(Advance { passed, complete: *left == 0 })
            }
            Kind::Chunked { .. } => self.advance_chunked(bytes),
        }
    }

    fn advance_chunked(&mut self, bytes: &[u8]) -> Result<Advance, Defect> {
        let Kind::Chunked { stage, extensions } = &mut self.kind else {
            return Ok(Advance { passed: 0, complete: false });
        };
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            let step = match stage {
                Stage::Size => read_size(rest, stage, extensions),
                Stage::Data { left } => {
                    let taken = take(left, rest.len());
                    self.received = self.received.saturating_add(taken as u64);
                    if *left == 0 {
                        *stage = Stage::DataEnd;
                    }
                    Ok((0 < taken).then_some(taken))
                }
                Stage::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        *stage = Stage::Size;
                        Ok(Some(2))
                    }
                    [] | [b'\r'] => Ok(None),
                    _ => Err(Rule::ChunkEnd),
                },
                Stage::Trailer => match read_trailers(rest) {
                    Ok(Some(len)) => {
                        return Ok(Advance { passed: passed + len, complete: true });
                    }
                    other => other,
                },
            };
            if let Stage::Data { left } = *stage
                && self.bytes_max < self.received.saturating_add(left)
            {
                return Err(Defect { passed, rule: Rule::BodyBytes });
            }
            match step {
                Ok(Some(len)) => passed += len,
                Ok(None) => return Ok(Advance { passed, complete: false }),
                Err(rule) => return Err(Defect { passed, rule }),
            }
        }
    }
}

fn take(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    taken
}

/// Reads `size[;extension]CRLF`; `None` while it is not there to its LF.
fn read_size(
    bytes: &[u8],
    stage: &mut Stage,
    extensions: &mut usize,
) -> Result<Option<usize>, Rule> {
    const LINE_BYTES_MAX: usize = SIZE_DIGITS_MAX + EXTENSION_BYTES_MAX + 2;
    let clip = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(lf) = find_lf(clip, 0) else {
        if bytes.len() < LINE_BYTES_MAX {
            return Ok(None);
        }
        // Too long for a good line; which part is to blame?
        let digits = clip.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let sized = (1..=SIZE_DIGITS_MAX).contains(&digits) && clip.get(digits) == Some(&b';');
        return Err(if sized { Rule::ChunkExtension } else { Rule::ChunkSize });
    };
    let text = clip[..lf].strip_suffix(b"\r").ok_or(Rule::BareLf)?;
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !(1..=SIZE_DIGITS_MAX).contains(&digits) {
        return Err(Rule::ChunkSize);
    }
    let (size, extension) = text.split_at(digits);
    match extension.first() {
        None | Some(b';') => (),
        Some(b'\r') => return Err(Rule::BareCr),
        Some(_) => return Err(Rule::ChunkSize),
    }
    if extension.contains(&b'\r') {
        return Err(Rule::BareCr);
    }
    *extensions += extension.len();
    let controls = extension.iter().any(|&b| b.is_ascii_control() && b != b'\t');
    if EXTENSION_BYTES_MAX < extension.len() || EXTENSIONS_BYTES_MAX < *extensions || controls {
        return Err(Rule::ChunkExtension);
    }
    let hex = |b: &u8| u64::from((*b as char).to_digit(16).unwrap_or_default());
    let left = size.iter().fold(0, |n, b| n << 4 | hex(b));
    *stage = if left == 0 { Stage::Trailer } else { Stage::Data { left } };
    Ok(Some(lf + 1))
}

/// Reads the section after the last chunk, its empty line included.
fn read_trailers(bytes: &[u8]) -> Result<Option<usize>, Rule> {
    let clip = bytes.get(..TRAILER_BYTES_MAX).unwrap_or(bytes);
    let mut at = 0;
    loop {
        match line(clip, at)? {
            Line::End(end) => return Ok(Some(end)),
            Line::Field { name, .. } if forbidden_trailer(name) => return Err(Rule::TrailerName),
            Line::Field { next, .. } => at = next,
            Line::Partial if bytes.len() < TRAILER_BYTES_MAX => return Ok(None),
            Line::Partial => return Err(Rule::TrailerBytes),
        }
    }
}
