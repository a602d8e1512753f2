//! What happens beside a call, by the real binary: copies, the affinity cookie, shedding.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use support::gateway::Gateway;
use support::wait::{pause, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// A service that answers with `status` after `delay`; what it is asked can be received.
fn service(status: u16, delay: Duration) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = asked.clone();
            thread::spawn(move || serve(stream, status, delay, &asked));
        }
    });
    (address, received)
}

fn serve(mut stream: TcpStream, status: u16, delay: Duration, asked: &Sender<String>) {
    let (mut got, mut part) = (String::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        got.push_str(&String::from_utf8_lossy(&part[..read]));
        // Bodies in these tests are announced, and end with a dot.
        let bodiless = !got.contains("content-length") || got.contains("content-length: 0\r\n");
        if (bodiless && got.ends_with("\r\n\r\n")) || got.ends_with('.') {
            drop(asked.send(std::mem::take(&mut got)));
            pause(delay);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\nok\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }
}

fn config(rest: &str) -> String {
    format!(
        "[server]\nlisten = '127.0.0.1:0'\n[gateway]\nlisten = ['127.0.0.1:0']\n\
         drain_delay_seconds = 0\naccess_log = {{ format = 'off' }}\n{rest}"
    )
}

/// Sends one request and returns the whole answer.
fn ask(to: SocketAddr, first: &str, rest: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{first} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{rest}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_mirrored_call_is_copied_once_and_never_hears_of_it() {
    let (real, asked) = service(200, Duration::ZERO);
    let (watched, copied) = service(500, Duration::ZERO);
    let gateway = Gateway::start(
        "mirror",
        &config(&format!(
            "[route.item]\nprefix = '/'\nto = 'item'\n\
             mirror = {{ service = 'next', methods = ['GET', 'POST'] }}\n\
             [upstream.item]\ninstances = ['{real}']\n[upstream.next]\ninstances = ['{watched}']\n"
        )),
    );
    for (first, rest) in [
        ("GET /item", "\r\n"),
        ("POST /item", "content-length: 6\r\n\r\nhello."),
        ("PUT /item", "\r\n"),
    ] {
        let answer = ask(gateway.address(0), first, rest);
        assert!(answer.starts_with("HTTP/1.1 200"), "{first}: {answer}");
        let original = asked.recv_timeout(PATIENCE).unwrap();
        assert!(original.starts_with(first) && !original.contains("mainstay-mirror"), "{original}");
        if first.starts_with("PUT") {
            continue;
        }
        let copy = copied.recv_timeout(PATIENCE).unwrap();
        assert!(copy.starts_with(first) && copy.contains("mainstay-mirror: 1"), "{copy}");
        assert_eq!(copy.ends_with("hello."), first.starts_with("POST"), "{copy}");
    }
    until("both are counted", PATIENCE, || {
        gateway.counted("mainstay_mirror_total", "result=\"sent\"") == 2
    });
    assert!(copied.try_recv().is_err(), "a copy is not repeated, and `PUT` is not copied");
    assert_eq!(gateway.counted("mainstay_retries_total", ""), 0);
}

#[test]
fn a_caller_comes_back_to_its_instance_by_the_cookie_it_was_given() {
    let services: Vec<_> = (0..4).map(|_| service(200, Duration::ZERO)).collect();
    let instances: Vec<String> = services.iter().map(|(at, _)| format!("'{at}'")).collect();
    let gateway = Gateway::start(
        "cookie",
        &config(&format!(
            "[route.item]\nprefix = '/'\nto = 'item'\n[upstream.item]\ninstances = [{}]\n\
             [upstream.item.balance]\nkind = 'ring_hash'\nhash = ['cookie:at']\n\
             affinity_cookie = {{ name = 'at' }}\n",
            instances.join(", ")
        )),
    );
    let asked = || services.iter().position(|(_, asked)| asked.try_recv().is_ok()).unwrap();
    for _ in 0..4 {
        let answer = ask(gateway.address(0), "GET /", "\r\n");
        let first = asked();
        let (_, cookie) = answer.split_once("set-cookie: ").expect(&answer);
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let answer = ask(gateway.address(0), "GET /", &format!("cookie: {pair}\r\n\r\n"));
            assert!(!answer.contains("set-cookie"), "{answer}");
            assert_eq!(asked(), first, "{pair}");
        }
    }
}

#[test]
fn a_machine_short_of_memory_sheds_what_is_not_critical() {
    let (slow, _asked) = service(200, Duration::from_millis(500));
    let gateway = Gateway::start(
        "shed",
        &config(&format!(
            "[system]\nmemory_percent_max = 0.001\n\
             [route.plain]\nprefix = '/plain'\nto = 'item'\n\
             [route.vital]\nprefix = '/vital'\nto = 'item'\npriority = 'critical'\n\
             [upstream.item]\ninstances = ['{slow}']\n"
        )),
    );
    until("the shortage is noticed", PATIENCE, || gateway.logged("machine overloaded") > 0);
    let at = gateway.address(0);
    let all = |first: &'static str| {
        let calls: Vec<_> =
            (0..12).map(|_| thread::spawn(move || ask(at, first, "\r\n"))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<String>>()
    };
    // What has shown nothing sheds nothing; one answer a second shows that it carries one call.
    assert!(ask(at, "GET /plain", "\r\n").starts_with("HTTP/1.1 200"));
    let is_shed = |answer: &&String| answer.contains("\"code\":\"shed\"");
    let mut plain = Vec::new();
    until("it knows what it carries", PATIENCE, || {
        plain = all("GET /plain");
        plain.iter().any(|answer| is_shed(&answer))
    });
    let shed = plain.iter().filter(is_shed).count();
    let served = plain.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert!(shed > 0 && served > 0 && shed + served == 12, "{shed} shed, {served} served");
    let refused = plain.iter().find(|answer| answer.contains("shed")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    for answer in all("GET /vital") {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
