//! Passes interim answers (1xx) of a service on to the client, over HTTP/1 on both sides.
//!
//! An interim head comes up in the exchange with the upstream, far below the connection that it
//! is for, and nothing on the way between the two has a word for it. But both are polled by one
//! task, one inside the other: so a connection says while it polls the application that it
//! listens, and the exchange hands the head to whoever does. A call without interim answers pays
//! for setting one cell around its polls.
//!
//! Over HTTP/2 they are lost on either side: hyper neither shows nor sends them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    /// Whose application is being polled.
    static CURRENT: RefCell<Option<Rc<Interim>>> = const { RefCell::new(None) };
}

/// Interim heads on their way to one client.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    waiting: RefCell<Vec<u8>>,
    /// Something is waiting; a look costs nothing.
    any: Cell<bool>,
}

/// Heads that wait for one client at once, in bytes; further ones are lost, as they may be.
const WAITING_MAX: usize = 16_384;

impl Interim {
    /// Appends what waits to `out`.
    #[inline]
    pub(crate) fn move_to(&self, out: &mut Vec<u8>) {
        if self.any.replace(false) {
            out.append(&mut self.waiting.borrow_mut());
        }
    }
}

/// Polls something on behalf of a client that takes interim answers.
pub(crate) fn listening<R>(client: &Rc<Interim>, poll: impl FnOnce() -> R) -> R {
    /// Whoever was polled before is again, also after a panic.
    struct Restore(Option<Rc<Interim>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(Rc::clone(client))));
    poll()
}

/// An interim head, whole and well formed, has come for whoever is polled.
#[cold]
pub(crate) fn pass(head: &[u8]) {
    CURRENT.with_borrow(|current| {
        let Some(client) = current else { return };
        let mut waiting = client.waiting.borrow_mut();
        if waiting.len() + head.len() <= WAITING_MAX {
            forward(head, &mut waiting);
            client.any.set(true);
        }
    });
}

/// Writes `head` to `out` without what concerns only its connection (RFC 9110, section 7.6.1).
fn forward(head: &[u8], out: &mut Vec<u8>) {
    let lines = || head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let field = |line: &'_ [u8]| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((line[..colon].to_ascii_lowercase(), line[colon + 1..].to_ascii_lowercase()))
    };
    let fields = || lines().skip(1).filter_map(field);
    let named: Vec<Vec<u8>> = fields()
        .filter(|(name, _)| name == b"connection")
        .flat_map(|(_, value)| {
            let names = value.split(|&byte| byte == b',').map(|name| name.trim_ascii().to_vec());
            names.collect::<Vec<_>>()
        })
        .collect();
    let own = |name: &[u8]| {
        HOP_BY_HOP.iter().any(|own| own.as_bytes() == name) || named.iter().any(|own| own == name)
    };
    // The version is that of whoever sends the message; behind it all is as it came.
    out.extend_from_slice(b"HTTP/1.1");
    out.extend_from_slice(lines().next().and_then(|line| line.get(8..)).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    for line in lines().skip(1) {
        if field(line).is_some_and(|(name, _)| !own(&name)) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields of one connection, and of the framing of a message that has no body.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_passed_on_without_what_concerns_its_connection() {
        let client = Rc::new(Interim::default());
        pass(b"HTTP/1.1 103 Early Hints\r\nlink: </lost>\r\n\r\n"); // Nobody is polled.
        let head =
            b"HTTP/1.0 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-own\r\n\
            X-Own: 1\r\nKeep-Alive: 5\r\n\r\n";
        listening(&client, || pass(head));
        let mut out = b"before ".to_vec();
        client.move_to(&mut out);
        client.move_to(&mut out);
        let want = "before HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let client = Rc::new(Interim::default());
        listening(&client, || {
            for _ in 0..1_000 {
                pass(b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n");
            }
        });
        assert!(client.waiting.borrow().len() <= WAITING_MAX);
    }
}
