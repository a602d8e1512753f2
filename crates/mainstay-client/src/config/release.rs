//! A release of a group, as a whole.

use std::collections::BTreeMap;

use mainstay_api::config::{Fetched, Item, Update};

/// What is in force in a group, for this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub(super) fetched: Fetched,
    /// It comes from disk.
    pub(super) is_kept: bool,
}

impl Release {
    /// Of which group, without its namespace.
    pub fn group(&self) -> &str {
        self.fetched.group.rsplit('/').next().unwrap_or_default()
    }

    /// Its number: 1, 2, 3 …
    pub const fn number(&self) -> u64 {
        self.fetched.release
    }

    /// Whether this program is one of those who get it before the others.
    pub const fn is_canary(&self) -> bool {
        self.fetched.canary
    }

    /// Whether it was kept from an earlier run, and no server has sent another since.
    pub const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The content of an item. `None` when there is no such item, or it is a secret whose content
    /// was not asked for or not kept.
    pub fn get(&self, item: &str) -> Option<&str> {
        self.fetched.items.get(item)?.content.as_deref()
    }

    /// Its items, by name.
    pub const fn items(&self) -> &BTreeMap<String, Item> {
        &self.fetched.items
    }
}

/// What comes of `known` by `update`; `None` when that does not say enough.
pub(super) fn next(known: Option<&Fetched>, update: &Update) -> Option<Fetched> {
    let contents = update.contents.as_ref()?;
    let mut items = match known {
        _ if update.from == 0 => BTreeMap::new(),
        Some(known) if known.release == update.from => known.items.clone(),
        Some(_) | None => return None,
    };
    for change in &update.changed {
        if change.change == "removed" {
            items.remove(&change.item);
        } else {
            items.insert(change.item.clone(), contents.get(&change.item)?.clone());
        }
    }
    let Update { group, release, canary, .. } = update;
    Some(Fetched { group: group.clone(), release: *release, canary: *canary, items })
}

#[cfg(test)]
mod tests {
    use mainstay_api::config::ItemChange;

    use super::*;

    fn item(content: &str) -> Item {
        let content = Some(content.to_owned());
        Item { format: "text".to_owned(), secret: false, content }
    }

    fn update(from: u64, changed: &[(&str, &str)], contents: Option<&[(&str, &str)]>) -> Update {
        let named = |(item, change): &(&str, &str)| ItemChange {
            item: (*item).to_owned(),
            change: (*change).to_owned(),
        };
        let items = |items: &[(&str, &str)]| {
            items.iter().map(|(name, text)| ((*name).to_owned(), item(text))).collect()
        };
        Update {
            group: "shop/pay".to_owned(),
            revision: 9,
            release: 7,
            canary: false,
            from,
            changed: changed.iter().map(named).collect(),
            contents: contents.map(items),
        }
    }

    #[test]
    fn a_release_is_put_together_whole_or_not_at_all() {
        let first = next(
            None,
            &update(0, &[("a", "added"), ("b", "added")], Some(&[("a", "1"), ("b", "2")])),
        );
        let first = first.unwrap();
        assert_eq!(first.items.keys().collect::<Vec<_>>(), ["a", "b"]);
        let known = Fetched { release: 6, ..first };
        let changed = [("a", "changed"), ("b", "removed"), ("c", "added")];
        let then =
            next(Some(&known), &update(6, &changed, Some(&[("a", "3"), ("c", "4")]))).unwrap();
        assert_eq!((then.release, then.items.len()), (7, 2));
        assert_eq!(then.items["a"], item("3"));
        for not_enough in [
            update(6, &changed, None),
            update(5, &changed, Some(&[("a", "3"), ("c", "4")])),
            update(6, &changed, Some(&[("a", "3")])),
        ] {
            assert_eq!(next(Some(&known), &not_enough), None);
        }
        assert_eq!(next(None, &update(6, &changed, Some(&[]))), None);
    }
}
