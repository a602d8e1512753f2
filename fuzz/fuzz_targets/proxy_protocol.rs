//! Whatever stands before a connection, it is a header or none, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::proxy_protocol::parse;

fuzz_target!(|input: &[u8]| {
    parse(input);
    let Ok(length) = u16::try_from(input.len().saturating_sub(2)) else { return };
    let [command, family, rest @ ..] = input else { return };
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    parse(&[&signature[..], &[*command, *family], &length.to_be_bytes(), rest].concat());
});
