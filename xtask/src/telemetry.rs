//! What the sources say of telemetry: which log events there are, which sources register metrics,
//! and which marks are left in the audit log.
//!
//! A program does not know its own log lines before it has written them, so they are read off the
//! calls of `tracing`'s macros. That is done by brackets, strings and commas, without a parser of
//! Rust: whoever writes a call this does not understand is told by the page, in which it is missing
//! a message.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::tidy::{is_test, list, sources, without_tests};

/// A source without its tests and comments.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    code: String,
}

/// A call of one of `tracing`'s macros.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    /// `warn`, or `info_span`.
    level: String,
    /// The type whose `emit` it is, where it is one.
    event: String,
    message: String,
    fields: Vec<String>,
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Everything that is part of a program.
pub(crate) fn product(root: &Path) -> Vec<Source> {
    let folders = list(&root.join("crates")).into_iter().map(|own| own.join("src"));
    let files = folders.flat_map(|folder| sources(&folder)).filter(|file| !is_test(file));
    let read = |file: std::path::PathBuf| {
        let text = fs::read_to_string(&file).ok()?;
        let path = file.strip_prefix(root).ok()?.to_string_lossy().replace('\\', "/");
        Some(Source { path, code: code(&text) })
    };
    files.filter_map(read).collect()
}

fn code(text: &str) -> String {
    let lines = without_tests(text).filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The sections of the page that tell of log events and spans.
pub(crate) fn events(sources: &[Source]) -> String {
    let mut text = "\n## Log events\n\nRead off the sources. `message` stands in the field \
        `message` of JSON lines; what a field holds is said beside the type of the event. Calls of \
        the library log too, in the process that uses it (`mainstay-client`).\n"
        .to_owned();
    let mut spans = String::new();
    let mut part = "";
    for source in sources {
        let own = source.path.split('/').nth(1).unwrap_or_default();
        for Call { level, event, message, fields } in calls(&source.code) {
            let fields = fields.join(", ");
            let link = format!("[`{0}`](../../{0})", source.path);
            if let Some(level) = level.strip_suffix("_span") {
                spans
                    .extend(["| `", &message, "` | ", level, " | ", &fields, " | ", &link, " |\n"]);
                continue;
            }
            if own != part {
                part = own;
                text.extend([
                    "\n### `",
                    part,
                    "`\n\n| level | message | fields | event | source |\n",
                ]);
                text.push_str("|---|---|---|---|---|\n");
            }
            let event = if event.is_empty() { event } else { format!("`{event}`") };
            let cells = [&level, &message, &fields, &event, &link];
            text.extend(cells.into_iter().flat_map(|cell| ["| ", cell.as_str(), " "]));
            text.push_str("|\n");
        }
    }
    text.push_str("\n## Spans of tasks\n\n| span | level | fields | source |\n|---|---|---|---|\n");
    text + &spans
}

/// What is wrong with a page that was printed: sources it names that register no metric and such
/// that do and are not named; marks likewise.
pub(crate) fn faults(page: &str, sources: &[Source]) -> Vec<String> {
    let metrics = page.split("\n## Marks").next().unwrap_or_default();
    let named = quoted(metrics, "[`crates/", "`](").map(|path| format!("crates/{path}")).collect();
    let registers = |source: &&Source| registers(&source.code);
    let found = sources.iter().filter(registers).map(|source| source.path.clone()).collect();
    let listed = "crates/mainstay/src/cli/reference/telemetry.rs";
    let mut faults = differences("source of metrics", listed, &named, &found);

    let marks = page.split("\n## Marks").nth(1).unwrap_or_default();
    let named: BTreeSet<String> = quoted(marks, "\n| `", "` |").map(str::to_owned).collect();
    let (found, verbs) = marks_left(sources);
    // Those of each kind of object, or each door, are put together where they are left.
    let is_composed = |mark: &String| {
        let verb = mark.split(':').nth(1).unwrap_or_default();
        verbs.contains(verb) || (verbs.contains("{verb}") && matches!(verb, "read" | "write"))
    };
    let named = named.into_iter().filter(|mark| found.contains(mark) || !is_composed(mark));
    let listed = "crates/mainstay/src/control/refusals.rs";
    faults.extend(differences("mark", listed, &named.collect(), &found));
    faults
}

fn differences(
    what: &str,
    listed: &str,
    named: &BTreeSet<String>,
    found: &BTreeSet<String>,
) -> Vec<String> {
    let missing = found.difference(named).map(|one| format!("{one}: a {what} not in {listed}"));
    let surplus =
        named.difference(found).map(|one| format!("{one}: a {what} in {listed} that is not there"));
    missing.chain(surplus).collect()
}

fn quoted<'t>(text: &'t str, start: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

/// Whether metrics are registered here, by name or by a collector.
fn registers(code: &str) -> bool {
    let by_name =
        |call: &str| code.split(call).skip(1).any(|rest| rest.trim_start().starts_with('"'));
    by_name(".register(") || by_name(".register_with_unit(") || code.contains("encode_descriptor(")
}

/// Marks that stand in the sources as `"noun:verb"`, or `"noun.verb"` where changes are logged; and
/// the verbs of those whose noun is put in.
fn marks_left(sources: &[Source]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut marks, mut verbs) = (BTreeSet::new(), BTreeSet::new());
    let is_word = |word: &str| {
        let mut parts = word.split('-');
        parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
    };
    for Source { path, code } in sources {
        let is_logged = path.starts_with("crates/mainstay/src/control/");
        if !is_logged
            && !["crates/mainstay/", "crates/mainstay-coord/"]
                .iter()
                .any(|own| path.starts_with(own))
        {
            continue;
        }
        // Odd pieces lie in strings, where no string holds a quote; those that do hide nothing that
        // looks like a mark.
        for literal in code.split('"') {
            let separator = if is_logged && !literal.contains(':') { '.' } else { ':' };
            let Some((noun, verb)) = literal.split_once(separator) else { continue };
            if is_word(noun) && !noun.contains('-') && is_word(verb) {
                marks.insert(format!("{noun}:{verb}"));
            } else if noun.starts_with('{') && (is_word(verb) || verb == "{verb}") {
                verbs.insert(verb.to_owned());
            }
        }
    }
    (marks, verbs)
}

