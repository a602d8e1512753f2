//! The PROXY protocol, version 2: a proxy in front says whose connection it passes on.
//!
//! A header of bytes stands before all else on the connection, TLS included
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Only those are listened to whose
//! word counts, and they must send one: to guess whether there is one would let a client write its
//! own.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header that is read, in bytes: addresses take 52, and what load balancers of today add
/// a few hundred.
pub const HEADER_BYTES_MAX: usize = 4_096;

/// What every header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses: the signature, version and command, family and protocol, and
/// the length of the rest.
const FIRST_BYTES: usize = 16;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// That of a client.
    Client {
        /// Its address.
        from: SocketAddr,
        /// Where it connected to.
        to: SocketAddr,
    },
    /// The proxy's own, such as a check of health, or one of which it knows no address.
    Own,
}

/// Reads the header in front of what `stream` brings, and no byte more; `None` when it is none.
///
/// # Errors
///
/// What reading came to.
///
/// # Cancel safety
///
/// Not safe: what was read is lost.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Announced>> {
    let mut header = vec![0; FIRST_BYTES];
    stream.read_exact(&mut header).await?;
    // Told apart before more is waited for: what is not announced may be a short request.
    if !header.starts_with(SIGNATURE) {
        return Ok(None);
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if HEADER_BYTES_MAX - FIRST_BYTES < rest {
        return Ok(None);
    }
    header.resize(FIRST_BYTES + rest, 0);
    stream.read_exact(&mut header[FIRST_BYTES..]).await?;
    Ok(parse(&header))
}

/// What `header` says; `None` when it is not well formed, or tells of datagrams.
pub fn parse(header: &[u8]) -> Option<Announced> {
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _length) = ProxyHeader::parse(header, config).ok()?;
    match header.proxied_address() {
        None => Some(Announced::Own),
        Some(both) if both.protocol == Protocol::Datagram => None,
        Some(both) => Some(Announced::Client { from: both.source, to: both.destination }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const IPV4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0xC0, 0x00, 0x01, 0xBB];

    fn client() -> Announced {
        let from = ([203, 0, 113, 7], 49_152).into();
        Announced::Client { from, to: ([10, 0, 0, 1], 443).into() }
    }

    #[test]
    fn a_header_says_whose_connection_it_is() {
        assert_eq!(parse(&header(0x21, 0x11, &IPV4)), Some(client()));
        let unique_id = [&IPV4[..], &[0x05, 0, 2, 0xAB, 0xCD]].concat();
        assert_eq!(
            parse(&header(0x21, 0x11, &unique_id)),
            Some(client()),
            "additions are passed over"
        );
        let ipv6 = [[0x20; 16], [0xFD; 16]].concat();
        let ipv6 = [&ipv6[..], &[0, 80, 0x1F, 0x90]].concat();
        let from = ([0x2020; 8], 80).into();
        let to = ([0xFDFD; 8], 8_080).into();
        assert_eq!(parse(&header(0x21, 0x21, &ipv6)), Some(Announced::Client { from, to }));
        for (command, family, rest) in
            [(0x20, 0x00, &[][..]), (0x20, 0x11, &IPV4), (0x21, 0x00, &[]), (0x21, 0x31, &[7; 216])]
        {
            let parsed = parse(&header(command, family, rest));
            assert_eq!(parsed, Some(Announced::Own), "{command:x} {family:x}");
        }
    }

    #[test]
    fn what_is_not_well_formed_says_nothing() {
        for (what, bytes) in [
            ("version 1", header(0x11, 0x11, &IPV4)),
            ("no such command", header(0x22, 0x11, &IPV4)),
            ("no such family", header(0x21, 0x41, &IPV4)),
            ("datagrams", header(0x21, 0x12, &IPV4)),
            ("an address cut short", header(0x21, 0x11, &IPV4[..11])),
            ("text", b"PROXY TCP4 203.0.113.7 10.0.0.1 49152 443\r\n".to_vec()),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(parse(&bytes), None, "{what}");
        }
    }

    #[tokio::test]
    async fn not_a_byte_is_read_that_is_not_its_own() {
        let mut stream: &[u8] = &[&header(0x21, 0x11, &IPV4)[..], b"GET"].concat();
        assert_eq!(read(&mut stream).await.unwrap(), Some(client()));
        assert_eq!(stream, b"GET");
        let mut request: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(read(&mut request).await.unwrap(), None);
        let mut long: &[u8] = &header(0x21, 0x11, &[0; HEADER_BYTES_MAX - 15]);
        assert_eq!(read(&mut long).await.unwrap(), None);
        let mut short: &[u8] = SIGNATURE;
        assert!(read(&mut short).await.is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            parse(&header(0x21, 0x11, &bytes));
            parse(&header(0x21, 0x21, &bytes));
        }
    }
}
