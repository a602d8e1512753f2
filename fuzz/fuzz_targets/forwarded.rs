//! Whatever a client says in `Forwarded` and `X-Forwarded-For`, the hop that we write ourselves is
//! the one that is read.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mainstay_proxy::forwarded::{Arrival, Mode, TrustedProxies, client_address, elements, write};
use mainstay_proxy::header::Scribe;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        drop(elements(text));
    }
    let Ok(said) = HeaderValue::from_bytes(input) else { return };
    let (ours, client) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(9, 8, 7, 6)));
    let trusted = TrustedProxies::new(vec![ours.into()]);
    for mode in [Mode::X, Mode::Rfc7239, Mode::Both] {
        let mut headers = HeaderMap::new();
        headers.insert("forwarded", said.clone());
        headers.insert("x-forwarded-for", said.clone());
        // An insider may say what it likes, and never makes anything panic.
        client_address(ours, &headers, &trusted, mode);
        let arrival = Arrival { peer: client, proto: "http", host: "a:80", port: 80 };
        write(&mut headers, arrival, &trusted, mode, &mut Scribe::new());
        assert_eq!(client_address(ours, &headers, &trusted, mode), client);
    }
});
