//! An upstream against peers that behave, and against those that do not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "transport_support/support.rs"]
mod support;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use mainstay_call::CallError;
use mainstay_proxy::upstream::{Protocol, Upstream, UpstreamSettings};
use mainstay_resilience::{Congestion, Failure};
use support::{OK, frame, get, head, local, peer, repeat, text, upstream};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

const LOST: Failure = Failure::Congestion(Congestion::Lost { sent: true });

fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Failed { failure, .. } => *failure,
        CallError::Refused(refusal) => panic!("refused: {refusal:?}"),
        CallError::Denied(problem) => panic!("denied: {problem:?}"),
    }
}

/// A peer that plays `script` to its only connection makes a call fail as `want`.
#[track_caller]
fn check<F, R>(script: F, want: Failure)
where
    F: Fn(TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    local(async move {
        let address = peer(move |_, tcp| script(tcp)).await;
        let upstream = upstream(address, UpstreamSettings::default());
        let got = match get(&upstream).await {
            Ok(response) => match response.into_body().collect().await {
                Ok(_) => panic!("answered"),
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert_eq!(failure(&got), want, "{got:?}");
        assert_eq!(upstream.connections(), 0, "a broken connection was kept");
    });
}

#[test]
fn a_connection_is_used_again() {
    local(async {
        let opened = Rc::new(Cell::new(0));
        let seen = Rc::clone(&opened);
        let address = peer(move |number, tcp| {
            seen.set(number + 1);
            repeat(tcp, OK)
        });
        let upstream = upstream(address.await, UpstreamSettings::default());
        for _ in 0..10 {
            assert_eq!(text(get(&upstream).await.unwrap()).await, "ok");
        }
        assert_eq!((opened.get(), upstream.connections(), upstream.idle()), (1, 1, 1));
    });
}

#[test]
fn a_body_of_any_framing_gives_its_connection_back() {
    let chunked: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let empty: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    for (answer, want) in [(OK, "ok"), (chunked, "ok"), (empty, "")] {
        local(async move {
            let upstream = upstream(
                peer(move |_, tcp| repeat(tcp, answer)).await,
                UpstreamSettings::default(),
            );
            for _ in 0..3 {
                assert_eq!(text(get(&upstream).await.unwrap()).await, want);
                assert_eq!((upstream.connections(), upstream.idle()), (1, 1), "{want:?}");
            }
        });
    }
}

#[test]
fn a_long_body_streams_and_a_dropped_one_closes() {
    local(async {
        let long = vec![b'x'; 3_000_000];
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n".to_vec();
        answer.extend_from_slice(&long);
        let answer: &'static [u8] = answer.leak();
        let upstream =
            upstream(peer(move |_, tcp| repeat(tcp, answer)).await, UpstreamSettings::default());
        let response = get(&upstream).await.unwrap();
        assert_eq!(text(response).await.len(), long.len());
        assert_eq!((upstream.connections(), upstream.idle()), (1, 1));
        let response = get(&upstream).await.unwrap();
        drop(response);
        assert_eq!((upstream.connections(), upstream.idle()), (0, 0));
    });
}

#[test]
fn a_connection_that_closed_while_idle_is_replaced_unseen() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            head(&mut tcp).await.unwrap();
            tcp.write_all(OK).await.unwrap(); // And closes, without a word.
        });
        let upstream = upstream(address.await, UpstreamSettings::default());
        for _ in 0..3 {
            assert_eq!(text(get(&upstream).await.unwrap()).await, "ok");
            tokio::time::sleep(Duration::from_millis(20)).await; // The end of stream arrives.
        }
    });
}

#[test]
fn nobody_listens() {
    local(async {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let upstream = upstream(address, UpstreamSettings::default());
        let error = get(&upstream).await.unwrap_err();
        assert_eq!(failure(&error), Failure::ConnectFailed { identity: false }, "{error:?}");
        assert_eq!(upstream.connections(), 0);
    });
}

#[test]
fn a_name_that_is_none() {
    local(async {
        let upstream: Upstream<Full<Bytes>> =
            Upstream::new("no-such-host.invalid:80", Arc::default());
        let error = get(&upstream).await.unwrap_err();
        assert_eq!(failure(&error), Failure::ConnectFailed { identity: false }, "{error:?}");
    });
}

#[test]
fn a_peer_that_does_not_take_the_connection_in_time() {
    local(async {
        // A queue for one, filled: further connections get no answer.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let settings = UpstreamSettings {
            connect_timeout: Duration::from_millis(50),
            ..UpstreamSettings::default()
        };
        let upstream = upstream(address, settings);
        let error = get(&upstream).await.unwrap_err();
        assert_eq!(failure(&error), Failure::ConnectTimeout, "{error:?}");
    });
}

