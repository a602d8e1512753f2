//! What went wrong, for a person and for a program.
//!
//! Five parts, always: what (with its code), where, why, what to type next, and the page. For a
//! person they look as the Rust compiler's do; with `-o json` the same parts are one problem
//! document. No stack traces, no type names, and never "something went wrong".

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use mainstay_core::problem::Code;
use serde_json::json;

use crate::exit::Exit;
use crate::settings::spans::{Place, Position};
use crate::width::columns;

/// Reports printed before only their number is told. 20 fit a screen; the first are the ones that
/// were written first, and mending them often mends the rest.
pub const PRINTED_MAX: usize = 20;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is done until it is mended.
    Error,
    /// It is done all the same, and is probably not what was meant.
    Warning,
}

/// One thing that went wrong.
#[derive(Clone, Debug)]
pub struct Report {
    /// Error or warning.
    pub severity: Severity,
    /// Stable name; also its page.
    pub code: Cow<'static, str>,
    /// What, and why: one lower-case clause.
    pub message: String,
    /// Where, when it was written somewhere.
    pub place: Option<Place>,
    /// The path of the key it is about, from the root of the configuration.
    pub path: Option<String>,
    /// What may help: `did you mean …`.
    pub help: Vec<String>,
    /// Lines to type next; the page is added when there is none.
    pub next: Vec<String>,
    /// How a process ends that stumbles over it.
    pub exit: Exit,
    /// Whether the line holds a secret and so is not shown.
    pub secret: bool,
    /// Orders reports of several files: the number of the layer.
    pub layer: usize,
}

impl Report {
    /// An error of kind `code`.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::named(code.as_str(), Exit::of_code(code), message)
    }

    /// An error whose code is not one of the shared list: one of the command line alone, or one
    /// a newer server knows.
    pub fn named(
        code: impl Into<Cow<'static, str>>,
        exit: Exit,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code: code.into(),
            message: message.into(),
            place: None,
            path: None,
            help: Vec::new(),
            next: Vec::new(),
            exit,
            secret: false,
            layer: 0,
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says of which key.
    #[must_use]
    pub fn of(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Adds a line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a line to type next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    /// The report as text, with ANSI styles; the stream strips them where they are not wanted.
    pub fn render(&self) -> String {
        let (word, colour) = match self.severity {
            Severity::Error => ("error", AnsiColor::Red),
            Severity::Warning => ("warning", AnsiColor::Yellow),
        };
        let head = colour.on_default().bold();
        let bold = Style::new().bold();
        let blue = AnsiColor::Blue.on_default().bold();
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            out.push_str(&text.to_string());
            out.push('\n');
        };
        line(format_args!("{head}{word}[{}]{head:#}{bold}: {}{bold:#}", self.code, self.message));
        let gutter =
            self.place.as_ref().and_then(Place::position).map_or(1, |position| {
                if self.secret { 1 } else { position.line.to_string().len() }
            });
        let pad = " ".repeat(gutter);
        if let Some(place) = &self.place {
            line(format_args!("{pad}{blue}-->{blue:#} {place}"));
        }
        if let (Some((number, source, before, width)), false) = (self.snippet(), self.secret) {
            line(format_args!("{pad}{blue} |{blue:#}"));
            line(format_args!("{blue}{number} |{blue:#} {source}"));
            let (before, carets) = (" ".repeat(before), "^".repeat(width));
            line(format_args!("{pad}{blue} |{blue:#} {before}{head}{carets}{head:#}"));
        }
        for help in &self.help {
            line(format_args!("{pad} {blue}={blue:#} {help}"));
        }
        for next in self.steps() {
            line(format_args!("{pad} {blue}={blue:#} next: {next}"));
        }
        out
    }

    /// The page is always the last step.
    fn steps(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let page = format!("mainstay explain {}", self.code);
        self.next.iter().map(|next| Cow::from(next.as_str())).chain([Cow::from(page)])
    }

    /// Line number, line, columns before the caret, and its width.
    fn snippet(&self) -> Option<(usize, String, usize, usize)> {
        let Some(Place::File { text, span }) = &self.place else { return None };
        let Position { line, column } = text.position(span.start);
        let source = text.line(line);
        if source.is_empty() {
            return None;
        }
        let shown = |part: &str| part.replace('\t', "    ");
        let before: String = source.chars().take(column - 1).collect();
        let marked = text.body.get(span.clone()).and_then(|marked| marked.lines().next());
        let width = columns(&shown(marked.unwrap_or(""))).max(1);
        Some((line, shown(source), columns(&shown(&before)), width))
    }

    /// The report as one entry of a problem document.
    pub fn to_json(&self) -> serde_json::Value {
        let position = self.place.as_ref().and_then(Place::position);
        let mut entry = json!({
            "code": self.code,
            "detail": self.message,
            "place": self.place.as_ref().map(ToString::to_string),
            "file": self.place.as_ref().and_then(Place::file_name),
            "line": position.map(|p| p.line),
            "column": position.map(|p| p.column),
            "help": self.help,
            "next": self.steps().collect::<Vec<_>>(),
        });
        if let Some(fields) = entry.as_object_mut() {
            fields.retain(|_, value| {
                !value.is_null() && value.as_array().is_none_or(|a| !a.is_empty())
            });
        }
        entry
    }
}

