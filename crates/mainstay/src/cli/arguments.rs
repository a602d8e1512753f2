//! The grammar. Nouns are singular, flags are long; short are only `-o -f -w -n -q -v -y -h`.

pub(super) mod agreed;
pub(super) mod audit;
pub(super) mod backup;
pub(super) mod config;
pub(super) mod conformance;
pub(super) mod deferred;
pub(super) mod keyring;
pub(super) mod lock;
pub(super) mod rules;
pub(super) mod run;
pub(super) mod store;
pub(super) mod switch;
pub(super) mod transaction;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::reference::Reference;
use crate::check::Form;
use crate::child::Parting;
use crate::output::Format;

/// Keeps a system of microservices standing when its parts fail.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    disable_help_subcommand = true,
    disable_version_flag = true,
    after_help = "Examples:\n  mainstay settings validate --config mainstay.toml\n  mainstay explain circuit-open\n\nFlags every command takes: mainstay help flags"
)]
pub struct Cli {
    /// Flags every command takes.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags every command takes; shown by `mainstay help flags` alone.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Global {
    /// Form of the data on stdout; default `table`.
    #[arg(short, long, global = true, hide = true, value_name = "FORM")]
    pub(super) output: Option<Format>,
    /// Colours; default `auto`: on a terminal, without `NO_COLOR` and `TERM=dumb`.
    #[arg(long, global = true, hide = true, value_name = "WHEN")]
    pub(super) color: Option<Color>,
    /// Nothing on stderr but errors.
    #[arg(short, long, global = true, hide = true)]
    pub(super) quiet: bool,
    /// Control plane to talk to; default: the running `mainstay dev`, else `http://127.0.0.1:7400`.
    #[arg(long, global = true, hide = true, value_name = "URL")]
    pub(super) control: Option<String>,
    /// Does not ask before something that destroys or stops.
    #[arg(short, long, global = true, hide = true)]
    pub(super) yes: bool,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Starts everything there is on this machine, for one developer; nothing else is needed.
    #[command(after_help = examples("dev", "dev --ephemeral --random-ports -o json"))]
    Dev(RunDev),
    /// Starts a node that keeps agreed state: registry, configuration, locks.
    #[command(after_help = examples("server --config mainstay.toml", "server --ephemeral --random-ports -o json"))]
    Server(Run),
    /// Starts the gateway.
    #[command(after_help = examples("gateway --config mainstay.toml", "gateway --config mainstay.toml --takeover"))]
    Gateway(RunGateway),
    /// Runs a program that is registered as an instance for as long as it runs.
    ///
    /// Starts the program, registers it once it is well, and beats for it. On SIGTERM it is
    /// deregistered, calls under way have the time of `--drain`, and then it is told to end; other
    /// signals are passed on. The exit code is the program's, or 6 when it was never well. The
    /// control plane may be away, at first or later: the program runs all the same.
    #[command(after_help = examples("run --service order --port 8080 -- ./order", "run --service shop/order --port 8080 --health /healthz -- ./order --fast"))]
    Run(run::RunProgram),
    /// Mainstay's own configuration.
    #[command(after_help = examples("settings validate", "settings show --origin"))]
    Settings {
        #[command(subcommand)]
        verb: Settings,
    },
    /// Routes of the gateway.
    #[command(after_help = examples("route test GET http://shop/orders/7", "route set orders -f orders.toml"))]
    Route {
        #[command(subcommand)]
        verb: Route,
    },
    /// Services as the gateway reaches them: instances, retries, balancing.
    #[command(after_help = examples("upstream list", "upstream set order -f order.toml"))]
    Upstream {
        #[command(subcommand)]
        verb: rules::Rule,
    },
    /// Circuits and their states.
    #[command(after_help = examples("circuit list --state open", "circuit reset order-all"))]
    Circuit {
        #[command(subcommand)]
        verb: Circuit,
    },
    /// Limits and their use.
    #[command(after_help = examples("limit usage order-api", "limit set order-api -f order-api.toml"))]
    Limit {
        #[command(subcommand)]
        verb: Limit,
    },
    /// Fallbacks: what is answered when a call fails.
    #[command(after_help = examples("fallback list", "fallback set orders -f orders.toml"))]
    Fallback {
        #[command(subcommand)]
        verb: rules::Rule,
    },
    /// Services and who can answer for them.
    #[command(after_help = examples("service list", "service explain order"))]
    Service {
        #[command(subcommand)]
        verb: agreed::Service,
    },
    /// Instances of services.
    #[command(after_help = examples("instance register order 10.0.0.7:8080", "instance drain order 10.0.0.7:8080"))]
    Instance {
        #[command(subcommand)]
        verb: agreed::Instance,
    },
    /// Locks: who holds them, who waits; held while a command runs.
    #[command(after_help = examples("lock list", "lock run jobs/nightly -- ./report"))]
    Lock {
        #[command(subcommand)]
        verb: lock::Lock,
    },
    /// Elections: who leads, who stands; a command that runs while it leads.
    #[command(after_help = examples("leader list", "leader run scheduler -- ./scheduler"))]
    Leader {
        #[command(subcommand)]
        verb: lock::Leader,
    },
    /// Global transactions: how they stand, and verbs for those that do not get on.
    #[command(visible_alias = "tx", after_help = examples("transaction list --state committing", "tx retry order-1 --reason 'the bank is back'"))]
    Transaction {
        #[command(subcommand)]
        verb: transaction::Transaction,
    },
    /// Deferred requests: what waits in each queue, dead letters.
    #[command(after_help = examples("deferred list", "deferred replay orders --all --reason 'INC-7'"))]
    Deferred {
        #[command(subcommand)]
        verb: deferred::Deferred,
    },
    /// The store of agreed state.
    #[command(after_help = examples("store status", "store range --prefix ins/"))]
    Store {
        #[command(subcommand)]
        verb: store::Store,
    },
    /// Configuration of services: releases of whole groups.
    #[command(after_help = examples("config get shop/payment", "config release shop/payment --note 'higher limit'"))]
    Config {
        #[command(subcommand)]
        verb: config::Config,
    },
    /// Switches: values that are turned while everything runs.
    #[command(after_help = examples("switch list", "switch off shop/recommend --reason 'INC-7'"))]
    Switch {
        #[command(subcommand)]
        verb: switch::Switch,
    },
    /// Plans: many switches at once, there and back.
    #[command(after_help = examples("plan rehearse shop/sale", "plan activate shop/sale --reason 'the sale begins'"))]
    Plan {
        #[command(subcommand)]
        verb: switch::Plan,
    },
    /// Who changed what, and why.
    #[command(after_help = examples("audit search --since 1h", "audit search --action 'config:*'"))]
    Audit {
        #[command(subcommand)]
        verb: audit::Audit,
    },
    /// The keys that seal secrets: the same on every node of a store.
    #[command(after_help = examples("keyring list", "keyring rotate --reason 'once a year'"))]
    Keyring {
        #[command(subcommand)]
        verb: keyring::Keyring,
    },
    /// Everything that is kept, in one file; and back.
    #[command(after_help = examples("backup create monday.backup", "backup verify monday.backup"))]
    Backup {
        #[command(subcommand)]
        verb: backup::Backup,
    },
    /// Faults put in on purpose; every one ends by itself.
    #[command(after_help = examples("fault list", "fault set abort=503 --service order --percent 20 --reason 'drill'"))]
    Fault {
        #[command(subcommand)]
        verb: Fault,
    },
    /// Names of services, as the running process answers them to every resolver.
    #[command(after_help = examples("dns query web.svc.mainstay", "dns query _web._tcp.svc.mainstay --type SRV"))]
    Dns {
        #[command(subcommand)]
        verb: Dns,
    },
    /// Explains a problem code, a configuration key, or a request, service or rule.
    #[command(after_help = examples("explain circuit-open", "explain limit.burst"))]
    Explain(Explain),
    /// Checks this machine, the configuration, or a running control plane.
    #[command(after_help = examples("check --pre", "check --format nagios"))]
    Check(Check),
    /// Prints the version.
    #[command(after_help = examples("version", "version -o json"))]
    Version,
    /// Prints the completion script of a shell.
    #[command(after_help = examples("completions bash > /etc/bash_completion.d/mainstay", "completions fish"))]
    Completions {
        /// Shell.
        shell: clap_complete::Shell,
    },
    /// Helps with a command, or with `flags`.
    #[command(after_help = examples("help flags", "help circuit force-open"))]
    Help {
        /// Command, or `flags`.
        topic: Vec<String>,
    },
    /// Becomes a command that is told when its parent dies.
    #[command(hide = true)]
    Exec {
        /// What it is sent then.
        #[arg(long)]
        parting: Parting,
        /// The process that runs it.
        #[arg(long)]
        parent: i32,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Prints a reference page.
    #[command(hide = true)]
    Reference {
        /// Page.
        what: Reference,
    },
}

/// How a role is started.
#[derive(Clone, Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Where data is kept; made with mode 0700.
    #[arg(long, value_name = "PATH")]
    pub(super) data_dir: Option<PathBuf>,
    /// A temporary data directory, removed at exit.
    #[arg(long, conflicts_with = "data_dir")]
    pub(super) ephemeral: bool,
    /// Every listener on a free port; the ready line says which.
    #[arg(long)]
    pub(super) random_ports: bool,
}

