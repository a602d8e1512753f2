//! Faults made on purpose.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Makes a fault. Nothing but this is done to calls, and it ends by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetFault {
    /// Whom it is for: every condition given holds, and at least one is given.
    #[serde(rename = "match")]
    pub matches: FaultMatch,
    /// What is done to them.
    pub fault: FaultKind,
    /// The share of the attempts matched, 0.0001 to 100. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0001, maximum = 100)]
    pub percent: Option<f64>,
    /// How long it lasts, 1 to 3,600 s. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3600)]
    pub ttl_seconds: Option<f64>,
    /// Why, 3 to 500 characters; may be sent in `Mainstay-Reason` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whom a fault is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultMatch {
    /// Calls that came by this route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Calls to this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Attempts on this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Calls with this request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<FaultHeader>,
}

/// A request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultHeader {
    /// Its name, in any case.
    pub name: String,
    /// Its whole value; any, unless given.
    #[serde(default)]
    pub value: Option<String>,
}

/// What is done to an attempt. A kind without figures is a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It is held back, then sent.
    Delay {
        /// For how long, 0.001 to 300 s.
        seconds: f64,
        /// Give or take so many percent. Default 0.
        #[serde(default)]
        jitter: f64,
    },
    /// It is answered at once, and never sent: by an HTTP status or a gRPC code.
    Abort {
        /// HTTP status, 200 to 599.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// gRPC code, 1 to 16.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grpc: Option<u32>,
    },
    /// Its connection is reset before a response head.
    Reset,
    /// It is never answered.
    Blackhole,
    /// Its response body trickles.
    SlowBody {
        /// How fast, at least 1.
        bytes_per_second: u64,
    },
    /// No connection comes up in time.
    ConnectTimeout,
    /// Its response breaks off.
    Truncate {
        /// After so many bytes of the body. Default 0.
        #[serde(default)]
        after_bytes: u64,
    },
}

/// A fault under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Its id: `f-7`.
    pub id: String,
    /// What is done.
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    /// Whom it is for.
    #[serde(rename = "match")]
    pub matches: FaultMatch,
    /// The share of the attempts matched.
    pub percent: f64,
    /// How long it goes on.
    pub seconds_left: f64,
    /// Why.
    pub reason: String,
}
