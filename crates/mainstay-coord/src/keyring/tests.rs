use std::fs;
use std::os::unix::fs::PermissionsExt;

use mainstay_core::problem::Code;

use super::*;

const PLACE: &str = "cfg/default/payment/rel/0000000001";

#[test]
fn what_is_sealed_opens_where_it_was_sealed_for_and_nowhere_else() {
    let mut keyring = Keyring::fresh(1);
    let sealed = keyring.seal(Label::Config, PLACE, b"data key");
    let opened = |keyring: &Keyring, label, place, sealed: &Sealed| {
        keyring.open(label, place, sealed).map(|plain| plain.to_vec()).ok()
    };
    let want = Some(b"data key".to_vec());
    assert_eq!(opened(&keyring, Label::Config, PLACE, &sealed), want);
    assert_eq!(opened(&keyring, Label::Config, "cfg/default/other", &sealed), None);
    assert_eq!(opened(&keyring, Label::ConfigName, PLACE, &sealed), None);
    for at in 0..sealed.text.len() {
        let mut bent = sealed.clone();
        let digit = if bent.text.as_bytes()[at] == b'0' { "1" } else { "0" };
        bent.text.replace_range(at..=at, digit);
        assert_eq!(opened(&keyring, Label::Config, PLACE, &bent), None, "digit {at}");
    }
    assert_eq!(opened(&Keyring::fresh(1), Label::Config, PLACE, &sealed), None);

    let old = keyring.current().to_owned();
    keyring.rotate(2);
    assert_ne!(keyring.current(), old);
    assert_eq!(opened(&keyring, Label::Config, PLACE, &sealed), want, "a retired key opens");
    assert_eq!(keyring.seal(Label::Config, PLACE, b"").key, keyring.current());
    let current = keyring.current().to_owned();
    assert!(keyring.forget(&current).is_err(), "the current key stays");
    keyring.forget(&old).unwrap();
    let error = keyring.open(Label::Config, PLACE, &sealed).unwrap_err();
    assert_eq!(error.code(), Code::SecretUnreadable);
    assert_eq!(error.to_string(), format!("keyring has no key {old}"));
}

#[test]
fn keys_are_derived_as_rfc_5869_says() {
    // Worked out with Python's hmac module: HKDF with an empty salt is HMAC under zeroes, then
    // HMAC(prk, label ‖ 0x01).
    let derived = derive(&[7; 32], Label::Config);
    assert_eq!(random::to_hex(&*derived), EXPECTED);
}

const EXPECTED: &str = "cd32b1aa2d3912cc08ce17b38057ec4bef21bef15cba49ce04fd88fa4ef9d404";

#[test]
fn a_name_depends_on_every_part_and_where_it_ends() {
    let keyring = Keyring::fresh(1);
    let name = |parts: &[&[u8]]| keyring.mac(Label::ConfigName, parts);
    assert_eq!(name(&[b"ab", b"c"]), name(&[b"ab", b"c"]));
    assert_ne!(name(&[b"ab", b"c"]), name(&[b"a", b"bc"]));
    assert_ne!(name(&[b"ab"]), Keyring::fresh(1).mac(Label::ConfigName, &[b"ab"]));
}

#[test]
fn the_file_is_private_and_a_wider_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring");
    let file = KeyringFile::new(&path);
    assert!(file.open().unwrap().is_none());
    let keyring = file.open_or_create(1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(file.open_or_create(2).unwrap().current(), keyring.current());
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = file.open().unwrap_err();
        assert_eq!(error.code(), Code::KeyringOpen, "{mode:o}");
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside it");
    assert!(!format!("{keyring:?}").contains(&random::to_hex(&*keyring.keys[0].secret)));
}

#[test]
fn a_rotated_keyring_is_written_and_read_back_with_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyringFile::new(folder.path().join("keyring"));
    let mut keyring = file.open_or_create(1).unwrap();
    let sealed = keyring.seal(Label::Config, PLACE, b"x");
    keyring.rotate(2);
    file.save(&keyring).unwrap();
    let back = file.open().unwrap().unwrap();
    assert_eq!(back.current(), keyring.current());
    assert_eq!(back.keys().count(), 2);
    assert!(back.open(Label::Config, PLACE, &sealed).is_ok());
    fs::write(folder.path().join("keyring"), "{\"v\":1,\"keys\":[]}").unwrap();
    assert_eq!(file.open().unwrap_err().code(), Code::KeyringUnreadable);
}

#[test]
fn a_wrapped_file_opens_with_its_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring");
    let wrapped = KeyringFile::new(&path).wrapped_with(vec![1; 32]);
    let keyring = wrapped.open_or_create(1).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&random::to_hex(&*keyring.keys[0].secret)));
    assert_eq!(wrapped.open().unwrap().unwrap().current(), keyring.current());
    let other = KeyringFile::new(&path).wrapped_with(vec![2; 32]);
    assert!(matches!(other.open(), Err(KeyringError::WrongKey)));
    assert!(KeyringFile::new(&path).open().is_err());
}

#[test]
fn an_exported_keyring_is_taken_in_by_another_node() {
    let mut here = Keyring::fresh(1);
    here.rotate(2);
    let sealed = here.seal(Label::Config, PLACE, b"x");
    assert!(here.export("short").is_err());
    let text = here.export("correct horse battery").unwrap();
    let mut there = Keyring::fresh(1);
    let own = there.seal(Label::Config, PLACE, b"y");
    assert!(matches!(there.import(&text, "correct horse"), Err(KeyringError::WrongKey)));
    assert_eq!(there.import(&text, "correct horse battery").unwrap(), 2);
    assert_eq!(there.current(), here.current());
    assert!(there.open(Label::Config, PLACE, &sealed).is_ok());
    assert!(there.open(Label::Config, PLACE, &own).is_ok(), "its own key is kept");
    assert_eq!(there.import(&text, "correct horse battery").unwrap(), 0, "again, nothing is new");
    assert!(there.import("{}", "correct horse battery").is_err());
}
