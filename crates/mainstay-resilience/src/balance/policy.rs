//! `[upstream.N.balance]`, as written and resolved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SlowStart;
use crate::Invalid;
use crate::hash::{Layout, RING_MAX, table_size};
use crate::invalid::{span, within};
use crate::key::{self, KeyPart, is_token};

/// How an instance is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// In turn, smoothly by weight.
    RoundRobin,
    /// By weight and chance.
    Random,
    /// Of a few drawn ones, the one with the fewest calls in flight for its weight.
    #[default]
    LeastRequest,
    /// Of a few drawn ones, the one with the lowest latency times calls in flight.
    PeakEwma,
    /// By hash, on a ring.
    RingHash,
    /// By hash, in a Maglev table.
    Maglev,
}

/// What happens while too few instances of a level are usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PanicMode {
    /// All are used, whatever their health.
    #[default]
    All,
    /// Calls are answered `no-instance`.
    Fail,
}

/// Whose ring `ring_hash` builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RingKind {
    /// nginx's `hash … consistent`.
    #[default]
    Ketama,
    /// Envoy's ring hash.
    Xxh64,
}

/// What the places of an instance in a ring or table are derived from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RingKey {
    /// `address:port`.
    #[default]
    Address,
    /// The name of the instance: keeps its keys when it moves to another address.
    Name,
}

/// `[upstream.N.balance]` as written: every field optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBalance {
    /// How an instance is picked: `round_robin`, `random`, `least_request`, `peak_ewma`,
    /// `ring_hash` or `maglev`. Default `least_request`.
    pub kind: Option<Kind>,
    /// Instances that `least_request` and `peak_ewma` draw and compare, 2 to 16; 0 compares all.
    /// Default 2.
    pub choices: Option<u32>,
    /// Whether instances of the caller's own zone come before others of the same priority.
    /// Default false.
    pub zone_preference: Option<bool>,
    /// Load that the usable instances of a level are trusted with, in percent of their share,
    /// 100 to 1000. At 140 a level spills over once less than 71.4 % of it is usable. Default 140.
    pub overprovision_percent: Option<u32>,
    /// Usable share of a level below which it is in panic when the levels together cannot carry
    /// the load, in percent, 0 to 100; 0 turns panic off. Default 50.
    pub panic_percent: Option<u32>,
    /// What a level in panic does: `all` uses every instance, `fail` answers `no-instance`.
    /// Default `all`.
    pub panic: Option<PanicMode>,
    /// Age at which an instance gets its full weight, after registration and after ejection, in
    /// seconds, 0 to 3600; 0 is at once. Hash tables ignore it. Default 0.
    pub slow_start_seconds: Option<f64>,
    /// Share of its weight that a new instance starts with, in percent, 1 to 100. Default 10.
    pub slow_start_min_percent: Option<u32>,
    /// Shape of the slow start, 0.1 to 10: 1 is a straight line, more rises faster at first.
    /// Default 1.
    pub aggression: Option<f64>,
    /// Latency that a failed call counts as at least in `peak_ewma`, in seconds, 0 to 300.
    /// Default 5.
    pub failure_penalty_seconds: Option<f64>,
    /// Parts of the request that are joined and hashed: `header:NAME`, `cookie:NAME`, `path`,
    /// `path:NAME`, `query:NAME`, `client_address`. Default none: picked by chance.
    pub hash: Option<Vec<String>>,
    /// Ring of `ring_hash`: `ketama` (as nginx) or `xxh64` (as Envoy). Default `ketama`.
    pub ring: Option<RingKind>,
    /// What the places of an instance are derived from: `address` or `name`. Default `address`.
    pub ring_key: Option<RingKey>,
    /// Points of an `xxh64` ring at least, 1 to 8388608. Default 1024.
    pub ring_min: Option<u32>,
    /// Points of an `xxh64` ring at most, `ring_min` to 8388608. Default 8388608.
    pub ring_max: Option<u32>,
    /// Slots of a Maglev table, a prime up to 5000011. Default 65537.
    pub table_size: Option<u32>,
    /// Cookie set on answers to callers that have none, so that they come back to the same
    /// instance. `hash` must name the same cookie. Default none.
    pub affinity_cookie: Option<RawAffinityCookie>,
}

