//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

use mainstay_store::embedded::simulated::Faults;
use mainstay_store::{Revision, Store as _};
use parking_lot::Mutex;

use crate::draw::Draw;
use crate::node::Node;
use crate::server::{End, Server};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store's process is killed.
    KillServer,
    /// The power fails, after some more writes: in the middle of a commit.
    PowerCut,
    /// The store's process stands still.
    PauseServer,
    /// The store's clock leaps an hour ahead.
    LeapServer,
    /// The store's clock stands still for a while.
    StopServerClock,
    /// The disk has no room for a while.
    DiskFull,
    /// The disk fails to sync; the process is started anew some time later.
    DiskFails,
    /// History is compacted.
    Compact,
    /// Answers to a process of clients become slow, and then it is cut off.
    SlowNode,
    /// A process of clients is cut off.
    CutNode,
    /// It stands still.
    PauseNode,
    /// It is killed, and another one started.
    KillNode,
    /// Its clock leaps an hour ahead, and its wall clock an hour to either side.
    LeapNode,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::KillServer,
        Self::PowerCut,
        Self::PauseServer,
        Self::LeapServer,
        Self::StopServerClock,
        Self::DiskFull,
        Self::DiskFails,
        Self::Compact,
        Self::SlowNode,
        Self::CutNode,
        Self::PauseNode,
        Self::KillNode,
        Self::LeapNode,
    ];

    /// Those of a run: about half, so that runs differ, and at least one (Groce et al., "Swarm
    /// testing", ISSTA 2012).
    pub fn some(draw: &Draw) -> Vec<Self> {
        let first = *draw.pick(&Self::ALL);
        let others = Self::ALL.into_iter().filter(|fault| *fault != first && draw.once_in(2));
        std::iter::once(first).chain(others).collect()
    }
}

/// Who can be met by faults, and how often each fault was there.
#[derive(Debug)]
pub struct Trouble {
    /// The store's process.
    pub server: Server,
    /// The processes of clients that live.
    pub nodes: Arc<Mutex<Vec<Node>>>,
    /// The draws of the run.
    pub draw: Draw,
}

impl Trouble {
    /// Does `fault` to somebody, and makes it good again after a while.
    pub async fn make(&self, fault: Fault, replace: impl Fn(usize)) {
        let (server, draw) = (&self.server, &self.draw);
        server.note(|| format!("fault: {fault:?}"));
        match fault {
            Fault::KillServer => {
                server.stop(End::Kill);
                tokio::time::sleep(draw.millis(20, 3_000)).await;
                server.start();
            }
            Fault::PowerCut => self.cut_power().await,
            Fault::PauseServer => {
                server.clock().pause(true);
                tokio::time::sleep(draw.millis(100, 9_000)).await;
                server.clock().pause(false);
            }
            Fault::LeapServer => server.clock().leap(HOUR),
            Fault::StopServerClock => {
                server.clock().stand_still(true);
                tokio::time::sleep(draw.millis(100, 5_000)).await;
                server.clock().stand_still(false);
            }
            Fault::DiskFull => {
                server.fail(Faults { no_room: true, ..Faults::default() });
                tokio::time::sleep(draw.millis(100, 4_000)).await;
                server.fail(Faults::default());
            }
            Fault::DiskFails => {
                server.fail(Faults { sync: true, ..Faults::default() });
                tokio::time::sleep(draw.millis(500, 3_000)).await;
                server.stop(End::Power);
                server.start();
            }
            Fault::Compact => self.compact().await,
            Fault::SlowNode
            | Fault::CutNode
            | Fault::PauseNode
            | Fault::KillNode
            | Fault::LeapNode => self.meet_node(fault, replace).await,
        }
    }

    async fn cut_power(&self) {
        let power_after = Some(self.draw.below(80));
        self.server.fail(Faults { power_after, ..Faults::default() });
        // The next commits run into it; if none does, it ends between two.
        tokio::time::sleep(self.draw.millis(10, 400)).await;
        self.server.stop(End::Power);
        tokio::time::sleep(self.draw.millis(0, 2_000)).await;
        self.server.start();
    }

    async fn compact(&self) {
        let last = self.server.recorded(crate::recorder::Recorder::last);
        let back = self.draw.below(30);
        let at = Revision::new(last.get().saturating_sub(back).max(1));
        let Some(alive) = self.server.alive() else { return };
        self.server.compacts(at);
        tokio::select! {
            biased;
            () = self.server.over(alive.life) => {}
            // Refused when history begins there already.
            result = alive.store.compact(at) => drop(result),
        }
    }

    async fn meet_node(&self, fault: Fault, replace: impl Fn(usize)) {
        let draw = &self.draw;
        let at = usize::try_from(draw.below(self.nodes.lock().len() as u64)).unwrap_or(0);
        let Some(node) = self.nodes.lock().get(at).cloned() else { return };
        match fault {
            Fault::SlowNode => {
                node.link.slow(true);
                tokio::time::sleep(draw.millis(1_000, 6_000)).await;
                node.link.slow(false);
                node.link.cut(true);
                tokio::time::sleep(draw.millis(3_000, 15_000)).await;
                node.link.cut(false);
            }
            Fault::CutNode => {
                node.link.cut(true);
                tokio::time::sleep(draw.millis(100, 9_000)).await;
                node.link.cut(false);
            }
            Fault::PauseNode => {
                node.clock.pause(true);
                tokio::time::sleep(draw.millis(100, 12_000)).await;
                node.clock.pause(false);
            }
            Fault::KillNode => {
                // What it has sent is still on its way; nothing of it ever runs again.
                node.clock.pause(true);
                replace(at);
            }
            _ => {
                if draw.once_in(2) {
                    node.clock.leap(HOUR);
                }
                let hour = i64::try_from(HOUR.as_millis()).unwrap_or(0);
                node.clock.set_wall(*draw.pick(&[hour, -hour, 0]));
            }
        }
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.server.note(|| "all is well from here on".to_owned());
        self.server.clock().pause(false);
        self.server.clock().stand_still(false);
        // A store whose disk failed is well only once it is started anew.
        self.server.stop(End::Kill);
        self.server.start();
        for node in self.nodes.lock().iter() {
            node.link.cut(false);
            node.clock.pause(false);
        }
    }
}

const HOUR: Duration = Duration::from_hours(1);
