//! What processes have used, from `/proc`.

use std::collections::HashMap;
use std::fs;

/// What a process and those it started have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// User and system time.
    pub cpu_seconds: f64,
    pub written_bytes: u64,
    pub resident_kib: u64,
}

/// What process `id` and its children have used: those that run, and those that have ended and
/// were waited for. Bytes written are those of processes that run.
pub fn used(id: u32) -> Used {
    let mut used = of_one(id);
    for child in children(id) {
        let of_child = of_one(child);
        used.cpu_seconds += of_child.cpu_seconds;
        used.written_bytes += of_child.written_bytes;
        used.resident_kib += of_child.resident_kib;
    }
    used
}

fn of_one(id: u32) -> Used {
    let read = |name: &str| fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // In ticks of 10 ms: user, system, and both of children that were waited for.
    Used {
        cpu_seconds: (ticks(11) + ticks(12) + ticks(13) + ticks(14)) / 100.0,
        written_bytes: number(&read("io"), "write_bytes:"),
        resident_kib: number(&read("status"), "VmRSS:"),
    }
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Processes below `id`, at any depth.
fn children(id: u32) -> Vec<u32> {
    let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        below.entry(parent.unwrap_or(0)).or_default().push(child);
    }
    let (mut found, mut open) = (Vec::new(), vec![id]);
    while let Some(parent) = open.pop() {
        let more = below.remove(&parent).unwrap_or_default();
        open.extend(&more);
        found.extend(more);
    }
    found
}
