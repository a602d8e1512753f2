//! Which rules are in force, whatever changed beside them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use mainstay_coord::keys::{RuleKind, RuleRef};
use mainstay_coord::name::{Namespace, RuleName};
use serde_json::json;
use tempfile::TempDir;

use super::book::{Book, State, reason};
use super::fault::faults;
use super::rule::{self, Rule};
use crate::settings::reload::Live;
use crate::settings::root::Meant;
use crate::settings::{Errors, Settings, Sources};

fn id(text: &str) -> RuleRef {
    let (kind, name) = text.split_once(' ').unwrap();
    let kind = super::KINDS.into_iter().find(|known| known.key.as_str() == kind).unwrap().key;
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let (namespace, name) = (Namespace::new(namespace).unwrap(), RuleName::new(name).unwrap());
    RuleRef { kind, namespace, name }
}

fn route(limit: &str) -> String {
    format!("path = '/{limit}'\nrespond = {{}}\nlimits = ['{limit}']")
}

/// A process with one file, and what the store has.
struct Stage {
    folder: TempDir,
    live: Live<Settings, Meant>,
    book: Book,
    kept: BTreeMap<RuleRef, Arc<Rule>>,
}

impl Stage {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mainstay.toml");
        fs::write(&path, file).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        let (live, _) = Live::start(sources, Meant::resolve, &[]).unwrap();
        Self { folder, live, book: Book::default(), kept: BTreeMap::new() }
    }

    /// The store has `text` now under `name`, or nothing.
    fn keep(&mut self, name: &str, text: Option<&str>) {
        let id = id(name);
        let revision = self.kept.get(&id).map_or(1, |rule| rule.revision + 1);
        match text {
            Some(text) => {
                drop(self.kept.insert(id.clone(), Arc::new(Rule::read(id, revision, text))));
            }
            None => drop(self.kept.remove(&id)),
        }
    }

    fn settle(&mut self) {
        let (kept, files) = (self.kept.clone(), self.live.files().clone());
        let live = &mut self.live;
        self.book.settle(kept, &files, |grafts| live.lay(grafts, |_| Ok(()))).unwrap();
    }

    fn reload(&mut self, file: &str) -> Result<(), Errors> {
        fs::write(self.folder.path().join("mainstay.toml"), file).unwrap();
        self.live.reload(|_| Ok(())).map(drop)
    }

    /// What is in force: names, each with its revision.
    fn check(&self, names: &[(&str, u64)]) {
        for (name, revision) in names {
            let id = id(name);
            assert_eq!(self.book.revision_in_force(&id), Some(*revision), "{name}");
        }
        let plane = &self.live.current().plane;
        let of = |kind: &str| names.iter().filter(|(name, _)| name.starts_with(kind)).count();
        assert_eq!(plane.routes.iter().count(), of("route "), "routes");
        assert_eq!(plane.limits.len(), of("limit "), "limits");
    }
}

#[test]
fn rules_refer_to_rules_and_to_files_in_any_order() {
    let mut stage = Stage::new("[limit.file]\nmax = 1");
    stage.keep("route b", Some(&route("shared")));
    stage.keep("route a", Some(&route("file")));
    stage.keep("limit shop/shared", Some("max = 3"));
    stage.settle();
    assert_eq!(stage.live.current().plane.limits.len(), 2);
    assert_eq!(stage.live.current().plane.routes.iter().count(), 2);
    assert_eq!(stage.book.state(&id("route a")), State::InForce);
    let origin = stage.live.tree().nearest("limit.shared.max").at.brief();
    assert_eq!(origin, "limit shop/shared, revision 1:1");
}

#[test]
fn what_does_not_fit_goes_back_alone() {
    let mut stage = Stage::new("");
    stage.keep("limit one", Some("max = 1"));
    stage.keep("route r", Some(&route("one")));
    stage.settle();
    stage.check(&[("limit one", 1), ("route r", 1)]);

    // A change that does not fit does not hold up one that does.
    stage.keep("route r", Some(&route("nobody")));
    stage.keep("limit two", Some("max = 2"));
    stage.settle();
    stage.check(&[("limit one", 1), ("limit two", 1), ("route r", 1)]);
    assert_eq!(stage.book.state(&id("route r")), State::Unfit);
    let why = reason(stage.book.why_not(&id("route r")).unwrap());
    assert!(why.starts_with("route default/r, revision 2:3:"), "{why}");

    // A content that cannot be at all is left as it last was, too.
    stage.keep("limit one", Some("maxx = 1"));
    stage.settle();
    stage.check(&[("limit one", 1), ("limit two", 1), ("route r", 1)]);
    assert_eq!(stage.book.count(RuleKind::LIMIT, State::Unfit), 1);

    stage.keep("limit nobody", Some("max = 3"));
    stage.keep("limit one", Some("max = 9"));
    stage.settle();
    stage.check(&[("limit one", 3), ("limit two", 1), ("limit nobody", 1), ("route r", 2)]);
    assert_eq!(stage.book.unfit().count(), 0);
}

