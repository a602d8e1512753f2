//! What a client of the gateway may ask for: `[gateway.limits]`.

use std::fmt::Display;
use std::time::Duration;

use mainstay_resilience::Invalid;
use mainstay_resilience::invalid::{span, within};
use schemars::JsonSchema;
use serde::Deserialize;

/// The `[gateway.limits]` table as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawGatewayLimits {
    /// Largest request head, in bytes, 1,024 to 1,048,576; beyond it 431. Default 32,768.
    pub head_bytes_max: Option<u32>,
    /// Most header fields, 1 to 1,000; beyond it 431. Default 100.
    pub headers_max: Option<u16>,
    /// Longest request target, in bytes, 64 to 65,536 and at most `head_bytes_max`; beyond it
    /// 414. Default 8,192.
    pub uri_bytes_max: Option<u32>,
    /// Largest request body, in bytes, 0 to 1 TiB; a route may say otherwise; beyond it 413.
    /// Default 10,485,760.
    pub body_bytes_max: Option<u64>,
    /// Time for a head to arrive, in seconds, 0.1 to 3,600; then 408. Default 10.
    pub head_seconds: Option<f64>,
    /// Slowest body, in bytes a second after the first 5 s, 0 (off) to 1 GiB; then 408. Default
    /// 256.
    pub body_rate_min_bytes: Option<u32>,
    /// Longest pause within a body, in seconds, 0.1 to 3,600; then 408. Default 15.
    pub body_gap_seconds: Option<f64>,
    /// Longest time a client may take nothing of an answer, in seconds, 0.1 to 3,600; then the
    /// connection is closed, and over HTTP/2 the stream reset. Default 30.
    pub write_stall_seconds: Option<f64>,
    /// Connections at once, 1 to 1,000,000. Default 20,000.
    pub connections_max: Option<u32>,
    /// Connections at once from one address, 0 (off) to 1,000,000. Default 0.
    pub connections_per_address_max: Option<u32>,
    /// Age at which a connection is asked to end, in seconds, 1 to 604,800. Default 3,600.
    pub connection_age_seconds: Option<f64>,
    /// How long an idle connection stays open, in seconds, 0.1 to 3,600. Default 60.
    pub keepalive_seconds: Option<f64>,
    /// Requests on one connection before it is asked to end, 1 to 1,000,000,000. Default 10,000.
    pub requests_per_connection_max: Option<u32>,
    /// HTTP/2 streams open at once on a connection, 1 to 10,000. Default 128.
    pub h2_streams_max: Option<u32>,
    /// Largest decoded HTTP/2 header list, in bytes, 1,024 to 1,048,576; beyond it 431. Default
    /// 32,768.
    pub h2_header_list_bytes_max: Option<u32>,
    /// HTTP/2 streams reset by the peer that may wait to be noticed, 1 to 10,000; beyond it the
    /// connection ends. Default 20.
    pub h2_pending_reset_max: Option<u32>,
    /// HTTP/2 streams we reset for the peer's errors before the connection ends, 1 to 10,000.
    /// Default 20.
    pub h2_local_reset_max: Option<u32>,
    /// When an HTTP/2 peer has reset too many streams, so that its connection ends.
    pub h2_reset_ratio: Option<RawResetRatio>,
    /// How many times larger a decoded body may be than a coded one, once beyond 1 MiB, 1 to
    /// 1,000; then 413. Default 20.
    pub decompress_ratio_max: Option<u32>,
    /// Largest decoded body where we decode, in bytes, 1,024 to 1 GiB; then 413. Default
    /// 33,554,432.
    pub decompress_bytes_max: Option<u32>,
    /// Deepest JSON where we parse it, 1 to 1,000; then 400. Default 64.
    pub json_depth_max: Option<u16>,
    /// Deepest XML where we parse it, 1 to 1,000; then 400. Default 64.
    pub xml_depth_max: Option<u16>,
    /// Most query and form parameters where we parse them, 1 to 100,000; then 400. Default 1,000.
    pub args_max: Option<u32>,
    /// Most parts of a multipart body where we parse it, 1 to 10,000; then 400. Default 128.
    pub multipart_parts_max: Option<u16>,
}

