//! Random bytes from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(more) => done += more,
            // A signal came before the kernel had gathered enough, early at boot.
            Err(error) => assert!(error == rustix::io::Errno::INTR, "no random bytes: {error}"),
        }
    }
    bytes
}

/// `N` random bytes in hexadecimal.
pub(crate) fn hex<const N: usize>() -> String {
    to_hex(&bytes::<N>())
}

/// `bytes` in hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("a nibble is below 16");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A number from 0 to 1, 1 excluded.
pub(crate) fn share() -> f64 {
    let [a, b, c, d] = bytes::<4>();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(bytes::<16>(), bytes::<16>());
        assert_eq!(hex::<8>().len(), 16);
        assert_eq!(to_hex(&[0, 171]), "00ab");
    }
}
