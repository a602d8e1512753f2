//! A participant of transactions, examined.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which participant, and by what it is judged.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Conformance {
    /// Where it is called.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) url: String,
    /// Which operations it has: `saga` is action and compensate, `tcc` is try, confirm and cancel.
    #[arg(long, value_name = "MODE", default_value = "saga")]
    pub(in crate::cli) mode: Pattern,
    /// Where one operation is called, `compensate=/restore`: a URL, or a path at the host of
    /// `--url`; may be repeated.
    #[arg(long, value_name = "OP=URL")]
    pub(in crate::cli) at: Vec<String>,
    /// How a call says for which branch it is: by our headers, or by the query as DTM does.
    #[arg(long, value_name = "DIALECT", default_value = "native")]
    pub(in crate::cli) dialect: Spoken,
    /// What it is sent: text, or `@FILE`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) body: String,
    /// What its business refuses with 409, as more than is in stock: text, or `@FILE`.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) refused_body: Option<String>,
    /// A header of each call, `name: value`; may be repeated. The content type is
    /// `application/json` unless it is one of them.
    #[arg(long = "header", value_name = "HEADER")]
    pub(in crate::cli) headers: Vec<String>,
    /// The database it works in, `postgresql://user@host:port/database` or `mariadb://…`.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) database: Option<String>,
    /// A file whose first line is the password there.
    #[arg(long, value_name = "FILE", requires = "database")]
    pub(in crate::cli) password_file: Option<PathBuf>,
    /// A query for one number that its work changes, and undoing puts back.
    #[arg(long, value_name = "SQL", requires = "database")]
    pub(in crate::cli) probe: Option<String>,
    /// Whose table it keeps its barrier in; the rows are looked at, too.
    #[arg(long, value_name = "TABLE", requires = "database")]
    pub(in crate::cli) barrier: Option<BarrierTable>,
    /// How long an answer may take.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    pub(in crate::cli) timeout: String,
}

/// How the operations of a participant hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Pattern {
    /// Action and compensate.
    Saga,
    /// Try, confirm and cancel.
    Tcc,
}

/// How a call says for which branch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Spoken {
    /// By headers, `mainstay-gid` and so on.
    Native,
    /// By parameters of the query.
    Dtm,
}

/// A table of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum BarrierTable {
    /// `mainstay_barrier`.
    Mainstay,
    /// `dtm_barrier.barrier`.
    Dtm,
}