/// `affinity_cookie` as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAffinityCookie {
    /// Name, an HTTP token. Required.
    pub name: Option<String>,
    /// How long the caller keeps it, in seconds, 0 to 31536000; 0 is until its browser is closed.
    /// Default 0.
    pub ttl_seconds: Option<f64>,
    /// Path below which the caller sends it back; starts with `/`. Default `/`.
    pub path: Option<String>,
}

/// `[upstream.N.balance]`, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct BalancePolicy {
    /// How an instance is picked.
    pub kind: Kind,
    /// Instances drawn and compared; 0 compares all, else 2 to 16.
    pub choices: usize,
    /// Whether the caller's own zone comes first.
    pub zone_preference: bool,
    /// Load that usable instances are trusted with, in percent of their share.
    pub overprovision_percent: u32,
    /// Usable share below which a level may be in panic, in percent.
    pub panic_percent: u32,
    /// What a level in panic does.
    pub panic: PanicMode,
    /// How newcomers start; `None` at full weight.
    pub slow_start: Option<SlowStart>,
    /// What a failed call counts as at least.
    pub failure_penalty: Duration,
    /// Parts of the hash key.
    pub hash: Vec<KeyPart>,
    /// What the places of an instance are derived from.
    pub ring_key: RingKey,
    /// Table of the kinds that hash: present exactly for those.
    pub layout: Option<Layout>,
    /// Cookie to set.
    pub affinity_cookie: Option<AffinityCookie>,
}

/// A cookie that brings a caller back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinityCookie {
    /// Name.
    pub name: String,
    /// How long it is kept, in whole seconds; `None` until the browser is closed.
    pub ttl: Option<Duration>,
    /// Path.
    pub path: String,
}

impl AffinityCookie {
    /// Key text for a caller that has no cookie yet: 16 hexadecimal digits of a draw.
    pub fn value(draw: u64) -> String {
        format!("{draw:016x}")
    }

    /// The `Set-Cookie` header that gives a caller `value`. Scripts cannot read it (RFC 6265).
    pub fn header(&self, value: &str) -> String {
        let Self { name, ttl, path } = self;
        let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs())).unwrap_or_default();
        format!("{name}={value}; Path={path}{age}; HttpOnly; SameSite=Lax")
    }
}

impl Default for BalancePolicy {
    fn default() -> Self {
        Self::try_from(RawBalance::default()).expect("the defaults are in range")
    }
}

impl TryFrom<RawBalance> for BalancePolicy {
    type Error = Invalid;

    fn try_from(raw: RawBalance) -> Result<Self, Invalid> {
        let kind = raw.kind.unwrap_or_default();
        let hash = hash(raw.hash.as_deref().unwrap_or_default())?;
        let affinity_cookie =
            raw.affinity_cookie.clone().map(AffinityCookie::try_from).transpose()?;
        if let Some(cookie) = &affinity_cookie
            && !hash.contains(&KeyPart::Cookie(cookie.name.as_str().into()))
        {
            let problem = format!("has no effect unless `hash` has `cookie:{}`", cookie.name);
            return Err(Invalid::contradiction("affinity_cookie", problem));
        }
        Ok(Self {
            kind,
            choices: choices(raw.choices.unwrap_or(2))?,
            zone_preference: raw.zone_preference.unwrap_or(false),
            overprovision_percent: within(
                "overprovision_percent",
                raw.overprovision_percent.unwrap_or(140),
                100,
                1_000,
            )?,
            panic_percent: within("panic_percent", raw.panic_percent.unwrap_or(50), 0, 100)?,
            panic: raw.panic.unwrap_or_default(),
            slow_start: slow_start(&raw)?,
            failure_penalty: span(
                "failure_penalty_seconds",
                raw.failure_penalty_seconds.unwrap_or(5.0),
                0.0,
                300.0,
            )?,
            hash,
            ring_key: raw.ring_key.unwrap_or_default(),
            layout: layout(kind, &raw)?,
            affinity_cookie,
        })
    }
}

