//! Which texts make up the configuration, and in which order they are laid.
//!
//! Defaults, then the main file, then `conf.d/*` beside it in byte order of names, then
//! `MAINSTAY_SECTION__KEY`, then flags: later wins. Everything is read at one moment into one
//! [`Layers`], so that validation, reload and the watcher speak of the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::problem::Code;

use super::parse::{self, Language};
use super::schema::{Child, Schema, Shape};
use super::spans::{Place, Text};
use super::tree::{Node, Value};
use crate::report::Report;

/// Largest file read: a configuration of 10,000 routes is about 2 MiB, and more than four times
/// that is a mistake, such as a log file in `conf.d`.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What all variables of ours begin with.
const PREFIX: &str = "MAINSTAY_";

/// Variables with the prefix that are no settings, but are read elsewhere.
const OTHER_VARIABLES: [&str; 5] = [
    "MAINSTAY_ADDR",
    "MAINSTAY_CONTEXT",
    "MAINSTAY_CHROMIUM",
    "MAINSTAY_DIST_STRICT",
    "MAINSTAY_LOG",
];

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The main file, and beside it `conf.d/`.
    pub file: Option<PathBuf>,
    /// Whether the main file was named by the user, and so must exist.
    pub required: bool,
    /// The environment, as given to the process.
    pub environment: Vec<(String, String)>,
    /// Flags that set a key: flag, path of the key, value.
    pub flags: Vec<(String, String, String)>,
}

/// All layers as read, lowest first.
#[derive(Debug, Default)]
pub struct Layers {
    /// One tree a file.
    pub files: Vec<Node>,
    /// Faults found while reading.
    pub faults: Vec<Report>,
}

impl Sources {
    /// The files there are at this moment, in order: the main file, then `conf.d/*`. The main file
    /// is listed even when it does not exist.
    ///
    /// # Errors
    ///
    /// When `conf.d` exists and cannot be listed.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        match fs::read_dir(self.drop_in_folder().unwrap_or_default()) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    // `..data` and `..2026_01_02…` of a mounted ConfigMap, `.swp`, `#x#`, `x~`.
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let hidden = name.starts_with(['.', '#']) || name.ends_with('~');
                    if !hidden && path.is_file() {
                        names.push(path);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error),
        }
        names.sort_unstable_by(|a, b| {
            a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes())
        });
        names.insert(0, file.clone());
        Ok(names)
    }

    /// `conf.d` beside the main file.
    pub fn drop_in_folder(&self) -> Option<PathBuf> {
        Some(self.file.as_ref()?.parent().unwrap_or_else(|| Path::new("")).join("conf.d"))
    }

    /// Reads every file.
    pub fn read(&self) -> Layers {
        let mut layers = Layers::default();
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                layers.faults.push(Report::error(
                    Code::ConfigFileMissing,
                    format!("folder `conf.d` cannot be read: {error}"),
                ));
                self.file.iter().cloned().collect()
            }
        };
        for (index, path) in files.iter().enumerate() {
            layers.read_file(path, index == 0, self.required);
        }
        layers
    }

    /// Lays the environment and the flags over `root`.
    pub fn lay_words(&self, schema: &Schema, root: &mut Node, reports: &mut Vec<Report>) {
        let mut environment: Vec<&(String, String)> =
            self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        environment.sort_unstable();
        for (name, value) in environment {
            if is_reserved(name, value) {
                continue;
            }
            let rest = name.strip_prefix(PREFIX).unwrap_or("");
            let place = Place::Environment(name.clone());
            if rest.contains("__") {
                let keys: Vec<String> = rest.to_lowercase().split("__").map(Into::into).collect();
                lay_word(schema, root, &keys, value, &place, reports);
            } else {
                reports.push(one_underscore(schema, rest, place));
            }
        }
        for (flag, path, value) in &self.flags {
            let keys: Vec<String> = path.split('.').map(Into::into).collect();
            lay_word(schema, root, &keys, value, &Place::Flag(flag.clone()), reports);
        }
    }
}

impl Layers {
    fn read_file(&mut self, path: &Path, is_main: bool, required: bool) {
        let name = path.display().to_string();
        let content = match read(path) {
            Ok(content) => content,
            Err(error) if is_main && !required && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let what = if missing { "does not exist".to_owned() } else { error.to_string() };
                let message = format!("file `{name}`: {what}");
                self.faults.push(Report::error(Code::ConfigFileMissing, message));
                return;
            }
        };
        let Some(language) = Language::of(&name).or_else(|| is_main.then_some(Language::Toml))
        else {
            let message = format!(
                "file `{name}` is not read: its name ends in none of `.toml`, `.yaml`, `.yml`, `.json`"
            );
            self.faults.push(Report::error(Code::ConfigSyntax, message).warning());
            return;
        };
        let text = Text::new(name, &content);
        let (node, faults) = parse::parse(language, &text);
        self.files.push(node);
        self.faults.extend(faults);
    }
}

