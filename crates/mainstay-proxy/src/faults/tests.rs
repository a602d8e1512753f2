use std::convert::Infallible;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use mainstay_call::context::Facts;
use mainstay_resilience::fault::RawFault;
use proptest::prelude::*;

use super::*;

/// A body of given parts that does not know its length.
#[derive(Clone, Debug)]
struct Parts(Vec<Bytes>, bool);

impl Body for Parts {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))))
    }

    fn is_end_stream(&self) -> bool {
        self.1 && self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Answers 200 with `0123456789` at once, and counts how often.
#[derive(Clone, Debug, Default)]
struct Peer(Arc<AtomicU32>);

impl Service<Request<()>> for Peer {
    type Response = Response<Parts>;
    type Error = CallError;
    type Future = std::future::Ready<Result<Response<Parts>, CallError>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let parts = ["0123", "456789"].map(Bytes::from);
        std::future::ready(Ok(Response::new(Parts(parts.into(), false))))
    }
}

fn policy(rest: &str) -> FaultPolicy {
    let text = format!("match = {{ service = 'order' }}\nreason = 'test'\n{rest}");
    toml::from_str::<RawFault>(&text).expect("a fault").try_into().expect("a legal fault")
}

struct Bench {
    book: Arc<FaultBook>,
    peer: Peer,
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Bench {
    fn new() -> Self {
        let told = Arc::<Mutex<Vec<&'static str>>>::default();
        let heard = Arc::clone(&told);
        Self {
            book: FaultBook::new(move |kind| heard.lock().push(kind)),
            peer: Peer::default(),
            told,
        }
    }

    /// What one attempt by route `shop` comes to within a minute, and after how many seconds.
    async fn send(&self) -> String {
        let place = Place {
            service: "order".into(),
            instance: "order-1".into(),
            connect: Duration::from_secs(1),
        };
        let mut service = Faulty::new(Arc::clone(&self.book), Arc::new(place), self.peer.clone());
        let began = MonotonicClock.now();
        let facts = Facts { route: Some("shop".into()), ..Facts::default() };
        let context = Context::new(began, facts);
        let mut request = Request::new(());
        request.headers_mut().insert("x-try", HeaderValue::from_static("yes"));
        request.extensions_mut().insert(Arc::clone(&context));
        let answer = tokio::time::timeout(Duration::from_mins(1), async {
            match service.call(request).await {
                Ok(response) => read(response).await,
                Err(error) => failed(&error),
            }
        });
        let said = answer.await.unwrap_or_else(|_elapsed| "silence".to_owned());
        let took = MonotonicClock.now().since(began).as_millis();
        let seconds = format!("{}.{}", took / 1_000, took / 100 % 10);
        format!("{said} noted={} in {seconds} s", context.fault().unwrap_or("-"))
    }
}

async fn read(response: Response<FaultyBody<Parts>>) -> String {
    let (head, mut body) = response.into_parts();
    let header = |name| head.headers.get(name).map_or("-", |value| value.to_str().unwrap());
    let mut said = format!("{} {}", head.status.as_u16(), header("mainstay-fault"));
    if head.headers.contains_key("grpc-status") {
        said = format!("{said} grpc {}", header("grpc-status"));
        assert!(body.is_end_stream(), "trailers-only");
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => {
                assert!(body.frame().await.is_none(), "it is over after an error");
                return format!(
                    "{said} {:?} {}",
                    String::from_utf8(bytes).unwrap(),
                    failed(&error)
                );
            }
        }
    }
    format!("{said} {:?}", String::from_utf8(bytes).unwrap())
}

fn failed(error: &CallError) -> String {
    let source = std::error::Error::source(error).expect("a source");
    let Injected(kind) = source.downcast_ref().expect("an injected one");
    format!("{} {} ({kind})", error.code(), error.effect().as_str())
}

/// Checks what an attempt comes to under the fault written `fault`.
#[track_caller]
fn check(fault: &str, want: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (met, told, asked) = runtime.block_on(async {
        let bench = Bench::new();
        bench.book.set(policy(fault), MonotonicClock.now()).expect("room");
        let met = bench.send().await;
        let told = bench.told.lock().clone();
        (met, told, bench.peer.0.load(Ordering::Relaxed))
    });
    assert_eq!(met, want, "{fault}");
    let kinds: Vec<_> = want.split(" noted=").nth(1).unwrap().split(' ').take(1).collect();
    assert_eq!(told, kinds, "{fault} is counted once");
    let never_sent = ["abort", "reset", "blackhole", "connect_timeout"];
    assert_eq!(asked, u32::from(!never_sent.contains(&kinds[0])), "{fault}");
}

