//! What programs do over gRPC beside listening: they are registered for as long as a stream of
//! theirs lives, and publish configuration.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream;
use grpc::{Door, code, end, next};
use mainstay_api::grpc::{
    ConfigCanary, ConfigGetRequest, ConfigItemPut, ConfigPublishRequest, RegisterRequest,
    Registration, RegistrySessionRequest, RegistrySessionResponse,
};
use serde_json::Value;
use support::gateway::Gateway;
use support::wait::until;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

const PATIENCE: Duration = Duration::from_secs(30);

/// A request for the instance `id` of `default/order`, which weighs `weight`.
fn ask(id: &str, weight: u32) -> RegistrySessionRequest {
    let registration = Registration {
        id: id.to_owned(),
        address: "10.0.0.1".to_owned(),
        port: 8080,
        weight: Some(weight),
        ttl_seconds: Some(5),
        ..Registration::default()
    };
    RegistrySessionRequest {
        register: Some(RegisterRequest {
            namespace: String::new(),
            service: "order".to_owned(),
            registration: Some(registration),
        }),
    }
}

type Asks = mpsc::Sender<RegistrySessionRequest>;

async fn session(
    door: &Door,
    first: RegistrySessionRequest,
) -> (Asks, Streaming<RegistrySessionResponse>) {
    let (asks, asked) = mpsc::channel(4);
    asks.send(first).await.unwrap();
    let asked = stream::unfold(asked, |mut asked| async { Some((asked.recv().await?, asked)) });
    let answers = door.registry().session(asked).await.unwrap().into_inner();
    (asks, answers)
}

