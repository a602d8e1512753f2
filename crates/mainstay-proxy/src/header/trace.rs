//! The trace a call belongs to (W3C Trace Context, level 1).

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Scribe, Seen};

/// `traceparent`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`: what vendors add; worthless without its `traceparent`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A span of a trace, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace: u128,
    /// The span; never zero.
    pub span: u64,
    /// Bit 0: the caller records.
    pub flags: u8,
}

impl TraceParent {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`. A later version is read as far as this one goes, as
    /// section 4.3 of the specification asks; `None` when it is not well formed.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = field(text, 2)?;
        let (trace, rest) = field(rest.strip_prefix('-')?, 32)?;
        let (span, rest) = field(rest.strip_prefix('-')?, 16)?;
        let (flags, rest) = field(rest.strip_prefix('-')?, 2)?;
        let ends = rest.is_empty() || (version != 0 && rest.starts_with('-'));
        if version == 0xFF || !ends || trace == 0 || span == 0 {
            return None;
        }
        // Later versions may give other bits a meaning that we cannot promise to keep.
        let flags = u8::try_from(flags).ok()? & 0x01;
        Some(Self { trace, span: u64::try_from(span).ok()?, flags })
    }

    /// The caller's, where it sent one that is well formed, and only one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        match (fields.next(), fields.next()) {
            (Some(only), None) => only.to_str().ok().and_then(Self::parse),
            _ => None,
        }
    }

    /// What its trace is called in what is told to people.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// A new trace. A draw of zero, which no id may be, becomes one.
    pub fn begin(draws: [u64; 3], sampled: bool) -> Self {
        let trace = u128::from(draws[0]) << 64 | u128::from(draws[1]);
        Self { trace: trace.max(1), span: draws[2].max(1), flags: u8::from(sampled) }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self, draw: u64) -> Self {
        Self { span: draw.max(1), ..self }
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(self) -> bool {
        self.flags & 0x01 != 0
    }

    /// The field value.
    pub fn to_value(self, scribe: &mut Scribe) -> Option<HeaderValue> {
        let Self { trace, span, flags } = self;
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let (high, low) = ((trace >> 64) as u64, trace as u64);
        scribe.text("00-").hex(high).hex(low).text("-").hex(span).text("-").hex_byte(flags).cut()
    }
}

/// Reads `len` lower-case hexadecimal digits, at most 32.
fn field(text: &str, len: usize) -> Option<(u128, &str)> {
    let (digits, rest) = text.split_at_checked(len)?;
    let legal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !digits.bytes().all(legal) {
        return None;
    }
    Some((u128::from_str_radix(digits, 16).ok()?, rest))
}

/// Continues the caller's trace or begins one: returns our span, and the caller's if it had one,
/// and makes `traceparent` name ours.
///
/// A `traceparent` that is not well formed, or not the only one, is as good as none, and its
/// `tracestate` goes with it. `draws` are two for a trace and one for our span; `sampled` holds
/// for a trace that begins here.
pub fn continue_trace(
    headers: &mut HeaderMap,
    seen: Seen,
    draws: [u64; 3],
    sampled: bool,
    scribe: &mut Scribe,
) -> (TraceParent, Option<TraceParent>) {
    let caller = if seen.trace { TraceParent::of(headers) } else { None };
    let ours = match caller {
        Some(caller) => caller.child(draws[2]),
        None => {
            if seen.trace {
                headers.remove(TRACESTATE);
            }
            TraceParent::begin(draws, sampled)
        }
    };
    if let Some(value) = ours.to_value(scribe) {
        headers.insert(TRACEPARENT, value);
    }
    (ours, caller)
}
