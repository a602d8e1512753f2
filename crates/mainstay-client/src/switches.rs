//! Switches, as a program reads them.
//!
//! A [`Flag`], [`Number`] or [`Text`] is made once and read as often as calls come: it waits for
//! nothing, takes no lock, allocates nothing and never fails. A switch that is not there, has
//! another type, or was never heard of is what the program says it is by default. Turns arrive by
//! one stream, usually within a few milliseconds; the last state is kept on disk, and is there at
//! once when the program starts, whether a server answers or not.
//!
//! A value that holds until a moment ends then by this machine's clock, also while no server is
//! there. A percentage is on for the same callers every time, in every program.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use mainstay_client::Client;
//! # let cache = tempfile::tempdir()?;
//!
//! let client = Client::builder(["http://127.0.0.1:7400"]).build()?;
//! let switches = client.switches("pay-1").cache(cache.path()).start()?;
//! let recommend = switches.flag("recommend", true)?;
//! let page = switches.number("page-size", 20.0)?;
//! assert!(recommend.is_on(Some("u-7")), "nobody has answered: the default");
//! assert_eq!(page.get(), 20.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod slot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_api::rules::Named;
use mainstay_core::switch::{Setting, Switch};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::Client;
use crate::error::ClientError;
use crate::rules::{Known, Rules};
use slot::Slot;

/// Switches that a program reads: a few hundred bytes each, and programs read a few dozen.
const SWITCHES_MAX: usize = 10_000;

/// Switches of a namespace, until their client shuts down. Clones read the same ones.
#[derive(Clone, Debug)]
pub struct Switches {
    panel: Arc<Panel>,
}

#[derive(Debug)]
struct Panel {
    namespace: String,
    /// Whose overrides count.
    instance: Arc<str>,
    rules: Rules,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

/// How switches are followed.
#[derive(Debug)]
#[must_use = "nothing is followed before `start`"]
pub struct Builder {
    client: Client,
    instance: String,
    cache: Option<PathBuf>,
}

impl Client {
    /// Follows the switches of the client's namespace as `instance`, whose overrides count.
    pub fn switches(&self, instance: impl Into<String>) -> Builder {
        Builder { client: self.clone(), instance: instance.into(), cache: None }
    }
}

impl Builder {
    /// Keeps the last state below this folder, and begins with the one that is there. None is kept
    /// unless told.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Begins. Must be called within a tokio runtime; reads the state that was kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`].
    pub fn start(self) -> Result<Switches, ClientError> {
        let Self { client, instance, cache } = self;
        let namespace = client.shared.namespace.clone();
        let rules = client.rules().kind(KIND).namespace(&namespace);
        let rules = match cache {
            Some(folder) => rules.cache(folder),
            None => rules,
        };
        let rules = rules.start()?;
        let mut states = rules.watch();
        let panel = Panel { namespace, instance: instance.into(), rules, slots: Mutex::default() };
        let panel = Arc::new(panel);
        let turned = Arc::clone(&panel);
        client.shared.tasks.spawn("switches", |stop| async move {
            while stop.run_until_cancelled(states.changed()).await.is_some_and(|told| told.is_ok())
            {
                let known = Arc::clone(&states.borrow_and_update());
                for (name, slot) in &*turned.slots.lock() {
                    turned.turn(name, slot, &known);
                }
            }
        });
        Ok(Switches { panel })
    }
}

impl Switches {
    /// A switch that is on or off, or on for a percentage of callers; `default` while it is
    /// neither.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`]: that is no name, or one of too many.
    pub fn flag(&self, name: &str, default: bool) -> Result<Flag, ClientError> {
        Ok(Flag { lever: self.lever(name)?, default })
    }

    /// A switch with a number; `default` while it has none.
    ///
    /// # Errors
    ///
    /// As [`flag`](Switches::flag).
    pub fn number(&self, name: &str, default: f64) -> Result<Number, ClientError> {
        Ok(Number { lever: self.lever(name)?, default })
    }

