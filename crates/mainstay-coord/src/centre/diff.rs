//! What differs between two releases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use super::item::Item;

/// Longest search for the smallest differences, of all items; then larger ones are told. The
/// thread that searches serves others, too.
const SEARCH_MAX: Duration = Duration::from_millis(200);

/// Longest unified text of a whole difference; items beyond it are named only.
const UNIFIED_BYTES_MAX: usize = 1_048_576;

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConfigTurn)]
pub enum Turn {
    /// It was not there before.
    Added,
    /// It is no longer there.
    Removed,
    /// Its content, format, schema or secrecy is another.
    Changed,
}

/// An item that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigItemChange)]
pub struct ItemChange {
    /// Which item.
    pub item: String,
    /// What became of it.
    pub change: Turn,
}

/// An item that differs, line by line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigItemDiff)]
pub struct ItemDiff {
    /// Which item.
    pub item: String,
    /// What became of it.
    pub change: Turn,
    /// Whether it is, or was, a secret: then no line is shown.
    pub secret: bool,
    /// The lines that differ, as `diff -u` writes them. Missing for secrets, for contents that are
    /// the same (only format or schema differ), and beyond a mebibyte in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unified: Option<String>,
}

/// What differs between two releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigDiff)]
pub struct Diff {
    /// From this release; 0 is nothing.
    pub from: u64,
    /// To this one; of what is not published yet, the number it would get.
    pub to: u64,
    /// Every item that differs, by name.
    pub items: Vec<ItemDiff>,
}

/// The items that differ between `old` and `new`, by `same`.
pub fn changes<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<ItemChange> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| {
        let change = match (old.get(name), new.get(name)) {
            (None, _) => Turn::Added,
            (_, None) => Turn::Removed,
            (Some(old), Some(new)) if same(old, new) => return None,
            _ => Turn::Changed,
        };
        Some(ItemChange { item: name.clone(), change })
    };
    names.into_iter().filter_map(change).collect()
}

/// What differs between two sets of items.
pub fn diff(
    (from, old): (u64, &BTreeMap<String, Item>),
    (to, new): (u64, &BTreeMap<String, Item>),
) -> Diff {
    let found = changes(old, new, |old, new| old == new);
    let search = SEARCH_MAX / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    let mut left = UNIFIED_BYTES_MAX;
    let shown = |ItemChange { item, change }: ItemChange| {
        let (old, new) = (old.get(&item), new.get(&item));
        let secret = old.into_iter().chain(new).any(|item| item.secret);
        let content = |item: Option<&Item>| item.map(|item| item.content.clone());
        let (old, new) = (content(old).unwrap_or_default(), content(new).unwrap_or_default());
        let unified = if secret || old == new { None } else { Some(unified(&old, &new, search)) };
        let unified = unified.filter(|text| text.len() <= left);
        left -= unified.as_ref().map_or(0, String::len);
        ItemDiff { item, change, secret, unified }
    };
    let items = found.into_iter().map(shown).collect();
    Diff { from, to, items }
}

fn unified(old: &str, new: &str, search: Duration) -> String {
    let diff = TextDiff::configure().timeout(search).diff_lines(old, new);
    diff.unified_diff().context_radius(3).to_string()
}
