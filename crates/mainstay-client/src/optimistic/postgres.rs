//! Conditional updates in `PostgreSQL`, 13 and later.

use std::fmt::Write as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, GenericClient};

use super::{Conflicts, Outcome, Table};
use crate::quote::postgres as quote;

/// A value to be bound, in whatever type its column has.
pub type Bound<'a> = &'a (dyn ToSql + Sync);

/// Sets columns of the row `id` if it still has `version`, and counts the version up.
///
/// `client` is the caller's connection or transaction; without a transaction the update is one by
/// itself.
///
/// # Errors
///
/// What the database said, unless that is a conflict, which is an [`Outcome`].
///
/// # Cancel safety
///
/// Not safe: the statement may have been sent. Roll back, or drop the transaction, which does.
pub async fn update<C: GenericClient + Sync>(
    client: &C,
    table: &Table<'_>,
    id: Bound<'_>,
    version: i64,
    set: &[(&str, Bound<'_>)],
) -> Result<Outcome, Error> {
    match try_update(client, table, id, version, set).await {
        Err(error) if error.is_conflict() => Ok(Outcome::Conflict { current: None }),
        came => came,
    }
}

impl Conflicts for Error {
    /// SQLSTATE 40001 (serialization failure) and 40P01 (deadlock).
    fn is_conflict(&self) -> bool {
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| conflicts.contains(code))
    }
}

async fn try_update<C: GenericClient + Sync>(
    client: &C,
    table: &Table<'_>,
    id: Bound<'_>,
    version: i64,
    set: &[(&str, Bound<'_>)],
) -> Result<Outcome, Error> {
    let (statement, values) = statement(table, &id, &version, set);
    if client.execute(&statement, &values).await? > 0 {
        return Ok(Outcome::Updated { version: version.saturating_add(1) });
    }
    let place = place(table);
    let (column, key) = (quote(table.version), quote(table.id));
    let statement = format!("SELECT {column}::bigint FROM {place} WHERE {key} = $1");
    Ok(match client.query_opt(&statement, &[id]).await? {
        Some(row) => Outcome::Conflict { current: Some(row.try_get(0)?) },
        None => Outcome::Gone,
    })
}

/// The update and its values.
fn statement<'a>(
    table: &Table<'_>,
    id: &'a Bound<'a>,
    version: &'a i64,
    set: &[(&str, Bound<'a>)],
) -> (String, Vec<Bound<'a>>) {
    let column = quote(table.version);
    let mut text = format!("UPDATE {} SET ", place(table));
    let mut values: Vec<Bound<'a>> = vec![*id, version];
    for (name, value) in set {
        values.push(*value);
        write!(text, "{} = ${}, ", quote(name), values.len()).expect("a string takes all");
    }
    let key = quote(table.id);
    write!(text, "{column} = {column} + 1 WHERE {key} = $1 AND {column} = $2::bigint")
        .expect("a string takes all");
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
        let id: Bound<'_> = &"a'b";
        let (text, values) = statement(&table, &id, &7, &[("on \"hand\"", &3), ("note", &"x")]);
        assert_eq!(
            text,
            r#"UPDATE "shop"."Stock" SET "on ""hand""" = $3, "note" = $4, "v" = "v" + 1 WHERE "sku" = $1 AND "v" = $2::bigint"#
        );
        assert_eq!(values.len(), 4);
    }
}
