//! What routes, keys and rewrites may know of a request.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, Method};

/// A request as routes see it. Everything is borrowed: looking at a request costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// `Host` or `:authority` as it came; port, letter case and one trailing dot do not matter.
    pub host: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path in the one form that is judged: canonical, without parameters and doubled slashes.
    pub path: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// What follows the first `?`, undecoded.
    pub query: Option<&'a str>,
    /// Right-most address that is not one of our own proxies.
    pub client: IpAddr,
}

impl<'a> View<'a> {
    /// The host without port and without the dot that marks a name as absolute. `[::1]:80` gives
    /// `[::1]`. Letter case is as it came.
    pub fn hostname(&self) -> &'a str {
        // A host is short: byte by byte is faster than a search that is made for long texts.
        let place = |byte| self.host.bytes().position(|b| b == byte);
        let end =
            if self.host.starts_with('[') { place(b']').map(|at| at + 1) } else { place(b':') };
        let name = end.and_then(|end| self.host.get(..end)).unwrap_or(self.host);
        name.strip_suffix('.').unwrap_or(name)
    }

    /// Every value of the query parameter `name`, decoded once.
    ///
    /// Pairs are split at `&` only, `+` is a space, and a parameter without `=` has the empty
    /// value. Decoding copies only where there is something to decode.
    pub fn query_values<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = Cow<'a, str>> + use<'a, 'n> {
        self.query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .filter(move |(key, _)| Decoded::new(key).eq(name.bytes()))
            .map(|(_, value)| decode(value))
    }

    /// Every value of the cookie `name`, as sent.
    pub fn cookie_values<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = Cow<'a, str>> + use<'a, 'n> {
        self.headers
            .get_all(http::header::COOKIE)
            .into_iter()
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| Cow::Borrowed(value))
    }
}

fn decode(raw: &str) -> Cow<'_, str> {
    if raw.bytes().any(|b| matches!(b, b'%' | b'+')) {
        let bytes: Vec<u8> = Decoded::new(raw).collect();
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    } else {
        Cow::Borrowed(raw)
    }
}

/// The bytes of a query name or value with `%XX` and `+` undone; a broken triplet stands for
/// itself.
struct Decoded<'a>(&'a [u8]);

impl<'a> Decoded<'a> {
    fn new(raw: &'a str) -> Self {
        Self(raw.as_bytes())
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let &[b'%', high, low, ref rest @ ..] = self.0
            && let Some(byte) = triplet(high, low)
        {
            self.0 = rest;
            return Some(byte);
        }
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(if byte == b'+' { b' ' } else { byte })
    }
}

/// The byte that `%` and two hexadecimal digits stand for.
pub(crate) fn triplet(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(host: &'a str, query: &'a str, headers: &'a HeaderMap) -> View<'a> {
        let client = IpAddr::from([127, 0, 0, 1]);
        View { host, method: &Method::GET, path: "/", headers, query: Some(query), client }
    }

    #[test]
    fn a_hostname_has_no_port_and_no_last_dot() {
        let headers = HeaderMap::new();
        for (host, want) in [
            ("shop.example", "shop.example"),
            ("shop.example:8080", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example.:443", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(view(host, "", &headers).hostname(), want, "{host}");
        }
    }

    #[test]
    fn query_values_are_decoded_once() {
        let headers = HeaderMap::new();
        for (query, want) in [
            ("a=1&b=2&a=3", vec!["1", "3"]),
            ("a", vec![""]),
            ("%61=x%20y+z%2Bw", vec!["x y z+w"]),
            ("a=%2541", vec!["%41"]),
            ("a=1;a=2", vec!["1;a=2"]),
            ("a=%zz", vec!["%zz"]),
            ("A=1", vec![]),
        ] {
            let got: Vec<_> = view("", query, &headers).query_values("a").collect();
            assert_eq!(got, want, "{query}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "x=1; session=abc==;y=2".parse().expect("legal"));
        headers.append("cookie", "session=d".parse().expect("legal"));
        let view = view("", "", &headers);
        assert_eq!(view.cookie_values("session").collect::<Vec<_>>(), ["abc==", "d"]);
        assert_eq!(view.cookie_values("Session").count(), 0);
    }
}
