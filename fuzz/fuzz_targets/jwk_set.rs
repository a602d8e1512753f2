//! Whatever comes as a key set is read or refused; what is fetched never holds a shared key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_security::jws::{KEYS_MAX, KeySet, Origin};

fuzz_target!(|data: &[u8]| {
    let Ok(remote) = KeySet::parse(data, Origin::Remote) else { return };
    let local = KeySet::parse(data, Origin::Local).expect("the same bytes are a set of a file");
    assert!(remote.iter().count() <= local.iter().count());
    assert!(remote.iter().count() + remote.dropped().len() <= KEYS_MAX);
    for key in remote.iter() {
        assert!(key.algorithms().all(|algorithm| !algorithm.is_symmetric()));
        assert!(local.has(key.id()));
    }
});
