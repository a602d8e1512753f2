//! What is promised of calls under 2,000 requests a second, of a release build, with figures.
//!
//! `cargo xtask prove calls` runs this and prints a report; `--record` keeps it under
//! `bench/results`. It takes minutes and wants a machine to itself, so it is no part of `cargo test`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a proof that cannot go on has failed")]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/load.rs"]
mod load;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/support.rs"]
mod support;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use backend::{Backend, USUAL_MILLISECONDS};
use load::Tally;
use rustix::process::Signal;
use shop::{SECOND, Shop};
use support::wait::{now, pause};

const PER_SECOND: u32 = 2_000;

/// Not a test: the child process that is killed and stopped.
#[test]
fn a_backend() {
    backend::serve_if_asked();
}

#[test]
#[ignore = "minutes on a release build: `cargo xtask prove calls`"]
fn calls_stand_under_two_thousand_requests_a_second() {
    let to = std::env::var("MAINSTAY_PROVE_REPORT").expect("run by `cargo xtask prove calls`");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let busy = load.split(' ').next().unwrap().to_owned();
    let mut proof = Proof { busy, ..Proof::default() };
    for fault in FAULTS {
        proof.fault(fault);
    }
    proof.reloads();
    proof.takeover();
    proof.drain();
    let report = proof.report();
    std::fs::write(to, report).unwrap();
    assert!(proof.broken.is_empty(), "{:#?}", proof.broken);
}

/// Something that happens to one of three instances.
struct Fault {
    name: &'static str,
    balance: &'static str,
    /// Failed requests allowed, of a thousand.
    failed_per_mille: u64,
    begin: fn(&mut Shop),
    heal: fn(&mut Shop),
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "killed (SIGKILL), later started again",
        balance: "least_request",
        failed_per_mille: 0,
        begin: |shop| shop.backends[0].signal(Signal::KILL),
        heal: |shop| {
            let address = shop.backends[0].address;
            shop.backends[0] = Backend::at(address);
        },
    },
    Fault {
        name: "paused (SIGSTOP, SIGCONT)",
        balance: "least_request",
        failed_per_mille: 1,
        begin: |shop| shop.backends[0].signal(Signal::STOP),
        heal: |shop| shop.backends[0].signal(Signal::CONT),
    },
    Fault {
        name: "ten times slower (20 ms to 200 ms)",
        balance: "peak_ewma",
        failed_per_mille: 1,
        begin: |shop| shop.backends[0].behave(200, Duration::from_millis(10 * USUAL_MILLISECONDS)),
        heal: |shop| shop.backends[0].behave(200, Duration::from_millis(USUAL_MILLISECONDS)),
    },
    Fault {
        name: "answers 503 at once",
        balance: "least_request",
        failed_per_mille: 1,
        begin: |shop| shop.backends[0].behave(503, Duration::ZERO),
        heal: |shop| shop.backends[0].behave(200, Duration::from_millis(USUAL_MILLISECONDS)),
    },
];

/// What was measured so far, and which promises it broke.
#[derive(Debug, Default)]
struct Proof {
    /// Load average of the last minute before the first of it.
    busy: String,
    faults: String,
    changes: String,
    broken: Vec<String>,
}

impl Proof {
    fn fault(&mut self, fault: &Fault) {
        let mut shop = Shop::open("prove-fault", fault.balance, PER_SECOND);
        let began = now();
        let before = shop.share_of_first(SECOND * 2);
        (fault.begin)(&mut shop);
        pause(SECOND * 2);
        let during = shop.share_of_first(SECOND * 3);
        (fault.heal)(&mut shop);
        let healed = now();
        let mut ramp = Vec::new();
        let back = loop {
            let share = shop.share_of_first(SECOND / 2);
            ramp.push(share / before);
            if share > before * 0.7 {
                break Some(healed.elapsed());
            }
            if healed.elapsed() > SECOND * 30 {
                break None;
            }
        };
        pause(SECOND);
        let span = began.elapsed();
        let tally = self.close(fault.name, shop, span, fault.failed_per_mille);
        self.demand(during <= before * 0.1, || {
            format!("{}: share {during:.3} after 2 s, {before:.3} before", fault.name)
        });
        self.demand(back.is_some(), || format!("{}: not back after 30 s: {ramp:?}", fault.name));
        let ramp: Vec<String> = ramp.iter().map(|part| format!("{:.0}", part * 100.0)).collect();
        writeln!(
            self.faults,
            "| {} | {} | {} | {} | {:.1} % | {:.2} % | {} | {} |",
            fault.name,
            fault.balance,
            tally.done,
            tally.failed.len(),
            before * 100.0,
            during * 100.0,
            back.map_or_else(|| "never".to_owned(), |back| format!("{:.1} s", back.as_secs_f64())),
            ramp.join(" "),
        )
        .unwrap();
    }

