//! `settings show --origin`: every value in force, and which layer it comes from.

use super::spans::Place;
use super::tree::{Node, Value};

/// Endings of keys whose values are never shown. `-` counts as `_`.
const SECRET_ENDINGS: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "credential",
    "api_key",
    "authorization",
    "cookie",
];

/// What stands in place of a secret.
pub const HIDDEN: &str = "***";

/// Whether the value of `key` is never shown.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    // The cookie by which a caller stays with an instance is set by us, for everybody to see.
    key != "affinity_cookie" && SECRET_ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// One value in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// Its path, `limit.order-api.max`.
    pub path: String,
    /// The value as TOML, or `***`.
    pub value: String,
    /// Where it stands: `conf.d/20-b.toml:4`.
    pub origin: String,
    /// Where earlier layers say otherwise, latest first.
    pub over: Vec<String>,
}

/// Every value of `root` in order of paths.
pub fn values(root: &Node) -> Vec<Shown> {
    let mut shown = Vec::new();
    root.each_leaf("", &mut |path, node| {
        shown.push(Shown {
            path: path.to_owned(),
            value: if path.split('.').any(is_secret) { HIDDEN.to_owned() } else { inline(node) },
            origin: node.at.brief(),
            over: node.hidden.iter().rev().map(Place::brief).collect(),
        });
    });
    shown
}

/// One line a value; with `origin`, where each comes from.
pub fn lines(root: &Node, origin: bool) -> String {
    let mut out = String::new();
    for Shown { path, value, origin: place, over } in values(root) {
        let comment = match (origin, over.is_empty()) {
            (false, _) => String::new(),
            (true, true) => format!("  # {place}"),
            (true, false) => format!("  # {place}, over {}", over.join(", ")),
        };
        out.extend([&path, " = ", &value, &comment, "\n"]);
    }
    out
}

/// The value as TOML would have it on one line.
fn inline(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Integer(i) => i.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Text(text) => format!("{:?}", without_password(text)),
        Value::List(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let entries = table.iter().map(|(name, inner)| {
                let value = if is_secret(name) { HIDDEN.to_owned() } else { inline(inner) };
                format!("{name} = {value}")
            });
            let entries = entries.collect::<Vec<_>>().join(", ");
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {entries} }}") }
        }
    }
}

/// `scheme://user:word@host` with the password hidden.
fn without_password(text: &str) -> String {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user_info, _host) = authority.rsplit_once('@')?;
        let (user, _password) = user_info.split_once(':')?;
        let after = rest.strip_prefix(user_info)?;
        Some(format!("{scheme}://{user}:{HIDDEN}{after}"))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_hidden() {
        let cases = [
            ("http://a:b@host/x", "http://a:***@host/x"),
            ("http://host/x@y:z", "http://host/x@y:z"),
            ("plain", "plain"),
        ];
        for (given, want) in cases {
            assert_eq!(without_password(given), want);
        }
    }

    #[test]
    fn secrets_are_known_by_the_end_of_their_key() {
        for key in ["password", "db_password", "api-key", "Set-Cookie", "token"] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["key", "token_file", "keys_max", "ring_key"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