impl TryFrom<RawAffinityCookie> for AffinityCookie {
    type Error = Invalid;

    fn try_from(raw: RawAffinityCookie) -> Result<Self, Invalid> {
        let wrong = |field: &str, problem: &str, found: &str| {
            Invalid::range(
                format!("affinity_cookie.{field}"),
                format!("{problem}, found `{found}`"),
            )
        };
        let name = raw.name.unwrap_or_default();
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(wrong("name", "must be letters, digits or one of !#$%&'*+-.^_`|~", &name));
        }
        let path = raw.path.unwrap_or_else(|| "/".to_owned());
        // No control character and no `;` may end the attribute early (RFC 6265, section 4.1.1).
        if !path.starts_with('/') || !path.bytes().all(|b| matches!(b, b' '..=b'~') && b != b';') {
            return Err(wrong("path", "must start with `/` and be printable without `;`", &path));
        }
        let seconds = raw.ttl_seconds.unwrap_or(0.0);
        let ttl = span("affinity_cookie.ttl_seconds", seconds, 0.0, 31_536_000.0)?;
        if !ttl.is_zero() && ttl < Duration::from_secs(1) {
            // Cut to whole seconds it would tell the browser to drop the cookie at once.
            let problem = format!("must be 0 or at least 1, found {seconds}");
            return Err(Invalid::range("affinity_cookie.ttl_seconds", problem));
        }
        Ok(Self { name, ttl: (!ttl.is_zero()).then_some(ttl), path })
    }
}

fn choices(choices: u32) -> Result<usize, Invalid> {
    match choices {
        0 | 2..=16 => Ok(choices as usize),
        1 => Err(Invalid::range(
            "choices",
            "must be 0 (compare all) or 2 to 16, found 1; to draw one only set `kind = \"random\"`",
        )),
        _ => Err(Invalid::range(
            "choices",
            format!("must be 0 (compare all) or 2 to 16, found {choices}"),
        )),
    }
}

fn slow_start(raw: &RawBalance) -> Result<Option<SlowStart>, Invalid> {
    let window = span("slow_start_seconds", raw.slow_start_seconds.unwrap_or(0.0), 0.0, 3_600.0)?;
    let min_percent =
        within("slow_start_min_percent", raw.slow_start_min_percent.unwrap_or(10), 1, 100)?;
    let aggression = within("aggression", raw.aggression.unwrap_or(1.0), 0.1, 10.0)?;
    Ok((!window.is_zero()).then_some(SlowStart { window, min_percent, aggression }))
}

/// What the caller proved to be is not in the request, and the service is the same for all calls.
fn hash(parts: &[String]) -> Result<Vec<KeyPart>, Invalid> {
    key::parts("hash", parts, |part| match part {
        KeyPart::Principal | KeyPart::Tenant | KeyPart::Service => {
            Some(format!("must be a part of the request, found `{part}`"))
        }
        _ => None,
    })
}