/// What `error` says, and what it says of its causes, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let text: Vec<String> = all.map(ToString::to_string).collect();
    text.join(": ")
}

/// Several reports as text: the first [`PRINTED_MAX`], then how many more there are.
pub fn render_all(reports: &[Report]) -> String {
    let mut out: String =
        reports.iter().take(PRINTED_MAX).map(Report::render).collect::<Vec<_>>().join("\n");
    if let Some(more @ 1..) = reports.len().checked_sub(PRINTED_MAX) {
        out.extend([
            "\nand ",
            &more.to_string(),
            " more, ",
            &reports.len().to_string(),
            " in all\n",
        ]);
    }
    out
}

/// Several reports as one problem document (RFC 9457); the first names its kind.
pub fn document(reports: &[Report]) -> serde_json::Value {
    let Some(first) = reports.first() else { return json!({}) };
    let known = Code::parse(&first.code);
    let mut document = json!({
        "type": format!("docs/problems/{}.md", first.code),
        "code": first.code,
        "title": known.map_or_else(|| first.message.clone(), |code| code.title().to_owned()),
        "detail": first.message,
        "exit": first.exit.code(),
        "errors": reports.iter().map(Report::to_json).collect::<Vec<_>>(),
    });
    if let (Some(status @ 1..), Some(fields)) = (known.map(Code::http), document.as_object_mut()) {
        fields.insert("status".to_owned(), status.into());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::spans::Text;

    fn sample(source: &str, needle: &str) -> Report {
        let text = Text::new("mainstay.toml", source);
        let start = text.body.find(needle).expect("the needle is in the text");
        Report::error(Code::ConfigUnknownKey, "unknown key `limit.burst_max`")
            .at(Place::file(&text, start..start + needle.len()))
            .help("did you mean `burst`?")
    }

    fn plain(report: &Report) -> String {
        anstream::adapter::strip_str(&report.render()).to_string()
    }

    #[test]
    fn an_error_print_has_its_five_parts() {
        let source = format!("{}burst_max = 200\n", "\n".repeat(11));
        let want = "\
error[config-unknown-key]: unknown key `limit.burst_max`
  --> mainstay.toml:12:1
   |
12 | burst_max = 200
   | ^^^^^^^^^
   = did you mean `burst`?
   = next: mainstay explain config-unknown-key
";
        assert_eq!(plain(&sample(&source, "burst_max")), want);
    }

    #[test]
    fn the_caret_stands_under_wide_letters_and_tabs() {
        let printed = plain(&sample("\t\"限流\" = 1, x = 2", "x"));
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[3], "1 |     \"限流\" = 1, x = 2");
        assert_eq!(lines[4], "  |                 ^");
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        let mut report = sample("token = \"hunter2\"", "token");
        report.secret = true;
        assert!(!plain(&report).contains("hunter2"));
        assert!(plain(&report).contains("mainstay.toml:1:1"));
    }

    #[test]
    fn only_the_first_twenty_are_printed() {
        let many = vec![sample("a", "a"); 23];
        let printed = render_all(&many);
        assert_eq!(printed.matches("config-unknown-key]").count(), 20);
        assert!(printed.ends_with("and 3 more, 23 in all\n"));
        assert!(!render_all(&many[..20]).contains("more"));
    }

    #[test]
    fn the_document_has_the_same_parts() {
        let document = document(&[sample("\nburst_max = 1", "burst_max")]);
        assert_eq!(document["code"], "config-unknown-key");
        assert_eq!(document["exit"], 7);
        assert_eq!(document["errors"][0]["line"], 2);
        assert_eq!(document["errors"][0]["next"][0], "mainstay explain config-unknown-key");
    }
}
