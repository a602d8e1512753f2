//! `docs/reference/cli.md`, `config.md`, `openapi.json` and `telemetry.md`, printed from the grammar,
//! the schema, the calls, and what is counted.

mod telemetry;

use clap::ValueEnum;
use serde_json::Value as Json;

use super::{arguments, help};
use crate::settings::Settings;
use crate::settings::schema::{Child, Schema, Shape};
use crate::settings::tree::join;

/// A reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// Every command with its flags.
    Cli,
    /// Every key with its meaning.
    Config,
    /// The contract of the control API, as JSON.
    Openapi,
    /// Every metric and every mark of the audit log.
    Telemetry,
}

/// Tables nested deeper are printed as `a table`: no type of ours is.
const DEPTH_MAX: usize = 6;

/// The page as Markdown.
pub fn render(what: Reference) -> String {
    match what {
        Reference::Cli => cli(),
        Reference::Config => config(&Schema::of::<Settings>()),
        Reference::Openapi => format!("{:#}\n", crate::control::openapi::document()),
        Reference::Telemetry => telemetry::render(),
    }
}

fn cli() -> String {
    let mut text = "# Command line\n\nPrinted from the program by `cargo xtask docs`; do not edit.\n\n\
        `mainstay <noun> <verb> [NAME] [flags]`. Exit codes: 0 done, 1 failed, 2 usage, 3 not found, \
        4 conflict, 5 not allowed, 6 unavailable, 7 invalid content, 8 outcome unknown, 10 changes \
        pending, 130 interrupted.\n"
        .to_owned();
    text.extend(["\n## Global flags\n\n```text\n", help::flags().as_str(), "```\n"]);
    let mut root = arguments::command().term_width(100);
    root.build();
    describe(&root, &mut text);
    text
}

fn describe(command: &clap::Command, text: &mut String) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let path = inner.get_bin_name().unwrap_or_else(|| inner.get_name());
        let help = inner.clone().render_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.extend(["\n## `", path, "`\n\n```text\n", help.join("\n").trim_end(), "\n```\n"]);
        describe(inner, text);
    }
}

/// The page for any root type.
pub fn config(schema: &Schema) -> String {
    let mut text =
        "# Configuration\n\nPrinted from the program by `cargo xtask docs`; do not edit.\n\n\
        Layers, later wins: defaults, the main file, `conf.d/*` beside it in byte order of names, \
        `MAINSTAY_SECTION__KEY`, flags. TOML, YAML and JSON are read. `mainstay settings show \
        --origin` says where a value comes from.\n"
            .to_owned();
    table("", &schema.root(), DEPTH_MAX, &mut text);
    text
}

fn table(path: &str, shape: &Shape<'_>, depth: usize, text: &mut String) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let children: Vec<(String, Shape<'_>)> = shape
        .keys()
        .into_iter()
        .filter_map(|key| match shape.child(key) {
            Child::Known(inner) => Some((key.to_owned(), inner)),
            Child::Named(_) | Child::Unknown => None,
        })
        .collect();
    let is_table = |shape: &Shape<'_>| !shape.keys().is_empty() || shape.names().is_some();
    if !path.is_empty() {
        text.extend(["\n## `[", path, "]`\n"]);
        if let Some(meaning) = meaning(shape) {
            text.extend(["\n", &meaning, "\n"]);
        }
        let keys: Vec<&(String, Shape<'_>)> =
            children.iter().filter(|(_, inner)| !is_table(inner)).collect();
        if !keys.is_empty() {
            text.push_str("\n| key | kind | meaning |\n|---|---|---|\n");
        }
        for (key, inner) in keys {
            let meaning = property_meaning(shape, key).or_else(|| meaning(inner));
            let meaning = meaning.unwrap_or_default().replace('|', "\\|");
            text.extend(["| `", key, "` | ", &inner.expected(key), " | ", &meaning, " |\n"]);
        }
    }
    for (key, inner) in children.iter().filter(|(_, inner)| is_table(inner)) {
        table(&join(path, key), inner, depth, text);
    }
    if let Some(named) = shape.names().filter(|named| !named.keys().is_empty()) {
        table(&join(path, "NAME"), &named, depth, text);
    }
}

fn meaning(shape: &Shape<'_>) -> Option<String> {
    shape.alternatives().iter().find_map(|object| description(object.get("description")))
}

/// What the field says, rather than its type.
fn property_meaning(shape: &Shape<'_>, key: &str) -> Option<String> {
    shape
        .alternatives()
        .iter()
        .find_map(|object| description(object.get("properties")?.get(key)?.get("description")))
}

fn description(text: Option<&Json>) -> Option<String> {
    Some(text?.as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
}