/// The calls of `tracing`'s macros in `code`, in order.
fn calls(code: &str) -> Vec<Call> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("tracing::") {
        let rest = code.get(at + start.len()..).unwrap_or_default();
        let Some((level, rest)) = rest.split_once("!(") else { continue };
        if !LEVELS.contains(&level.strip_suffix("_span").unwrap_or(level)) {
            continue;
        }
        let mut call = Call {
            level: level.to_owned(),
            event: emitter(code.get(..at).unwrap_or_default()),
            message: String::new(),
            fields: Vec::new(),
        };
        for argument in arguments(rest) {
            if let Some(text) = argument.strip_prefix('"') {
                let text = text.strip_suffix('"').unwrap_or(text);
                call.message = plain(text);
                // What follows a message is put into it; what follows the name of a span are its
                // fields.
                if !call.level.ends_with("_span") {
                    break;
                }
            } else if !argument.starts_with("target:") && !argument.starts_with("parent:") {
                call.fields.push(field(&argument));
            }
        }
        if call.message == "{}" {
            "*a report, in several lines*".clone_into(&mut call.message);
        }
        found.push(call);
    }
    found
}

/// The type whose `emit` ends `before`, or nothing.
fn emitter(before: &str) -> String {
    let Some((_, own)) = before.rsplit_once("\nimpl ") else { return String::new() };
    let is_emit = own.rsplit_once("fn ").is_some_and(|(_, function)| function.starts_with("emit"));
    let is_name = |c: char| c.is_alphanumeric();
    let name = own.split(|c| !is_name(c)).next().unwrap_or_default();
    if is_emit { name.to_owned() } else { String::new() }
}

/// `%name` and `name = value` as `name`, and as `name="text"` where it is always that.
fn field(argument: &str) -> String {
    let (name, value) = argument.split_once(" = ").unwrap_or((argument, ""));
    let name = name.trim_start_matches(['%', '?']);
    if value.starts_with('"') { format!("`{name}={value}`") } else { format!("`{name}`") }
}

/// A string as it is written, on one line.
fn plain(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let whole = lines.fold(first, |whole, line| whole + line.trim_start());
    whole.replace('|', "\\|")
}

/// The arguments of a call, whose bracket has just been opened.
fn arguments(rest: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for c in rest.chars() {
        if in_string {
            (in_string, is_escaped) = (is_escaped || c != '"', !is_escaped && c == '\\');
        } else {
            match c {
                '"' => in_string = true,
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(String::new());
                    continue;
                }
                _ => {}
            }
        }
        if let Some(last) = found.last_mut() {
            last.push(c);
        }
    }
    let found = found.into_iter().map(|argument| argument.trim().to_owned());
    found.filter(|argument| !argument.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, want: (&str, &str, &str, &[&str])) {
        let (level, event, message, fields) = want;
        let fields = fields.iter().map(|field| format!("`{field}`")).collect();
        let [level, event, message] = [level, event, message].map(str::to_owned);
        assert_eq!(calls(&code(source)), [Call { level, event, message, fields }]);
    }

    #[test]
    fn a_log_event_has_a_level_a_message_and_fields() {
        check(
            "\nimpl Lost<'_> {\n    fn emit(self) {\n        tracing::warn!(\n            \
             finding = \"lock-lost\",\n            %place,\n            seconds = took(a, b),\n            \
             ?reason,\n            \"lock \\\n             lost, (really)\"\n        );\n",
            (
                "warn",
                "Lost",
                "lock lost, (really)",
                &["finding=\"lock-lost\"", "place", "seconds", "reason"],
            ),
        );
        check(
            "fn a() { tracing::error!(\"{}\", told()); }",
            ("error", "", "*a report, in several lines*", &[]),
        );
        check(
            "fn a() { tracing::info_span!(\"task\", name) }",
            ("info_span", "", "task", &["name"]),
        );
        let none = "// tracing::warn!(\"x\")\n#[cfg(test)]\nmod tests {\n tracing::warn!(\"x\")\n";
        assert!(calls(&code(none)).is_empty());
    }

    #[test]
    fn what_a_page_lacks_or_makes_up_is_told() {
        let source = |path: &str, code: &str| Source { path: path.into(), code: code.into() };
        let sources = [
            source("crates/a/src/f.rs", "r.register(\n  \"x\", help, x)"),
            source("crates/mainstay/src/b.rs", "record(\"a:b\"); format!(\"{}:write\", kind)"),
            source("crates/mainstay/src/control/c.rs", "what: \"c.d-e\""),
        ];
        let page = "[`crates/a/src/f.rs`](x)\n## Marks\n| `a:b` | x |\n| `c:d-e` | x |\n| `k:write` | x |\n";
        assert_eq!(faults(page, &sources), [""; 0]);
        let page = "[`crates/b.rs`](x)\n## Marks\n| `a:b` | x |\n| `x:y` | x |\n";
        assert_eq!(faults(page, &sources).len(), 4, "{:?}", faults(page, &sources));
    }
}
