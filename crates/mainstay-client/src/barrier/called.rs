//! The branch that a participant is called for.

use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// A branch, and what it is asked to do: as a coordinator says it with each call.
///
/// With the feature `axum` it is an extractor for handlers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    pub(super) mode: String,
    pub(super) gid: String,
    pub(super) id: String,
    pub(super) op: String,
}

/// A request that names no branch, or none that can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchInvalid {
    /// It says nothing of a transaction.
    #[error(
        "the request is no call of a branch: it has neither `mainstay-gid`, `mainstay-branch`, \
         `mainstay-op` and `mainstay-mode`, nor `gid`, `branch_id`, `op` and `trans_type` in its \
         query, nor `dtm-gid`, `dtm-branch_id`, `dtm-op` and `dtm-trans_type`"
    )]
    Missing,
    /// It says something that cannot be.
    #[error("{field} {value:?} of the branch must be {must}")]
    Wrong {
        /// Which part.
        field: &'static str,
        /// What it said.
        value: String,
        /// What it must be.
        must: &'static str,
    },
}

impl Branch {
    /// The operation `op` (`action`, `compensate`, `try`, `confirm`, `cancel`, `prepare`, `commit`,
    /// `rollback`, `msg`) of the branch `branch` of the transaction `gid` of a `mode`.
    ///
    /// # Errors
    ///
    /// [`BranchInvalid::Wrong`]: what does not fit the columns of a barrier's table, which would be
    /// cut off there.
    pub fn new(mode: &str, gid: &str, branch: &str, op: &str) -> Result<Self, BranchInvalid> {
        let wrong = |field, value: &str, must| {
            Err(BranchInvalid::Wrong { field, value: value.to_owned(), must })
        };
        if !(1..=128).contains(&gid.len()) || gid.chars().any(char::is_control) {
            return wrong("gid", gid, "1 to 128 bytes without control characters");
        }
        let fits = |text: &str, longest: usize, more: &[u8]| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
            (1..=longest).contains(&text.len()) && text.bytes().all(legal)
        };
        if !fits(branch, 64, b".-") {
            return wrong("branch", branch, "1 to 64 of 0-9, A-Z, a-z, `.` and `-`");
        }
        for (field, value) in [("operation", op), ("mode", mode)] {
            if !fits(value, 16, b"-_") {
                return wrong(field, value, "1 to 16 of 0-9, A-Z, a-z, `-` and `_`");
            }
        }
        let [mode, gid, id, op] = [mode, gid, branch, op].map(ToOwned::to_owned);
        Ok(Self { mode, gid, id, op })
    }

    /// What a request says: by our own headers; else, as coordinators of DTM do, by parameters of
    /// its query, or by metadata.
    ///
    /// # Errors
    ///
    /// [`BranchInvalid`]: it is no call of a branch. Answer 422.
    pub fn of_request(headers: &HeaderMap, query: Option<&str>) -> Result<Self, BranchInvalid> {
        let header = |name: &str| {
            let text = headers.get(name)?.to_str().ok()?;
            Some(percent_decode_str(text).decode_utf8_lossy().into_owned())
        };
        let plain = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let asked = |name: &str| parameter(query?, name);
        let named =
            all(["mainstay-mode", "mainstay-gid", "mainstay-branch", "mainstay-op"], header)
                .or_else(|| all(["trans_type", "gid", "branch_id", "op"], asked))
                .or_else(|| all(["dtm-trans_type", "dtm-gid", "dtm-branch_id", "dtm-op"], plain));
        let [mode, gid, branch, op] = named.ok_or(BranchInvalid::Missing)?;
        Self::new(&mode, &gid, &branch, &op)
    }

    /// The mode: `saga`, `tcc`, `message` (of DTM `msg`), `xa`.
    pub fn mode(&self) -> &str {
        &self.mode
    }

    /// The transaction.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// The branch in it.
    pub fn branch(&self) -> &str {
        &self.id
    }

    /// What it is asked to do.
    pub fn op(&self) -> &str {
        &self.op
    }
}

fn all(names: [&str; 4], read: impl Fn(&str) -> Option<String>) -> Option<[String; 4]> {
    let [mode, gid, branch, op] = names.map(read);
    Some([mode?, gid?, branch?, op?])
}

/// The value of `name` in a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let spaced = value.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[track_caller]
    fn check(
        headers: &[(&'static str, &'static str)],
        query: Option<&str>,
        want: Option<[&str; 4]>,
    ) {
        let named = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(named).collect();
        let read = Branch::of_request(&headers, query);
        let want = want.map(|[mode, gid, branch, op]| Branch::new(mode, gid, branch, op).unwrap());
        assert_eq!(read.as_ref().ok(), want.as_ref(), "{read:?}");
    }

    #[test]
    fn a_call_says_for_which_branch_it_is() {
        let ours = [
            ("mainstay-mode", "saga"),
            ("mainstay-gid", "%E8%BD%AC%E8%B4%A6-7"),
            ("mainstay-branch", "01"),
            ("mainstay-op", "compensate"),
        ];
        let query = "a=b&gid=g+%2B1&trans_type=msg&branch_id=00&op=msg";
        let metadata = [
            ("dtm-trans_type", "tcc"),
            ("dtm-gid", "g"),
            ("dtm-branch_id", "0101"),
            ("dtm-op", "try"),
        ];
        check(&ours, Some(query), Some(["saga", "转账-7", "01", "compensate"]));
        check(&[], Some(query), Some(["msg", "g +1", "00", "msg"]));
        check(&metadata, None, Some(["tcc", "g", "0101", "try"]));
        check(&ours[..3], Some("gid=g"), None);
        check(&[], Some(&query.replace("00", "0'0")), None);
    }

    #[test]
    fn what_a_table_would_cut_off_is_refused() {
        for (gid, branch, op) in [
            ("", "01", "try"),
            ("a\nb", "01", "try"),
            (&"g".repeat(129), "01", "try"),
            ("g", &"1".repeat(65), "try"),
            ("g", "分", "try"),
            ("g", "01", "a-word-that-is-too-long"),
        ] {
            let refused = Branch::new("tcc", gid, branch, op).unwrap_err();
            assert!(matches!(refused, BranchInvalid::Wrong { .. }), "{refused}");
        }
    }
}
