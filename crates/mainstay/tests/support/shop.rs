//! What goes on standing: three instances, the gateway in front of them, and load on it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::backend::Backend;
use crate::load::{Load, Tally};
use crate::support::gateway::{Gateway, free_port};
use crate::support::wait::{pause, until};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The gateway in front of three instances, under load.
pub(crate) struct Shop {
    pub(crate) gateway: Gateway,
    pub(crate) backends: Vec<Backend>,
    balance: &'static str,
    port: u16,
    patient: bool,
    pub(crate) load: Load,
}

impl Shop {
    /// Opens and lets a second and a half go by under load.
    #[track_caller]
    pub(crate) fn open(name: &str, balance: &'static str, per_second: u32) -> Self {
        let backends: Vec<Backend> = (0..3).map(|_| Backend::start()).collect();
        let port = free_port();
        let gateway = Gateway::start(name, &config(port, &backends, balance, 100_000));
        let load = Load::start(gateway.address(0), per_second);
        pause(SECOND * 3 / 2);
        Self { gateway, backends, balance, port, patient: false, load }
    }

    /// The configuration, with another limit.
    pub(crate) fn config(&self, limit: u32) -> String {
        config(self.port, &self.backends, self.balance, limit)
    }

    /// Gives an attempt five seconds, ten times as many as usual: where no fault is planted, none
    /// shall be found because the machine is busy.
    #[track_caller]
    pub(crate) fn be_patient(&mut self) {
        self.patient = true;
        self.reload(0..1);
    }

    /// Reloads `times` times, each time another limit and a hundred routes that no request takes, and
    /// waits for each to be done.
    #[track_caller]
    pub(crate) fn reload(&self, times: std::ops::Range<u32>) {
        let route = |n: u32| {
            format!("[route.r{n}]\nprefix = \"/r{n}\"\nto = \"item\"\nlimits = [\"roomy\"]\n")
        };
        let routes = (0..100).map(route).collect::<Vec<_>>().concat();
        for number in times {
            let before = self.gateway.logged("configuration reloaded");
            let mut config = self.config(200_000 + number) + &routes;
            if self.patient {
                config = config.replace("try_seconds = 0.5", "try_seconds = 5");
            }
            self.gateway.configure(&config);
            self.gateway.signal(Signal::HUP);
            // A disk that others are writing to may keep it waiting for seconds.
            until("a reload", SECOND * 20, || {
                self.gateway.logged("configuration reloaded") > before
            });
        }
    }

    /// Share of instance 0 in the attempts that begin within `span`, 0 to 1.
    #[track_caller]
    pub(crate) fn share_of_first(&self, span: Duration) -> f64 {
        let count = || {
            let each = self.backends.iter().map(|backend| {
                let label = format!("instance=\"{}\"", backend.address);
                self.gateway.counted("mainstay_attempts_total", &label)
            });
            each.collect::<Vec<u64>>()
        };
        let before = count();
        pause(span);
        let grown: Vec<u64> = count().iter().zip(before).map(|(now, then)| now - then).collect();
        let grown: Vec<u32> = grown.into_iter().map(|each| each.try_into().unwrap()).collect();
        let sum: u32 = grown.iter().sum();
        assert!(sum > 0, "no attempts; see the gateway's log");
        f64::from(grown[0]) / f64::from(sum)
    }

    /// Waits until instance 0 has its share again.
    #[track_caller]
    pub(crate) fn comes_back(&self, before: f64) {
        until("the share comes back", SECOND * 30, || self.share_of_first(SECOND) > before * 0.7);
    }

    /// Circuits that opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.gateway.counted("mainstay_circuit_transitions_total", "to=\"open\"")
    }

    /// Stops the load; of every thousand requests at most `per_mille` failed.
    #[track_caller]
    pub(crate) fn closes(self, per_mille: u64) -> Tally {
        let Self { gateway, load, .. } = self;
        let tally = load.stop();
        check(&tally, per_mille);
        assert_eq!(tally.refused, 0, "connections refused");
        assert_eq!(tally.resent, 0, "kept connections ended without a word");
        drop(gateway);
        tally
    }
}

/// Fails when more than `per_mille` of a thousand requests failed, or too few were sent to say.
#[track_caller]
pub(crate) fn check(tally: &Tally, per_mille: u64) {
    let failed = tally.failed.len() as u64;
    assert!(tally.done > 500, "too little load to say anything: {}", tally.done);
    assert!(
        failed * 1000 <= tally.done * per_mille,
        "{failed} of {} failed, such as {:?}",
        tally.done,
        tally.failed.iter().take(8).collect::<Vec<_>>()
    );
}

pub(crate) fn config(port: u16, backends: &[Backend], balance: &str, limit: u32) -> String {
    let instances: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let instances: Vec<String> = instances.iter().map(|a| format!("\"{a}\"")).collect();
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[system] # these tests saturate two cores, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:{port}"]
drain_delay_seconds = 0.3
drain_seconds = 10
access_log = {{ format = "off" }}
[route.item]
prefix = "/item"
to = "item"
limits = ["roomy"]
[upstream.item]
instances = [{}]
retry = {{ attempts = 3, try_seconds = 0.5 }}
balance = {{ kind = "{balance}" }}
outlier = {{ interval_seconds = 2, base_seconds = 2, max_seconds = 4 }}
[circuit.default]
cooldown_seconds = 2
ramp_step_seconds = 0.5
[limit.roomy]
max = {limit}
"#,
        instances.join(", ")
    )
}
