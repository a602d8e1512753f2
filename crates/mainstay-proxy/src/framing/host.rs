//! The syntax of an authority.

use std::net::Ipv6Addr;

/// Whether `text` is a host with an optional port and nothing else: no user part, path, list,
/// percent sign or empty port.
///
/// Narrower than RFC 3986 section 3.2.2, which lets sub-delimiters and percent triplets into a
/// name: no name that resolves has them, and proxies disagree on what they mean.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|&b| b == b':' || b == b']') {
        Some(at) if text[at] == b':' => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    is_name(host) && port.is_none_or(is_port)
}

fn is_name(host: &[u8]) -> bool {
    if let Some(inner) = host.strip_prefix(b"[") {
        let address = inner.strip_suffix(b"]").and_then(|inner| std::str::from_utf8(inner).ok());
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    !host.is_empty() && host.iter().all(legal)
}

fn is_port(port: &[u8]) -> bool {
    let number = port.iter().fold(0_u32, |n, b| n.saturating_mul(10) + u32::from(b & 0x0F));
    (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
        && (1..=65_535).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_address_with_an_optional_port() {
        for good in ["a", "a.b-c_d.", "10.0.0.1:80", "[::1]", "[fe80::1]:65535", "xn--e1afmkfd"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:000080",
            "a:8o",
            "u@a",
            "a/b",
            "a,b",
            "a b",
            "[::1",
            "::1",
            "[fe80::1%25lo]",
            "[::1]x",
            "a%2e",
            "a:80:80",
            "[1.2.3.4]",
            "a\u{e9}",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