    fn reloads(&mut self) {
        let name = "1,000 reloads";
        let mut shop = Shop::open("prove-reloads", "least_request", PER_SECOND);
        shop.be_patient();
        let began = now();
        shop.reload(0..200);
        let before = shop.gateway.holds();
        shop.reload(200..1_000);
        let after = shop.gateway.holds();
        let tally = self.close(name, shop, began.elapsed(), 0);
        let same = (after.files, after.threads) == (before.files, before.threads);
        let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
        self.demand(same && grown < 800 * (16 << 10), || format!("{name}: {before:?} {after:?}"));
        let held = format!(
            "files {} → {}, sockets {} → {}, {:.1} → {:.1} MiB from the 200th to the last",
            before.files,
            after.files,
            before.sockets,
            after.sockets,
            mebibytes(before.resident_bytes),
            mebibytes(after.resident_bytes)
        );
        self.change(name, began, &tally, &held);
    }

    fn takeover(&mut self) {
        let name = "5 takeovers by a new process";
        let mut shop = Shop::open("prove-takeover", "least_request", PER_SECOND);
        let began = now();
        for round in 0..5 {
            let new = shop.gateway.again(&format!("prove-takeover-{round}"), &["--takeover"]);
            let mut old = std::mem::replace(&mut shop.gateway, new);
            let status = old.ended();
            self.demand(status.success(), || format!("{name}: the old process ended: {status}"));
            pause(SECOND);
        }
        let tally = self.close(name, shop, began.elapsed(), 0);
        self.change(name, began, &tally, "no connection refused");
    }

    fn drain(&mut self) {
        let name = "drain (SIGTERM), nobody after it";
        let mut shop = Shop::open("prove-drain", "least_request", PER_SECOND);
        let began = now();
        pause(SECOND);
        shop.gateway.signal(Signal::TERM);
        let status = shop.gateway.ended();
        self.demand(status.success(), || format!("{name}: ended with {status}"));
        pause(SECOND / 2);
        let tally = shop.load.stop();
        self.demand(tally.failed.is_empty(), || format!("{name}: {:?}", some(&tally)));
        self.demand(tally.refused > 0, || format!("{name}: somebody still listens"));
        let held = format!("{} refused once it had ended", tally.refused);
        self.change(name, began, &tally, &held);
    }

    /// Stops the load and holds it to what was promised.
    fn close(&mut self, name: &str, shop: Shop, span: Duration, per_mille: u64) -> Tally {
        let Shop { gateway, load, .. } = shop;
        let tally = load.stop();
        drop(gateway);
        let failed = tally.failed.len() as u64;
        self.demand(failed * 1000 <= tally.done * per_mille, || {
            format!("{name}: {failed} of {} failed: {:?}", tally.done, some(&tally))
        });
        self.demand(tally.refused == 0, || format!("{name}: {} refused", tally.refused));
        let least = span.as_secs_f64() * f64::from(PER_SECOND) * 0.95;
        let done = tally.done.to_string().parse::<f64>().unwrap();
        self.demand(done >= least, || format!("{name}: the load was not held: {done} of {least}"));
        tally
    }

    fn change(&mut self, name: &str, began: Instant, tally: &Tally, held: &str) {
        writeln!(
            self.changes,
            "| {name} | {:.0} s | {} | {} | {} | {held} |",
            began.elapsed().as_secs_f64(),
            tally.done,
            tally.failed.len(),
            tally.resent
        )
        .unwrap();
    }

    fn demand(&mut self, kept: bool, what: impl FnOnce() -> String) {
        if !kept {
            self.broken.push(what());
        }
    }

    fn report(&self) -> String {
        let Self { faults, changes, broken, .. } = self;
        let verdict = if broken.is_empty() {
            "Every promise was kept.".to_owned()
        } else {
            format!("Broken:\n\n- {}", broken.join("\n- "))
        };
        format!(
            "# Calls under {PER_SECOND} requests a second\n\n\
            Release build; three instances, each a process that answers after \
            {USUAL_MILLISECONDS} ms; open loop: requests leave by the clock, nine in ten on kept \
            connections, one in ten on its own; load, gateway and instances share {} cores, on \
            which a load average of {} was seen before (others' work included).\n\n\
            {verdict}\n\n## One of three instances\n\n\
            Promised: 0 failed when killed, at most 0.1 % otherwise; the share of the instance falls \
            by 90 % within 2 s; it comes back when healed. Shares are of attempts: in the 2 s before, \
            and from 2 s to 5 s after. Back is 70 % of the share before; the ramp is in percent of \
            it, every half second.\n\n\
            | instance 1 of 3 | balance | requests | failed | share before | after 2 s | back | ramp |\n\
            |---|---|---|---|---|---|---|---|\n{faults}\n\
            ## The gateway itself\n\n\
            Promised: 0 failed. Sent again are requests whose kept connection ended before a byte of \
            the answer (RFC 9112, 9.3.1).\n\n\
            | what | took | requests | failed | sent again | held |\n\
            |---|---|---|---|---|---|\n{changes}",
            std::thread::available_parallelism().unwrap(),
            self.busy
        )
    }
}

fn mebibytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap()) / 1024.0
}

fn some(tally: &Tally) -> Vec<&(Duration, String)> {
    tally.failed.iter().take(5).collect()
}