    /// A switch with a text; `default` while it has none.
    ///
    /// # Errors
    ///
    /// As [`flag`](Switches::flag).
    pub fn text(&self, name: &str, default: impl Into<Arc<str>>) -> Result<Text, ClientError> {
        Ok(Text { lever: self.lever(name)?, default: default.into() })
    }

    /// A switch as it is now, whole, and every later state of it; `None` while it is not there. The
    /// end of a value that holds until a moment is told once a server has written it down.
    ///
    /// # Errors
    ///
    /// As [`flag`](Switches::flag).
    pub fn watch(&self, name: &str) -> Result<watch::Receiver<Option<Arc<Switch>>>, ClientError> {
        Ok(self.lever(name)?.slot.watch())
    }

    /// Waits until switches are known: from a server, or kept from an earlier run.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn answered(&self) {
        self.panel.rules.answered().await;
    }

    fn lever(&self, name: &str) -> Result<Lever, ClientError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=128).contains(&name.len()) || !name.bytes().all(is_plain) {
            let why = "must be 1 to 128 of a-z, 0-9 and `-`";
            return Err(ClientError::Invalid { what: "name of a switch", why });
        }
        let panel = &*self.panel;
        let mut slots = panel.slots.lock();
        let slot = match slots.get(name) {
            Some(slot) => Arc::clone(slot),
            None if SWITCHES_MAX <= slots.len() => {
                let why = "must be at most 10,000 in one program";
                return Err(ClientError::Invalid { what: "switches", why });
            }
            None => {
                let slot = Arc::new(Slot::new(format!("{}/{name}", panel.namespace)));
                let known = Arc::clone(&panel.rules.watch().borrow());
                panel.turn(name, &slot, &known);
                slots.insert(name.to_owned(), Arc::clone(&slot));
                slot
            }
        };
        Ok(Lever { slot, instance: Arc::clone(&panel.instance) })
    }
}

impl Panel {
    /// Sets one to what is known of it.
    fn turn(&self, name: &str, slot: &Slot, known: &Known) {
        let (kind, namespace) = (KIND.to_owned(), self.namespace.clone());
        slot.set(known.get(&Named { kind, namespace, name: name.to_owned() }));
    }
}

/// What of a kind a switch is.
const KIND: &str = "switch";

/// One switch, for one instance.
#[derive(Clone, Debug)]
struct Lever {
    slot: Arc<Slot>,
    instance: Arc<str>,
}

impl Lever {
    fn read<T>(&self, read: impl FnOnce(&Setting) -> Option<T>) -> Option<T> {
        self.slot.read(&self.instance, read)
    }
}

/// A switch that is on or off, or on for some.
#[derive(Clone, Debug)]
pub struct Flag {
    lever: Lever,
    default: bool,
}

impl Flag {
    /// Whether it is on, for the caller `key` (a user, an order) if it is a percentage; without a
    /// key a percentage is on at 100 only.
    pub fn is_on(&self, key: Option<&str>) -> bool {
        let is_on = self.lever.read(|setting| match setting {
            Setting::Boolean(on) => Some(*on),
            Setting::Percent(percent) => Some(percent.includes(self.lever.slot.scope(), key)),
            Setting::Number(_) | Setting::String(_) => None,
        });
        is_on.unwrap_or(self.default)
    }
}

/// A switch with a number.
#[derive(Clone, Debug)]
pub struct Number {
    lever: Lever,
    default: f64,
}

impl Number {
    /// What it is now.
    pub fn get(&self) -> f64 {
        let number = self.lever.read(|setting| match setting {
            Setting::Number(number) => Some(*number),
            _ => None,
        });
        number.unwrap_or(self.default)
    }
}

/// A switch with a text.
#[derive(Clone, Debug)]
pub struct Text {
    lever: Lever,
    default: Arc<str>,
}

impl Text {
    /// What it is now; shared, not copied.
    pub fn get(&self) -> Arc<str> {
        let text = self.lever.read(|setting| match setting {
            Setting::String(text) => Some(Arc::clone(text)),
            _ => None,
        });
        text.unwrap_or_else(|| Arc::clone(&self.default))
    }
}
