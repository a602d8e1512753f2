//! The kernel's text files, read. Formats: proc(5), and the kernel's documents on control groups,
//! `cgroup-v2.rst` and `cgroup-v1/`. What has not the form described there gives `None`.

/// Which processors a process may run on; none listed means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processors(Vec<(u32, u32)>);

/// Processor time counted since the machine started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Ticks in which the processors did something.
    pub used: u64,
    /// All ticks.
    pub total: u64,
    /// Processors of the whole machine, at least 1.
    pub machine_processors: u32,
}

/// Memory in use, of how much. Both in the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// In use.
    pub used: u64,
    /// All there is.
    pub limit: u64,
}

/// Processor time a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Microseconds of processor time.
    pub quota_us: u64,
    /// In so many microseconds.
    pub period_us: u64,
}

/// A hierarchy of groups that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `None` for version 2; the controllers of one of version 1.
    pub controllers: Option<Vec<String>>,
    /// Path in the hierarchy that is seen at the mount point.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
}

impl Processors {
    fn has(&self, processor: u32) -> bool {
        self.0.is_empty() || self.0.iter().any(|&(from, to)| (from..=to).contains(&processor))
    }
}

impl Busy {
    /// Busy share since `before`, 0 to 100 percent.
    pub fn percent_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        share(self.used.saturating_sub(before.used), total)
    }
}

impl Used {
    /// Used share, 0 to 100 percent.
    pub fn percent(self) -> f64 {
        share(self.used, self.limit)
    }
}

impl Quota {
    /// Share of the quota that was used, 0 to 100 percent: `used_ns` of processor time in
    /// `elapsed_ns` of time.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn percent(self, used_ns: u64, elapsed_ns: u64) -> f64 {
        let may = elapsed_ns as f64 * (self.quota_us as f64 / self.period_us as f64);
        if may <= 0.0 { 0.0 } else { (used_ns as f64 / may * 100.0).clamp(0.0, 100.0) }
    }
}

/// `/proc/self/status`: the processors this process may run on.
pub fn allowed(status: &str) -> Option<Processors> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    list.trim().split(',').map(range).collect::<Option<_>>().map(Processors)
}

/// `/proc/stat`: time of the processors in `of`. A guest's time is part of user time already, and
/// waiting for a disk is not being busy.
pub fn busy(stat: &str, of: &Processors) -> Option<Busy> {
    let mut sum = Busy { used: 0, total: 0, machine_processors: 0 };
    for line in stat.lines() {
        let Some(rest) = line.strip_prefix("cpu") else { continue };
        let mut words = rest.split_ascii_whitespace();
        if rest.starts_with(' ') {
            continue; // The sum of all.
        }
        let processor = words.next()?.parse().ok()?;
        sum.machine_processors += 1;
        if !of.has(processor) {
            continue;
        }
        // user nice system idle iowait irq softirq steal
        for (n, word) in words.take(8).enumerate() {
            let ticks: u64 = word.parse().ok()?;
            sum.total = sum.total.saturating_add(ticks);
            if n != 3 && n != 4 {
                sum.used = sum.used.saturating_add(ticks);
            }
        }
    }
    (sum.machine_processors > 0).then_some(sum)
}

/// `/proc/meminfo`: what is not available.
pub fn meminfo(text: &str) -> Option<Used> {
    let of = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let (limit, available) = (of("MemTotal:")?, of("MemAvailable:")?);
    Some(Used { used: limit.saturating_sub(available), limit })
}

/// `/proc/loadavg`: the average of the last minute.
pub fn loadavg(text: &str) -> Option<f64> {
    let load: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    (load.is_finite() && load >= 0.0).then_some(load)
}

/// `/proc/self/mountinfo`: the hierarchies of groups. Spaces in paths are written `\040`, and paths
/// of groups have none; a line with one is passed over.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?.to_owned(), place.next()?.to_owned());
        let mut kind = kind.split(' ');
        let controllers = match kind.next()? {
            "cgroup2" => None,
            "cgroup" => Some(kind.nth(1)?.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount { controllers, root, point })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// `/proc/self/cgroup`: path of this process's group in the hierarchy of `controller`, or in that
/// of version 2 when `controller` is `None`.
pub fn group<'a>(text: &'a str, controller: Option<&str>) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controller {
            None => number == "0" && controllers.is_empty(),
            Some(controller) => controllers.split(',').any(|name| name == controller),
        };
        ours.then_some(path)
    })
}

/// `cpu.max` of version 2: `200000 100000`; `max` is no quota.
pub fn cpu_max(text: &str) -> Option<Quota> {
    let mut words = text.split_ascii_whitespace();
    quota(words.next()?, words.next()?)
}

/// `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1; −1 is no quota.
pub fn cfs(quota_us: &str, period_us: &str) -> Option<Quota> {
    quota(quota_us.trim(), period_us.trim())
}

fn quota(quota_us: &str, period_us: &str) -> Option<Quota> {
    let positive = |word: &str| word.parse::<u64>().ok().filter(|&us| us > 0);
    Some(Quota { quota_us: positive(quota_us)?, period_us: positive(period_us)? })
}

/// `memory.max` or `memory.limit_in_bytes`. `max`, and a number beyond what any machine has, which
/// is how version 1 writes it, are no limit.
pub fn memory_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| 0 < bytes && bytes < UNLIMITED)
}

/// A number alone in its file.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after `name` in a file of names and numbers: `cpu.stat`, `memory.stat`.
pub fn entry(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

/// A pebibyte. Version 1 writes the largest multiple of a page that fits 63 bits.
const UNLIMITED: u64 = 1 << 50;
