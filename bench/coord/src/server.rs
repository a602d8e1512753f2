//! The servers under test, each a process of its own on the same disk, one at a time.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench_measure::{Used, used};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Mainstay,
    Etcd,
    ZooKeeper,
}

pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    /// Headers of each request; whole lines.
    pub headers: String,
    child: Child,
    folder: PathBuf,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Mainstay, Self::Etcd, Self::ZooKeeper];

    /// Whether it is installed here.
    pub fn is_there(self, mainstay: &Path) -> bool {
        match self {
            Self::Mainstay => mainstay.exists(),
            Self::Etcd => Command::new("etcd").arg("--version").output().is_ok(),
            Self::ZooKeeper => Path::new(ZOOKEEPER_JAR).exists(),
        }
    }
}

impl Server {
    pub fn start(kind: Kind, mainstay: &Path, folder: &Path) -> Self {
        let folder = folder.join(format!("{kind:?}"));
        fs::create_dir_all(&folder).expect("a folder");
        let (port, peer) = (free_port(), free_port());
        let mut address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = match kind {
            Kind::Mainstay => mainstay_command(mainstay, &folder, port),
            Kind::Etcd => etcd_command(&folder, port, peer),
            Kind::ZooKeeper => zookeeper_command(&folder, port),
        };
        let log = fs::File::create(folder.join("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        address.set_port(port);
        let mut server = Self { kind, address, headers: String::new(), child, folder };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            assert!(
                Instant::now() < until,
                "{:?} does not listen; see {:?}",
                self.kind,
                self.folder
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.kind == Kind::Mainstay {
            let file = self.folder.join("data/control.toml");
            while !file.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let text = fs::read_to_string(file).expect("its token");
            let token = text.lines().find_map(|line| line.strip_prefix("token = "));
            let token = token.expect("a token").trim_matches('"').to_owned();
            self.headers = format!("authorization: Bearer {token}\r\n");
        }
        // Leaders are elected, the just-in-time compiler has begun: the warm-up does the rest.
        std::thread::sleep(Duration::from_secs(2));
    }

    pub fn used(&self) -> Used {
        used(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn mainstay_command(binary: &Path, folder: &Path, port: u16) -> Command {
    let config = format!(
        "server = {{ listen = \"127.0.0.1:{port}\" }}\n[gateway]\nlisten = [\"127.0.0.1:0\"]\n\
         [dns]\nlisten = \"127.0.0.1:0\"\n"
    );
    let path = folder.join("mainstay.toml");
    fs::write(&path, config).expect("its configuration");
    let mut command = Command::new(binary);
    command.args(["dev", "--config"]).arg(path).arg("--data-dir").arg(folder.join("data"));
    command
}

fn etcd_command(folder: &Path, port: u16, peer: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "m", "--log-level", "error", "--data-dir"]).arg(folder.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("m={peer}")]);
    command
}

fn zookeeper_command(folder: &Path, port: u16) -> Command {
    let data = folder.join("data");
    let config = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        data.display()
    );
    let path = folder.join("zoo.cfg");
    fs::write(&path, config).expect("its configuration");
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-cp", "/usr/share/java/*"]);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(path);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// What Debian's package `zookeeper` depends on.
const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";