#[test]
fn a_connection_lost_before_the_head() {
    check(|mut tcp| async move { drop(head(&mut tcp).await) }, LOST);
    let partial = |mut tcp: TcpStream| async move {
        drop(head(&mut tcp).await);
        tcp.write_all(b"HTTP/1.1 200 O").await.unwrap();
    };
    check(partial, LOST);
    let reset = |mut tcp: TcpStream| async move {
        drop(head(&mut tcp).await);
        tcp.set_zero_linger().unwrap();
    };
    check(reset, LOST);
}

/// What a peer that answers `answer` and closes makes of a call.
#[track_caller]
fn check_answer(answer: &'static str, want: Failure) {
    let script = move |mut tcp: TcpStream| async move {
        drop(head(&mut tcp).await);
        tcp.write_all(answer.as_bytes()).await.unwrap();
    };
    check(script, want);
}

#[test]
fn an_answer_that_is_none() {
    check_answer("SSH-2.0-OpenSSH_9.2\r\n\r\n", Failure::Malformed);
    check_answer("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", Failure::Malformed);
    check_answer("HTTP/1.1 101 Switching Protocols\r\n\r\n", Failure::Malformed);
    check_answer(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
        Failure::Malformed,
    );
}

#[test]
fn an_answer_that_breaks_off() {
    check_answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", Failure::Truncated);
    check_answer(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok",
        Failure::Truncated,
    );
}

#[test]
fn a_head_that_is_too_long() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            drop(head(&mut tcp).await);
            let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
            drop(tcp.write_all(long.as_bytes()).await);
            std::future::pending::<()>().await;
        });
        let upstream = upstream(address.await, UpstreamSettings::default());
        let error = get(&upstream).await.map(drop).unwrap_err();
        assert_eq!(failure(&error), Failure::Malformed, "{error:?}");
    });
}

#[test]
fn a_write_that_stalls() {
    local(async {
        let address = peer(|_, tcp| async move {
            let _kept = tcp;
            std::future::pending::<()>().await;
        });
        let settings =
            UpstreamSettings { stall: Duration::from_millis(50), ..UpstreamSettings::default() };
        let upstream = upstream(address.await, settings);
        let body = Full::from(vec![b'x'; 64 << 20]);
        let error =
            upstream.clone().call(Request::post("/").body(body).unwrap()).await.unwrap_err();
        assert_eq!(failure(&error), Failure::Congestion(Congestion::WriteStalled), "{error:?}");
    });
}

