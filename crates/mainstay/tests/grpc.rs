//! The streams of a real process over gRPC.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/child.rs"]
mod child;
#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/python.rs"]
mod python;
#[path = "support/support.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::http::{Request, StatusCode, Version};
use child::{beside_no_proxy, ends_well};
use futures_util::stream;
use grpc::{Door, code, end, next};
use mainstay_api::grpc::config_watch_response::Item as Release;
use mainstay_api::grpc::lock_acquire_request::Want;
use mainstay_api::grpc::lock_observe_response::Item as Led;
use mainstay_api::grpc::lock_session_request::Request as Ask;
use mainstay_api::grpc::lock_session_response::Item as News;
use mainstay_api::grpc::registry_watch_response::Item;
use mainstay_api::grpc::rules_watch_response::Item as Rule;
use mainstay_api::grpc::service_change::What;
use mainstay_api::grpc::switches_watch_response::Item as Switched;
use mainstay_api::grpc::{
    ConfigGetRequest, ConfigWatchRequest, EndSession, FollowedService, HeldGroup,
    LockAcquireRequest, LockArea, LockObserveRequest, LockReleaseRequest, LockSessionRequest,
    LockSessionResponse, OpenSession, RegisterRequest, Registration, RegistryWatchRequest,
    RegistryWatchResponse, RenewSession, RulesWatchRequest, SessionCredential, SessionOwner,
    SwitchesWatchRequest, WantLeadership, WantLock, WatchMode,
};
use mainstay_api::registry::STORE_HEADER;
use rustix::process::Signal;
use serde_json::json;
use support::gateway::Gateway;
use support::wait::until;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tower_service::Service as _;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
"#;

#[track_caller]
fn done(node: &Gateway, method: &str, path: &str, body: &serde_json::Value) {
    let (path, why) = (format!("/api/v1{path}"), "mainstay-reason: because\r\n");
    let (status, answer) = node.call_with(method, &path, why, &body.to_string());
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
}

/// Registers an instance of `shop/order` that stays.
async fn register(door: &Door, id: &str) -> u64 {
    let registration = Registration {
        id: id.to_owned(),
        address: "10.0.0.1".to_owned(),
        port: 8080,
        kind: "persistent".to_owned(),
        ..Registration::default()
    };
    let request = RegisterRequest {
        namespace: "shop".to_owned(),
        service: "order".to_owned(),
        registration: Some(registration),
    };
    door.registry().register(request).await.unwrap().into_inner().revision
}

/// Follows `shop/order`; returns the history its revisions are of, too.
async fn follow(
    door: &Door,
    mode: WatchMode,
    has: Option<(u64, &str)>,
) -> (Streaming<RegistryWatchResponse>, String) {
    let request = RegistryWatchRequest {
        services: vec![FollowedService {
            namespace: "shop".to_owned(),
            service: "order".to_owned(),
            revision: has.map(|(revision, _)| revision),
        }],
        store: has.map(|(_, store)| store.to_owned()).unwrap_or_default(),
        mode: mode.into(),
        healthy: false,
    };
    let answer = door.registry().watch(request).await.unwrap();
    let store = answer.metadata().get(STORE_HEADER).unwrap().to_str().unwrap().to_owned();
    (answer.into_inner(), store)
}