/// `gateway.limits.h2_reset_ratio` as written: both must be exceeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawResetRatio {
    /// Resets by the peer within 10 s, 1 to 1,000,000. Default 100.
    pub resets: Option<u32>,
    /// Share of its streams within 10 s, 0 to 100 percent. Default 50.
    pub percent: Option<u8>,
}

/// What a client of the gateway may ask for, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Largest request head, in bytes.
    pub head_bytes_max: u32,
    /// Most header fields.
    pub headers_max: u16,
    /// Longest request target, in bytes; at most `head_bytes_max`.
    pub uri_bytes_max: u32,
    /// Largest request body, in bytes.
    pub body_bytes_max: u64,
    /// Time for a head to arrive.
    pub head: Duration,
    /// Slowest body, in bytes a second after the first 5 s; 0 for none.
    pub body_rate_min_bytes: u32,
    /// Longest pause within a body.
    pub body_gap: Duration,
    /// Longest time a client may take nothing of an answer.
    pub write_stall: Duration,
    /// Connections at once.
    pub connections_max: u32,
    /// Connections at once from one address, if that is limited.
    pub connections_per_address_max: Option<u32>,
    /// Age at which a connection is asked to end.
    pub connection_age: Duration,
    /// How long an idle connection stays open.
    pub keepalive: Duration,
    /// Requests on one connection before it is asked to end.
    pub requests_per_connection_max: u32,
    /// Limits of HTTP/2.
    pub h2: H2Limits,
    /// Limits where a body is decoded or parsed.
    pub parse: ParseLimits,
}

/// Limits of HTTP/2 connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Limits {
    /// Streams open at once.
    pub streams_max: u32,
    /// Largest decoded header list, in bytes.
    pub header_list_bytes_max: u32,
    /// Streams reset by the peer that may wait to be noticed.
    pub pending_reset_max: u32,
    /// Streams we reset for the peer's errors before the connection ends.
    pub local_reset_max: u32,
    /// Resets by the peer within 10 s above which its connection ends, if `reset_percent` is
    /// exceeded too.
    pub resets_max: u32,
    /// Share of its streams that the peer may reset within 10 s, in percent.
    pub reset_percent: u8,
}

/// Limits where a body is decoded or parsed.
#[expect(clippy::struct_field_names, reason = "the unit or bound is the last word of every key")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// How many times larger a decoded body may be, once beyond 1 MiB.
    pub decompress_ratio_max: u32,
    /// Largest decoded body, in bytes.
    pub decompress_bytes_max: u32,
    /// Deepest JSON.
    pub json_depth_max: u16,
    /// Deepest XML.
    pub xml_depth_max: u16,
    /// Most query and form parameters.
    pub args_max: u32,
    /// Most parts of a multipart body.
    pub multipart_parts_max: u16,
}

/// A number as written, or its default, within its range.
pub(super) fn number<T: PartialOrd + Display + Copy>(
    path: &str,
    written: Option<T>,
    default: T,
    (min, max): (T, T),
) -> Result<T, Invalid> {
    within(path, written.unwrap_or(default), min, max)
}

/// A span as written, or its default, within its range; all in seconds.
pub(super) fn seconds(
    path: &str,
    written: Option<f64>,
    default: f64,
    (min, max): (f64, f64),
) -> Result<Duration, Invalid> {
    span(path, written.unwrap_or(default), min, max)
}

/// The range of most spans, in seconds: long enough to be one, and an hour.
const SPAN: (f64, f64) = (0.1, 3_600.0);

/// The range of heads, in bytes.
const HEAD_BYTES: (u32, u32) = (1_024, 1 << 20);

impl TryFrom<RawGatewayLimits> for GatewayLimits {
    type Error = Invalid;

