use std::time::Duration;

use proptest::prelude::*;

use super::parse::{Mount, Quota, Used};
use super::*;

const STATUS: &str = "Name:\tmainstay\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\nThreads:\t9\n";
const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree:  50 kB\nMemAvailable:   600 kB\n";
const V2_MOUNT: &str = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
const V1_MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

/// A tree of files for [`Machine::under`].
struct Tree(tempfile::TempDir);

impl Tree {
    /// A machine of four processors, of which the process may use two.
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().expect("a folder"));
        tree.put("proc/self/status", STATUS);
        tree.put("proc/meminfo", MEMINFO);
        tree.put("proc/loadavg", "6.00 2.00 1.00 5/134 17842\n");
        tree.put("proc/stat", &stat(0, 0));
        for (path, text) in files {
            tree.put(path, text);
        }
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn machine(&self) -> Machine {
        Machine::under(self.0.path()).expect("a machine")
    }
}

/// `/proc/stat` of four processors after so many ticks: the first two were busy for `busy` of them,
/// the others all the time.
fn stat(ticks: u64, busy: u64) -> String {
    let line = |processor| {
        let busy = if processor < 2 { busy } else { ticks };
        let (user, steal, idle) = (busy / 2, busy - busy / 2, (ticks - busy) / 2);
        let iowait = ticks - busy - idle;
        format!("cpu{processor} {user} 0 0 {idle} {iowait} 0 0 {steal} 77 0")
    };
    let lines: Vec<String> = (0..4).map(line).collect();
    format!("cpu  1 2 3 4 5 6 7 8 9 10\n{}\nintr 1 2 3\nctxt 5\n", lines.join("\n"))
}

/// Reads twice, a second apart, after `later` files were written; processor, memory and load.
#[track_caller]
fn check(files: &[(&str, &str)], later: &[(&str, &str)], want: (f64, f64, f64)) {
    let tree = Tree::new(files);
    let mut machine = tree.machine();
    let first = machine.read(Instant::ZERO).expect("readable");
    assert!(first.cpu_percent.abs() < 1e-9, "nothing is known of the time before");
    tree.put("proc/stat", &stat(100, 25));
    for (path, text) in later {
        tree.put(path, text);
    }
    let Reading { cpu_percent, memory_percent, load_per_core } =
        machine.read(Instant::ZERO.plus(Duration::from_secs(1))).expect("readable");
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(
        near(cpu_percent, want.0) && near(memory_percent, want.1) && near(load_per_core, want.2),
        "{cpu_percent} {memory_percent} {load_per_core} for {want:?}"
    );
}

#[test]
fn without_bounds_the_processors_it_may_use_and_the_machine_count() {
    check(&[], &[], (25.0, 40.0, 1.5));
    // Groups that bound nothing change nothing.
    let unbounded = [
        ("proc/self/mountinfo", V2_MOUNT),
        ("proc/self/cgroup", "0::/app.slice\n"),
        ("sys/fs/cgroup/app.slice/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/app.slice/cpu.stat", "usage_usec 1\n"),
        ("sys/fs/cgroup/app.slice/memory.max", "max\n"),
        ("sys/fs/cgroup/app.slice/memory.current", "4096\n"),
    ];
    check(&unbounded, &[], (25.0, 40.0, 1.5));
    check(
        &[("proc/self/mountinfo", "nonsense\n"), ("proc/self/cgroup", "x")],
        &[],
        (25.0, 40.0, 1.5),
    );
}

#[test]
fn a_group_of_version_2_is_judged_by_its_own_bounds() {
    let files = [
        ("proc/self/mountinfo", V2_MOUNT),
        ("proc/self/cgroup", "0::/kube/pod/app\n"),
        ("sys/fs/cgroup/kube/pod/app/cpu.max", "50000 100000\n"),
        ("sys/fs/cgroup/kube/pod/app/cpu.stat", "usage_usec 1000000\nuser_usec 7\n"),
        ("sys/fs/cgroup/kube/pod/app/memory.max", "max\n"),
        ("sys/fs/cgroup/kube/pod/app/memory.current", "900\n"),
        // The limit of memory is that of the pod around it.
        ("sys/fs/cgroup/kube/pod/memory.max", "1000\n"),
        ("sys/fs/cgroup/kube/pod/memory.current", "950\n"),
        ("sys/fs/cgroup/kube/pod/memory.stat", "anon 300\ninactive_file 150\nactive_file 2\n"),
        ("sys/fs/cgroup/cgroup.procs", "\n"),
    ];
    let later = [("sys/fs/cgroup/kube/pod/app/cpu.stat", "usage_usec 1450000\n")];
    check(&files, &later, (90.0, 80.0, 1.5));
    // A quota taken away: the machine's figures count again.
    let free = [("sys/fs/cgroup/kube/pod/app/cpu.max", "max 100000\n")];
    check(&files, &free, (25.0, 80.0, 1.5));
}

#[test]
fn of_several_quotas_the_one_nearest_to_its_end_counts() {
    let files = [
        ("proc/self/mountinfo", V2_MOUNT),
        ("proc/self/cgroup", "0::/pod/app\n"),
        ("sys/fs/cgroup/pod/app/cpu.max", "400000 100000\n"),
        ("sys/fs/cgroup/pod/app/cpu.stat", "usage_usec 0\n"),
        ("sys/fs/cgroup/pod/cpu.max", "200000 100000\n"),
        ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 0\n"),
    ];
    let later = [
        ("sys/fs/cgroup/pod/app/cpu.stat", "usage_usec 1000000\n"),
        ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 1500000\n"),
    ];
    check(&files, &later, (75.0, 40.0, 1.5));
}

