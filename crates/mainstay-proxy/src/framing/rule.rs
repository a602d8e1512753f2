//! The rules of framing by name, and what a sender who broke one is told.

use mainstay_core::problem::Code;

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident, $detail:literal;)*) => {
        /// One way a message can be wrong. The name is the label of
        /// `mainstay_requests_malformed_total{rule}`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// Every rule, in the order of the list above.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name: kebab-case, stable.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the sender of a request is told; an upstream's defect is always
            /// `upstream-malformed`.
            pub const fn problem(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// One sentence for the sender. Never holds what was sent.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)* }
            }
        }
    };
}

rules! {
    // Lines.
    /// A line that ends in LF alone.
    BareLf = "bare-lf", MalformedRequest, "a line ends in LF without CR";
    /// A CR that no LF follows.
    BareCr = "bare-cr", MalformedRequest, "a CR stands without LF";
    /// More than one empty line before a head.
    EmptyLines = "empty-lines", MalformedRequest, "more than one empty line before the request";
    /// The start line does not have its three parts, one space apart.
    StartLine = "start-line", MalformedRequest, "the first line is not well formed";
    /// A version other than 1.0 and 1.1.
    Version = "version", MalformedRequest, "the version is neither HTTP/1.0 nor HTTP/1.1";
    /// A method that is no token.
    Method = "method", MalformedRequest, "the method is not a token";
    /// A target of no known form, or with a byte that no target may hold.
    Target = "target", MalformedRequest, "the request target is not well formed";
    /// A fragment in the target; parsers drop it, so two readers see two paths.
    Fragment = "fragment", PathAmbiguous, "the request target has a fragment";
    /// A method that only a tunnelling proxy serves.
    MethodConnect = "method-connect", MethodNotAllowed, "CONNECT is not served here";
    /// A method that echoes credentials.
    MethodTrace = "method-trace", MethodNotAllowed, "TRACE is not served here";

    // Fields.
    /// A continuation line.
    ObsFold = "obs-fold", MalformedRequest, "a header field is folded over several lines";
    /// A field without a name, or a line without a colon.
    NameEmpty = "name-empty", MalformedRequest, "a header field has no name";
    /// White space between name and colon.
    NameSpace = "name-space", MalformedRequest, "white space stands before the colon of a header field";
    /// A name that is no token.
    NameToken = "name-token", MalformedRequest, "the name of a header field is not a token";
    /// A control byte, NUL or DEL in a value.
    ValueControl = "value-control", MalformedRequest, "the value of a header field holds a control byte";

    // Length.
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndCoding = "length-and-coding", MalformedRequest, "Content-Length stands beside Transfer-Encoding";
    /// Several `Content-Length`, equal or not.
    LengthRepeated = "length-repeated", MalformedRequest, "Content-Length stands more than once";
    /// A list of lengths.
    LengthList = "length-list", MalformedRequest, "Content-Length is a list";
    /// A length that is not 1 to 19 digits.
    LengthForm = "length-form", MalformedRequest, "Content-Length is not a plain number";
    /// A body announced by an answer that cannot have one: 1xx or 204.
    LengthUnasked = "length-unasked", UpstreamMalformed, "an answer without body announces one";
    /// Several `Transfer-Encoding`.
    CodingRepeated = "coding-repeated", MalformedRequest, "Transfer-Encoding stands more than once";
    /// Any coding but `chunked` alone.
    Coding = "coding", MalformedRequest, "Transfer-Encoding is not exactly chunked";
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingVersion = "coding-version", MalformedRequest, "Transfer-Encoding does not exist in HTTP/1.0";

    // Host.
    /// No `Host` in HTTP/1.1.
    HostMissing = "host-missing", MalformedRequest, "Host is missing";
    /// Several `Host`.
    HostRepeated = "host-repeated", MalformedRequest, "Host stands more than once";
    /// A user part, a path, a bad port, a byte no host has, or nothing.
    HostForm = "host-form", MalformedRequest, "Host is not a host with an optional port";
    /// An absolute target that names another authority.
    HostTarget = "host-target", MalformedRequest, "the request target and Host name different hosts";
    /// An expectation nobody can meet.
    Expect = "expect", ExpectationFailed, "the only expectation known is 100-continue";

    // Chunks.
    /// A size that is not 1 to 16 hexadecimal digits.
    ChunkSize = "chunk-size", MalformedRequest, "a chunk size is not a plain hexadecimal number";
    /// Extensions too long, or with a control byte.
    ChunkExtension = "chunk-extension", MalformedRequest, "the chunk extensions are too long or hold a control byte";
    /// No CRLF after a chunk.
    ChunkEnd = "chunk-end", MalformedRequest, "a chunk does not end where its size says";
    /// A trailer section over 4 KiB.
    TrailerBytes = "trailer-bytes", MalformedRequest, "the trailer section is too long";
    /// A trailer that names a field of framing, routing or authentication.
    TrailerName = "trailer-name", MalformedRequest, "a trailer names a field that may only stand in the head";

    // HTTP/2.
    /// A field that concerns one connection, where there is none of its own.
    ConnectionField = "connection-field", MalformedRequest, "a header field of HTTP/1.1 connections stands in a request over HTTP/2";
    /// A value that begins or ends with white space.
    ValueSpace = "value-space", MalformedRequest, "the value of a header field begins or ends with white space";

    // Proxies in front.
    /// No header of the PROXY protocol from a proxy that has to send one.
    ProxyHeader = "proxy-header", MalformedRequest, "no header of the PROXY protocol, version 2, comes first";

    // Ends.
    /// Bytes after the last message of a connection.
    BytesAfterClose = "bytes-after-close", MalformedRequest, "bytes follow the last request of a closing connection";
    /// Bytes of an upstream that answer nothing.
    BytesUnasked = "bytes-unasked", UpstreamMalformed, "bytes follow the end of the answer";
    /// A 101 nobody asked for.
    SwitchUnasked = "switch-unasked", UpstreamMalformed, "the protocol was switched without being asked";

    // Limits.
    /// A head over `head_bytes_max`.
    HeadBytes = "head-bytes", HeadersTooLarge, "the head is longer than allowed";
    /// More fields than `headers_max`.
    HeadFields = "head-fields", HeadersTooLarge, "the head has more fields than allowed";
    /// A target over `uri_bytes_max`.
    UriBytes = "uri-bytes", UriTooLong, "the request target is longer than allowed";
    /// A body over `body_bytes_max`.
    BodyBytes = "body-bytes", BodyTooLarge, "the body is longer than allowed";
    /// A head slower than `head_seconds`.
    HeadSlow = "head-slow", HeadTimeout, "the request head did not arrive in time";
}

