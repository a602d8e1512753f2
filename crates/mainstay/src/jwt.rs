//! Keys of issuers: whoever keeps the process fetches them, and workers verify with them.
//!
//! When keys are fetched is decided elsewhere ([`mainstay_security::jwks`]); here is who does it,
//! from files and from addresses that may be reached ([`egress`]).

pub mod egress;
mod fetch;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mainstay_call::clock::MonotonicClock;
use mainstay_call::draw;
use mainstay_core::{Clock as _, Instant};
use mainstay_proxy::gateway::Gateway;
use mainstay_proxy::identify::Keys;

pub use fetch::Fetcher;

/// How long a start waits for keys. Whoever cannot have them by then serves all the same, and tokens
/// are answered with `jwks-unavailable`.
const FIRST_MAX: Duration = Duration::from_secs(10);

/// The longest sleep between looks: nothing is due later than that which a word would not tell.
const LOOK: Duration = Duration::from_hours(1);

/// Fetches keys of the issuers of `gateway` when it is time to; never ends.
///
/// # Cancel safety
///
/// Safe, but for fetches under way: what asked for them waits until it gives up. For the end of the
/// process, and for a start ([`first`]), which goes on with the next call.
pub async fn keep(gateway: &Gateway, fetcher: &Fetcher) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let due = {
            let running = gateway.running();
            let now = MonotonicClock.now();
            let begun = running.issuers.iter().filter(|issuer| issuer.keys.begin(now));
            under_way.extend(begun.map(|issuer| fetch(Arc::clone(&issuer.keys), fetcher)));
            let due = running.issuers.iter().map(|issuer| issuer.keys.due());
            due.min().unwrap_or(Instant::MAX).since(now).min(LOOK)
        };
        tokio::select! {
            () = gateway.parts().keys_wanted.notified() => {}
            () = tokio::time::sleep(due) => {}
            Some(()) = under_way.next() => {}
        }
    }
}

/// Fetches keys until each issuer has some, for as long as a start may take.
///
/// # Cancel safety
///
/// As [`keep`].
pub async fn first(gateway: &Gateway, fetcher: &Fetcher) {
    let issuers = Arc::clone(&gateway.running().issuers);
    if issuers.is_empty() {
        return;
    }
    let known = async {
        for issuer in issuers.iter() {
            while !issuer.keys.is_known() {
                issuer.keys.settled().await;
            }
        }
    };
    tokio::select! {
        () = keep(gateway, fetcher) => {}
        () = known => {}
        () = tokio::time::sleep(FIRST_MAX) => {}
    }
    // One that was cut short must not be waited for.
    for issuer in issuers.iter() {
        issuer.keys.give_up(MonotonicClock.now());
    }
}

async fn fetch(keys: Arc<Keys>, fetcher: &Fetcher) {
    let result = fetcher.fetch(keys.source(), keys.issuer()).await;
    keys.ended(MonotonicClock.now(), draw::next(), result);
}
