//! Conditional updates in `MariaDB`, 10.5 and later, and `MySQL` 8.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable;
use mysql_async::{Error, Params, Value};

use super::{Conflicts, Outcome, Table};
use crate::quote::mysql as quote;

/// Sets columns of the row `id` if it still has `version`, and counts the version up.
///
/// `connection` is the caller's connection or transaction; without a transaction the update is one
/// by itself.
///
/// # Errors
///
/// What the database said, unless that is a conflict, which is an [`Outcome`].
///
/// # Cancel safety
///
/// Not safe: the statement may have been sent. Roll back, or drop the transaction, which does.
pub async fn update(
    connection: &mut impl Queryable,
    table: &Table<'_>,
    id: impl Into<Value> + Send,
    version: i64,
    set: &[(&str, Value)],
) -> Result<Outcome, Error> {
    match try_update(connection, table, id.into(), version, set).await {
        Err(error) if error.is_conflict() => Ok(Outcome::Conflict { current: None }),
        came => came,
    }
}

impl Conflicts for Error {
    /// Errors 1213 (deadlock), 1205 (a lock was not given in time) and 1020 (changed since the
    /// snapshot, `MariaDB` with `innodb_snapshot_isolation`, on by default since 11.6). After 1205
    /// the database keeps the transaction open: roll back all the same.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Server(error) if [1213, 1205, 1020].contains(&error.code))
    }
}

async fn try_update(
    connection: &mut impl Queryable,
    table: &Table<'_>,
    id: Value,
    version: i64,
    set: &[(&str, Value)],
) -> Result<Outcome, Error> {
    let (text, values) = statement(table, &id, version, set);
    let result = connection.exec_iter(text, Params::Positional(values)).await?;
    let affected = result.affected_rows();
    result.drop_result().await?;
    // The version changes in any case, so rows found and rows changed are the same number.
    if affected > 0 {
        return Ok(Outcome::Updated { version: version.saturating_add(1) });
    }
    // A locking read: a plain one sees the snapshot, in which nobody else was there yet.
    let place = place(table);
    let (column, key) = (quote(table.version), quote(table.id));
    let text = format!("SELECT {column} FROM {place} WHERE {key} = ? LOCK IN SHARE MODE");
    let current: Option<i64> = connection.exec_first(text, Params::Positional(vec![id])).await?;
    Ok(current.map_or(Outcome::Gone, |current| Outcome::Conflict { current: Some(current) }))
}

/// The update and its values.
fn statement(
    table: &Table<'_>,
    id: &Value,
    version: i64,
    set: &[(&str, Value)],
) -> (String, Vec<Value>) {
    let column = quote(table.version);
    let mut text = format!("UPDATE {} SET ", place(table));
    let mut values = Vec::with_capacity(set.len() + 2);
    for (name, value) in set {
        values.push(value.clone());
        write!(text, "{} = ?, ", quote(name)).expect("a string takes all");
    }
    let key = quote(table.id);
    write!(text, "{column} = {column} + 1 WHERE {key} = ? AND {column} = ?")
        .expect("a string takes all");
    values.extend([id.clone(), version.into()]);
    (text, values)
}

fn place(table: &Table<'_>) -> String {
    match table.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(table.name)),
        None => quote(table.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_values_bound() {
        let table = Table::new("Stock", "sku").schema("shop").version("v");
        let set = [("on `hand`", 3.into()), ("note", "x".into())];
        let (text, values) = statement(&table, &"a'b".into(), 7, &set);
        assert_eq!(
            text,
            "UPDATE `shop`.`Stock` SET `on ``hand``` = ?, `note` = ?, `v` = `v` + 1 \
             WHERE `sku` = ? AND `v` = ?"
        );
        let want: [Value; 4] = [3.into(), "x".into(), "a'b".into(), 7i64.into()];
        assert_eq!(values, want);
    }
}