#[test]
fn at_the_limit_calls_wait_in_order_and_one_too_many_is_refused() {
    local(async {
        let address = peer(|_, mut tcp| async move {
            for number in 0.. {
                if head(&mut tcp).await.is_none() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let settings =
            UpstreamSettings { connections_max: 1, pending_max: 3, ..UpstreamSettings::default() };
        let upstream = upstream(address.await, settings);
        let mut calls = Vec::new();
        for _ in 0..4 {
            let call = get(&upstream);
            let order = calls.len();
            calls.push((order, Box::pin(call)));
        }
        for (_, call) in &mut calls {
            assert!(poll_once(call.as_mut()).await.is_none());
        }
        let error = get(&upstream).await.unwrap_err();
        assert_eq!(failure(&error), Failure::Congestion(Congestion::PoolExhausted));
        drop(calls.remove(1)); // Gives up its place; nobody behind it notices.
        for (position, (order, call)) in calls.into_iter().enumerate() {
            let got = text(call.await.unwrap()).await;
            assert_eq!(got, position.to_string(), "call {order}");
        }
        assert_eq!((upstream.connections(), upstream.idle()), (1, 1));
    });
}

#[test]
fn a_call_given_up_with_a_connection_in_hand_hands_it_on() {
    local(async {
        let address = peer(|_, tcp| repeat(tcp, OK)).await;
        let settings = UpstreamSettings { connections_max: 1, ..UpstreamSettings::default() };
        let upstream = upstream(address, settings);
        let held = get(&upstream).await.unwrap(); // Whole: its connection is free already.
        assert_eq!(upstream.idle(), 1);
        let mut first = Box::pin(get(&upstream));
        let mut second = Box::pin(get(&upstream));
        let mut third = Box::pin(get(&upstream));
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(poll_once(second.as_mut()).await.is_none());
        assert!(poll_once(third.as_mut()).await.is_none());
        drop(first); // In use: closes, and its slot goes to the second.
        drop(second); // Granted, and not yet polled: goes on to the third.
        assert_eq!(text(third.await.unwrap()).await, "ok");
        drop(held);
        assert_eq!(upstream.connections(), 1);
    });
}

/// One poll of `future`, with the waker of the test.
async fn poll_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Serves HTTP/2 on `tcp` and plays `script` to each stream, given its number.
async fn h2_peer<F, R>(tcp: TcpStream, streams_max: u32, script: F)
where
    F: Fn(usize, h2::server::SendResponse<Bytes>) -> R,
    R: Future<Output = ()> + 'static,
{
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.max_concurrent_streams(streams_max).handshake(tcp).await.unwrap();
    let mut number = 0;
    while let Some(Ok((_request, respond))) = connection.accept().await {
        tokio::task::spawn_local(script(number, respond));
        number += 1;
    }
}

fn over_http2() -> UpstreamSettings {
    UpstreamSettings { protocol: Protocol::Http2, ..UpstreamSettings::default() }
}

#[test]
fn http2_shares_a_connection_and_opens_another_when_it_is_full() {
    local(async {
        let opened = Rc::new(Cell::new(0));
        let seen = Rc::clone(&opened);
        let address = peer(move |number, tcp| {
            seen.set(number + 1);
            h2_peer(tcp, 4, |_, mut respond| async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                respond.send_response(http::Response::new(()), true).unwrap();
            })
        });
        let upstream = upstream(address.await, over_http2());
        drop(get(&upstream).await.unwrap()); // The peer's settings are known from here on.
        let mut calls = Vec::new();
        for _ in 0..8 {
            let upstream = upstream.clone();
            calls.push(tokio::task::spawn_local(async move { get(&upstream).await.unwrap() }));
        }
        for call in calls {
            assert_eq!(call.await.unwrap().status(), 200);
        }
        assert_eq!(opened.get(), 2);
    });
}

#[test]
fn a_refused_stream_is_unprocessed_and_others_are_lost() {
    let cases = [
        (h2::Reason::REFUSED_STREAM, Failure::Unprocessed),
        (h2::Reason::INTERNAL_ERROR, LOST),
        (h2::Reason::CANCEL, LOST),
    ];
    for (reason, want) in cases {
        local(async move {
            let address = peer(move |_, tcp| {
                h2_peer(tcp, 10, move |_, mut respond| async move { respond.send_reset(reason) })
            });
            let upstream = upstream(address.await, over_http2());
            let error = get(&upstream).await.unwrap_err();
            assert_eq!(failure(&error), want, "{error:?}");
        });
    }
}

#[test]
fn a_stream_above_a_goaway_is_unprocessed_one_below_is_lost() {
    // GOAWAY: the last stream id that may have been processed, then NO_ERROR.
    for (last, want) in [(0_u32, Failure::Unprocessed), (1, LOST)] {
        local(async move {
            let address = peer(move |_, mut tcp| async move {
                tcp.write_all(&frame(4, 0, 0, &[])).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await; // The request is here.
                let mut payload = last.to_be_bytes().to_vec();
                payload.extend_from_slice(&0_u32.to_be_bytes());
                tcp.write_all(&frame(7, 0, 0, &payload)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            });
            let upstream = upstream(address.await, over_http2());
            let error = get(&upstream).await.unwrap_err();
            assert_eq!(failure(&error), want, "last stream {last}: {error:?}");
        });
    }
}

#[test]
fn an_http2_body_that_breaks_off() {
    local(async {
        let address = peer(|_, tcp| {
            h2_peer(tcp, 10, |_, mut respond| async move {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                body.send_reset(h2::Reason::INTERNAL_ERROR);
            })
        });
        let upstream = upstream(address.await, over_http2());
        let response = get(&upstream).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(failure(&error), Failure::Truncated, "{error:?}");
    });
}

#[test]
fn a_peer_that_makes_no_room_for_an_http2_body() {
    local(async {
        let address = peer(|_, tcp| async move {
            let mut builder = h2::server::Builder::new();
            let opening = builder.initial_window_size(0).handshake::<_, Bytes>(tcp);
            let mut connection = opening.await.unwrap();
            let kept = connection.accept().await; // Its body is never given room.
            drop(std::future::poll_fn(|cx| connection.poll_closed(cx)).await);
            drop(kept);
        });
        let stall = Duration::from_millis(200);
        let upstream = upstream(address.await, UpstreamSettings { stall, ..over_http2() });
        let body = Full::new(Bytes::from(vec![b'x'; 100_000]));
        let request = Request::post("/x").body(body).unwrap();
        let error = upstream.clone().call(request).await.unwrap_err();
        let want = Failure::Congestion(Congestion::WriteStalled);
        assert_eq!(failure(&error), want, "{error:?}");
        // Nobody is waited for who has nothing to send.
        let answer = tokio::time::timeout(3 * stall, get(&upstream)).await;
        assert!(answer.is_err(), "{answer:?}");
    });
}
