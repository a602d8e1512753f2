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

/// What the next bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes of content.
    Content(usize),
    /// So many bytes that say where content begins or ends.
    Framing(usize),
    /// The trailer section, with the empty line after it.
    Trailers(usize),
    /// The beginning of a chunk line or a trailer section: show it again with what comes next.
    Partial,
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

    /// Bytes of content still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.kind {
            Kind::Length { left } => Some(left),
            Kind::Chunked { .. } | Kind::ToTheEnd => None,
        }
    }

    /// Whether only the end of the stream ends it.
    pub(crate) fn is_to_the_end(&self) -> bool {
        matches!(self.kind, Kind::ToTheEnd)
    }

    /// Reads on in `bytes`, of which there is at least one: the next piece, and whether the body
    /// is complete with it. Framing (a chunk line, the CRLF after a chunk, the trailer section) is
    /// taken whole or not at all.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<(Piece, bool), Rule> {
        match &mut self.kind {
            Kind::ToTheEnd => {
                self.received += bytes.len() as u64;
                Ok((Piece::Content(bytes.len()), false))
            }
            Kind::Length { left } => {
                let taken = take(left, bytes.len());
                self.received += taken as u64;
                Ok((Piece::Content(taken), *left == 0))
            }
            Kind::Chunked { .. } => self.next_chunked(bytes),
        }
    }

    fn next_chunked(&mut self, bytes: &[u8]) -> Result<(Piece, bool), Rule> {
        let Kind::Chunked { stage, extensions } = &mut self.kind else {
            return Ok((Piece::Partial, false));
        };
        let framing = |len: Option<usize>| (len.map_or(Piece::Partial, Piece::Framing), false);
        match stage {
            Stage::Size => {
                let len = read_size(bytes, stage, extensions)?;
                if let Stage::Data { left } = *stage
                    && self.bytes_max < self.received.saturating_add(left)
                {
                    return Err(Rule::BodyBytes);
                }
                Ok(framing(len))
            }
            Stage::Data { left } => {
                let taken = take(left, bytes.len());
                self.received = self.received.saturating_add(taken as u64);
                if *left == 0 {
                    *stage = Stage::DataEnd;
                }
                Ok((Piece::Content(taken), false))
            }
            Stage::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    *stage = Stage::Size;
                    Ok(framing(Some(2)))
                }
                [] | [b'\r'] => Ok(framing(None)),
                _ => Err(Rule::ChunkEnd),
            },
            Stage::Trailer => Ok(match read_trailers(bytes)? {
                Some(len) => (Piece::Trailers(len), true),
                None => (Piece::Partial, false),
            }),
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