/// What came to be, of an event.
#[track_caller]
fn put(message: &RegistryWatchResponse) -> &str {
    let Some(Item::Event(event)) = &message.item else { panic!("{message:?}") };
    let Some(What::Put(put)) = &event.what else { panic!("{message:?}") };
    &put.id
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_followed_and_a_killed_node_leaves_neither_gap_nor_repeat() {
    let mut node = Gateway::start_server("grpc-registry", CONFIG);
    let door = Door::of(&node);
    let first = register(&door, "a").await;
    let (mut view, store) = follow(&door, WatchMode::View, None).await;
    let whole = next(&mut view).await;
    assert_eq!(whole.revision, Some(first));
    let Some(Item::Snapshot(whole)) = whole.item else { panic!("{whole:?}") };
    assert_eq!((whole.instances.len(), &*whole.instances[0].id), (1, "a"));
    let (mut events, _) = follow(&door, WatchMode::Events, None).await;
    assert!(matches!(next(&mut events).await.item, Some(Item::Snapshot(_))));

    let second = register(&door, "b").await;
    let event = next(&mut events).await;
    assert_eq!((put(&event), event.revision), ("b", Some(second)));
    let change = next(&mut view).await;
    let Some(Item::Change(changed)) = &change.item else { panic!("{change:?}") };
    assert_eq!(changed.instances.len(), 2, "a view is whole each time");

    node.signal(Signal::KILL);
    node.ended();
    assert_ne!(end(&mut events).await.code(), Code::Ok, "it broke");
    let node = node.again("grpc-registry-killed", &[]);
    let door = Door::of(&node);
    let third = register(&door, "c").await;
    let known = Some((second, &*store));
    let (mut events, same) = follow(&door, WatchMode::Events, known).await;
    assert_eq!(same, store, "it is the same history");
    let event = next(&mut events).await;
    assert_eq!((put(&event), event.revision), ("c", Some(third)));
    let (mut view, _) = follow(&door, WatchMode::View, Some((third, &store))).await;
    assert!(matches!(next(&mut view).await.item, Some(Item::Bookmark(_))), "nothing is new");
    let (mut view, _) = follow(&door, WatchMode::View, Some((third, "other"))).await;
    assert!(matches!(next(&mut view).await.item, Some(Item::Snapshot(_))));

    // Of two services, one is known as of a history that is no more; the other goes on.
    let known_of = |service: &str, revision| FollowedService {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        revision: Some(revision),
    };
    let request = RegistryWatchRequest {
        services: vec![known_of("order", third), known_of("pay", 1_000_000)],
        store: store.clone(),
        mode: WatchMode::Events.into(),
        healthy: false,
    };
    let mut both = door.registry().watch(request).await.unwrap().into_inner();
    let Some(Item::Resync(resync)) = next(&mut both).await.item else { panic!("no resync") };
    assert_eq!(resync.reason, "store-regressed");
    let Some(Item::Snapshot(whole)) = next(&mut both).await.item else { panic!("no list") };
    assert_eq!((&*whole.service, whole.instances.len()), ("pay", 0));

    // What is compacted cannot be told one by one.
    let fourth = register(&door, "d").await;
    assert_eq!(put(&next(&mut both).await), "d");
    done(&node, "POST", "/store/compact", &json!({ "revision": fourth }));
    let (mut events, _) = follow(&door, WatchMode::Events, known).await;
    let resync = next(&mut events).await;
    let Some(Item::Resync(resync)) = resync.item else { panic!("{resync:?}") };
    assert_eq!(resync.reason, "compacted");
    let Some(Item::Snapshot(whole)) = next(&mut events).await.item else { panic!("no list") };
    assert_eq!(whole.instances.len(), 4);
    assert_eq!(node.counted("mainstay_control_streams_stalled_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_without_the_token_and_refusals_name_their_problem() {
    let node = Gateway::start_server("grpc-refused", CONFIG);
    for token in [None, Some("wrong")] {
        let out = Door::with(&node, token);
        let status = out.rules().watch(RulesWatchRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), code(&status)), (Code::Unauthenticated, "credential-missing"));
        let (channel, origin) = out.channel();
        let mut health = HealthClient::with_origin(channel, origin);
        let healthy = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(healthy.status(), ServingStatus::Serving, "probes have no token");
    }
    let out = json!(["anonymous", "grpc", "/mainstay.v1.Rules/{call}", null]);
    assert_eq!(recorded(&node, "grpc:write", 2), [out.clone(), out]);
    let door = Door::of(&node);
    let request = SwitchesWatchRequest { namespace: "No Name".to_owned(), revision: None };
    let status = door.switches().watch(request).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::InvalidArgument, "invalid-request"));
    let nowhere = ConfigGetRequest { group: "none".to_owned(), ..ConfigGetRequest::default() };
    let status = door.config().get(nowhere).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::NotFound, "config-not-found"));
    let problem = status.metadata().get_bin("mainstay-problem-bin").unwrap().to_bytes().unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(problem["status"], 404, "{problem}");
    let none = RegistryWatchRequest::default();
    let status = door.registry().watch(none).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    // A service nobody has, behind the same door.
    let (channel, _) = door.channel();
    let elsewhere = format!("http://{}/other", node.control).parse().unwrap();
    let mut other = HealthClient::with_origin(channel.clone(), elsewhere);
    let status = other.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    // HTTP/1.1 goes on beside it, and HTTP/2 is there for all calls.
    assert_eq!(node.control("/api/v1/registry/services").0, 200);
    let (mut channel, _) = door.channel();
    let services = format!("http://{}/api/v1/registry/services", node.control);
    let ask = Request::get(services).body(tonic::body::Body::empty()).unwrap();
    let answer = channel.call(ask).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));

    let (channel, origin) = door.channel();
    let mut reflection = ServerReflectionClient::with_origin(channel, origin);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = reflection.server_reflection_info(stream::iter([ask])).await.unwrap();
    let answer = next(&mut answer.into_inner()).await.message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<&str> = listed.service.iter().map(|service| &*service.name).collect();
    names.retain(|name| name.starts_with("mainstay.v1."));
    assert_eq!(names.len(), 5, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_rules_and_switches_are_followed_and_resumed() {
    let node = Gateway::start_server("grpc-config", CONFIG);
    let door = Door::of(&node);
    let release = json!({ "items": { "app": { "content": "one" } }, "note": "first" });
    done(&node, "POST", "/config/shop/app/releases", &release);
    let held =
        |release| HeldGroup { namespace: "shop".to_owned(), group: "app".to_owned(), release };
    let watch = |release| ConfigWatchRequest {
        client: "c1".to_owned(),
        groups: vec![held(release)],
        ..ConfigWatchRequest::default()
    };
    let mut releases = door.config().watch(watch(None)).await.unwrap().into_inner();
    let Some(Release::Snapshot(update)) = next(&mut releases).await.item else { panic!("none") };
    let content = update.contents.unwrap().items["app"].content.clone();
    assert_eq!((update.release, content.as_deref()), (1, Some("one")));
    let mut resumed = door.config().watch(watch(Some(1))).await.unwrap().into_inner();
    let release = json!({ "items": { "app": { "content": "two" } }, "note": "second" });
    done(&node, "POST", "/config/shop/app/releases", &release);
    for releases in [&mut releases, &mut resumed] {
        let Some(Release::Change(update)) = next(releases).await.item else { panic!("none") };
        assert_eq!((update.from, update.release), (1, 2), "nothing is told twice");
    }
    let ask = ConfigGetRequest {
        namespace: "shop".to_owned(),
        group: "app".to_owned(),
        ..ConfigGetRequest::default()
    };
    assert_eq!(door.config().get(ask).await.unwrap().into_inner().release, 2);

    let ask = |revision| SwitchesWatchRequest { namespace: "shop".to_owned(), revision };
    let mut switches = door.switches().watch(ask(None)).await.unwrap().into_inner();
    assert!(matches!(next(&mut switches).await.item, Some(Switched::Snapshot(_))));
    let content = json!({ "content": { "type": "boolean", "value": true } });
    done(&node, "PUT", "/switches/shop/sale", &content);
    let last = loop {
        let told = next(&mut switches).await;
        if let Some(Switched::Change(change)) = told.item {
            assert_eq!(change.name, "sale");
            break told.revision;
        }
    };
    let mut switches = door.switches().watch(ask(last)).await.unwrap().into_inner();
    done(&node, "PUT", "/switches/shop/other", &content);
    let change = loop {
        if let Some(Switched::Change(change)) = next(&mut switches).await.item {
            break change;
        }
    };
    assert_eq!(change.name, "other", "the one before is not told again");

    let kinds = RulesWatchRequest { kinds: vec!["switch".to_owned()], ..Default::default() };
    let mut rules = door.rules().watch(kinds).await.unwrap().into_inner();
    let Some(Rule::Snapshot(update)) = next(&mut rules).await.item else { panic!("none") };
    assert_eq!(update.put.len(), 2, "{update:?}");
    let unknown = RulesWatchRequest { kinds: vec!["none".to_owned()], ..Default::default() };
    let status = door.rules().watch(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The audit records of `action`, newest first, once there are `count`: who, through which door, upon
/// what, and which revision that is at.
fn recorded(node: &Gateway, action: &str, count: usize) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    until("all are recorded", Duration::from_secs(10), || {
        let (status, page) = node.call("GET", &format!("/api/v1/audit?action={action}"), "{}");
        assert_eq!(status, 200, "{page}");
        let mut page: serde_json::Value = serde_json::from_str(&page).unwrap();
        found = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        found.len() == count
    });
    let told = |record: &serde_json::Value| {
        let at = |pointer| record.pointer(pointer).cloned().unwrap_or_default();
        json!([
            at("/actor/principal"),
            at("/actor/via"),
            at("/target/id"),
            at("/target/revision_after")
        ])
    };
    found.iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn that_secrets_are_shown_is_recorded() {
    let node = Gateway::start_server("grpc-secrets", CONFIG);
    let door = Door::of(&node);
    let secret = json!({ "content": "hunter2", "secret": true });
    let release = json!({ "items": { "password": secret }, "note": "first" });
    done(&node, "POST", "/config/shop/app/releases", &release);
    let plain = json!({ "items": { "app": { "content": "one" } }, "note": "first" });
    done(&node, "POST", "/config/shop/plain/releases", &plain);
    let get = async |group: &str, secrets| {
        let (namespace, group) = ("shop".to_owned(), group.to_owned());
        let ask = ConfigGetRequest { namespace, group, secrets, ..ConfigGetRequest::default() };
        door.config().get(ask).await.unwrap().into_inner().items
    };
    // What is masked, and what is no secret, needs no record.
    assert_eq!(get("app", false).await["password"].content, None);
    assert_eq!(get("plain", true).await["app"].content.as_deref(), Some("one"));
    assert_eq!(get("app", true).await["password"].content.as_deref(), Some("hunter2"));
    let once = json!(["operator", "grpc", "shop/app", 1]);
    assert_eq!(recorded(&node, "config:reveal", 1), std::slice::from_ref(&once));

    let follow = async |secrets, groups| {
        let held =
            HeldGroup { namespace: "shop".to_owned(), group: "app".to_owned(), release: None };
        let (client, groups) = ("c1".to_owned(), vec![held; groups]);
        let ask = ConfigWatchRequest { client, groups, secrets, ..ConfigWatchRequest::default() };
        door.config().watch(ask).await.map(tonic::Response::into_inner)
    };
    // Who is refused is shown nothing.
    let status = follow(true, 101).await.unwrap_err();
    assert_eq!(code(&status), "value-too-large");
    for secrets in [false, true] {
        let mut told = follow(secrets, 1).await.unwrap();
        let Some(Release::Snapshot(update)) = next(&mut told).await.item else { panic!("none") };
        let content = update.contents.unwrap().items["password"].content.clone();
        assert_eq!(content.as_deref(), secrets.then_some("hunter2"));
    }
    // Of the release that is there, and of those to come.
    assert_eq!(
        recorded(&node, "config:reveal", 2),
        [json!(["operator", "grpc", "shop/app", null]), once]
    );
}

fn asked(request: Ask) -> LockSessionRequest {
    LockSessionRequest { request: Some(request) }
}

/// A session, what is asked of it, and what is told of it.
async fn session(
    door: &Door,
    name: &str,
) -> (SessionCredential, mpsc::Sender<LockSessionRequest>, Streaming<LockSessionResponse>) {
    let (ask, told) = mpsc::channel(4);
    let owner = SessionOwner { host: "h".to_owned(), pid: 1, name: name.to_owned() };
    let open = OpenSession { ttl_seconds: 30.0, owner: Some(owner) };
    ask.send(asked(Ask::Open(open))).await.unwrap();
    let asks = stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
    let mut news = door.lock().session(asks).await.unwrap().into_inner();
    let Some(News::Opened(opened)) = next(&mut news).await.item else { panic!("not opened") };
    let Some(News::Snapshot(holds)) = next(&mut news).await.item else { panic!("no snapshot") };
    assert!(holds.held.is_empty());
    (opened.credential.unwrap(), ask, news)
}

fn acquire(of: &SessionCredential, want: Want, wait_seconds: f64, id: &str) -> LockAcquireRequest {
    LockAcquireRequest {
        credential: Some(of.clone()),
        namespace: "shop".to_owned(),
        name: "stock".to_owned(),
        want: Some(want),
        wait_seconds,
        request_id: id.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_stream_and_what_it_holds_is_waited_for() {
    let node = Gateway::start_server("grpc-lock", CONFIG);
    let door = Door::of(&node);
    let (first, ask, mut news) = session(&door, "first").await;
    let lock = Want::Lock(WantLock::default());
    let granted = door.lock().acquire(acquire(&first, lock.clone(), 0.0, "1")).await.unwrap();
    let granted = granted.into_inner();
    ask.send(asked(Ask::Renew(RenewSession { sequence: 7 }))).await.unwrap();
    let renewed = loop {
        match next(&mut news).await.item {
            Some(News::Renewed(renewed)) => break renewed,
            // It may be told again what it holds.
            Some(News::Snapshot(_)) => (),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((renewed.sequence, renewed.ttl_seconds), (7, 30.0));

    let (second, ..) = session(&door, "second").await;
    let status = door.lock().acquire(acquire(&second, lock.clone(), 0.0, "1")).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::Aborted, "lock-busy"));
    let mut waits = door.lock();
    let waits = waits.acquire(acquire(&second, lock.clone(), 20.0, "2"));
    let released = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let release = LockReleaseRequest {
            credential: Some(first.clone()),
            area: LockArea::Lock.into(),
            namespace: "shop".to_owned(),
            name: "stock".to_owned(),
            token: granted.token,
            request_id: "r".to_owned(),
        };
        let unknown = LockReleaseRequest { area: 9, ..release.clone() };
        let status = door.lock().release(unknown).await.unwrap_err();
        assert_eq!((status.code(), code(&status)), (Code::InvalidArgument, "invalid-request"));
        door.lock().release(release).await.unwrap()
    };
    let (next_one, _) = tokio::join!(waits, released);
    assert!(granted.token < next_one.unwrap().into_inner().token, "tokens grow");

    let observe = LockObserveRequest { namespace: "shop".to_owned(), name: "stock".to_owned() };
    let mut leaders = door.lock().observe(observe).await.unwrap().into_inner();
    let Some(Led::Snapshot(nobody)) = next(&mut leaders).await.item else { panic!("none") };
    assert_eq!(nobody.leader, None);
    let lead = Want::Leadership(WantLeadership { value: "here".to_owned() });
    door.lock().acquire(acquire(&first, lead, 0.0, "3")).await.unwrap();
    let Some(Led::Change(leads)) = next(&mut leaders).await.item else { panic!("none") };
    assert_eq!(leads.leader.unwrap().value, "here");

    ask.send(asked(Ask::End(EndSession {}))).await.unwrap();
    let ended = loop {
        match next(&mut news).await.item {
            Some(News::Ended(ended)) => break ended,
            Some(News::Lost(_) | News::Snapshot(_)) => (),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ended.reason, "session-gone");
    assert_eq!(end(&mut news).await.code(), Code::Ok, "and then nothing");
    let Some(Led::Change(over)) = next(&mut leaders).await.item else { panic!("none") };
    assert_eq!(over.leader, None);
    let status = door.lock().acquire(acquire(&first, lock, 0.0, "4")).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::NotFound, "session-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_refused_beyond_as_many_as_there_may_be() {
    let config = format!("{CONFIG}[lock]\nsessions_max = 12\n");
    let node = Gateway::start_server("grpc-sessions", &config);
    let door = Door::of(&node);
    let mut opened = 0;
    let status = loop {
        let owner = SessionOwner { host: "h".to_owned(), pid: 1, name: "n".to_owned() };
        let open = OpenSession { ttl_seconds: 60.0, owner: Some(owner) };
        match door.lock().session(stream::iter([asked(Ask::Open(open))])).await {
            Ok(_session) => opened += 1,
            Err(status) => break status,
        }
        // The duties of the node itself are sessions, too.
        assert!(opened <= 12, "no limit");
    };
    assert_eq!((status.code(), code(&status)), (Code::ResourceExhausted, "sessions-full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_when_the_process_ends_and_it_ends_soon() {
    let mut node = Gateway::start_server("grpc-drain", CONFIG);
    let door = Door::of(&node);
    register(&door, "a").await;
    let (mut view, _) = follow(&door, WatchMode::View, None).await;
    next(&mut view).await;
    let (_first, _ask, mut news) = session(&door, "first").await;
    assert_eq!(node.counted("mainstay_control_streams_open ", ""), 2);
    node.signal(Signal::TERM);
    for status in [end(&mut view).await, end(&mut news).await] {
        assert_eq!((status.code(), code(&status)), (Code::Unavailable, "gateway-draining"));
        let after = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        let after: u64 = after.to_str().unwrap().parse().unwrap();
        assert!((500..1_000).contains(&after), "{after}");
    }
    assert!(node.ended().success(), "{}", node.log());
    assert_eq!(node.logged("are cut"), 0, "nobody had to be cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_hear_that_the_process_is_about_to_end_while_it_still_answers() {
    let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\ndrain_delay_seconds = 10\n";
    let mut node = Gateway::start_dev("grpc-health", &format!("{CONFIG}{gateway}"));
    let (channel, origin) = Door::with(&node, None).channel();
    let mut health = HealthClient::with_origin(channel, origin);
    let none = HealthCheckRequest { service: "none".to_owned() };
    let mut unknown = health.watch(none.clone()).await.unwrap().into_inner();
    assert_eq!(next(&mut unknown).await.status(), ServingStatus::ServiceUnknown);
    assert_eq!(health.check(none).await.unwrap_err().code(), Code::NotFound);
    let mut told = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(next(&mut told).await.status(), ServingStatus::Serving);
    node.signal(Signal::TERM);
    assert_eq!(next(&mut told).await.status(), ServingStatus::NotServing);
    let asked = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(asked.status(), ServingStatus::NotServing);
    node.signal(Signal::TERM);
    assert_eq!(end(&mut told).await.code(), Code::Ok);
    assert!(node.ended().success(), "{}", node.log());
}

#[test]
fn grpcio_with_the_contract_alone_works() {
    let node = Gateway::start_server("grpc-python", CONFIG);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("tests/grpc-clients");
    let (at, token) = node.door();
    let mut client = Command::new(python::python_of(&folder, "test-python-grpc"));
    client.arg(folder.join("client.py")).arg(here.join("../mainstay-api/proto"));
    client.args([at.to_string(), token.to_owned()]);
    beside_no_proxy(&mut client);
    ends_well(&mut client);
}
