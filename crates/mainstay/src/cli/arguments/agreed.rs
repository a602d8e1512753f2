//! Nouns of agreed state: services, instances, the store.

use clap::{Args, Subcommand};

use super::examples;

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Service {
    /// Lists services, with how many of their instances are healthy.
    #[command(after_help = examples("service list", "service list --namespace shop -o json"))]
    List {
        /// Only of this namespace.
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
    },
    /// Shows the instances of a service.
    #[command(after_help = examples("service show order", "service show shop/order --healthy"))]
    Show {
        /// `service` or `namespace/service`.
        service: String,
        /// Only those that are answered to callers.
        #[arg(long)]
        healthy: bool,
    },
    /// Prints who can answer for a service, and then every change, one JSON document a line.
    #[command(after_help = examples("service watch order", "service watch shop/order --events"))]
    Watch {
        /// `service` or `namespace/service`.
        service: String,
        /// Every change by itself; unless told whole lists, in which changes of a moment are merged.
        #[arg(long)]
        events: bool,
    },
    /// Says of each instance why it is answered to callers, or is not.
    #[command(after_help = examples("service explain order", "service explain shop/order -o json"))]
    Explain {
        /// `service` or `namespace/service`.
        service: String,
    },
    /// Takes every instance out of use.
    #[command(after_help = examples("service drain order --seconds 60", "service drain shop/order --yes"))]
    Drain {
        /// `service` or `namespace/service`.
        service: String,
        /// How long calls under way have, 0 to 3600.
        #[arg(long, value_name = "N", default_value_t = 30)]
        seconds: u32,
    },
    /// Puts every instance to use again.
    #[command(after_help = examples("service undrain order", "service undrain shop/order"))]
    Undrain {
        /// `service` or `namespace/service`.
        service: String,
    },
    /// Removes a service that has no instances.
    #[command(after_help = examples("service remove order --reason 'renamed'", "service remove shop/order --reason 'gone' --yes"))]
    Remove {
        /// `service` or `namespace/service`.
        service: String,
        /// Why; goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Instance {
    /// Lists the instances of a service.
    #[command(after_help = examples("instance list order", "instance list shop/order -o wide"))]
    List {
        /// `service` or `namespace/service`.
        service: String,
    },
    /// Shows one instance, with all that is known of it.
    #[command(after_help = examples("instance show order 10.0.0.7:8080", "instance show shop/order pay-1 -o json"))]
    Show(Which),
    /// Registers an instance; one that does not beat is removed after twice its ttl.
    #[command(after_help = examples("instance register order 10.0.0.7:8080", "instance register shop/order 10.0.0.7:8080 --persistent --tag v2"))]
    Register(Register),
    /// Removes an instance at once.
    #[command(after_help = examples("instance deregister order 10.0.0.7:8080", "instance deregister shop/order pay-1"))]
    Deregister(Which),
    /// Takes an instance out of use: no new calls, then it is removed.
    #[command(after_help = examples("instance drain order 10.0.0.7:8080", "instance drain order pay-1 --seconds 120"))]
    Drain {
        #[command(flatten)]
        which: Which,
        /// How long calls under way have, 0 to 3600.
        #[arg(long, value_name = "N", default_value_t = 30)]
        seconds: u32,
    },
    /// Sets an instance's share of the calls, relative to the others.
    #[command(after_help = examples("instance weight order pay-1 10", "instance weight order pay-1 0"))]
    Weight {
        #[command(flatten)]
        which: Which,
        /// 0 to 65535; 0 is never picked.
        weight: u16,
    },
    /// Puts an instance to use that drains, or is in maintenance.
    #[command(after_help = examples("instance enable order pay-1", "instance enable shop/order pay-1"))]
    Enable(Which),
    /// Takes an instance into maintenance.
    #[command(after_help = examples("instance disable order pay-1 --reason 'disk'", "instance disable shop/order pay-1 --reason 'INC-7'"))]
    Disable {
        #[command(flatten)]
        which: Which,
        /// Why; shown, and goes into the audit record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// One instance.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Which {
    /// `service` or `namespace/service`.
    pub(in crate::cli) service: String,
    /// Its id; `address:port` unless it was given another.
    pub(in crate::cli) id: String,
}

/// What is registered.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Register {
    /// `service` or `namespace/service`.
    pub(in crate::cli) service: String,
    /// Where it is, `host:port`.
    pub(in crate::cli) address: String,
    /// Its id; default `address:port`.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) id: Option<String>,
    /// It stays until it is deregistered.
    #[arg(long)]
    pub(in crate::cli) persistent: bool,
    /// Share of the calls, relative to the others.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) weight: Option<u16>,
    /// Where it runs.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) zone: Option<String>,
    /// Which build it is.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) version: Option<String>,
    /// A label; may be repeated.
    #[arg(long = "tag", value_name = "TEXT")]
    pub(in crate::cli) tags: Vec<String>,
}
