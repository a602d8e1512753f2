use std::collections::BTreeMap;
use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use super::*;

const fn room(names: usize) -> NonZeroUsize {
    NonZeroUsize::new(names).expect("some")
}

/// Sends requests with these headers through one layer with room for two locks; each must be
/// answered as `want` says: 200 by the service, else by the layer.
#[track_caller]
fn check(script: &[(&[&str], u16)]) -> FencingCounts {
    let layer = FencingLayer::new(room(2));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (headers, want) in script {
        let (status, body) = runtime.block_on(send(&layer, headers));
        assert_eq!(status, *want, "{headers:?}: {body}");
    }
    layer.counted()
}

async fn send(layer: &FencingLayer, headers: &[&str]) -> (u16, String) {
    let answer =
        |_request| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done"))) };
    let service = ServiceBuilder::new().layer(layer.clone()).service(service_fn(answer));
    let mut request = Request::new(());
    for value in headers {
        request.headers_mut().append(HEADER, HeaderValue::from_str(value).unwrap());
    }
    let response = service.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn a_lower_token_is_refused_and_the_same_one_is_not() {
    let counts = check(&[
        (&["shop/a=7"], 200),
        (&["shop/a=7"], 200),
        (&["shop/a=9"], 200),
        (&["shop/a=8"], 412),
        (&["shop/a=9"], 200),
        (&["shop/b=1"], 200),
        (&[], 200),
    ]);
    assert_eq!(counts, FencingCounts { stale: 1, ..FencingCounts::default() });
}

#[test]
fn a_request_under_several_locks_passes_with_all_or_counts_for_none() {
    check(&[
        (&["shop/a=7"], 200),
        (&["shop/b=20, shop/a=6"], 412),
        (&["shop/b=19"], 200),
        (&["shop/b=20", "shop/a=8"], 200),
        (&["shop/a=7"], 412),
        (&["shop/a=9,shop/a=8"], 200),
        (&["shop/a=8"], 412),
    ]);
}

#[test]
fn what_is_forgotten_lets_nothing_stale_pass() {
    let counts = check(&[
        (&["shop/a=7"], 200),
        (&["shop/b=8"], 200),
        (&["shop/c=9"], 200), // Forgets `a`, whose token is the lowest.
        (&["shop/a=6"], 412),
        (&["shop/d=6"], 412), // Not stale, but who knows; its holder can ask anew.
        (&["shop/a=7"], 200), // Forgets itself again.
        (&["shop/b=7"], 412),
    ]);
    assert_eq!(counts, FencingCounts { stale: 1, below_forgotten: 2, forgotten: 2 });
}

#[test]
fn a_header_that_cannot_be_read_is_refused() {
    for bad in ["", "shop/a", "shop/a=", "shop/a=x", "shop/a=0", "=7", "a b=7", "shop/a=-1"] {
        check(&[(&[bad], 422)]);
    }
    check(&[(&["shop/a=+7"], 422), (&["shop/a=99999999999999999999"], 422)]);
    let many = (0..17).map(|n| format!("shop/{n}=1")).collect::<Vec<_>>().join(",");
    check(&[(&[&many], 422)]);
}

#[tokio::test]
async fn the_refusal_is_a_problem_document_that_says_what_was_seen() {
    let layer = FencingLayer::default();
    send(&layer, &["shop/a=43"]).await;
    let (_, body) = send(&layer, &["shop/a=41"]).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!(problem.code, "fencing-token-stale");
    assert_eq!(problem.kind, "docs/problems/fencing-token-stale.md");
    assert_eq!(problem.effect.as_deref(), Some("none"));
    assert_eq!(problem.detail, "token 41 of `shop/a` is older than 43, which was here before");
}

#[test]
fn what_is_put_on_a_request_is_what_is_read() {
    let mut headers = HeaderMap::new();
    let tokens = [("shop/sku:1", 41), ("shop/b", u64::MAX)];
    let tokens = tokens.map(|(name, token)| FencingToken::new(name, token).unwrap());
    for token in &tokens {
        token.put(&mut headers);
    }
    assert_eq!(FencingToken::all(&headers).unwrap(), tokens);
    assert_eq!(headers[HEADER], "shop/sku:1=41");
}

proptest! {
    /// However small the memory, a token lower than one that passed before never passes; and with
    /// room for all, every other one does.
    #[test]
    fn nothing_stale_passes(
        names_max in 1usize..6,
        arrivals in prop::collection::vec((0u8..5, 1u64..40), 1..200),
    ) {
        let mut tokens = Tokens::new(room(names_max));
        let mut passed: BTreeMap<u8, u64> = BTreeMap::new();
        for (name, number) in arrivals {
            let token = FencingToken::new(format!("shop/{name}"), number).unwrap();
            let passes = tokens.judge(&[token]) == Judged::Passes;
            let is_stale = passed.get(&name).is_some_and(|highest| number < *highest);
            prop_assert!(!(passes && is_stale), "{number} of {name}");
            prop_assert!(names_max < 5 || passes != is_stale);
            if passes {
                passed.insert(name, number);
            }
        }
    }
}
