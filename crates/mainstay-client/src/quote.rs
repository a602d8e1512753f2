//! Names of tables and columns, as they stand in a statement.

/// As `PostgreSQL` has it.
#[cfg(feature = "postgres")]
pub(crate) fn postgres(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As `MariaDB` and `MySQL` have it.
#[cfg(feature = "mysql")]
pub(crate) fn mysql(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(all(test, feature = "postgres", feature = "mysql"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_its_own_quotes() {
        assert_eq!(postgres(r#"a"; drop table t --"#), r#""a""; drop table t --""#);
        assert_eq!(mysql("a`; drop table t -- "), "`a``; drop table t -- `");
    }
}
