//! Whatever comes as a token is read or refused, and nothing that no key has signed is believed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_core::moment::Moment;
use mainstay_security::jws::{Algorithm, KeySet, Origin, Token, Trust};

/// P-256's base point: a key that nobody can sign with who does not know that its number is one,
/// which the fuzzer does not.
const KEYS: &str = r#"{"keys":[{"kid":"a","kty":"EC","crv":"P-256",
    "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

fuzz_target!(|data: &[u8]| {
    let Ok(token) = Token::parse(data) else { return };
    let keys = KeySet::parse(KEYS.as_bytes(), Origin::Remote).expect("a key set");
    let trust = Trust::new("i", ["a"], Algorithm::ALL.iter().copied());
    let now = Moment::from_unix_millis(1_800_000_000_000);
    assert!(token.verify(&trust, &keys, now).is_err());
});