/// How everything is started for one developer.
#[derive(Clone, Debug, Args)]
pub(super) struct RunDev {
    #[command(flatten)]
    pub(super) run: Run,
    /// Lets the gateway, names and clients of Consul listen where others can reach them.
    #[arg(long)]
    pub(super) allow_remote: bool,
}

/// How a gateway is started.
#[derive(Clone, Debug, Args)]
pub(super) struct RunGateway {
    #[command(flatten)]
    pub(super) run: Run,
    /// Takes over from the process that runs on the data directory, without a failed request.
    #[arg(long)]
    pub(super) takeover: bool,
}

/// Which configuration is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigFile {
    /// Main file; `conf.d/*` beside it is read too. Default: `mainstay.toml` here, else
    /// `/etc/mainstay/mainstay.toml`.
    #[arg(long, value_name = "PATH")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Settings {
    /// Shows every value that is set.
    #[command(after_help = examples("settings show", "settings show --origin"))]
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Also where each comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Reads the whole configuration and lists every fault.
    #[command(after_help = examples("settings validate", "settings validate --config ./mainstay.yaml -o json"))]
    Validate {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Prints the JSON Schema of the configuration.
    #[command(after_help = examples("settings schema", "settings schema > mainstay.schema.json"))]
    Schema,
    /// Lets the running process read its configuration again.
    #[command(after_help = examples("settings reload", "settings reload --control http://127.0.0.1:7400"))]
    Reload,
}

