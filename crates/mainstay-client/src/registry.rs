//! The registry, as a program sees it: being found, and finding others.
//!
//! | what | module |
//! |---|---|
//! | an instance that is registered for as long as the program runs | [`registration`], [`registered`] |
//! | instances of other services, now and from now on | [`discovery`] |
//! | instances that fail calls, told to the registry | `failing` |
//! | what is gone on with while nobody answers | `last_good`, `cache` |
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use mainstay_call::resolve::Resolve as _;
//! use mainstay_client::Client;
//! use mainstay_client::registry::Registration;
//! use mainstay_core::name::ServiceName;
//! # let cache = tempfile::tempdir()?;
//!
//! let client = Client::builder(["http://127.0.0.1:7400"]).build()?;
//! // Registered as soon as a server answers, and again whenever one has forgotten.
//! let own = client.register(Registration::new("order", "10.0.0.7", 8080).zone("a"))?;
//! // Followed from now on; lists of an earlier run are there at once.
//! let discovery = client.discovery().cache(cache.path()).start();
//! let stock = discovery.watch("default", &ServiceName::new("stock")?);
//! assert!(stock.borrow().instances.is_empty() && stock.borrow().empty_because.is_some());
//! // Others are told before the program ends.
//! drop(own);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
pub mod discovery;
mod failing;
mod following;
mod last_good;
mod pick;
pub mod registered;
pub mod registration;

pub use discovery::Discovery;
pub(crate) use pick::pick;
pub use registered::Registered;
pub use registration::Registration;
