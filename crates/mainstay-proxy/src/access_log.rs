//! One line for each request, written by a thread of its own.
//!
//! A worker builds the line and hands it over without waiting; when the writer is behind by
//! [`QUEUE_LINES_MAX`] the line is dropped and counted. Failures are always logged; of successes
//! the configured share. Query values are masked, and credentials are in no field.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Lines that may wait for the writer: at 500 bytes each 4 MiB, a fifth of a second at 40,000
/// requests a second.
pub const QUEUE_LINES_MAX: usize = 8_192;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object with OpenTelemetry's names.
    #[default]
    Json,
    /// Apache's combined log format.
    Combined,
    /// None.
    Off,
}

/// What is known of a request once its answer is over.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When the request's head had arrived.
    pub at: SystemTime,
    /// `GET`, …
    pub method: &'a str,
    /// Path as judged.
    pub path: &'a str,
    /// Raw query, masked before it is written.
    pub query: Option<&'a str>,
    /// `1.1`, `2`.
    pub version: &'static str,
    /// Status sent.
    pub status: u16,
    /// Who asked: the right-most hop that is not trusted.
    pub client: std::net::IpAddr,
    /// Host asked for.
    pub host: Option<&'a str>,
    /// Caller's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// Caller's `Referer`; only the combined format has it.
    pub referer: Option<&'a str>,
    /// Route that matched.
    pub route: Option<&'a str>,
    /// Service asked.
    pub service: Option<&'a str>,
    /// Last instance asked.
    pub instance: Option<&'a str>,
    /// What kind of principal asked, where the route wants to know.
    pub principal_kind: Option<&'a str>,
    /// Who vouches for the principal.
    pub issuer: Option<&'a str>,
    /// Attempts made.
    pub attempts: u32,
    /// `ok`, or what happened instead; of an answer that broke off or was given up, that.
    pub outcome: &'a str,
    /// What called for a degraded answer.
    pub cause: Option<&'a str>,
    /// From the request's head to the end of the answer's body.
    pub duration: Duration,
    /// Time of the last attempt, to the answer's head; `None` when none was made.
    pub upstream: Option<Duration>,
    /// Time in the queues of limits; `None` when the call met none.
    pub queued: Option<Duration>,
    /// Bytes of the request's body that came, or were announced when nobody read it.
    pub received_bytes: Option<u64>,
    /// Bytes of the answer's body that the transport took.
    pub sent_bytes: Option<u64>,
    /// Ties the line to spans.
    pub trace_id: &'a str,
    /// Ties the line to other logs.
    pub request_id: &'a str,
}

#[derive(Serialize)]
struct Json<'a> {
    time: &'a str,
    #[serde(rename = "http.request.method")]
    method: &'a str,
    #[serde(rename = "url.path")]
    path: &'a str,
    #[serde(rename = "url.query", skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(rename = "network.protocol.version")]
    version: &'a str,
    #[serde(rename = "http.response.status_code")]
    status: u16,
    #[serde(rename = "client.address")]
    client: std::net::IpAddr,
    #[serde(rename = "server.address", skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(rename = "user_agent.original", skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(rename = "mainstay.route", skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(rename = "mainstay.service", skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(rename = "mainstay.instance", skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(rename = "mainstay.principal.kind", skip_serializing_if = "Option::is_none")]
    principal_kind: Option<&'a str>,
    #[serde(rename = "mainstay.principal.issuer", skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(rename = "mainstay.attempts")]
    attempts: u32,
    #[serde(rename = "mainstay.outcome")]
    outcome: &'a str,
    #[serde(rename = "mainstay.cause", skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    trace_id: &'a str,
    request_id: &'a str,
}

impl Entry<'_> {
    /// The line in `format`, with its newline.
    fn line(&self, format: Format) -> Vec<u8> {
        let query = self.query.map(masked);
        match format {
            Format::Off => Vec::new(),
            Format::Combined => self.combined(query.as_deref()).into_bytes(),
            Format::Json => {
                let time = crate::time::rfc3339(self.at);
                let json = Json {
                    time: &time,
                    method: self.method,
                    path: self.path,
                    query: query.as_deref(),
                    version: self.version,
                    status: self.status,
                    client: self.client,
                    host: self.host,
                    user_agent: self.user_agent,
                    route: self.route,
                    service: self.service,
                    instance: self.instance,
                    principal_kind: self.principal_kind,
                    issuer: self.issuer,
                    attempts: self.attempts,
                    outcome: self.outcome,
                    cause: self.cause,
                    duration_seconds: self.duration.as_secs_f64(),
                    upstream_seconds: self.upstream.map(|span| span.as_secs_f64()),
                    queue_seconds: self.queued.map(|span| span.as_secs_f64()),
                    received_bytes: self.received_bytes,
                    sent_bytes: self.sent_bytes,
                    trace_id: self.trace_id,
                    request_id: self.request_id,
                };
                let mut line = serde_json::to_vec(&json).unwrap_or_default();
                line.push(b'\n');
                line
            }
        }
    }

    fn combined(&self, query: Option<&str>) -> String {
        let time = crate::time::common_log(self.at);
        let bytes = self.sent_bytes.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let target = match query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_owned(),
        };
        format!(
            "{} - - [{time}] \"{} {} HTTP/{}\" {} {bytes} \"{}\" \"{}\"\n",
            self.client,
            self.method,
            escaped(&target),
            self.version,
            self.status,
            escaped(self.referer.unwrap_or("-")),
            escaped(self.user_agent.unwrap_or("-")),
        )
    }
}

