use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Method;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use mainstay_resilience::Failure;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::runtime::{Builder, LocalOptions};

use super::*;

type Ends = Arc<Mutex<Vec<&'static str>>>;

/// A caller's body of given parts; one that is `None` breaks off.
#[derive(Debug, Default)]
struct Upload {
    parts: VecDeque<Option<Bytes>>,
    announced: u64,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let part = self.parts.pop_front();
        Poll::Ready(part.map(|part| part.map(Frame::data).ok_or("broke off")))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.announced);
        hint
    }
}

/// How the watched service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answers,
    Refuses,
    Dawdles,
}

/// The watched service: notes what it gets.
#[derive(Clone, Debug)]
struct Next {
    manner: Manner,
    got: Rc<RefCell<Vec<Request<Full<Bytes>>>>>,
}

impl Service<Request<Full<Bytes>>> for Next {
    type Response = Response<Full<Bytes>>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.got.borrow_mut().push(request);
        let manner = self.manner;
        Box::pin(async move {
            match manner {
                Manner::Answers => Ok(Response::new(Full::from("dropped"))),
                Manner::Refuses => Err(Failure::ConnectFailed { identity: false }.into()),
                Manner::Dawdles => std::future::pending().await,
            }
        })
    }
}

struct Bench {
    mirrors: Arc<Mirrors>,
    next: Next,
    ends: Ends,
}

impl Bench {
    fn new(manner: Manner) -> Self {
        let ends = Ends::default();
        let heard = Arc::clone(&ends);
        let mirrors = Mirrors::new(move |end| heard.lock().push(end.as_str()));
        Self { mirrors, next: Next { manner, got: Rc::default() }, ends }
    }

    fn copy(&self, body: Upload) -> Request<Tee<Upload>> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = "/orders/7?x=1".parse().unwrap();
        request.headers_mut().insert("x-user", HeaderValue::from_static("ann"));
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        request.extensions_mut().insert("shared with stages");
        self.mirrors.copy(request, self.next.clone())
    }

    fn ends(&self) -> String {
        self.ends.lock().join(" ")
    }
}

fn upload(parts: &[Option<&str>]) -> Upload {
    let parts = parts.iter().map(|part| part.map(|text| Bytes::from(text.to_owned())));
    Upload { parts: parts.collect(), announced: 0 }
}

/// Runs `test` on a worker's runtime in test time.
fn local<T>(test: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    builder.build_local(LocalOptions::default()).expect("a runtime").block_on(test)
}

/// Lets the tasks run and time pass.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

/// Checks what becomes of the copy of a request with `parts` that the primary reads to its end.
#[track_caller]
fn check(manner: Manner, parts: &[Option<&str>], end: &str, copied: Option<&str>) {
    local(async {
        let bench = Bench::new(manner);
        let original = bench.copy(upload(parts));
        assert!(original.headers().get(MIRROR_HEADER).is_none(), "the call itself is not marked");
        let read = original.into_body().collect().await;
        assert_eq!(read.is_ok(), !parts.contains(&None), "what the primary sees is unchanged");
        settle().await;
        assert_eq!(bench.ends(), end, "{parts:?}");
        assert_eq!(bench.mirrors.in_flight(), 0);
        let got = bench.next.got.take();
        assert_eq!(got.len(), usize::from(copied.is_some()), "sent once");
        for copy in got {
            assert_eq!((copy.method(), copy.uri().path()), (&Method::PUT, "/orders/7"));
            assert_eq!([&copy.headers()[MIRROR_HEADER], &copy.headers()["x-user"]], ["1", "ann"]);
            assert!(copy.headers().get(TRANSFER_ENCODING).is_none());
            assert!(copy.extensions().is_empty(), "it shares nothing with the call");
            let body = copy.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(Some(std::str::from_utf8(&body).unwrap()), copied);
        }
    });
}

