//! The control groups that bound this process.

use std::fs;
use std::path::{Path, PathBuf};

use mainstay_core::Instant;

use super::parse::{self, Mount, Quota, Used};

/// The groups that bound this process: its own and those around it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    cpu: Vec<CpuGroup>,
    memory: Vec<MemoryGroup>,
}

/// A group that may have a quota of processor time.
#[derive(Debug)]
struct CpuGroup {
    at: CpuFiles,
    /// Processor time used, in nanoseconds, and when that was read.
    before: Option<(Instant, u64)>,
}

#[derive(Debug)]
enum CpuFiles {
    V2(PathBuf),
    /// Quota and use stand in two hierarchies, often mounted as one.
    V1 {
        quota: PathBuf,
        used: PathBuf,
    },
}

/// A group that may have a limit of memory.
#[derive(Debug)]
enum MemoryGroup {
    V2(PathBuf),
    V1(PathBuf),
}

impl Groups {
    /// The groups of this process, with `/proc` and `/sys` below `root`. A controller is in one
    /// version only, whichever has its files.
    pub(super) fn find(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (own, mounts) = (text("proc/self/cgroup"), parse::mounts(&text("proc/self/mountinfo")));
        let levels = |controller: Option<&str>| levels(root, &own, &mounts, controller);
        let mut groups = Self::default();
        for level in levels(None) {
            groups.cpu.push(CpuGroup { at: CpuFiles::V2(level.clone()), before: None });
            groups.memory.push(MemoryGroup::V2(level));
        }
        // From the top, where the two hierarchies agree even if they part further down.
        let (quotas, used) = (levels(Some("cpu")), levels(Some("cpuacct")));
        for (quota, used) in quotas.into_iter().rev().zip(used.into_iter().rev()) {
            groups.cpu.push(CpuGroup { at: CpuFiles::V1 { quota, used }, before: None });
        }
        groups.memory.extend(levels(Some("memory")).into_iter().map(MemoryGroup::V1));
        groups
    }

    /// Use of the quota that is nearest to its end, since the last reading; `None` without one.
    pub(super) fn cpu_percent(&mut self, now: Instant) -> Option<f64> {
        self.cpu.iter_mut().filter_map(|group| group.percent(now)).reduce(f64::max)
    }

    /// Use of the memory limit that is nearest to its end; `None` without one.
    pub(super) fn memory_percent(&self) -> Option<f64> {
        self.memory.iter().filter_map(|group| Some(group.used()?.percent())).reduce(f64::max)
    }
}

impl CpuGroup {
    fn percent(&mut self, now: Instant) -> Option<f64> {
        let Some((quota, used)) = self.at.read() else {
            self.before = None;
            return None;
        };
        let percent = match self.before {
            None => 0.0,
            Some((then, before)) => {
                let elapsed = u64::try_from(now.since(then).as_nanos()).unwrap_or(u64::MAX);
                quota.percent(used.saturating_sub(before), elapsed)
            }
        };
        self.before = Some((now, used));
        Some(percent)
    }
}

impl CpuFiles {
    /// The quota, and the processor time used in nanoseconds; `None` without a quota.
    fn read(&self) -> Option<(Quota, u64)> {
        match self {
            Self::V2(group) => {
                let quota = parse::cpu_max(&file(group, "cpu.max")?)?;
                let used_us = parse::entry(&file(group, "cpu.stat")?, "usage_usec")?;
                Some((quota, used_us.saturating_mul(1_000)))
            }
            Self::V1 { quota, used } => {
                let period = file(quota, "cpu.cfs_period_us")?;
                let quota = parse::cfs(&file(quota, "cpu.cfs_quota_us")?, &period)?;
                Some((quota, parse::number(&file(used, "cpuacct.usage")?)?))
            }
        }
    }
}

impl MemoryGroup {
    /// What is used of the limit; `None` without a limit.
    fn used(&self) -> Option<Used> {
        let (group, limit, used, inactive) = match self {
            Self::V2(group) => (group, "memory.max", "memory.current", "inactive_file"),
            Self::V1(group) => {
                (group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            }
        };
        let limit = parse::memory_limit(&file(group, limit)?)?;
        let used = parse::number(&file(group, used)?)?;
        let inactive = parse::entry(&file(group, "memory.stat")?, inactive).unwrap_or(0);
        Some(Used { used: used.saturating_sub(inactive), limit })
    }
}

/// Folders of this process's group and of those around it, innermost first, in the hierarchy of
/// `controller`.
///
/// The path in `/proc/self/cgroup` is one of the hierarchy; what is mounted may be a part of it. In
/// a container without a namespace of its own the two do not meet, and then the mount point is the
/// container's own group.
fn levels(root: &Path, own: &str, mounts: &[Mount], controller: Option<&str>) -> Vec<PathBuf> {
    let holds = |mount: &&Mount| match (controller, &mount.controllers) {
        (None, None) => true,
        (Some(controller), Some(all)) => all.iter().any(|name| name == controller),
        _ => false,
    };
    let (Some(path), Some(mount)) = (parse::group(own, controller), mounts.iter().find(holds))
    else {
        return Vec::new();
    };
    let below = match mount.root.as_str() {
        "/" => Some(path),
        part => path.strip_prefix(part),
    };
    let point = root.join(mount.point.trim_start_matches('/'));
    let below = Path::new(below.unwrap_or_default().trim_start_matches('/'));
    // `/../…` is a group outside of this process's namespace, of which nothing is mounted here.
    let exists = !below.starts_with("..") && point.join(below).is_dir();
    let below = if exists { below } else { Path::new("") };
    below.ancestors().map(|level| point.join(level)).collect()
}

fn file(group: &Path, name: &str) -> Option<String> {
    fs::read_to_string(group.join(name)).ok()
}