/// `query` with every value replaced: `a=1&b` becomes `a=***&b`.
fn masked(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    for (n, pair) in query.split('&').enumerate() {
        if n > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) => {
                out.push_str(name);
                out.push_str(if value.is_empty() { "=" } else { "=***" });
            }
            None => out.push_str(pair),
        }
    }
    out
}

/// `text` without anything that could end its field or its line, or steer a terminal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// Takes lines from workers.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// [`Settings`] in one word, so that a reload changes both at once.
    settings: Arc<AtomicU32>,
    lines: SyncSender<Vec<u8>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Starts the writer on `out`; it ends when every clone of the log is gone, after writing what
    /// was handed over. `sample_percent` is the share of successes written, 0 to 100.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(
        format: Format,
        sample_percent: f64,
        out: impl Write + Send + 'static,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&queue, out))?;
        let settings = Arc::new(Settings::new(format, sample_percent).to_word().into());
        Ok((Self { settings, lines, metrics }, writer))
    }

    /// Writes in `format` from now on, and of successes `sample_percent`.
    pub fn set(&self, format: Format, sample_percent: f64) {
        let word = Settings::new(format, sample_percent).to_word();
        self.settings.store(word, Ordering::Relaxed);
    }

    fn settings(&self) -> Settings {
        Settings::from_word(self.settings.load(Ordering::Relaxed))
    }

    /// Whether a request that ended so is written: every failure, and of successes the share that
    /// `draw` picks.
    pub fn wants(&self, failed: bool, draw: u64) -> bool {
        let Settings { format, sample } = self.settings();
        format != Format::Off && (failed || draw % 10_000 < u64::from(sample))
    }

    /// Hands a line to the writer, or counts it as dropped.
    pub fn write(&self, entry: &Entry<'_>) {
        match self.lines.try_send(entry.line(self.settings().format)) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.metrics.log_dropped.inc();
            }
        }
    }
}

/// How lines are written, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    format: Format,
    /// Successes written, in basis points; below 2^16.
    sample: u32,
}

impl Settings {
    fn new(format: Format, sample_percent: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        let sample = (sample_percent.clamp(0.0, 100.0) * 100.0).round() as u32;
        Self { format, sample }
    }

    const fn to_word(self) -> u32 {
        (self.format as u32) << 16 | self.sample
    }

    const fn from_word(word: u32) -> Self {
        let format = match word >> 16 {
            0 => Format::Json,
            1 => Format::Combined,
            _ => Format::Off,
        };
        Self { format, sample: word & 0xffff }
    }
}

/// Writes lines until no sender is left, a batch at a time. An output that fails loses its lines;
/// a log must not stop the traffic it describes.
fn write_all(queue: &Receiver<Vec<u8>>, mut out: impl Write) {
    let mut batch = Vec::with_capacity(64 * 1024);
    while let Ok(line) = queue.recv() {
        batch.extend_from_slice(&line);
        while batch.len() < 60 * 1024
            && let Ok(line) = queue.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        drop(out.write_all(&batch).and_then(|()| out.flush()));
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            method: "GET",
            path: "/orders/7",
            query: Some("token=secret&page=&plain"),
            version: "1.1",
            status: 503,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            host: Some("api.shop.example"),
            user_agent: Some("curl\"\n\u{1b}[31m"),
            referer: None,
            route: Some("orders"),
            service: Some("order"),
            instance: None,
            principal_kind: None,
            issuer: None,
            attempts: 2,
            outcome: "circuit-open",
            cause: None,
            duration: Duration::from_micros(1_200),
            upstream: Some(Duration::from_micros(900)),
            queued: None,
            received_bytes: None,
            sent_bytes: Some(12),
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            request_id: "r1",
        }
    }

    #[test]
    fn a_line_is_one_line_masks_values_and_cannot_steer_a_terminal() {
        let json = String::from_utf8(entry().line(Format::Json)).unwrap();
        assert_eq!(json.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["url.query"], "token=***&page=&plain");
        assert_eq!(read["time"], "2026-01-02T03:04:05.678Z");
        assert_eq!(read["http.response.status_code"], 503);
        assert_eq!(read["mainstay.outcome"], "circuit-open");
        let combined = String::from_utf8(entry().line(Format::Combined)).unwrap();
        assert_eq!(
            combined,
            "192.0.2.7 - - [02/Jan/2026:03:04:05 +0000] \
             \"GET /orders/7?token=***&page=&plain HTTP/1.1\" 503 12 \"-\" \
             \"curl\\\"\\u{a}\\u{1b}[31m\"\n"
        );
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(part);
            Ok(part.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_handed_over_is_written_before_the_writer_ends() {
        let out = Shared::default();
        let (log, writer) =
            AccessLog::start(Format::Combined, 0.0, out.clone(), Metrics::new()).unwrap();
        assert!(log.wants(true, 9_999), "failures always");
        assert!(!log.wants(false, 0), "no successes at 0 %");
        for _ in 0..100 {
            log.write(&entry());
        }
        drop(log);
        writer.join().unwrap();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 100);
    }

    #[test]
    fn a_writer_that_is_stuck_costs_lines_and_not_requests() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
                let _closed = self.0.recv();
                Ok(part.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (free, stuck) = std::sync::mpsc::channel();
        let metrics = Metrics::new();
        let (log, writer) =
            AccessLog::start(Format::Combined, 100.0, Stuck(stuck), Arc::clone(&metrics)).unwrap();
        for _ in 0..QUEUE_LINES_MAX + 2_000 {
            log.write(&entry());
        }
        assert!(metrics.log_dropped.get() >= 1_000, "{}", metrics.log_dropped.get());
        drop((free, log));
        writer.join().unwrap();
    }
}