#[test]
fn what_is_in_force_is_not_dropped_because_what_it_stands_on_was() {
    let mut stage = Stage::new("");
    stage.keep("limit one", Some("max = 1"));
    stage.keep("route r", Some(&route("one")));
    stage.settle();
    stage.keep("limit one", None);
    stage.settle();
    stage.check(&[("limit one", 1), ("route r", 1)]);
    assert_eq!(stage.book.lingering().count(), 1);
    stage.keep("route r", None);
    stage.settle();
    stage.check(&[]);
    assert_eq!(stage.book.lingering().count(), 0);
}

#[test]
fn at_a_start_what_does_not_fit_is_left_out_with_all_that_stands_on_it() {
    let mut stage = Stage::new("[route.file]\npath = '/x'\nrespond = {}");
    stage.keep("upstream gone", Some("attempts = 3"));
    stage.keep("route r", Some("prefix = '/r'\nto = 'gone'"));
    stage.keep("limit good", Some("max = 1"));
    // The fault stands at the route of the file, and names both.
    stage.keep("route a", Some("path = '/x'\nrespond = {}"));
    stage.settle();
    assert_eq!(stage.book.unfit().count(), 3, "{:?}", stage.book);
    assert_eq!(stage.book.revision_in_force(&id("limit good")), Some(1));
    assert_eq!(stage.live.current().plane.routes.iter().count(), 1);
}

#[test]
fn a_reload_takes_rules_along_or_is_refused() {
    let mut stage = Stage::new("[limit.file]\nmax = 1");
    stage.keep("route r", Some(&route("file")));
    stage.keep("limit mine", Some("max = 2"));
    stage.settle();
    let errors = stage.reload("").unwrap_err();
    assert_eq!(errors.reports[0].path.as_deref(), Some("route.r.limits[0]"));
    stage.settle();
    assert_eq!(stage.book.revision_in_force(&id("route r")), Some(1));
    assert_eq!(stage.live.current().plane.limits.len(), 2, "what was in force stays in force");
    stage.reload("[limit.file]\nmax = 5").unwrap();
    assert_eq!(stage.live.current().plane.limits.len(), 2);
}

#[test]
fn a_name_is_used_once_and_files_come_first() {
    let mut stage = Stage::new("");
    stage.keep("limit a/x", Some("max = 1"));
    stage.keep("limit b/x", Some("max = 2"));
    stage.settle();
    stage.check(&[("limit a/x", 1)]);
    assert_eq!(
        reason(stage.book.why_not(&id("limit b/x")).unwrap()),
        "the name is used by limit a/x"
    );
    assert_eq!(stage.book.namesake(&id("limit c/x")), Some(&id("limit a/x")));
    stage.reload("[limit.x]\nmax = 3").unwrap();
    stage.settle();
    assert_eq!(stage.book.count(RuleKind::LIMIT, State::Shadowed), 2);
    assert_eq!(stage.live.current().plane.limits.len(), 1);
    assert!(stage.live.tree().nearest("limit.x.max").at.brief().ends_with("mainstay.toml:2"));
}

#[test]
fn faults_are_told_by_their_field_and_place() {
    let mut stage = Stage::new("");
    stage.keep("limit mine", Some("max = 2"));
    stage.keep("route r", Some(&route("mine")));
    stage.settle();
    let draft =
        Rule::read(id("route shop/s"), 0, "path = '/s'\nrespond = {}\nlimits = ['no', 'mine']");
    let grafts = stage.book.grafts_with(&draft.id, Some(&draft));
    let errors = stage.live.rehearse(&grafts).unwrap_err();
    let told = faults(&errors, &draft.id, &draft.place.name);
    assert_eq!(
        (told.len(), &*told[0].path, told[0].line, told[0].column),
        (1, "limits[0]", Some(3), Some(11))
    );
    // What the change of one breaks in another is told with the other's place.
    let errors = stage.live.rehearse(&stage.book.grafts_with(&id("limit mine"), None)).unwrap_err();
    let told = faults(&errors, &id("limit mine"), "limit default/mine");
    assert_eq!((&*told[0].path, told[0].line), ("route.r.limits[0]", None));
    assert!(told[0].detail.starts_with("route default/r, revision 1:3:11: "), "{}", told[0].detail);
}

#[test]
fn a_table_given_as_a_document_is_the_text_a_file_would_have() {
    let table = json!({ "max": 2, "key": null, "overrides": [{ "key": ["a"], "max": 5 }] });
    let text = rule::written(&table).unwrap();
    assert_eq!(rule::table(&text), json!({ "max": 2, "overrides": [{ "key": ["a"], "max": 5 }] }));
    assert!(rule::written(&json!([1])).is_err() && rule::written(&json!({ "a": [null] })).is_err());
    let read = Rule::read(id("route shop/r"), 0, "path = '/'\nrespond = {}");
    assert_eq!(rule::namespace_of(&read.node), "shop");
}
