//! All routes of a gateway, and which of them a request takes.
//!
//! The best route is the one of highest rank among those that match: the most specific host, then
//! the most specific path, then the most other conditions. Nothing depends on the order in which
//! routes were written. Two routes of one rank that some request could both match are refused
//! when the table is built, so a request never has two best routes.
//!
//! A look-up hashes the host, then tries what [`paths`](super::paths) says. It allocates nothing,
//! but for a route that captures groups of a regular expression, and for a request whose host or
//! path has capitals where letter case does not count.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderValue, Method};
use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;

use super::host::{HostPattern, suffixes};
use super::paths::Paths;
use super::{Captures, Route, View};

/// All routes of a gateway.
#[derive(Debug, Default)]
pub struct Routes {
    /// Best rank first, so that a list of indices in ascending order is one of falling rank.
    ranked: Box<[Arc<Route>]>,
    exact: HashMap<Box<str>, Paths>,
    suffix: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// Which route a request takes.
#[derive(Debug)]
pub enum Match<'r> {
    /// This one.
    Found {
        /// The route.
        route: &'r Arc<Route>,
        /// Its place in [`Routes::iter`].
        place: usize,
        /// What its path captured; read it with [`Route::capture`].
        captures: Captures,
    },
    /// None.
    NoRoute,
    /// None, and the method alone is to blame.
    MethodNotAllowed {
        /// Value of the `Allow` field: the methods for which there is a route.
        allow: HeaderValue,
    },
}

impl Routes {
    /// Builds the table.
    ///
    /// # Errors
    ///
    /// One [`Invalid`] of code `route-ambiguous` for each route that some request could match as
    /// well as another of the same rank; it names both.
    pub fn new(mut routes: Vec<Route>) -> Result<Self, Vec<Invalid>> {
        routes.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.name.cmp(&b.name)));
        let ranked: Box<[Arc<Route>]> = routes.into_iter().map(Arc::new).collect();
        let mut hosts: BTreeMap<&HostPattern, Vec<usize>> = BTreeMap::new();
        for (index, route) in ranked.iter().enumerate() {
            hosts.entry(&route.host).or_default().push(index);
        }
        let (mut exact, mut suffix, mut any) = (HashMap::new(), HashMap::new(), Paths::default());
        let mut wrong = Vec::new();
        for (host, members) in hosts {
            let (paths, clashes) = Paths::new(&ranked, &members);
            wrong.extend(clashes.iter().map(|&(a, b)| ambiguous(&ranked[a], &ranked[b])));
            match host {
                HostPattern::Exact(name) => drop(exact.insert(name.clone(), paths)),
                HostPattern::Suffix(name) => drop(suffix.insert(name.clone(), paths)),
                HostPattern::Any => any = paths,
            }
        }
        if wrong.is_empty() { Ok(Self { ranked, exact, suffix, any }) } else { Err(wrong) }
    }

    /// The route that `view` takes.
    pub fn find(&self, view: &View<'_>) -> Match<'_> {
        let mut search = Search { ranked: &self.ranked, view, best: None, others: None };
        if self.walk(&mut search) {
            search.others = Some(Vec::new());
            self.walk(&mut search);
        }
        match (search.best, search.others) {
            (Some((place, captures)), _) => {
                Match::Found { route: &self.ranked[place], place, captures }
            }
            (None, None) => Match::NoRoute,
            (None, Some(methods)) => Match::MethodNotAllowed { allow: allow(methods) },
        }
    }

    /// Every route, best rank first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.ranked.iter()
    }

    /// Shows `search` what could match, best first. Whether a route was lost for its method.
    fn walk(&self, search: &mut Search<'_>) -> bool {
        let path = search.view.path;
        if !path.starts_with('/') {
            return false;
        }
        let host = folded(search.view.hostname());
        let named = self.exact.get(&*host).into_iter();
        let below = (!self.suffix.is_empty())
            .then(|| suffixes(&host).filter_map(|suffix| self.suffix.get(suffix)));
        let mut lost = false;
        for paths in named.chain(below.into_iter().flatten()).chain([&self.any]) {
            lost |= paths.walk(search);
            if search.is_done() {
                return false;
            }
        }
        lost
    }
}

/// One look-up: the best route so far, or, once it is clear that there is none, the methods that
/// would have had one.
pub(crate) struct Search<'s> {
    ranked: &'s [Arc<Route>],
    pub(crate) view: &'s View<'s>,
    best: Option<(usize, Captures)>,
    others: Option<Vec<&'s Method>>,
}

impl Search<'_> {
    /// Tries routes that are sorted by falling rank. Whether one was lost for its method.
    pub(crate) fn consider(&mut self, candidates: &[usize]) -> bool {
        let mut lost = false;
        for &index in candidates {
            if self.best.is_some_and(|(best, _)| best < index) {
                break;
            }
            let (route, mut captures) = (&self.ranked[index], Captures::default());
            if !route.accepts(self.view, &mut captures) {
                continue;
            }
            if let Some(methods) = &mut self.others {
                methods.extend(&route.methods);
            } else if route.allows(self.view.method) {
                self.best = Some((index, captures));
                break;
            }
            lost = true;
        }
        lost
    }

    /// Whether a route was found, so that only better ones still matter.
    pub(crate) fn is_done(&self) -> bool {
        self.best.is_some()
    }
}

/// `text` in lower case; copies only where it is not.
pub(crate) fn folded(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn allow(mut methods: Vec<&Method>) -> HeaderValue {
    methods.sort_by_key(|method| method.as_str());
    methods.dedup();
    let names: Vec<_> = methods.into_iter().map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

fn ambiguous(a: &Route, b: &Route) -> Invalid {
    let problem = format!(
        "routes `{}` and `{}` are of one rank and can match the same request; make the host or \
         path of one more specific, or give it one more condition",
        a.name, b.name
    );
    Invalid { path: format!("route.{}", b.name), code: Code::RouteAmbiguous, problem }
}
