//! Real etcd processes on free loopback ports, and handles on them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay_core::Clock;
use mainstay_store::store::State;
use mainstay_store::{
    Applied, Batch, Error, Get, Key, Put, Range, Revision, Store, Watch, WatchItem, WatchRequest,
};
use mainstay_store_etcd::{Etcd, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a busy machine may take for what should be done at once.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The clock of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uptime;

impl Clock for Uptime {
    fn now(&self) -> mainstay_core::Instant {
        use std::sync::LazyLock;
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        mainstay_core::Instant::ZERO.plus(BEGAN.elapsed())
    }
}

/// The members of one etcd. Killed when dropped; their logs are kept if the test fails.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    _home: TempDir,
}

/// One member, running or not.
#[derive(Debug)]
pub(crate) struct Member {
    arguments: Vec<String>,
    pub(crate) endpoint: String,
    log: PathBuf,
    child: Option<Child>,
}

/// What a cluster is started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) members: usize,
    /// Ports for clients and peers of a single member, where they matter.
    pub(crate) ports: Option<(u16, u16)>,
    /// Tells clusters on the same addresses apart.
    pub(crate) token: Option<&'static str>,
    /// Serves clients by https, with these arguments.
    pub(crate) tls: Option<Vec<String>>,
}

impl Cluster {
    /// One member.
    pub(crate) async fn one() -> Self {
        Self::start(Setup::default()).await
    }

    /// Starts all members and waits until they serve.
    pub(crate) async fn start(setup: Setup) -> Self {
        let cluster = Self::launch(&setup);
        if setup.tls.is_none() {
            cluster.ready().await;
        }
        cluster
    }

    fn launch(setup: &Setup) -> Self {
        let home = TempDir::new().unwrap();
        let count = setup.members.max(1);
        let ports: Vec<(u16, u16)> = match setup.ports {
            Some(ports) => vec![ports],
            None => (0..count).map(|_| (free_port(), free_port())).collect(),
        };
        let scheme = if setup.tls.is_some() { "https" } else { "http" };
        let peers = ports.iter().enumerate();
        let peers: Vec<String> =
            peers.map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let peers = peers.join(",");
        let mut members = Vec::new();
        for (number, (client, peer)) in ports.iter().enumerate() {
            let endpoint = format!("{scheme}://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
            let data = home.path().join(format!("m{number}"));
            let pairs = [
                ("name", format!("m{number}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", endpoint.clone()),
                ("advertise-client-urls", endpoint.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", peers.clone()),
                ("initial-cluster-token", setup.token.unwrap_or("mainstay").to_owned()),
            ];
            let pairs = pairs.into_iter().map(|(name, value)| format!("--{name}={value}"));
            let arguments = pairs.chain(setup.tls.clone().unwrap_or_default()).collect();
            let mut member = Member { arguments, endpoint, log: log_of("etcd"), child: None };
            member.run();
            members.push(member);
        }
        Self { members, _home: home }
    }

    /// Waits until the cluster serves writes.
    pub(crate) async fn ready(&self) {
        let probe = self.store("/ready/");
        eventually("the cluster serves", async || {
            let batch = Batch::new().then(Put::new(key("probe"), "1"));
            probe.apply(batch).await.is_ok()
        })
        .await;
        let gone = Batch::new().then(mainstay_store::Op::delete(&key("probe")));
        probe.apply(gone).await.unwrap();
    }

    pub(crate) fn options(&self, prefix: &str) -> Options {
        let endpoints: Vec<&str> = self.members.iter().map(|member| &*member.endpoint).collect();
        Options::new(&endpoints).unwrap().prefix(prefix).unwrap().never_compact()
    }

    pub(crate) fn store(&self, prefix: &str) -> Arc<Etcd> {
        open(self.options(prefix))
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> usize {
        let status = |member: &Member| {
            let run = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &member.endpoint, "endpoint", "status"])
                .output()
                .expect("etcdctl is installed");
            // The fifth field of an unadorned status says whether it leads.
            let text = String::from_utf8(run.stdout).unwrap();
            text.split(", ").nth(4).map(|leads| leads.trim() == "true")
        };
        self.members.iter().position(|member| status(member) == Some(true)).unwrap()
    }
}

pub(crate) fn open(options: Options) -> Arc<Etcd> {
    Arc::new(Etcd::open(options, Uptime))
}

impl Member {
    /// Starts it, on the data it has.
    pub(crate) fn run(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed (Debian: etcd-server)");
        self.child = Some(child);
    }

    /// Ends it with `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().map(Child::id).unwrap();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
        if !std::thread::panicking() {
            drop(fs::remove_file(&self.log));
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A new file below `target/test-logs`.
fn log_of(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-logs");
    fs::create_dir_all(&logs).unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    logs.join(format!("{name}-{}-{count}.log", std::process::id()))
}

/// Looks until `is_so`, for as long as a busy machine may take.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The answer, which must come.
pub(crate) async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_late| panic!("not yet: {what}"))
}

pub(crate) fn key(text: &str) -> Key {
    text.try_into().unwrap()
}

pub(crate) async fn put(store: &Etcd, name: &str, value: &str) -> Revision {
    apply(store, name, value).await.unwrap().revision
}

pub(crate) async fn apply(store: &Etcd, name: &str, value: &str) -> Result<Applied, Error> {
    store.apply(Batch::new().then(Put::new(key(name), value.to_owned()))).await
}

pub(crate) async fn value(store: &Etcd, name: &str) -> Option<String> {
    let entry = store.get(Get::new(key(name))).await.unwrap().entry?;
    Some(String::from_utf8_lossy(&entry.value).into_owned())
}

pub(crate) async fn state(store: &Etcd) -> State {
    store.status().await.unwrap().state
}

/// A watch of all keys, without bookmarks, that stands.
pub(crate) async fn watch_all(store: &Etcd) -> Watch {
    let mut watch = store.watch(WatchRequest::new(Range::all()).quiet()).unwrap();
    let first = soon("a watch stands", watch.next()).await;
    assert!(matches!(first, Some(WatchItem::Created { .. })), "{first:?}");
    watch
}

/// The revisions a watch yields up to `last`, each with its values.
pub(crate) async fn changes(watch: &mut Watch, last: Revision) -> Vec<(Revision, String)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(at, _)| *at < last) {
        match soon("a change", watch.next()).await {
            Some(WatchItem::Changes { revision, events }) => {
                let values = events.iter().filter_map(|event| event.entry());
                let values = values.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
                seen.push((revision, values.collect::<Vec<_>>().join(",")));
            }
            Some(WatchItem::Bookmark { .. }) => (),
            other => panic!("{other:?} after {:?}", seen.last()),
        }
    }
    seen
}