fn read(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if FILE_BYTES_MAX < length {
        let message = format!("has {length} bytes, more than {FILE_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(fs::read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("no UTF-8: {error}")))
}

/// Variables with our prefix that somebody else sets: Kubernetes does for every service whose
/// name begins with `mainstay`, and the command line has its own.
fn is_reserved(name: &str, value: &str) -> bool {
    if name.starts_with("MAINSTAY_CLI_") || OTHER_VARIABLES.contains(&name) {
        return true;
    }
    // MAINSTAY_SERVICE_HOST, MAINSTAY_GATEWAY_SERVICE_PORT_HTTP, …
    let by_service = name
        .split_once("SERVICE_")
        .is_some_and(|(_, rest)| rest == "HOST" || rest == "PORT" || rest.starts_with("PORT_"));
    // MAINSTAY_PORT=tcp://…, MAINSTAY_PORT_7400_TCP, MAINSTAY_PORT_7400_TCP_ADDR, …
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|s| value.starts_with(s));
    let by_port = name.split_once("_PORT").is_some_and(|(_, rest)| {
        (rest.is_empty() && (is_address || name == "MAINSTAY_PORT")) || is_port_tail(rest)
    });
    by_service || by_port
}

/// `_7400_TCP`, `_7400_TCP_PROTO`, `_7400_TCP_PORT`, `_7400_TCP_ADDR`.
fn is_port_tail(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('_').collect();
    let [empty, number, protocol, tail @ ..] = parts.as_slice() else { return false };
    empty.is_empty()
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
        && matches!(*protocol, "TCP" | "UDP" | "SCTP")
        && matches!(tail, [] | ["PROTO" | "PORT" | "ADDR"])
}

/// `MAINSTAY_LIMIT_MAX` has no effect; `MAINSTAY_LIMIT__MAX` would.
fn one_underscore(schema: &Schema, rest: &str, place: Place) -> Report {
    let lower = rest.to_lowercase();
    let variable = format!("{PREFIX}{rest}");
    let message = format!(
        "variable `{variable}` has no effect: section and key are parted by two underscores"
    );
    let report = Report::error(Code::ConfigUnknownKey, message).warning().at(place);
    match split_into_keys(&schema.root(), &lower) {
        Some(keys) if 1 < keys.len() => {
            report.help(format!("did you mean `{PREFIX}{}`?", keys.join("__").to_uppercase()))
        }
        _ => report,
    }
}

/// Cuts `limit_sub_windows` at those underscores where keys meet: `["limit", "sub_windows"]`.
fn split_into_keys(shape: &Shape<'_>, text: &str) -> Option<Vec<String>> {
    if shape.keys().contains(text) {
        return Some(vec![text.to_owned()]);
    }
    text.match_indices('_').find_map(|(at, _)| {
        let (head, tail) = (text.get(..at)?, text.get(at + 1..)?);
        let inner = match shape.child(head) {
            Child::Known(inner) | Child::Named(inner) if inner.allows("object") => inner,
            _ => return None,
        };
        let mut keys = split_into_keys(&inner, tail)?;
        keys.insert(0, head.to_owned());
        Some(keys)
    })
}

/// Sets the key `keys` of `root` to what `text` says, at `place`.
fn lay_word(
    schema: &Schema,
    root: &mut Node,
    keys: &[String],
    text: &str,
    place: &Place,
    reports: &mut Vec<Report>,
) {
    let mut shape = Some(schema.root());
    let mut names: Vec<String> = Vec::new();
    let mut under: Option<&Node> = Some(root);
    for key in keys {
        let table = under.and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        // A variable's name has no `-` and `.`: a name the files use that differs only so is meant.
        let matching = |name: &&String| name.to_lowercase().replace(['-', '.'], "_") == *key;
        let name = table.and_then(|t| t.keys().find(matching)).unwrap_or(key).clone();
        under = table.and_then(|table| table.get(&name));
        shape = shape.and_then(|shape| match shape.child(&name) {
            Child::Known(inner) | Child::Named(inner) => Some(inner),
            Child::Unknown => None,
        });
        names.push(name);
    }
    let only_text = shape.is_some_and(|s| {
        let other = match text.as_bytes().first() {
            Some(b'[') => s.allows("array"),
            Some(b'{') => s.allows("object"),
            _ => ["number", "integer", "boolean"].iter().any(|kind| s.allows(kind)),
        };
        s.allows("string") && !other
    });
    let leaf = if only_text {
        Node::new(Value::Text(text.to_owned()), place.clone())
    } else {
        parse::word(text, place)
    };
    let node = names.into_iter().rev().fold(leaf, |inner, name| {
        let mut table = Node::empty(place.clone());
        table.value = Value::Table([(name, inner)].into());
        table
    });
    schema.root().check("", &node, reports);
    root.lay(node);
}

/// The place of a document that has none: every layer was empty.
pub fn nowhere() -> Place {
    let text: Arc<Text> = Text::new("defaults", "");
    Place::file(&text, 0..0)
}
