//! On what terms somebody changes what is agreed.

use mainstay_store::Revision;

use crate::audit::Author;

/// Who changes something, and whether it is only to be tried, or only if nothing has moved.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Who asks, and why.
    pub author: &'a Author,
    /// Only if it is still as it was at this revision, which a list showed or a write answered.
    pub expected: Option<Revision>,
    /// Say what would be done or refused, and change nothing.
    pub dry_run: bool,
}

impl<'a> From<&'a Author> for Terms<'a> {
    fn from(author: &'a Author) -> Self {
        Self { author, expected: None, dry_run: false }
    }
}
