//! Where one switch is read.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mainstay_api::rules::Object;
use mainstay_core::Moment;
use mainstay_core::switch::{Setting, Switch};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock;

/// One switch. Who reads it waits for nobody: whoever sets it puts another in its place.
#[derive(Debug)]
pub(super) struct Slot {
    /// `namespace/name`.
    scope: String,
    switch: ArcSwapOption<Switch>,
    /// The edition it was read from.
    edition: Mutex<Option<Arc<Object>>>,
    tell: watch::Sender<Option<Arc<Switch>>>,
}

impl Slot {
    pub(super) fn new(scope: String) -> Self {
        let (switch, edition) = (ArcSwapOption::empty(), Mutex::default());
        Self { scope, switch, edition, tell: watch::Sender::new(None) }
    }

    pub(super) fn scope(&self) -> &str {
        &self.scope
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Switch>>> {
        self.tell.subscribe()
    }

    /// What it is for `instance` now.
    pub(super) fn read<T>(
        &self,
        instance: &str,
        read: impl FnOnce(&Setting) -> Option<T>,
    ) -> Option<T> {
        let switch = self.switch.load();
        let switch = switch.as_deref()?;
        // Few switches have a time of their own, and the clock need not be asked for the others.
        let now = if switch.until().is_some() { clock::wall() } else { Moment::default() };
        read(switch.at(now, Some(instance)))
    }

    /// Sets it to what `object` says. What a newer version wrote leaves it as it was last
    /// understood.
    pub(super) fn set(&self, object: Option<&Arc<Object>>) {
        let mut edition = self.edition.lock();
        if edition.as_deref() == object.map(|object| &**object) {
            return;
        }
        *edition = object.cloned();
        let switch = match object.map(|object| Switch::read(&object.content)) {
            Some(Ok(switch)) => Some(Arc::new(switch)),
            Some(Err(_unreadable)) => return,
            None => None,
        };
        self.switch.store(switch.clone());
        self.tell.send_replace(switch);
    }
}