#[derive(Debug, Subcommand)]
pub(super) enum Route {
    /// Shows which route a request would take, and the stages it would pass.
    #[command(after_help = examples("route test GET http://shop/orders/7", "route test POST /pay -H 'x-user: 7'"))]
    Test {
        /// Method.
        method: String,
        /// URL, or a path.
        url: String,
        /// Header `name: value`; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "HEADER")]
        headers: Vec<String>,
    },
    #[command(flatten)]
    Rule(rules::Rule),
}

#[derive(Debug, Subcommand)]
pub(super) enum Circuit {
    /// Lists circuits with their states.
    #[command(after_help = examples("circuit list", "circuit list --service order --state open"))]
    List {
        /// Only of this service.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Only in this state.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// The policies themselves, of files and of the store.
        #[arg(long, conflicts_with_all = ["service", "state"])]
        policy: bool,
        /// Only policies of this namespace.
        #[arg(short, long, value_name = "NAME", requires = "policy")]
        namespace: Option<String>,
    },
    /// Shows one circuit with its windows.
    #[command(after_help = examples("circuit show order-all", "circuit show order-all --policy"))]
    Show {
        /// Id, or name of the circuit; of a policy, `name` or `namespace/name`.
        name: String,
        /// The policy itself, as it is written.
        #[arg(long)]
        policy: bool,
    },
    /// Opens a circuit: refuses every call until the time is over.
    #[command(after_help = examples("circuit force-open order-all --reason 'database move' --expires 10m", "circuit force-open order-all --reason 'INC-7' --yes"))]
    ForceOpen(Force),
    /// Keeps a circuit closed: admits every call, whatever fails.
    #[command(after_help = examples("circuit force-close order-all --reason 'false alarm' --expires 10m", "circuit force-close order-all --reason 'INC-7'"))]
    ForceClose(Force),
    /// Gives a circuit back to its own judgement.
    #[command(after_help = examples("circuit reset order-all", "circuit reset order-all --reason 'over'"))]
    Reset {
        /// Id of the circuit, as `circuit list` shows it.
        id: String,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    #[command(flatten)]
    Edit(rules::Edit),
}

#[derive(Debug, Args)]
pub(super) struct Force {
    /// Id of the circuit, as `circuit list` shows it.
    pub(super) id: String,
    /// Why, 3 to 500 characters; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Ends by itself after this time: `90s`, `15m`, `2h`.
    #[arg(long, value_name = "SPAN")]
    pub(super) expires: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Limit {
    /// Shows use, queue and the keys that use most.
    #[command(after_help = examples("limit usage order-api", "limit usage order-api --namespace shop --top 5"))]
    Usage {
        /// Name of the limit.
        name: String,
        /// Namespace.
        #[arg(short, long, default_value = "default", value_name = "NAME")]
        namespace: String,
        /// How many keys to list.
        #[arg(long, default_value_t = 20, value_name = "COUNT")]
        top: u16,
    },
    #[command(flatten)]
    Rule(rules::Rule),
}

#[derive(Debug, Subcommand)]
pub(super) enum Fault {
    /// Puts a fault in.
    #[command(after_help = examples("fault set delay=0.2 --service order --percent 50 --ttl 60s --reason 'drill'", "fault set reset --instance 10.0.0.7:8080 --reason 'INC-7'"))]
    Set(FaultSet),
    /// Ends a fault, or all.
    #[command(after_help = examples("fault clear f-17", "fault clear --all"))]
    Clear {
        /// Id, as `fault list` shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Every fault.
        #[arg(long)]
        all: bool,
    },
    /// Lists faults with the time they have left.
    #[command(after_help = examples("fault list", "fault list -o name"))]
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum Dns {
    /// Asks for a name, over UDP, and over TCP when the answer is too long for that.
    #[command(after_help = examples("dns query web.svc.mainstay", "dns query _http._tcp.web.shop.svc.mainstay --type SRV -o json"))]
    Query {
        /// Name; the dot at its end may be left out.
        name: String,
        /// Type of the records.
        #[arg(long = "type", value_name = "TYPE", default_value = "A", ignore_case = true)]
        kind: DnsType,
    },
}

/// Type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DnsType {
    /// IPv4 addresses.
    #[value(name = "A")]
    A,
    /// IPv6 addresses.
    #[value(name = "AAAA")]
    Aaaa,
    /// Where to connect to: weight, port, target.
    #[value(name = "SRV")]
    Srv,
}

#[derive(Debug, Args)]
pub(super) struct FaultSet {
    /// `delay=SECONDS`, `abort=STATUS`, `reset`, `blackhole`, `slow_body=BYTES_PER_SECOND`,
    /// `connect_timeout`, `truncate=BYTES`.
    pub(super) fault: String,
    /// Only calls to this service.
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// Only calls of this route.
    #[arg(long, value_name = "NAME")]
    pub(super) route: Option<String>,
    /// Only calls to this instance, `host:port`.
    #[arg(long, value_name = "ADDR")]
    pub(super) instance: Option<String>,
    /// Only calls with this header, `name: value`.
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(super) header: Option<String>,
    /// Share of the calls, above 0 and at most 100.
    #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
    pub(super) percent: f64,
    /// Ends by itself after this time, at most 1h.
    #[arg(long, default_value = "60s", value_name = "SPAN")]
    pub(super) ttl: String,
    /// Why; goes into the audit record.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Problem or check code, configuration key, or the name of something in a running system.
    pub(super) subject: String,
    /// Language of the page: `en` or `zh`; default by `LANG`.
    #[arg(long, value_name = "LANG")]
    pub(super) lang: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Only what needs no running control plane: this machine and the configuration.
    #[arg(long, conflicts_with = "live")]
    pub(super) pre: bool,
    /// Only whether the process answers; for a container's health check.
    #[arg(long)]
    pub(super) live: bool,
    /// Only this category; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(super) category: Vec<String>,
    /// The least state that makes the exit code 1: `fail` or `warn`.
    #[arg(long, default_value = "fail", value_name = "STATE")]
    pub(super) fail_on: FailOn,
    /// Form: `text`, `json`, `nagios` or `prometheus`.
    #[arg(long, default_value = "text", value_name = "FORM")]
    pub(super) format: Form,
    /// Data directory to be tried; default that of `mainstay dev`.
    #[arg(long, value_name = "PATH")]
    pub(super) data_dir: Option<PathBuf>,
}

/// The least state that counts as failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// A failure.
    Fail,
    /// A warning too.
    Warn,
}

/// The grammar, with `MAINSTAY_CLI_X_Y` for every flag `--x-y`.
pub fn command() -> clap::Command {
    with_variables(rules::with_examples(Cli::command()))
}

fn with_variables(command: clap::Command) -> clap::Command {
    let named = |arg: Arg| match arg.get_long() {
        Some(long) => {
            let name = format!("MAINSTAY_CLI_{}", long.to_uppercase().replace('-', "_"));
            arg.env(name).hide_env(true)
        }
        None => arg,
    };
    command.mut_args(named).mut_subcommands(with_variables)
}

fn examples(first: &str, second: &str) -> String {
    format!("Examples:\n  mainstay {first}\n  mainstay {second}")
}
