//! Data for people and programs: one document, six forms.
//!
//! `json` is the document of the API unchanged; everything else is made from it, so a form can
//! never say more than another. A table cuts nothing off: on a narrow terminal it leaves out the
//! columns marked optional and says so, and into a pipe it is as wide as it needs to be.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, presets};
use serde_json::Value as Json;

use crate::width;

/// Form of the data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For people with wide screens: all columns.
    Wide,
    /// The document of the API, unchanged.
    Json,
    /// One item a line.
    Jsonl,
    /// The document as YAML.
    Yaml,
    /// One `namespace/name` a line, for `xargs`.
    Name,
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column<'c> {
    title: &'c str,
    /// JSON pointer into an item.
    pointer: &'c str,
    optional: bool,
    wide: bool,
}

impl<'c> Column<'c> {
    /// A column that is always there; `pointer` is a JSON pointer (RFC 6901) into the item.
    pub const fn new(title: &'c str, pointer: &'c str) -> Self {
        Self { title, pointer, optional: false, wide: false }
    }

    /// Left out, from the right, when the terminal is too narrow.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// There with `-o wide` only.
    #[must_use]
    pub const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// How items become a table.
#[derive(Clone, Copy, Debug)]
pub struct Table<'c>(pub &'c [Column<'c>]);

impl Table<'_> {
    /// `document` in `format`, and the titles of columns that did not fit into `columns`.
    pub fn render(
        &self,
        format: Format,
        document: &Json,
        columns: Option<usize>,
    ) -> (String, Vec<String>) {
        let whole = |text: String| (text, Vec::new());
        let lines = |lines: Vec<String>| lines.join("\n");
        match format {
            Format::Json => whole(format!("{document:#}")),
            Format::Jsonl => {
                whole(lines(items(document).iter().map(ToString::to_string).collect()))
            }
            Format::Yaml => {
                whole(serde_saphyr::to_string(document).unwrap_or_else(|_| document.to_string()))
            }
            Format::Name => whole(lines(items(document).into_iter().map(name).collect())),
            Format::Wide => whole(self.table(self.0, &items(document))),
            Format::Table => self.fitting(&items(document), columns),
        }
    }

    /// The table with as many columns as fit.
    fn fitting(&self, items: &[&Json], limit: Option<usize>) -> (String, Vec<String>) {
        let mut columns: Vec<Column<'_>> =
            self.0.iter().filter(|column| !column.wide).copied().collect();
        let mut dropped = Vec::new();
        loop {
            let text = self.table(&columns, items);
            let widest = text.lines().map(width::columns).max().unwrap_or(0);
            let optional = columns.iter().rposition(|column| column.optional);
            match (limit, optional) {
                (Some(limit), Some(at)) if limit < widest => {
                    dropped.insert(0, columns.remove(at).title.to_lowercase());
                }
                _ => return (text, dropped),
            }
        }
    }

    fn table(&self, columns: &[Column<'_>], items: &[&Json]) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| column.title));
        for item in items {
            table.add_row(columns.iter().map(|column| {
                let text = item.pointer(column.pointer).map_or_else(String::new, cell);
                if text.is_empty() { "-".to_owned() } else { text }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// `bytes` as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The items of `{"items": […]}`, of a bare list, or the one document.
pub fn items(document: &Json) -> Vec<&Json> {
    match document.get("items").unwrap_or(document) {
        Json::Array(items) => items.iter().collect(),
        Json::Null => Vec::new(),
        one => vec![one],
    }
}

/// Documents as `field: value` lines, for `show`.
pub fn blocks(documents: &[&Json]) -> String {
    let block = |document: &&Json| {
        let fields = document.as_object().into_iter().flatten();
        fields
            .map(|(field, value)| match value {
                Json::Array(entries) if entries.iter().any(Json::is_object) => {
                    let lines = entries.iter().map(|entry| format!("\n  {}", cell(entry)));
                    format!("{field}:{}", lines.collect::<String>())
                }
                value => format!("{field}: {}", cell(value)),
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    documents.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// A value on one line.
fn cell(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.replace(['\n', '\r'], " "),
        Json::Array(entries) => entries.iter().map(cell).collect::<Vec<_>>().join(","),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}={}", cell(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

/// `namespace/name`, or whatever names the item.
fn name(item: &Json) -> String {
    let field = |field: &str| item.get(field).and_then(Json::as_str);
    let name = ["name", "id", "path", "circuit", "key"].into_iter().find_map(field);
    match (field("namespace"), name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        (_, None) => item.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: Table<'static> = Table(&[
        Column::new("NAME", "/name"),
        Column::new("STATE", "/state/word").optional(),
        Column::new("WHY", "/why").optional(),
        Column::new("ID", "/id").wide(),
    ]);

    #[track_caller]
    fn check(format: Format, columns: Option<usize>, want: &str) {
        let document = json!({"items": [
            {"namespace": "shop", "name": "订单", "state": {"word": "open"}, "why": "two\nlines", "id": 7},
            {"name": "a", "why": null},
        ], "next": null});
        assert_eq!(COLUMNS.render(format, &document, columns).0, want);
    }

    #[test]
    fn a_table_counts_wide_letters_twice_and_never_wraps() {
        check(Format::Table, None, "NAME  STATE  WHY\n订单  open   two lines\na     -      -");
        check(
            Format::Wide,
            Some(5),
            "NAME  STATE  WHY        ID\n订单  open   two lines  7\na     -      -          -",
        );
    }

    #[test]
    fn a_narrow_terminal_loses_optional_columns_from_the_right_and_is_told() {
        check(Format::Table, Some(22), "NAME  STATE  WHY\n订单  open   two lines\na     -      -");
        check(Format::Table, Some(21), "NAME  STATE\n订单  open\na     -");
        check(Format::Table, Some(1), "NAME\n订单\na");
        let dropped = COLUMNS.render(Format::Table, &json!([{"name": "abcdef"}]), Some(3)).1;
        assert_eq!(dropped, ["state", "why"]);
    }

    #[test]
    fn programs_get_lines_names_and_documents() {
        check(Format::Name, None, "shop/订单\na");
        let items = json!([{"a": 1}, {"a": 2}]);
        assert_eq!(COLUMNS.render(Format::Jsonl, &items, None).0, "{\"a\":1}\n{\"a\":2}");
        assert_eq!(COLUMNS.render(Format::Yaml, &json!({"a": 1}), None).0, "a: 1\n");
        assert_eq!(COLUMNS.render(Format::Json, &json!({"a": 1}), None).0, "{\n  \"a\": 1\n}");
    }

    #[test]
    fn nothing_is_a_header_alone() {
        assert_eq!(
            COLUMNS.render(Format::Table, &json!({"items": []}), None).0,
            "NAME  STATE  WHY"
        );
        assert_eq!(COLUMNS.render(Format::Name, &json!({"items": []}), None).0, "");
    }
}
