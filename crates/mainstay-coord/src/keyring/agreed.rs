//! Which keys the nodes of one store seal with.
//!
//! The store lists them: the id of each, and a *check*, a keyed hash under the key itself that tells
//! nothing of it. A node that lacks one of them could not read what others seal, nor they what it
//! seals, so it must not go on.
//!
//! A key that was made while nodes run is *handed over*: it lies in the list sealed by the one that
//! was current then, and whoever has that one takes it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Key, Keyring, KeyringError, Label, Sealed, Secret};
use crate::keys;

/// The list, as the store has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Agreed {
    v: u32,
    /// The id of the key that seals.
    pub(super) current: String,
    /// The oldest in the list first.
    keys: Vec<Listed>,
    /// What a newer version wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Listed {
    id: String,
    created_unix_ms: u64,
    check: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handed: Option<Sealed>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Agreed {
    /// The first list of a store: what `keyring` has.
    pub(super) fn first(keyring: &Keyring) -> Self {
        let keys = keyring.keys.iter().map(|key| Listed::new(key, None)).collect();
        Self { v: 1, current: keyring.current().to_owned(), keys, rest: Map::new() }
    }

    /// Reads what [`write`](Agreed::write) wrote.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Damaged`].
    pub(super) fn read(value: &[u8]) -> Result<Self, KeyringError> {
        let damaged = |why| KeyringError::Damaged { why };
        let agreed: Self = serde_json::from_slice(value)
            .map_err(|_syntax| damaged("`meta/keyring` of the store is no list of keys"))?;
        if agreed.v != 1 {
            return Err(damaged("a newer version wrote `meta/keyring` of the store"));
        }
        if !agreed.has(&agreed.current) {
            return Err(damaged("`meta/keyring` of the store lists no current key"));
        }
        Ok(agreed)
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are JSON")
    }

    /// Whether the key `id` is in the list.
    pub(super) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|listed| listed.id == id)
    }

    /// The list with what `keyring` has besides, handed over by the current key; `None` when that
    /// is nothing. `keyring` has met this list.
    pub(super) fn with(&self, keyring: &Keyring) -> Option<Self> {
        let besides = keyring.keys.iter().filter(|key| !self.has(&key.id));
        let besides: Vec<Listed> = besides
            .map(|key| {
                let sealed = keyring.seal(Label::Keyring, &place(&key.id), &*key.secret);
                Listed::new(key, Some(sealed))
            })
            .collect();
        (!besides.is_empty()).then(|| {
            let mut more = self.clone();
            more.keys.extend(besides);
            more
        })
    }

    /// The list whose key `id` seals from now on.
    pub(super) fn led_by(&self, id: &str) -> Self {
        Self { current: id.to_owned(), ..self.clone() }
    }
}

impl Listed {
    fn new(key: &Key, handed: Option<Sealed>) -> Self {
        let (id, check) = (key.id.clone(), key.check());
        Self { id, created_unix_ms: key.created_unix_ms, check, handed, rest: Map::new() }
    }
}

impl Keyring {
    /// Takes the keys that `agreed` hands over, and seals with its current one from now on; whether
    /// that changes anything.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Differs`] when a key of the list is neither here nor handed over by one that
    /// is; [`KeyringError::Forged`] when what is handed over is something else. Nothing has changed.
    pub(super) fn meet(&mut self, agreed: &Agreed) -> Result<bool, KeyringError> {
        let mut met = self.clone();
        for listed in &agreed.keys {
            let differs = |why| KeyringError::Differs { id: listed.id.clone(), why };
            match met.keys.iter().find(|key| key.id == listed.id) {
                Some(key) if key.check() == listed.check => {}
                Some(_) => return Err(differs("has another key of this id")),
                None => {
                    let handed = listed.handed.as_ref().ok_or_else(|| differs("lacks a key"))?;
                    let taken = met.taken(listed, handed).map_err(|error| match error {
                        KeyringError::KeyMissing { .. } => differs("lacks a key"),
                        other => other,
                    })?;
                    met.keys.insert(0, taken);
                }
            }
        }
        let has_changed = met.keys.len() != self.keys.len() || met.current() != agreed.current;
        met.keys.sort_by_key(|key| key.id == agreed.current);
        *self = met;
        Ok(has_changed)
    }

    /// Makes a new key that does not seal yet, and returns its id.
    pub(super) fn stage(&mut self, unix_ms: u64) -> String {
        let key = Key::fresh(unix_ms);
        let id = key.id.clone();
        self.keys.insert(self.keys.len() - 1, key);
        id
    }

