//! Where names are answered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mainstay_core::problem::Code;
use serde_json::json;

use super::answer::{Answer, Refused};
use crate::role::Shared;

/// `GET /dns`
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    let Some(dns) = &shared.dns else {
        let detail = "this process answers no names: `dns.enabled` is off, or it keeps no state";
        return Err(Refused::new(Code::NotFound, detail));
    };
    let config = &dns.config;
    Ok(Json(json!({
        "address": config.listen.to_string(),
        "domain": config.main.apex.to_string(),
        "consul_domain": config.consul.as_ref().map(|zone| zone.apex.to_string()),
        "ttl_seconds": config.main.ttl_seconds,
        "negative_ttl_seconds": config.main.negative_ttl_seconds,
        "udp_payload_bytes_max": config.udp_payload_bytes_max,
    })))
}