#[test]
fn a_fault_is_met_as_if_it_were_real() {
    check("fault = { delay = { seconds = 2 } }", "200 delay \"0123456789\" noted=delay in 2.0 s");
    check("fault = { abort = { status = 503 } }", "503 abort \"\" noted=abort in 0.0 s");
    check("fault = { abort = { grpc = 14 } }", "200 abort grpc 14 \"\" noted=abort in 0.0 s");
    check("fault = 'reset'", "network-congestion unknown (reset) noted=reset in 0.0 s");
    check("fault = 'blackhole'", "silence noted=blackhole in 60.0 s");
    check(
        "fault = 'connect_timeout'",
        "connect-timeout none (connect_timeout) noted=connect_timeout in 1.0 s",
    );
    check(
        "fault = { slow_body = { bytes_per_second = 5 } }",
        "200 slow_body \"0123456789\" noted=slow_body in 2.0 s",
    );
    check(
        "fault = { truncate = { after_bytes = 6 } }",
        "200 truncate \"012345\" response-truncated unknown (truncate) noted=truncate in 0.0 s",
    );
    check(
        "fault = { truncate = {} }",
        "200 truncate \"\" response-truncated unknown (truncate) noted=truncate in 0.0 s",
    );
    // A body that is over before has nothing left to break off.
    check(
        "fault = { truncate = { after_bytes = 11 } }",
        "200 truncate \"0123456789\" noted=truncate in 0.0 s",
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_by_itself_and_then_costs_one_load() {
    let bench = Bench::new();
    let untouched = "200 - \"0123456789\" noted=- in 0.0 s";
    assert!(bench.book.is_empty());
    assert_eq!(bench.send().await, untouched);
    let set = |text| bench.book.set(policy(text), MonotonicClock.now()).expect("room");
    set("fault = 'reset'\nttl_seconds = 30");
    assert!(bench.send().await.starts_with("network-congestion"));
    tokio::time::advance(Duration::from_secs(20)).await;
    let left = bench.book.list(MonotonicClock.now());
    assert_eq!(left[0].1, Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(!bench.book.is_empty(), "nobody has looked yet");
    assert_eq!(bench.send().await, untouched);
    assert!(bench.book.is_empty(), "the first attempt after its end took it out");

    let id = set("fault = 'reset'");
    set("fault = 'blackhole'");
    let now = MonotonicClock.now();
    assert!(bench.book.clear(id, now) && !bench.book.clear(id, now));
    assert_eq!((bench.book.is_empty(), bench.book.clear_all(now)), (false, 1));
    assert!(bench.book.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fault_meets_only_those_it_is_for() {
    for (condition, meets) in [
        ("route = 'shop'", true),
        ("route = 'other'", false),
        ("instance = 'order-1'", true),
        ("instance = 'order-2'", false),
        ("header = { name = 'X-Try', value = 'yes' }", true),
        ("header = { name = 'X-Try', value = 'no' }", false),
        ("service = 'stock'", false),
    ] {
        let bench = Bench::new();
        let text = format!("match = {{ {condition} }}\nreason = 'x'\nfault = 'reset'");
        let raw: RawFault = toml::from_str(&text).expect(condition);
        bench.book.set(raw.try_into().expect(condition), MonotonicClock.now()).expect("room");
        assert_eq!(bench.send().await.contains("noted=reset"), meets, "{condition}");
    }
}

#[tokio::test]
async fn a_body_known_to_be_over_is_not_cut() {
    let cut = FaultKind::Truncate { after_bytes: 2 };
    let body = FaultyBody::changed(Parts(vec![Bytes::from_static(b"ab")], true), cut);
    assert_eq!(body.collect().await.expect("whole").to_bytes(), "ab");
    let none = FaultyBody::changed(Parts(Vec::new(), true), FaultKind::Truncate { after_bytes: 0 });
    assert!(none.is_end_stream());
}

proptest! {
    /// A slow body loses nothing, changes nothing, and never gets ahead of its speed.
    #[test]
    fn a_slow_body_is_whole_and_slow(
        lengths in prop::collection::vec(0usize..400, 0..8),
        bytes_per_second in 1u64..5_000,
    ) {
        let kind = FaultKind::SlowBody { bytes_per_second: bytes_per_second.try_into().unwrap() };
        let parts: Vec<_> = (0u8..).zip(&lengths).map(|(n, &l)| Bytes::from(vec![n; l])).collect();
        let whole = parts.concat();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let ahead = runtime.block_on(async move {
            let began = MonotonicClock.now();
            let mut body = FaultyBody::changed(Parts(parts, true), kind);
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                got.extend_from_slice(&frame.unwrap().into_data().unwrap());
                let millis = MonotonicClock.now().since(began).as_millis() + 1;
                // A tenth of a second's worth may be on the way.
                let most = (millis + 100) * u128::from(bytes_per_second) / 1_000 + 1;
                if most < got.len() as u128 {
                    return Some(got.len());
                }
            }
            (got != whole).then_some(0)
        });
        prop_assert_eq!(ahead, None);
    }
}

/// What a fault needs stands behind a pointer, so that a call without one does not carry it.
#[test]
fn the_plain_path_is_small() {
    type Inner = std::future::Ready<Result<Response<Parts>, Infallible>>;
    let plain = size_of::<Inner>();
    let whole = size_of::<FaultyFuture<Peer, Inner, ()>>();
    assert!(whole <= plain + 64, "{whole} for {plain}");
}