#[test]
fn a_group_of_version_1_is_judged_by_its_own_bounds() {
    let files = [
        ("proc/self/mountinfo", V1_MOUNTS),
        ("proc/self/cgroup", "5:memory:/docker/abc/x\n4:cpu,cpuacct:/docker/abc\n0::/\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage", "1000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "1\n"),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000\n"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1500\n"),
        ("sys/fs/cgroup/memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "9999\n"),
    ];
    let later = [("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage", "500001000\n")];
    check(&files, &later, (25.0, 50.0, 1.5));
}

#[test]
fn a_container_whose_path_is_not_mounted_is_what_is_mounted() {
    for path in ["/docker/abc", "/../../other"] {
        let own = format!("0::{path}\n");
        let files = [
            ("proc/self/mountinfo", V2_MOUNT),
            ("proc/self/cgroup", own.as_str()),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "100\n"),
            ("sys/fs/cgroup/memory.stat", "anon 1\n"),
        ];
        check(&files, &[], (25.0, 10.0, 1.5));
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let tree = Tree::new(&[("proc/loadavg", "soon\n")]);
    let error = tree.machine().read(Instant::ZERO).expect_err("no load").to_string();
    assert!(error.ends_with("proc/loadavg` has no load average"), "{error}");
    let error = Machine::under(Path::new("/nowhere")).expect_err("no /proc").to_string();
    assert_eq!(error, "file `/nowhere/proc/self/status` cannot be read");
}

#[test]
fn this_machine_can_be_read() {
    let mut machine = Machine::find().expect("Linux");
    let reading = machine.read(Instant::ZERO).expect("readable");
    assert!((0.0..=100.0).contains(&reading.memory_percent), "{reading:?}");
    assert!(reading.memory_percent > 0.0 && reading.load_per_core >= 0.0, "{reading:?}");
}

#[test]
fn files_of_the_kernel_mean_what_its_documents_say() {
    let quota = |quota_us, period_us| Some(Quota { quota_us, period_us });
    for (text, want) in [
        ("200000 100000\n", quota(200_000, 100_000)),
        ("max 100000\n", None),
        ("0 100000\n", None),
        ("200000\n", None),
        ("", None),
    ] {
        assert_eq!(parse::cpu_max(text), want, "{text:?}");
    }
    assert_eq!(parse::cfs("-1\n", "100000\n"), None);
    assert_eq!(parse::cfs("50000\n", "100000\n"), quota(50_000, 100_000));
    for (text, want) in [("max\n", None), ("9223372036854771712", None), ("4096\n", Some(4096))] {
        assert_eq!(parse::memory_limit(text), want, "{text:?}");
    }
    assert_eq!(parse::meminfo(MEMINFO), Some(Used { used: 400, limit: 1_000 }));
    assert_eq!(parse::meminfo("MemTotal: 1 kB\n"), None);
    for (text, want) in [("0.20 0.1 0.0 1/2 3", Some(0.2)), ("-1", None), ("nan", None), ("", None)]
    {
        assert_eq!(parse::loadavg(text), want, "{text:?}");
    }
    assert_eq!(parse::entry("inactive_file 7\n", "file"), None);
    assert_eq!(parse::entry("file 7\ninactive_file 8\n", "inactive_file"), Some(8));
    assert_eq!(parse::group("2:cpu,cpuacct:/a\n0::/b:c\n", Some("cpuacct")), Some("/a"));
    assert_eq!(parse::group("2:cpu,cpuacct:/a\n0::/b:c\n", None), Some("/b:c"));
    assert_eq!(parse::group("1:name=systemd:/\n", None), None);
    let mounts = parse::mounts(V1_MOUNTS);
    let memory = Mount {
        controllers: Some(vec!["rw".to_owned(), "memory".to_owned()]),
        root: "/docker/abc".to_owned(),
        point: "/sys/fs/cgroup/memory".to_owned(),
    };
    assert_eq!((mounts.len(), &mounts[1], &mounts[2].controllers), (3, &memory, &None));
}

proptest! {
    /// Whatever a file says, nothing panics, and what is understood is a share.
    #[test]
    fn nonsense_is_no_reading(text in "[a-z0-9 :,/.\\-\n]{0,200}", a: u64, b: u64, c: u64) {
        let all = parse::allowed(&text).unwrap_or_default();
        let _unused = (parse::mounts(&text), parse::group(&text, None), parse::loadavg(&text));
        let _unused = (parse::busy(&format!("cpu0 {text}"), &all), parse::cpu_max(&text));
        let _unused = (parse::entry(&text, "a"), parse::memory_limit(&text), parse::meminfo(&text));
        let busy = |used, total| Busy { used, total, machine_processors: 1 };
        let quota = Quota { quota_us: a.max(1), period_us: b.max(1) };
        for percent in [
            busy(a, b).percent_since(busy(c, a)),
            Used { used: a, limit: b }.percent(),
            quota.percent(c, a),
        ] {
            prop_assert!((0.0..=100.0).contains(&percent), "{percent}");
        }
    }
}
