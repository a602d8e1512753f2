//! Business statements, as a closure.

/// An async closure that runs business statements on a session `S` of a database, and may be run
/// again: `async |sql| { sql.execute(…).await?; Ok(()) }`.
///
/// Its future is `Send`, so that handlers on a runtime of several threads can wait for it; what it
/// captures it only reads. Nothing but closures and functions is one.
pub trait Business<S, T, E> {
    /// The statements under way.
    type Statements: Future<Output = Result<T, E>> + Send;

    /// Runs them on `sql`.
    fn run(&mut self, sql: S) -> Self::Statements;
}

impl<S, T, E, F, Statements> Business<S, T, E> for F
where
    F: FnMut(S) -> Statements,
    Statements: Future<Output = Result<T, E>> + Send,
{
    type Statements = Statements;

    fn run(&mut self, sql: S) -> Statements {
        self(sql)
    }
}
