use std::sync::LazyLock;
use std::time::Duration;

use mainstay_core::moment::Moment;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// What `tests/vectors/make.py` has made, with other libraries.
#[derive(Deserialize)]
struct Vectors {
    now: u64,
    keys: Vec<serde_json::Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    token: String,
    /// `ok`, or the part that refuses.
    want: String,
    /// In place of those for all cases.
    keys: Option<Vec<serde_json::Value>>,
    algorithms: Option<Vec<String>>,
    origin: Option<String>,
    max_life_seconds: Option<u64>,
    leeway_seconds: Option<u64>,
}

fn vectors() -> &'static Vectors {
    static VECTORS: LazyLock<Vectors> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).expect("vectors")
    });
    &VECTORS
}

/// All keys there are, of a file.
fn all_keys() -> &'static KeySet {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| key_set(&vectors().keys, Origin::Local));
    &KEYS
}

fn key_set(keys: &[serde_json::Value], origin: Origin) -> KeySet {
    let text = serde_json::json!({ "keys": keys }).to_string();
    KeySet::parse(text.as_bytes(), origin).expect("a key set")
}

fn trust(algorithms: impl IntoIterator<Item = Algorithm>) -> Trust {
    Trust::new("https://id.example", ["others", "orders"], algorithms)
}

fn verify(token: &[u8], trust: &Trust, keys: &KeySet, now: u64) -> Result<Verified, Refused> {
    let now = Moment::from_unix_millis(now * 1_000);
    Token::parse(token).and_then(|token| token.verify(trust, keys, now))
}

impl Case {
    fn verdict(&self, all: &Vectors) -> Result<Verified, Refused> {
        let origin = if self.origin.is_some() { Origin::Remote } else { Origin::Local };
        let keys = key_set(self.keys.as_ref().unwrap_or(&all.keys), origin);
        let mut trust = match &self.algorithms {
            None => trust(Algorithm::ALL.iter().copied()),
            Some(names) => trust(names.iter().filter_map(|name| Algorithm::parse(name))),
        };
        trust.max_life = self.max_life_seconds.map(Duration::from_secs);
        trust.leeway = self.leeway_seconds.map_or(LEEWAY, Duration::from_secs);
        verify(self.token.as_bytes(), &trust, &keys, all.now)
    }
}

#[test]
fn every_forgery_is_refused_by_the_part_that_is_for_it() {
    let all = vectors();
    let mut wrong = Vec::new();
    for case in &all.cases {
        let got = case.verdict(all);
        let part = got.as_ref().map_or_else(|refused| refused.part().as_str(), |_| "ok");
        if part != case.want {
            wrong.push(format!("{}: want {}, got {part} ({:?})", case.name, case.want, got.err()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.cases.len(), wrong.join("\n"));
    assert!(250 < all.cases.len());
}

#[test]
fn what_a_good_token_says_is_told() {
    let all = vectors();
    let case = all.cases.iter().find(|case| case.name == "ES256 is taken").expect("it is there");
    let verified = case.verdict(all).expect("it is good");
    assert_eq!(verified.subject.as_deref(), Some("ada"));
    assert_eq!(verified.expires.unix_millis(), (all.now + 600) * 1_000);
    assert_eq!(verified.claims.get("aud").and_then(Value::as_text), Some("orders"));
    assert!(all_keys().has(verified.key));
    assert!(!key_set(&all.keys[..1], Origin::Local).has(verified.key));
}

/// The token is a secret until it has expired, so a refusal must not repeat it.
#[test]
fn no_refusal_repeats_the_token() {
    let all = vectors();
    for case in &all.cases {
        let Err(refused) = case.verdict(all) else { continue };
        let said = format!("{refused} {refused:?}");
        for word in case.token.split(|c: char| !c.is_ascii_alphanumeric()) {
            assert!(word.len() < 8 || !said.contains(word), "{}: {said}", case.name);
        }
    }
}

#[test]
fn a_set_says_which_keys_it_dropped_and_keeps_the_others() {
    let all = vectors();
    let private = serde_json::json!({"kty": "EC", "kid": "p", "crv": "P-256", "d": "AA"});
    let mut keys = all.keys.clone();
    keys.extend([private, serde_json::json!(1), serde_json::json!({"kty": "EC"})]);
    let set = key_set(&keys, Origin::Remote);
    let dropped: Vec<_> =
        set.dropped().iter().map(|key| (key.place, key.kid.as_deref(), key.why)).collect();
    assert_eq!(
        dropped,
        [
            (2, Some("shared"), Unusable::SharedRemote),
            (6, Some("p"), Unusable::Private),
            (7, None, Unusable::NoObject),
            (8, None, Unusable::Kind),
        ]
    );
    assert_eq!(set.iter().count(), 5);
}

#[test]
fn what_is_no_key_set_is_refused_as_a_whole() {
    let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 65].join(","));
    let long = format!(r#"{{"keys":[],"x":"{}"}}"#, "y".repeat(SET_BYTES_MAX));
    for (text, want) in [
        ("", SetInvalid::Json),
        ("<html>", SetInvalid::Json),
        ("[]", SetInvalid::Json),
        (r#"{"keys":[],"keys":[]}"#, SetInvalid::Json),
        ("{}", SetInvalid::NoKeys),
        (r#"{"keys":{}}"#, SetInvalid::NoKeys),
        (&many, SetInvalid::TooMany),
        (&long, SetInvalid::TooLong),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes(), Origin::Remote).err(), Some(want));
    }
}

/// Keys do not show what they are made of: a shared one would be lost by a debug line.
#[test]
fn a_key_does_not_show_its_numbers() {
    let all = vectors();
    let shown = format!("{:?}", key_set(&all.keys, Origin::Local));
    for key in &all.keys {
        for number in ["n", "x", "y", "k"] {
            let Some(number) = key[number].as_str() else { continue };
            assert!(!shown.contains(number), "{shown}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// One byte changed, added or left out anywhere: never believed.
    #[test]
    fn no_altered_token_is_believed(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        how in 0_u8..4,
        byte in any::<u8>(),
    ) {
        let all = vectors();
        let good: Vec<&Case> = all.cases.iter().filter(|case| case.name.ends_with("taken")).collect();
        let case = which.get(&good);
        let mut token = case.token.clone().into_bytes();
        let at = at.index(token.len());
        match how {
            0 => token[at] = byte,
            1 => token.insert(at, byte),
            2 => drop(token.remove(at)),
            _ => token.truncate(at),
        }
        prop_assume!(token != case.token.as_bytes());
        let trust = trust(Algorithm::ALL.iter().copied());
        let verdict = verify(&token, &trust, all_keys(), all.now);
        prop_assert!(verdict.is_err(), "{}: {}", case.name, String::from_utf8_lossy(&token));
    }
}

proptest! {
    /// Any bytes are a token or are refused, and so are any as a key set.
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _refused = Token::parse(&bytes);
        let _refused = KeySet::parse(&bytes, Origin::Local);
    }

    /// What base64url decodes is encoded to the same text again.
    #[test]
    fn one_text_is_one_sequence_of_bytes(text in "[A-Za-z0-9_-]{0,40}") {
        use base64::Engine as _;
        if let Some(bytes) = base64url(text.as_bytes()) {
            prop_assert_eq!(URL_SAFE_NO_PAD.encode(bytes), text);
        }
    }
}