    fn try_from(raw: RawGatewayLimits) -> Result<Self, Invalid> {
        let head_bytes_max = number("head_bytes_max", raw.head_bytes_max, 32_768, HEAD_BYTES)?;
        let uri_default = head_bytes_max.min(8_192);
        let uri_bytes_max = number("uri_bytes_max", raw.uri_bytes_max, uri_default, (64, 65_536))?;
        if head_bytes_max < uri_bytes_max {
            let problem = format!("must be at most `head_bytes_max`, which is {head_bytes_max}");
            return Err(Invalid::contradiction("uri_bytes_max", problem));
        }
        let body_range = (0, crate::route::BODY_BYTES_LIMIT);
        let many = (1, 1_000_000);
        let per_address = raw.connections_per_address_max;
        let per_address = number("connections_per_address_max", per_address, 0, (0, 1_000_000))?;
        let requests = raw.requests_per_connection_max;
        let requests = number("requests_per_connection_max", requests, 10_000, (1, 1_000_000_000))?;
        let age = raw.connection_age_seconds;
        let rate = raw.body_rate_min_bytes;
        Ok(Self {
            head_bytes_max,
            headers_max: number("headers_max", raw.headers_max, 100, (1, 1_000))?,
            uri_bytes_max,
            body_bytes_max: number("body_bytes_max", raw.body_bytes_max, 10 << 20, body_range)?,
            head: seconds("head_seconds", raw.head_seconds, 10.0, SPAN)?,
            body_rate_min_bytes: number("body_rate_min_bytes", rate, 256, (0, 1 << 30))?,
            body_gap: seconds("body_gap_seconds", raw.body_gap_seconds, 15.0, SPAN)?,
            write_stall: seconds("write_stall_seconds", raw.write_stall_seconds, 30.0, SPAN)?,
            connections_max: number("connections_max", raw.connections_max, 20_000, many)?,
            connections_per_address_max: (per_address != 0).then_some(per_address),
            connection_age: seconds("connection_age_seconds", age, 3_600.0, (1.0, 604_800.0))?,
            keepalive: seconds("keepalive_seconds", raw.keepalive_seconds, 60.0, SPAN)?,
            requests_per_connection_max: requests,
            h2: h2(&raw)?,
            parse: parse(&raw)?,
        })
    }
}

fn h2(raw: &RawGatewayLimits) -> Result<H2Limits, Invalid> {
    const STREAMS: (u32, u32) = (1, 10_000);
    let ratio = raw.h2_reset_ratio.clone().unwrap_or_default();
    let list = raw.h2_header_list_bytes_max;
    let pending = raw.h2_pending_reset_max;
    Ok(H2Limits {
        streams_max: number("h2_streams_max", raw.h2_streams_max, 128, STREAMS)?,
        header_list_bytes_max: number("h2_header_list_bytes_max", list, 32_768, HEAD_BYTES)?,
        pending_reset_max: number("h2_pending_reset_max", pending, 20, STREAMS)?,
        local_reset_max: number("h2_local_reset_max", raw.h2_local_reset_max, 20, STREAMS)?,
        resets_max: number("h2_reset_ratio.resets", ratio.resets, 100, (1, 1_000_000))?,
        reset_percent: number("h2_reset_ratio.percent", ratio.percent, 50, (0, 100))?,
    })
}

fn parse(raw: &RawGatewayLimits) -> Result<ParseLimits, Invalid> {
    const DEPTH: (u16, u16) = (1, 1_000);
    let bytes = raw.decompress_bytes_max;
    let parts = raw.multipart_parts_max;
    Ok(ParseLimits {
        decompress_ratio_max: number(
            "decompress_ratio_max",
            raw.decompress_ratio_max,
            20,
            (1, 1_000),
        )?,
        decompress_bytes_max: number("decompress_bytes_max", bytes, 32 << 20, (1_024, 1 << 30))?,
        json_depth_max: number("json_depth_max", raw.json_depth_max, 64, DEPTH)?,
        xml_depth_max: number("xml_depth_max", raw.xml_depth_max, 64, DEPTH)?,
        args_max: number("args_max", raw.args_max, 1_000, (1, 100_000))?,
        multipart_parts_max: number("multipart_parts_max", parts, 128, (1, 10_000))?,
    })
}
