//! A program that is found and finds others, works under a lock, follows its configuration and reads
//! a switch.
//!
//! ```sh
//! mainstay dev
//! cargo run -p mainstay-client --example tour -- http://127.0.0.1:7400 TOKEN CACHE
//! ```
//!
//! `TOKEN` stands in `control.toml` of the data directory; `CACHE` is a folder for what is known
//! last. What it is told while it runs shows up:
//!
//! ```sh
//! mainstay config set tour greeting 'good morning' && mainstay config release tour --note first
//! mainstay switch set default/tour-polite false --type boolean
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use mainstay_call::resolve::Resolve as _;
use mainstay_client::Client;
use mainstay_client::registry::Registration;
use mainstay_core::name::ServiceName;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, cache] = arguments.as_slice() else {
        return Err("usage: tour URL TOKEN CACHE".into());
    };
    let client = Client::builder([url]).token(token).name("tour").build()?;
    for line in tour(&client, Path::new(cache)).await? {
        println!("{line}");
    }
    Ok(())
}

/// Does all of it once; says what it saw.
pub(crate) async fn tour(client: &Client, cache: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut seen = Vec::new();

    // Others find it for as long as `own` lives; it is registered again should it be forgotten.
    let own = client.register(Registration::new("tour", "127.0.0.1", 8080).zone("a"))?;
    own.ready().await?;
    let discovery = client.discovery().cache(cache).start();
    let mut services = discovery.watch("default", &ServiceName::new("tour")?);
    let list = services.wait_for(|list| !list.instances.is_empty()).await?.clone();
    seen.push(format!("found {}", list.instances.len()));

    // The lock is renewed while `held` lives. Its token goes along with every write.
    let held = client.lock("tour").ttl(Duration::from_secs(10)).acquire().await?;
    held.check()?;
    seen.push(format!("holds {} by token {}", held.name(), held.token()));
    held.release().await?;

    // A release comes whole. Whoever uses it says so, and operators see who holds what.
    let config = client.config("tour-1").group("tour").cache(cache).start()?;
    let mut releases = config.watch("tour").ok_or("the group is followed")?;
    let wait = releases.wait_for(Option::is_some);
    match tokio::time::timeout(Duration::from_secs(2), wait).await {
        Ok(release) => {
            let release = release?.clone().ok_or("it is there")?;
            config.applied(&release);
            let greeting = release.get("greeting").unwrap_or("no greeting");
            seen.push(format!("release {} says {greeting}", release.number()));
        }
        Err(_elapsed) => seen.push("nothing is published".to_owned()),
    }

    // Made once, read with each call: without a wait, a lock or a failure.
    let switches = client.switches("tour-1").cache(cache).start()?;
    let polite = switches.flag("tour-polite", true)?;
    switches.answered().await;
    seen.push(format!("polite: {}", polite.is_on(Some("u-7"))));

    // Others are told that it goes.
    own.deregister().await?;
    client.shutdown(Duration::from_secs(5)).await;
    Ok(seen)
}
