//! What a question is about, before it is answered: datacenter, namespace, what lists leave out.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use mainstay_coord::ServiceRef;
use mainstay_coord::consul::filter::{Expression, Field};
use mainstay_coord::consul::{Browsed, CatalogNode, CatalogService, Part};
use mainstay_coord::name::Namespace;
use mainstay_core::name::ServiceName;
use mainstay_store::Revision;
use serde::Serialize;

use super::answer::{Text, indexed, json, with_status};
use super::query::Asked;
use crate::cluster::{Cluster, ConsulDoor};

/// A question about the catalog.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) door: &'a ConsulDoor,
    pub(super) asked: &'a Asked,
    pub(super) namespace: Namespace,
}

impl<'a> Scope<'a> {
    pub(super) fn new(cluster: &'a Cluster, asked: &'a Asked) -> Result<Self, Text> {
        let door = cluster.consul()?;
        asked.within(&door.config.datacenter)?;
        let name = asked.get("ns").filter(|name| !name.is_empty()).unwrap_or("default");
        let namespace = Namespace::new(name);
        let namespace =
            namespace.map_err(|error| Text::bad(format!("Invalid namespace: {error}")))?;
        Ok(Self { cluster, door, asked, namespace })
    }

    /// This process' name as a node.
    pub(super) fn node(&self) -> &'a str {
        self.cluster.node.as_str()
    }

    /// A service of that name.
    pub(super) fn service(&self, name: &str) -> Result<ServiceRef, Text> {
        let name = ServiceName::new(name);
        let name = name.map_err(|error| Text::bad(format!("Invalid service name: {error}")))?;
        Ok(ServiceRef { namespace: self.namespace.clone(), name })
    }

    /// Reads a part of the catalog, once it has changed if that is asked for.
    pub(super) async fn browse(&self, part: &Part) -> Result<Browsed, Text> {
        let (after, wait) = self.asked.blocking()?;
        Ok(self.door.recipes.browse(part, after, wait).await?)
    }

    /// Reads a part of the catalog as it is now.
    pub(super) async fn look(&self, part: &Part) -> Result<Browsed, Text> {
        Ok(self.door.recipes.browse(part, Revision::NEVER, Duration::ZERO).await?)
    }

    /// Everything of the namespace.
    pub(super) fn all(&self) -> Part {
        Part::All(self.namespace.clone())
    }

    /// Whether lists hold a service by its tags.
    pub(super) fn has_tags(&self, service: &CatalogService) -> bool {
        let tags = &service.instance.tags;
        self.asked.all("tag").all(|wanted| tags.iter().any(|tag| tag == wanted))
    }

    /// Whether lists hold a node by its labels.
    pub(super) fn has_meta(&self, node: &CatalogNode) -> bool {
        let meta = &node.record.meta;
        self.asked.all("node-meta").all(|wanted| {
            let (key, value) = wanted.split_once(':').unwrap_or((wanted, ""));
            meta.get(key).is_some_and(|found| found == value)
        })
    }

    /// Whether it is asked about another cluster, of which nothing is known here.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.asked.get("peer").is_some_and(|peer| !peer.is_empty())
    }

    /// The expression that elements with these fields must fulfil.
    pub(super) fn filter(&self, fields: &'static Field) -> Result<Filter, Text> {
        let text = self.asked.get("filter").unwrap_or_default();
        if text.is_empty() {
            return Ok(Filter(None));
        }
        let read = Expression::new(text, fields);
        let wrong = |error| format!("Failed to create boolean expression evaluator: {error}");
        read.map(|expression| Filter(Some(expression))).map_err(|error| Text::bad(wrong(error)))
    }

    /// A list, without what the expression leaves out.
    pub(super) fn list<T: Serialize>(
        &self,
        index: Revision,
        filter: &Filter,
        list: Vec<T>,
    ) -> Result<Response, Text> {
        let list = if self.is_elsewhere() { Vec::new() } else { filter.keep(list)? };
        Ok(indexed(self.door, index.get(), json(self.asked, &list)))
    }

    /// Anything else that has an index.
    pub(super) fn one(&self, index: Revision, value: &impl Serialize) -> Response {
        indexed(self.door, index.get(), with_status(self.asked, StatusCode::OK, value))
    }
}

/// What elements of a list must fulfil, if anything.
#[derive(Debug)]
pub(super) struct Filter(Option<Expression>);

impl Filter {
    /// Whether `element` stays.
    pub(super) fn holds(&self, element: &impl Serialize) -> Result<bool, Text> {
        let Some(expression) = &self.0 else { return Ok(true) };
        let value = serde_json::to_value(element);
        let value = value.map_err(|error| Text::failed(error.to_string()))?;
        Ok(expression.holds(&value))
    }

    /// Those that stay.
    pub(super) fn keep<T: Serialize>(&self, list: Vec<T>) -> Result<Vec<T>, Text> {
        let mut kept = Vec::with_capacity(list.len());
        for element in list {
            if self.holds(&element)? {
                kept.push(element);
            }
        }
        Ok(kept)
    }
}