/// The instances of `default/order`: id, health, weight.
fn instances(node: &Gateway) -> Vec<(String, String, u64)> {
    let (_, text) = node.control("/api/v1/registry/default/services/order");
    let service: Value = serde_json::from_str(&text).unwrap();
    let all = service["instances"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.map(|one| (text(&one["id"]), text(&one["health"]), one["weight"].as_u64().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_as_long_as_the_stream_of_its_program() {
    let node = Gateway::start_server("grpc-session", CONFIG);
    let door = Door::of(&node);
    let (asks, mut answers) = session(&door, ask("a", 1)).await;
    let registered = next(&mut answers).await.registered.unwrap();
    assert_eq!((registered.ttl_seconds, registered.beat_every_seconds), (5, 1));
    let passing = |weight| vec![("a".to_owned(), "passing".to_owned(), weight)];
    assert_eq!(instances(&node), passing(1));
    asks.send(ask("a", 7)).await.unwrap();
    assert!(registered.revision < next(&mut answers).await.registered.unwrap().revision);
    // Longer than its ttl, without a beat of its own.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(instances(&node), passing(7));
    // Somebody takes it away: its stream brings it back.
    let path = "/api/v1/registry/default/services/order/instances/a";
    assert_eq!(node.call("DELETE", path, "{}").0, 200);
    let back = next(&mut answers).await.registered.unwrap();
    assert!(registered.revision < back.revision);
    assert_eq!(instances(&node), passing(7));
    // It comes back by another stream, and the end of the first one means nothing any more.
    let (again, mut answers_again) = session(&door, ask("a", 7)).await;
    assert!(next(&mut answers_again).await.registered.is_some());
    drop(asks);
    assert_eq!(end(&mut answers).await.code(), Code::Ok);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(instances(&node), passing(7));
    // Its program ends its side: it is gone at once.
    drop(again);
    assert_eq!(end(&mut answers_again).await.code(), Code::Ok);
    assert_eq!(instances(&node), []);
}

#[test]
fn an_instance_whose_stream_broke_is_critical_after_its_ttl() {
    let node = Gateway::start_server("grpc-session-broken", CONFIG);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let door = Door::of(&node);
    let kept = runtime.block_on(async {
        let (asks, mut answers) = session(&door, ask("a", 1)).await;
        assert!(next(&mut answers).await.registered.is_some());
        (asks, answers)
    });
    // Its connection is gone, and nothing was said.
    runtime.shutdown_background();
    assert_eq!(instances(&node)[0].1, "passing");
    until("its silence is noticed", PATIENCE, || {
        instances(&node) == [("a".to_owned(), "critical".to_owned(), 1)]
    });
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_one_instance() {
    let node = Gateway::start_server("grpc-session-one", CONFIG);
    let door = Door::of(&node);
    // What is no instance, and another instance than the first one, are refused.
    let wrong = RegistrySessionRequest { register: None };
    let refused = door.registry().session(stream::iter([wrong])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let (asks, mut answers) = session(&door, ask("b", 1)).await;
    assert!(next(&mut answers).await.registered.is_some());
    asks.send(ask("c", 1)).await.unwrap();
    let refused = end(&mut answers).await;
    assert_eq!((refused.code(), code(&refused)), (Code::InvalidArgument, "invalid-request"));
}

fn item(format: &str, content: &str) -> ConfigItemPut {
    ConfigItemPut { format: format.to_owned(), content: content.to_owned(), ..Default::default() }
}

fn publication(items: &[(&str, ConfigItemPut)]) -> ConfigPublishRequest {
    let items: BTreeMap<String, ConfigItemPut> =
        items.iter().map(|(name, item)| ((*name).to_owned(), item.clone())).collect();
    ConfigPublishRequest { group: "pay".to_owned(), items, ..ConfigPublishRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_is_published_once_and_on_what_was_read() {
    let node = Gateway::start_server("grpc-publish", CONFIG);
    let door = Door::of(&node);
    let publish = async |ask: ConfigPublishRequest| {
        let mut request = tonic::Request::new(ask);
        request.metadata_mut().insert("mainstay-reason", "a%20test".parse().unwrap());
        door.config().publish(request).await.map(tonic::Response::into_inner)
    };
    let secret = ConfigItemPut { secret: true, ..item("text", "hunter2") };
    let both = publication(&[("limit", item("json", "{\"max\": 1}")), ("password", secret)]);
    let dry = ConfigPublishRequest { dry_run: true, ..both.clone() };
    let shown = publish(dry).await.unwrap();
    assert_eq!((shown.release, shown.revision, shown.changed.len()), (1, 0, 2), "{shown:?}");
    let first = publish(both.clone()).await.unwrap();
    assert_eq!((first.release, first.is_new, first.changed.len()), (1, true, 2), "{first:?}");
    let same = publish(both).await.unwrap();
    assert_eq!((same.release, same.is_new), (1, false), "nothing changed");

    let late = ConfigPublishRequest {
        base: Some(7),
        ..publication(&[("limit", item("json", "{\"max\": 2}"))])
    };
    let refused = publish(late.clone()).await.unwrap_err();
    assert_eq!(code(&refused), "revision-moved", "{refused}");
    let second = publish(ConfigPublishRequest { base: Some(1), ..late }).await.unwrap();
    assert_eq!((second.release, second.changed[0].change.as_str()), (2, "changed"));
    let refused = publish(publication(&[("limit", item("json", "{"))])).await.unwrap_err();
    assert_eq!(code(&refused), "format-invalid", "{refused}");
    let refused = publish(publication(&[("limit", item("cobol", ""))])).await.unwrap_err();
    assert_eq!(code(&refused), "invalid-request", "{refused}");

    let canary = ConfigCanary { clients: vec!["pay-1".to_owned()], ..ConfigCanary::default() };
    let gradual = ConfigPublishRequest {
        canary: Some(canary),
        removed: vec!["password".to_owned()],
        ..publication(&[])
    };
    let third = publish(gradual).await.unwrap();
    assert!(third.canary, "{third:?}");
    let release = async |client: &str| {
        let ask = ConfigGetRequest {
            group: "pay".to_owned(),
            client: client.to_owned(),
            ..ConfigGetRequest::default()
        };
        door.config().get(ask).await.unwrap().into_inner().release
    };
    assert_eq!((release("pay-1").await, release("pay-2").await), (3, 2));
    let recorded = |outcome: &str| {
        let (_, audit) = node.control("/api/v1/audit?action=config:publish");
        let audit: Value = serde_json::from_str(&audit).unwrap();
        let all = audit["items"].as_array().unwrap().iter();
        all.filter(|one| one["outcome"] == outcome).cloned().collect::<Vec<Value>>()
    };
    let done = recorded("done");
    assert_eq!(done.len(), 3, "{done:?}");
    until("who was refused is recorded, too", PATIENCE, || recorded("refused").len() == 3);
    // What was only tried is not there. Those that are put together come in any order.
    let refused = recorded("refused");
    let mut codes: Vec<&str> = refused.iter().map(|one| one["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["format-invalid", "invalid-request", "revision-moved"]);
    for one in done.iter().chain(&refused) {
        let at = (&one["reason"], &one["actor"]["via"], &one["target"]["id"]);
        assert_eq!(at, (&"a test".into(), &"grpc".into(), &"default/pay".into()), "{one}");
    }
}