/// Why a connection ends here.
///
/// Once the message had begun to pass it travels inside an error of the body; [`Refusal::of`] finds
/// it again below whatever is wrapped around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", rule.detail())]
pub struct Refusal {
    /// What the caller is told.
    pub problem: Code,
    /// Which rule was broken.
    pub rule: Rule,
    /// Whether the head of the message had passed. Then a handler is at work on it, meets this
    /// refusal as an error of the body, and answers; otherwise nobody has heard of the message.
    pub begun: bool,
}

impl Refusal {
    /// A refusal of a request.
    pub const fn of_request(rule: Rule, begun: bool) -> Self {
        Self { problem: rule.problem(), rule, begun }
    }

    /// A refusal of an upstream's answer.
    pub const fn of_response(rule: Rule, begun: bool) -> Self {
        Self { problem: Code::UpstreamMalformed, rule, begun }
    }

    /// Status of the answer.
    pub const fn status(self) -> u16 {
        self.problem.http()
    }

    /// The refusal at the bottom of `error`, if it is one.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let causes = std::iter::successors(Some(error), |e| e.source());
        causes.into_iter().find_map(|cause| cause.downcast_ref().copied())
    }

    /// A complete answer over HTTP/1.1 that ends the connection: a problem document (RFC 9457)
    /// with nothing in it that came from the sender.
    pub fn response_bytes(self) -> Vec<u8> {
        let (code, status) = (self.problem.as_str(), self.status());
        let body = format!(
            "{{\"type\":\"/problems/{code}\",\"code\":\"{code}\",\"title\":\"{}\",\
             \"status\":{status},\"detail\":\"{}\",\"effect\":\"none\"}}",
            self.problem.title(),
            self.rule.detail(),
        );
        let allow = match self.problem {
            // RFC 9110 section 15.5.6: a 405 says what is allowed.
            Code::MethodNotAllowed => "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n",
            _ => "",
        };
        let reason = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\n{allow}\
             cache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        )
        .into_bytes()
    }
}