    fn taken(&self, listed: &Listed, handed: &Sealed) -> Result<Key, KeyringError> {
        let plain = self.open(Label::Keyring, &place(&listed.id), handed)?;
        let secret = <[u8; 32]>::try_from(&**plain).map_err(|_length| KeyringError::Forged)?;
        let secret: Secret = Zeroizing::new(secret);
        let (id, created_unix_ms) = (listed.id.clone(), listed.created_unix_ms);
        let key = Key { id, created_unix_ms, secret };
        if key.check() == listed.check { Ok(key) } else { Err(KeyringError::Forged) }
    }
}

/// What a key that is handed over is bound to.
fn place(id: &str) -> String {
    format!("{}/{id}", keys::keyring())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyring that knows what `other` does.
    fn beside(other: &Keyring) -> Keyring {
        other.clone()
    }

    #[test]
    fn a_key_made_by_one_node_is_taken_by_whoever_has_the_one_before() {
        let mut here = Keyring::fresh(1);
        let mut there = beside(&here);
        let mut stranger = Keyring::fresh(1);
        let first = Agreed::first(&here);
        assert_eq!(first.with(&here), None);
        let old = here.current().to_owned();
        let new = here.stage(2);
        assert_eq!(here.current(), old, "it does not seal yet");
        let handed = Agreed::read(&first.with(&here).unwrap().write()).unwrap();
        assert!(there.meet(&handed).unwrap());
        assert_eq!(there.current(), old);
        assert!(!there.meet(&handed).unwrap(), "once");
        let led = handed.led_by(&new);
        for keyring in [&mut here, &mut there] {
            assert!(keyring.meet(&led).unwrap());
            assert_eq!(keyring.current(), new);
        }
        let sealed = here.seal(Label::Config, "cfg/a", b"x");
        assert_eq!(&**there.open(Label::Config, "cfg/a", &sealed).unwrap(), b"x");
        let before = format!("{stranger:?}");
        assert!(matches!(stranger.meet(&led), Err(KeyringError::Differs { .. })));
        assert_eq!(format!("{stranger:?}"), before, "nothing was taken");
        assert!(
            !String::from_utf8(led.write())
                .unwrap()
                .contains(&crate::random::to_hex(&*here.keys.last().unwrap().secret))
        );
    }

    #[test]
    fn what_is_handed_over_under_another_id_or_changed_is_no_key() {
        let mut here = Keyring::fresh(1);
        let mut there = beside(&here);
        let first = Agreed::first(&here);
        here.stage(2);
        let handed = first.with(&here).unwrap();
        let mut moved = handed.clone();
        moved.keys[1].id = "0123456789abcdef".to_owned();
        assert!(matches!(there.meet(&moved), Err(KeyringError::Forged)));
        let mut bent = handed.clone();
        bent.keys[1].check = bent.keys[0].check.clone();
        assert!(matches!(there.meet(&bent), Err(KeyringError::Forged)));
        let mut other = handed;
        other.keys[0].check = other.keys[1].check.clone();
        let error = there.meet(&other).unwrap_err().to_string();
        assert!(error.contains("another key of this id"), "{error}");
    }

    #[test]
    fn keys_of_before_are_listed_beside_and_members_of_newer_versions_stay() {
        let here = Keyring::fresh(1);
        let mut joined = Keyring::fresh(2);
        let text = here.export("correct horse battery").unwrap();
        joined.import(&text, "correct horse battery").unwrap();
        let mut value: Value = serde_json::from_slice(&Agreed::first(&here).write()).unwrap();
        value["later"] = 7.into();
        let listed = Agreed::read(value.to_string().as_bytes()).unwrap();
        assert!(!joined.meet(&listed).unwrap(), "an import leaves the store's key current");
        let more = listed.with(&joined).unwrap();
        assert!(String::from_utf8(more.write()).unwrap().contains("\"later\":7"));
        let mut back = beside(&here);
        assert!(back.meet(&more).unwrap());
        assert_eq!(back.keys().count(), 2);
        assert_eq!(back.current(), here.current());
    }

    #[test]
    fn a_list_that_cannot_be_read_is_said_to_be_none() {
        for text in ["", "[]", "{\"v\":2,\"current\":\"a\",\"keys\":[]}", "{\"v\":1}"] {
            assert!(matches!(Agreed::read(text.as_bytes()), Err(KeyringError::Damaged { .. })));
        }
        let lost = "{\"v\":1,\"current\":\"a\",\"keys\":[]}";
        let error = Agreed::read(lost.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("no current key"), "{error}");
    }
}
