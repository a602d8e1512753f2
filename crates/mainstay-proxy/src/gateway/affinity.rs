//! What brings a caller back to the instance it was at.

use std::borrow::Cow;

use http::HeaderValue;
use mainstay_call::draw;
use mainstay_resilience::balance::{AffinityCookie, BalancePolicy};
use mainstay_resilience::key::KeyPart;

use crate::key::Facts;

/// The hash of the request's key, if `balance` goes by one, and the cookie that its answer sets.
///
/// A caller that does not bring the affinity cookie is hashed as if it brought the one that it is
/// given here, so its next call goes to the same instance.
#[inline]
pub(super) fn hash(
    balance: &BalancePolicy,
    facts: &Facts<'_>,
) -> (Option<u64>, Option<HeaderValue>) {
    let Some(layout) = balance.layout.filter(|_| !balance.hash.is_empty()) else {
        return (None, None);
    };
    match &balance.affinity_cookie {
        None => (facts.hash(&balance.hash, layout.function()), None),
        Some(cookie) => {
            let (draw, function) = (draw::next(), layout.function());
            with_cookie(cookie, facts, draw, |read| function.hash_parts(&balance.hash, read))
        }
    }
}

fn with_cookie<'f>(
    cookie: &AffinityCookie,
    facts: &Facts<'f>,
    draw: u64,
    hash: impl FnOnce(&dyn Fn(&KeyPart) -> Option<Cow<'f, str>>) -> Option<u64>,
) -> (Option<u64>, Option<HeaderValue>) {
    let name = KeyPart::Cookie(cookie.name.as_str().into());
    if facts.read(&name).is_some_and(|value| !value.is_empty()) {
        return (hash(&|part| facts.read(part)), None);
    }
    let value = AffinityCookie::value(draw);
    let read = |part: &KeyPart| {
        if *part == name { Some(Cow::Owned(value.clone())) } else { facts.read(part) }
    };
    // Name and path were checked when the configuration was read.
    (hash(&read), HeaderValue::try_from(cookie.header(&value)).ok())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, Method};
    use mainstay_resilience::balance::RawBalance;

    use crate::route::tests::route;
    use crate::route::{Captures, View};

    use super::*;

    /// A first call, with `cookie`, and a second one with what the first was given.
    #[track_caller]
    fn check(balance: &str, cookie: Option<&str>, want_set: bool) {
        let raw: RawBalance = toml::from_str(balance).expect("a balance");
        let balance = BalancePolicy::try_from(raw).expect("a legal balance");
        let ask = |cookie: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.append("x-user", "ada".parse().expect("legal"));
            if let Some(cookie) = cookie {
                headers.append("cookie", cookie.parse().expect("legal"));
            }
            let view = View {
                host: "shop.example",
                method: &Method::GET,
                path: "/",
                headers: &headers,
                query: None,
                client: IpAddr::from([10, 0, 0, 1]),
            };
            let (route, captures) = (route("r", "prefix = '/'\nto = 'user'"), Captures::default());
            hash(
                &balance,
                &Facts {
                    view: &view,
                    route: &route,
                    captures: &captures,
                    service: None,
                    principal: None,
                    tenant: None,
                },
            )
        };
        let (first, set) = ask(cookie);
        assert_eq!(set.is_some(), want_set, "{balance:?}");
        let Some(set) = set else { return };
        let set = set.to_str().expect("text");
        let pair = set.split(';').next().expect("a pair");
        let (second, set_again) = ask(Some(pair));
        assert!(first.is_some() && first == second, "{first:?} {second:?}");
        assert_eq!(set_again, None, "it has one already");
        assert_ne!(ask(None).0, first, "each caller has its own draw");
    }

    #[test]
    fn a_caller_without_a_cookie_gets_one_that_leads_to_the_same_place() {
        let sticky = "kind = 'ring_hash'\nhash = ['header:x-user', 'cookie:at']\n\
                      affinity_cookie = { name = 'at', ttl_seconds = 60 }";
        check(sticky, None, true);
        check(sticky, Some("at="), true);
        check(sticky, Some("other=1"), true);
        check(sticky, Some("at=7"), false);
        check("kind = 'maglev'\nhash = ['cookie:at']", None, false);
        check("hash = ['cookie:at']\naffinity_cookie = { name = 'at' }", None, false);
    }
}
