//! Databases that take part, and what they call a prepared branch.
//!
//! There is no attempt in the name: a second delivery must meet the first.

use mainstay_api::receipt;
pub use mainstay_api::receipt::FORMAT_ID;

use crate::name::{BranchId, Gid, NameInvalid};

/// Eight of `a-z` and `0-9`: whose branches they are, when several coordinators share a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cluster(String);

impl Cluster {
    /// Checks `text`.
    pub fn new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        (text.len() == 8 && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A prepared branch, as databases name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xid {
    /// Whose it is.
    pub cluster: Cluster,
    /// Of which transaction.
    pub gid: Gid,
    /// Which branch.
    pub branch: BranchId,
}

/// What a database lists as prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// One of ours.
    Ours(Xid),
    /// Another coordinator's, or somebody else's: never touched.
    Foreign,
}

impl Xid {
    /// The name of a branch.
    ///
    /// # Errors
    ///
    /// [`NameInvalid`] when the gid cannot be part of it.
    pub fn new(cluster: Cluster, gid: Gid, branch: BranchId) -> Result<Self, NameInvalid> {
        gid.fits_xa()?;
        Ok(Self { cluster, gid, branch })
    }

    /// As `PostgreSQL` has it: below its 200 bytes.
    pub fn postgres(&self) -> String {
        receipt::postgres_name(self.cluster.as_str(), self.gid.as_str(), self.branch.as_str())
    }

    /// As XA has it: `gtrid`, at most 57 bytes of 64, and `bqual`.
    pub fn xa(&self) -> (String, String) {
        receipt::xa_name(self.cluster.as_str(), self.gid.as_str(), self.branch.as_str())
    }

    /// As a literal of XA statements: hexadecimal, so that no quoting matters.
    pub fn xa_literal(&self) -> String {
        receipt::xa_literal(self.cluster.as_str(), self.gid.as_str(), self.branch.as_str())
    }

    /// Reads a name of `PostgreSQL`'s list.
    pub fn of_postgres(cluster: &Cluster, name: &str) -> Listed {
        let read = || {
            let rest =
                name.strip_prefix("ms:")?.strip_prefix(cluster.as_str())?.strip_prefix(':')?;
            let (gid, branch) = rest.rsplit_once(':')?;
            Self::read(cluster, gid, branch)
        };
        read().map_or(Listed::Foreign, Listed::Ours)
    }

    /// Reads an entry of `XA RECOVER`: its format, `gtrid` and `bqual`.
    pub fn of_xa(cluster: &Cluster, format: u32, gtrid: &[u8], bqual: &[u8]) -> Listed {
        let read = || {
            let gid = std::str::from_utf8(gtrid).ok()?.strip_prefix(cluster.as_str())?;
            let branch = std::str::from_utf8(bqual).ok()?;
            Self::read(cluster, gid.strip_prefix('|')?, branch)
        };
        let ours = if format == FORMAT_ID { read() } else { None };
        ours.map_or(Listed::Foreign, Listed::Ours)
    }

    fn read(cluster: &Cluster, gid: &str, branch: &str) -> Option<Self> {
        Self::new(cluster.clone(), Gid::new(gid).ok()?, BranchId::new(branch).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster::new("k3v9q2mt").unwrap()
    }

    #[test]
    fn names_are_those_of_the_specification_and_read_back() {
        let gid = Gid::new("order-1").unwrap();
        let xid = Xid::new(cluster(), gid, BranchId::number(1)).unwrap();
        assert_eq!(xid.postgres(), "ms:k3v9q2mt:order-1:01");
        assert_eq!(xid.xa(), ("k3v9q2mt|order-1".to_owned(), "01".to_owned()));
        assert_eq!(xid.xa_literal(), "X'6b33763971326d747c6f726465722d31',X'3031',19795");
        assert_eq!(Xid::of_postgres(&cluster(), &xid.postgres()), Listed::Ours(xid.clone()));
        let (gtrid, bqual) = xid.xa();
        let read = Xid::of_xa(&cluster(), FORMAT_ID, gtrid.as_bytes(), bqual.as_bytes());
        assert_eq!(read, Listed::Ours(xid));
    }

    #[test]
    fn what_is_not_ours_is_never_read_as_ours() {
        for name in ["", "ms:other678:order-1:01", "ms:k3v9q2mt:order-1", "ms:k3v9q2mt::01", "foo"]
        {
            assert_eq!(Xid::of_postgres(&cluster(), name), Listed::Foreign, "{name:?}");
        }
        for (format, gtrid, bqual) in [
            (1, "k3v9q2mt|a", "01"),
            (FORMAT_ID, "other678|a", "01"),
            (FORMAT_ID, "k3v9q2mt|a", "00"),
        ] {
            let read = Xid::of_xa(&cluster(), format, gtrid.as_bytes(), bqual.as_bytes());
            assert_eq!(read, Listed::Foreign, "{gtrid}");
        }
        assert_eq!(Cluster::new("K3v9q2mt"), None);
        assert!(Xid::new(cluster(), Gid::new("转账").unwrap(), BranchId::number(1)).is_err());
    }

    #[test]
    fn the_longest_names_fit_both_databases() {
        let gid = Gid::new(&"g".repeat(48)).unwrap();
        let branch = BranchId::new(&"1".repeat(64)).unwrap();
        let xid = Xid::new(cluster(), gid, branch).unwrap();
        assert!(xid.postgres().len() < 200);
        assert!(xid.xa().0.len() <= 64 && xid.xa().1.len() <= 64);
    }
}
