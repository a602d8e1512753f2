//! Calls of the data plane.

use mainstay_api::gateway::{
    Balance, Check, Circuit, Explanation, Fault, IssuerKeys, LimitUsage, RouteFound, SetFault,
};
use mainstay_core::problem::Code;

use super::call::{Call, call};
use crate::control::circuits::{Filter, Force, Reset};
use crate::control::jwks::Refresh;
use crate::control::limits::Most;
use crate::control::routes::Asked;

const TAG: &str = "gateway";

pub(super) fn calls() -> Vec<Call> {
    let mut calls = vec![
        call(
            "get",
            TAG,
            "listCircuitStates",
            "/circuit-states",
            "Lists circuits, and where they stand.",
        )
        .query::<Filter>()
        .lists::<Circuit>("The circuits."),
        call("put", TAG, "forceCircuit", "/circuit-states/{id}/mode", "Overrules a circuit.")
            .takes::<Force>()
            .gives::<Circuit>(200, "The circuit.")
            .refuses(&[Code::NotFound])
            .by(),
        call(
            "post",
            TAG,
            "resetCircuit",
            "/circuit-states/{id}/reset",
            "Lets a circuit judge by itself again, with nothing held against anybody.",
        )
        .takes::<Reset>()
        .gives::<Circuit>(200, "The circuit.")
        .refuses(&[Code::NotFound])
        .by(),
        call(
            "get",
            TAG,
            "showLimitUsage",
            "/limits/{namespace}/{name}/usage",
            "Shows how much of a limit is used.",
        )
        .query::<Most>()
        .gives::<LimitUsage>(200, "Its figures.")
        .refuses(&[Code::NotFound]),
        call(
            "get",
            TAG,
            "showBalance",
            "/balance/{namespace}/{service}",
            "Shows who of a service can be picked, and why not the others.",
        )
        .gives::<Balance>(200, "Its instances.")
        .refuses(&[Code::NotFound]),
        call(
            "post",
            TAG,
            "testRoute",
            "/routes/test",
            "Says where a request would go, without sending it.",
        )
        .takes::<Asked>()
        .gives::<RouteFound>(200, "The route and its stages, or why there is none.")
        .refuses(&[Code::PathAmbiguous, Code::MalformedRequest]),
        call("get", TAG, "explain", "/explain/{subject}", "Says why something is as it is.")
            .gives::<Explanation>(200, "Step by step.")
            .refuses(&[Code::NotFound, Code::NotRecorded]),
        call("get", TAG, "listChecks", "/checks", "Says whether the running gateway is well.")
            .lists::<Check>("The checks."),
    ];
    calls.extend(keys());
    calls.extend(faults());
    calls
}

fn keys() -> [Call; 2] {
    [
        call(
            "get",
            TAG,
            "listIssuerKeys",
            "/jwks",
            "Shows the keys of issuers, and where they stand.",
        )
        .lists::<IssuerKeys>("The issuers."),
        call(
            "post",
            TAG,
            "refreshIssuerKeys",
            "/jwks/{issuer}/refresh",
            "Fetches the keys of an issuer now.",
        )
        .takes::<Refresh>()
        .gives::<IssuerKeys>(200, "Where they stand now, whatever came of it.")
        .refuses(&[Code::NotFound])
        .by(),
    ]
}

fn faults() -> [Call; 3] {
    [
        call("get", TAG, "listFaults", "/faults", "Lists faults made on purpose.")
            .lists::<Fault>("The faults."),
        call("post", TAG, "setFault", "/faults", "Makes a fault, which ends by itself.")
            .takes::<SetFault>()
            .gives::<Fault>(201, "The fault.")
            .refuses(&[Code::Limited])
            .by(),
        call("delete", TAG, "clearFault", "/faults/{id}", "Ends a fault.")
            .done(204, "It is over.")
            .refuses(&[Code::NotFound])
            .by(),
    ]
}
