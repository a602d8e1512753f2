//! What is shown of a secret.

use std::fmt;

use aws_lc_rs::hmac;
use serde_json::Value;

use crate::random;

/// Turns secrets into marks by which equal ones can be told, and nothing else.
///
/// A mark is `***` and the first eight hexadecimal digits of HMAC-SHA-256 of the value. Without the
/// key nobody can try values against it.
#[derive(Clone)]
pub struct Mask(hmac::Key);

impl Mask {
    /// Masks under `key`: the audit key, the same on every node.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The mark of `secret`. A text is marked as its bytes, anything else as its JSON.
    pub fn mark(&self, secret: &Value) -> String {
        let bytes = match secret {
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        let tag = hmac::sign(&self.0, &bytes);
        format!("***{}", random::to_hex(tag.as_ref().get(..4).unwrap_or_default()))
    }

    /// `value` with everything at `paths` marked. A path is members separated by `/`; `*` stands
    /// for each member or element.
    pub fn masked(&self, mut value: Value, paths: &[&str]) -> Value {
        for path in paths {
            self.mask_at(&mut value, &path.split('/').collect::<Vec<_>>());
        }
        value
    }

    fn mask_at(&self, value: &mut Value, path: &[&str]) {
        let Some((member, rest)) = path.split_first() else {
            // Nothing is no secret.
            if !value.is_null() {
                *value = Value::String(self.mark(value));
            }
            return;
        };
        let is_meant = |name: &str| *member == "*" || *member == name;
        match value {
            Value::Object(members) => members
                .iter_mut()
                .filter(|(name, _)| is_meant(name))
                .for_each(|(_, value)| self.mask_at(value, rest)),
            Value::Array(elements) if *member == "*" => {
                for value in elements {
                    self.mask_at(value, rest);
                }
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mark_is_the_start_of_the_hmac() {
        // RFC 4231, test case 2.
        let mask = Mask::new(b"Jefe");
        assert_eq!(mask.mark(&json!("what do ya want for nothing?")), "***5bdcc146");
    }

    #[test]
    fn only_what_is_meant_is_masked() {
        let mask = Mask::new(b"k");
        let value = json!({"url": "u", "token": "t", "hooks": [{"secret": 7}, {"secret": null}]});
        let masked = mask.masked(value, &["token", "hooks/*/secret", "nowhere/*"]);
        assert_eq!(
            masked,
            json!({
                "url": "u",
                "token": mask.mark(&json!("t")),
                "hooks": [{"secret": mask.mark(&json!(7))}, {"secret": null}]
            })
        );
    }

    proptest! {
        /// Whatever the secret: the mark holds nothing of it but its equality.
        #[test]
        fn a_secret_is_not_in_its_mark(secret in "[g-z]{4,40}", other in "[g-z]{4,40}") {
            let mask = Mask::new(b"key");
            let masked = mask.masked(json!({"a": {"s": secret}}), &["a/s"]).to_string();
            prop_assert!(!masked.contains(&secret));
            let (one, two) = (mask.mark(&json!(secret)), mask.mark(&json!(other)));
            prop_assert_eq!(one == two, secret == other);
        }
    }
}