#[test]
fn a_copy_is_sent_once_and_its_answer_dropped() {
    use Manner::{Answers, Dawdles, Refuses};
    let (full, over) = ("x".repeat(BODY_BYTES_MAX), "x".repeat(BODY_BYTES_MAX + 1));
    check(Answers, &[], "sent", Some(""));
    check(Answers, &[Some("ab"), Some(""), Some("cd"), Some("e")], "sent", Some("abcde"));
    check(Refuses, &[], "failed", Some(""));
    check(Dawdles, &[Some("a")], "timed-out", Some("a"));
    check(Answers, &[Some(&full)], "sent", Some(&full));
    check(Answers, &[Some(&over)], "too-large", None);
    check(Answers, &[Some(&full), Some("y"), Some("z")], "too-large", None);
    check(Answers, &[Some("ab"), None], "incomplete", None);
}

#[test]
fn what_is_known_to_be_too_large_or_an_upgrade_is_not_kept_at_all() {
    local(async {
        let bench = Bench::new(Manner::Answers);
        let announced = BODY_BYTES_MAX as u64 + 1;
        let body = Upload { announced, ..upload(&[Some("a")]) };
        drop(bench.copy(body));
        assert_eq!((bench.ends().as_str(), bench.mirrors.in_flight()), ("too-large", 0));
        let mut upgrade = Request::new(upload(&[]));
        upgrade.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        drop(bench.mirrors.copy(upgrade, bench.next.clone()));
        settle().await;
        assert_eq!((bench.ends().as_str(), bench.next.got.borrow().len()), ("too-large", 0));
    });
}

#[test]
fn a_call_given_up_half_way_leaves_no_copy_behind() {
    local(async {
        let bench = Bench::new(Manner::Answers);
        let mut half = bench.copy(upload(&[Some("ab"), Some("cd")]));
        assert!(half.body_mut().frame().await.is_some());
        assert_eq!(bench.mirrors.in_flight(), 1);
        drop(half);
        settle().await;
        assert_eq!((bench.ends().as_str(), bench.mirrors.in_flight()), ("incomplete", 0));
    });
}

#[test]
fn copies_over_the_cap_are_dropped_and_counted() {
    local(async {
        let bench = Bench::new(Manner::Dawdles);
        for _ in 0..IN_FLIGHT_MAX + 3 {
            drop(bench.copy(upload(&[])));
        }
        assert_eq!((bench.ends().as_str(), bench.mirrors.in_flight()), ("over over over", 100));
        settle().await;
        assert_eq!(bench.next.got.borrow().len(), IN_FLIGHT_MAX);
        assert_eq!((bench.ends.lock().len(), bench.mirrors.in_flight()), (IN_FLIGHT_MAX + 3, 0));
        drop(bench.copy(upload(&[])));
        assert_eq!(bench.mirrors.in_flight(), 1, "there is room again");
    });
}

#[test]
fn a_worker_that_ends_forgets_no_copy() {
    let bench = local(async {
        let bench = Bench::new(Manner::Dawdles);
        drop(bench.copy(upload(&[])));
        tokio::task::yield_now().await;
        bench
    });
    assert_eq!((bench.ends().as_str(), bench.mirrors.in_flight()), ("failed", 0));
}

#[test]
fn a_body_that_is_being_copied_can_be_sent_upstream() {
    fn sendable<B: crate::upstream::RequestBody>() {}
    sendable::<Tee<Full<Bytes>>>();
}

proptest! {
    /// However a body is cut into parts, its own service gets all of it, and the copy the same.
    #[test]
    fn a_copy_is_the_same_however_it_came(
        lengths in prop::collection::vec(0usize..20_000, 0..8),
    ) {
        let parts: VecDeque<_> =
            (0u8..).zip(&lengths).map(|(n, &l)| Some(Bytes::from(vec![n; l]))).collect();
        let whole: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
        let (read, got) = local(async move {
            let bench = Bench::new(Manner::Answers);
            let original = bench.copy(Upload { parts, announced: 0 });
            let read = original.into_body().collect().await.unwrap().to_bytes();
            settle().await;
            let copy = bench.next.got.borrow_mut().pop();
            let got = match copy {
                Some(copy) => Some(copy.into_body().collect().await.unwrap().to_bytes()),
                None => None,
            };
            (read, got)
        });
        prop_assert_eq!(&read, &whole);
        prop_assert_eq!(got, (whole.len() <= BODY_BYTES_MAX).then_some(read));
    }
}
