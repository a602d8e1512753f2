//! Items: what a group is made of.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::CentreError;
use crate::name::ItemName;

/// Longest content: half a value of the store, so that it fits sealed and beside its neighbours.
pub const CONTENT_BYTES_MAX: usize = 524_288;

/// Most items of a group. A release that lists them is then about 200 KiB.
pub const ITEMS_MAX: usize = 512;

/// Longest schema, as JSON. It is compiled with each publication that changes its item.
pub const SCHEMA_BYTES_MAX: usize = 65_536;

/// What a content is written in.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConfigFormat)]
pub enum Format {
    /// Anything; not checked.
    #[default]
    Text,
    /// JSON (RFC 8259).
    Json,
    /// YAML 1.2, one document with text keys.
    Yaml,
    /// TOML 1.1.
    Toml,
    /// Java properties; every text is one.
    Properties,
    /// XML 1.0 without a document type.
    Xml,
}

impl Format {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Toml => "toml",
            Self::Properties => "properties",
            Self::Xml => "xml",
        }
    }

    /// Whether a schema can speak of it.
    pub(super) const fn is_tree(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Toml)
    }
}

/// An item as a caller writes it.
#[derive(Clone, Default, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfigItemPut)]
pub struct RawItem {
    /// What the content is written in; `text` when left out.
    #[serde(default)]
    pub format: Format,
    /// The content, up to 524,288 bytes.
    pub content: String,
    /// Whether it is kept sealed, and shown only to whoever may read secrets.
    #[serde(default)]
    pub secret: bool,
    /// A JSON Schema (2020-12) that json, yaml and toml contents must satisfy.
    #[serde(default)]
    pub schema: Option<Value>,
}

impl fmt::Debug for RawItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "RawItem", self.format, &self.content, self.secret)
    }
}

/// An item, checked for size.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// What the content is written in.
    pub format: Format,
    /// The content.
    pub content: Arc<str>,
    /// Whether it is a secret.
    pub secret: bool,
    /// Its schema, as compact JSON.
    pub schema: Option<Arc<str>>,
}

impl Item {
    /// Checks sizes, and that a schema can speak of the format. What the content says is checked
    /// by [`check`](super::check::check).
    ///
    /// # Errors
    ///
    /// [`CentreError::Name`], [`CentreError::TooLarge`], [`CentreError::Invalid`].
    pub fn new(name: &str, raw: RawItem) -> Result<Self, CentreError> {
        let name = ItemName::new(name)?;
        let RawItem { format, content, secret, schema } = raw;
        let fits = |part: &str, found, max| {
            let what = format!("{part} of item {name}");
            if found <= max {
                return Ok(());
            }
            Err(CentreError::TooLarge { what, found, unit: "bytes", max })
        };
        fits("content", content.len(), CONTENT_BYTES_MAX)?;
        let schema = schema.map(|schema| schema.to_string());
        if let Some(schema) = &schema {
            fits("schema", schema.len(), SCHEMA_BYTES_MAX)?;
            if !format.is_tree() {
                let field = format!("items.{name}.schema");
                let problem = "needs a content in json, yaml or toml";
                return Err(CentreError::invalid(field, problem));
            }
        }
        Ok(Self { format, content: content.into(), secret, schema: schema.map(Arc::from) })
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "Item", self.format, &self.content, self.secret)
    }
}

/// A secret content stays out of every log that shows an item.
pub(super) fn show(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    format: Format,
    content: &str,
    secret: bool,
) -> fmt::Result {
    let content = if secret { "***" } else { content };
    let mut shown = f.debug_struct(what);
    shown.field("format", &format.as_str()).field("content", &content).finish_non_exhaustive()
}
