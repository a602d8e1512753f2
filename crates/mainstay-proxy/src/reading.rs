//! How busy the machine is: what system protection decides by.
//!
//! A process in a container may use less than the machine has, and it is that less which runs out.
//! So [`Machine`] looks first for control groups that bound it, of version 2 or 1 or both at once
//! as on some hosts, at every level from its own group upwards, since the tightest bound may be an
//! ancestor's; where none bounds it, the machine's own figures count:
//!
//! | figure | in a bounded group | else |
//! |---|---|---|
//! | processor | time the group used, of its quota | busy share of the processors this process may run on |
//! | memory | used without inactive file cache, of the limit | not available, of all there is |
//! | load | – | load average of a minute, by processor of the machine |
//!
//! Inactive file cache is left out because the kernel gives it back before it lets anybody fail; a
//! service that serves files would otherwise look full for ever. (Kubernetes' "working set" is the
//! same sum.) Load is not known by group.
//!
//! Parsing is pure and in [`parse`]; this file reads files. They are of `/proc` and `/sys`, made
//! by the kernel on the spot: reading all of them takes some ten microseconds and waits for no
//! disk.

mod groups;
pub mod parse;

use std::path::{Path, PathBuf};
use std::{fs, io};

use mainstay_core::Instant;
use mainstay_resilience::system::Reading;

use groups::Groups;
use parse::{Busy, Processors};

/// Why the state of the machine is not known.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A file could not be read; on a system without `/proc` none can.
    #[error("file `{path}` cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not say what it says on Linux.
    #[error("file `{path}` has no {what}")]
    Form {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
}

/// The machine, or the part of it that this process may use. Read it once a second, by one thread.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    groups: Groups,
    processors: Processors,
    /// The machine's counters at the last reading.
    before: Option<Busy>,
}

impl Machine {
    /// Finds out which groups bound this process and which processors it may run on. Both are
    /// looked up once: a process is rarely moved, while quotas change and are read each time.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] on a system without Linux's `/proc`.
    pub fn find() -> Result<Self, Unreadable> {
        Self::under(Path::new("/"))
    }

    /// The same, with `/proc` and `/sys` below `root`.
    fn under(root: &Path) -> Result<Self, Unreadable> {
        let status = read(&root.join("proc/self/status"))?;
        let processors = parse::allowed(&status).unwrap_or_default();
        let groups = Groups::find(root);
        Ok(Self { root: root.to_owned(), groups, processors, before: None })
    }

    /// The figures at `now`. Processor use is that since the last reading, and zero in the first.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]; files of groups that have gone count as no bound.
    pub fn read(&mut self, now: Instant) -> Result<Reading, Unreadable> {
        let stat = self.proc("proc/stat")?;
        let busy = parse::busy(&stat, &self.processors)
            .ok_or_else(|| self.form("proc/stat", "cpu line"))?;
        let before = self.before.replace(busy);
        let cpu_percent = match self.groups.cpu_percent(now) {
            Some(percent) => percent,
            None => before.map_or(0.0, |before| busy.percent_since(before)),
        };
        let memory_percent = match self.groups.memory_percent() {
            Some(percent) => percent,
            None => {
                let text = self.proc("proc/meminfo")?;
                parse::meminfo(&text)
                    .ok_or_else(|| self.form("proc/meminfo", "MemAvailable"))?
                    .percent()
            }
        };
        let text = self.proc("proc/loadavg")?;
        let load =
            parse::loadavg(&text).ok_or_else(|| self.form("proc/loadavg", "load average"))?;
        Ok(Reading {
            cpu_percent,
            memory_percent,
            load_per_core: load / f64::from(busy.machine_processors),
        })
    }

    fn proc(&self, path: &str) -> Result<String, Unreadable> {
        read(&self.root.join(path))
    }

    fn form(&self, path: &str, what: &'static str) -> Unreadable {
        Unreadable::Form { path: self.root.join(path), what }
    }
}

fn read(path: &Path) -> Result<String, Unreadable> {
    fs::read_to_string(path).map_err(|source| Unreadable::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