/// Checks the sizes of all tables, also of those that `kind` does not use: a number that is wrong
/// today must not wait for the day the kind is changed.
fn layout(kind: Kind, raw: &RawBalance) -> Result<Option<Layout>, Invalid> {
    let min = within("ring_min", raw.ring_min.unwrap_or(1_024), 1, RING_MAX)?;
    let max = within("ring_max", raw.ring_max.unwrap_or(RING_MAX), 1, RING_MAX)?;
    if max < min {
        let problem = format!("must be at least `ring_min`, which is {min}, found {max}");
        return Err(Invalid::contradiction("ring_max", problem));
    }
    let size = table_size(raw.table_size.unwrap_or(65_537))?;
    Ok(match (kind, raw.ring.unwrap_or_default()) {
        (Kind::RingHash, RingKind::Ketama) => Some(Layout::Ketama),
        (Kind::RingHash, RingKind::Xxh64) => Some(Layout::Ring { min, max }),
        (Kind::Maglev, _) => Some(Layout::Maglev { size }),
        (Kind::RoundRobin | Kind::Random | Kind::LeastRequest | Kind::PeakEwma, _) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a table; `want` is the path and a part of the problem.
    #[track_caller]
    fn refuses(text: &str, path: &str, problem: &str) {
        let raw: RawBalance = toml::from_str(text).unwrap();
        let error = BalancePolicy::try_from(raw).unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }

    #[test]
    fn an_empty_table_means_the_documented_defaults() {
        let policy = BalancePolicy::default();
        assert_eq!((policy.kind, policy.choices), (Kind::LeastRequest, 2));
        assert_eq!((policy.overprovision_percent, policy.panic_percent), (140, 50));
        assert_eq!((policy.panic, policy.zone_preference), (PanicMode::All, false));
        assert_eq!((policy.slow_start, policy.layout), (None, None));
        assert_eq!(policy.failure_penalty, Duration::from_secs(5));
        assert_eq!((policy.hash.len(), policy.ring_key), (0, RingKey::Address));
        for (text, layout) in [
            ("kind = 'ring_hash'", Layout::Ketama),
            ("kind = 'ring_hash'\nring = 'xxh64'", Layout::Ring { min: 1_024, max: 8_388_608 }),
            ("kind = 'maglev'", Layout::Maglev { size: 65_537 }),
        ] {
            let raw: RawBalance = toml::from_str(text).unwrap();
            assert_eq!(BalancePolicy::try_from(raw).unwrap().layout, Some(layout));
        }
    }

    #[test]
    fn wrong_values_are_named() {
        refuses("choices = 1", "choices", "random");
        refuses("choices = 17", "choices", "2 to 16");
        refuses("overprovision_percent = 99", "overprovision_percent", "100 to 1000");
        refuses("panic_percent = 101", "panic_percent", "0 to 100");
        refuses("slow_start_seconds = -1.0", "slow_start_seconds", "0 to 3600");
        refuses("slow_start_seconds = nan", "slow_start_seconds", "0 to 3600");
        refuses("slow_start_min_percent = 0", "slow_start_min_percent", "1 to 100");
        refuses("aggression = 0.0", "aggression", "0.1 to 10");
        refuses("failure_penalty_seconds = 301.0", "failure_penalty_seconds", "0 to 300");
        refuses("hash = ['path', 'body:x']", "hash[1]", "\"body:x\"");
        refuses("hash = ['path', 'cookie:']", "hash[1]", "must name a cookie");
        for part in ["principal", "tenant", "service"] {
            refuses(&format!("hash = ['{part}']"), "hash[0]", &format!("found `{part}`"));
        }
        refuses("ring_min = 0", "ring_min", "1 to 8388608");
        refuses("ring_max = 8388609", "ring_max", "1 to 8388608");
        refuses("ring_max = 1000", "ring_max", "`ring_min`, which is 1024");
        refuses("table_size = 65536", "table_size", "the next is 65537");
        refuses("table_size = 1", "table_size", "2 to 5000011");
        refuses("table_size = 5000012", "table_size", "2 to 5000011");
        refuses("affinity_cookie = { name = 'sid' }", "affinity_cookie", "`cookie:sid`");
        let hash = "hash = ['cookie:sid']\naffinity_cookie";
        refuses(&format!("{hash} = {{}}"), "affinity_cookie.name", "letters");
        refuses(&format!("{hash}.name = 'a;b'"), "affinity_cookie.name", "`a;b`");
        let cookie = format!("{hash} = {{ name = 'sid',");
        refuses(&format!("{cookie} path = '/;' }}"), "affinity_cookie.path", "`/;`");
        refuses(&format!("{cookie} ttl_seconds = 0.5 }}"), "affinity_cookie.ttl_seconds", "0.5");
    }

    #[test]
    fn an_affinity_cookie_is_written_out() {
        let text = "hash = ['cookie:sid']\naffinity_cookie = { name = 'sid', ttl_seconds = 60.0 }";
        let policy = BalancePolicy::try_from(toml::from_str::<RawBalance>(text).unwrap()).unwrap();
        let cookie = policy.affinity_cookie.unwrap();
        let header = cookie.header(&AffinityCookie::value(255));
        assert_eq!(header, "sid=00000000000000ff; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
    }
}
