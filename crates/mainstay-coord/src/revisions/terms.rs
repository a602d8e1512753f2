//! A kind of object, and on what terms one is changed.

use serde::Serialize;
use serde_json::Value;

use crate::audit::{Author, Mask};
use crate::keys::RuleKind;

/// Largest content, in bytes: two copies of it and a record fit into a batch of 1,400,000.
pub const CONTENT_BYTES_MAX: usize = 524_288;

/// A kind of object with a history.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, and where its keys lie.
    pub key: RuleKind,
    /// The path of its calls: `/switches`.
    pub path: &'static str,
    /// What is shown of a content in differences and records: the content with its secrets marked.
    pub shown: fn(&Mask, Value) -> Value,
    /// Finds what is wrong with a content.
    pub check: fn(&Value) -> Vec<Fault>,
}

/// One thing that is wrong with a content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ContentFault)]
pub struct Fault {
    /// Where: members separated by `/`.
    pub path: String,
    /// The line it stands in, from 1, where the content is a text.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// What kind of fault.
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl Fault {
    /// `detail` is wrong at `path`.
    pub fn new(path: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { path: path.into(), code, detail: detail.into(), ..Self::default() }
    }
}

/// On what terms an object is changed.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The revision the change is based on (`If-Match`); 0 is "not there". `None` is whatever is
    /// there.
    pub expected: Option<u64>,
    /// Where the object is kept, unless here: `file:<path>`. Only the same place may change it.
    pub managed_by: Option<String>,
    /// Shows what would happen, and changes nothing.
    pub dry_run: bool,
    /// Who asks, and why.
    pub author: Author,
}

impl Terms {
    /// `author` changes whatever is there.
    pub fn new(author: Author) -> Self {
        Self { author, ..Self::default() }
    }

    /// Only if its newest revision is `revision`; 0 is "not there".
    #[must_use]
    pub const fn expecting(mut self, revision: u64) -> Self {
        self.expected = Some(revision);
        self
    }

    /// Changes nothing.
    #[must_use]
    pub const fn rehearsed(mut self) -> Self {
        self.dry_run = true;
        self
    }
}
