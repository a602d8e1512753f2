//! The binary: configuration, command line, and what joins the crates. Wiring only.
//!
//! | what | module |
//! |---|---|
//! | the command line: grammar, verbs | [`cli`] |
//! | data for people and programs | [`output`], [`width`] |
//! | errors for people and programs, exit codes | [`report`], [`exit`] |
//! | talking to a running control plane | [`control_client`] |
//! | what a code means | [`explain`] |
//! | commands that are run for somebody | [`child`] |
//! | is this machine fit to run on | [`check`] |
//! | agreed state, and who shares it | [`cluster`] |
//! | requests that are taken on now and made later | [`deferred`] |
//! | instances that others know | [`resolve`] |
//! | names of services, for every resolver | [`dns`] |
//! | keys of issuers, by which callers are known | [`jwt`] |
//! | rules of the store, and the data plane that follows them | [`rules`] |
//! | secrets that lie in files | [`secret`] |
//! | what switches move in the data plane | [`switching`] |
//! | the configuration, in layers, explained to the line | [`settings`] |
//! | the proxies beside a program | [`sidecar`] |

pub mod audit;
pub mod backup;
pub mod check;
pub mod child;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod control_client;
pub mod deferred;
pub mod dns;
pub mod exit;
pub mod explain;
pub mod jwt;
pub mod observing;
pub mod output;
pub mod report;
pub mod resolve;
pub mod role;
pub mod rules;
pub mod secret;
pub mod settings;
pub mod sidecar;
pub mod switching;
pub mod transaction;
pub mod width;
