//! The config centre over gRPC.

use std::collections::BTreeMap;

use mainstay_api::config::{Held, Watch};
use mainstay_api::grpc::config_server::Config;
use mainstay_api::grpc::config_watch_response::Item as Sent;
use mainstay_api::grpc::{
    ConfigCanary, ConfigContents, ConfigGetRequest, ConfigItem, ConfigItemChange, ConfigItemPut,
    ConfigPublishRequest, ConfigPublishResponse, ConfigRelease, ConfigUpdate, ConfigWatchRequest,
    ConfigWatchResponse, HeldGroup,
};
use mainstay_coord::audit::{Author, Target};
use mainstay_coord::centre::{
    Client, Delivered, Editor, Publication, RawCanary, RawItem, Turn, Update,
};
use mainstay_coord::name::ClientId;
use tonic::{Request, Response, Status};

use super::registry::word;
use super::{Agreed, Messages, ended, namespace};
use crate::cluster::Cluster;
use crate::control::answer::Refused;
use crate::control::author::author;
use crate::control::centre::{group, push, revealed};
use crate::control::events::reason;
use crate::control::items::Item;
use crate::control::refusals;
use crate::control::registry::named;

#[tonic::async_trait]
impl Config for Agreed {
    async fn get(
        &self,
        request: Request<ConfigGetRequest>,
    ) -> Result<Response<ConfigRelease>, Status> {
        let author = author(request.metadata().as_ref(), request.extensions());
        let ConfigGetRequest { namespace: within, group: name, client, labels, secrets } =
            request.into_inner();
        let group = group(namespace(within), name)?;
        let client = if client.is_empty() {
            None
        } else {
            Some(Client { id: named(ClientId::new(client))?, labels })
        };
        let fetched = self.cluster.centre.fetch(&group, client.as_ref(), secrets).await;
        let fetched = fetched.map_err(Refused::from)?;
        if secrets && fetched.items.values().any(|item| item.secret) {
            revealed(&self.cluster, &group, Some(fetched.release), &author);
        }
        Ok(Response::new(ConfigRelease {
            group: fetched.group,
            release: fetched.release,
            canary: fetched.canary,
            items: items(fetched.items),
        }))
    }

    async fn publish(
        &self,
        request: Request<ConfigPublishRequest>,
    ) -> Result<Response<ConfigPublishResponse>, Status> {
        let mut author = author(request.metadata().as_ref(), request.extensions());
        let given = reason(None, request.metadata().as_ref());
        // A reason that is none is what it is refused for.
        author.reason = given.as_ref().ok().cloned().flatten();
        let ask = request.into_inner();
        let id = format!("{}/{}", namespace(ask.namespace.clone()), ask.group);
        let (cluster, is_dry) = (&self.cluster, ask.dry_run);
        let done = async { published(cluster, given.map(|_| author.clone())?, ask).await };
        match done.await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refused) => {
                if !is_dry {
                    let target = Target { kind: "config".to_owned(), id, ..Target::default() };
                    refusals::told(cluster, "config:publish", target, &author, &refused);
                }
                Err(refused.into())
            }
        }
    }

    type WatchStream = Messages<ConfigWatchResponse>;

    async fn watch(
        &self,
        request: Request<ConfigWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let author = author(request.metadata().as_ref(), request.extensions());
        let ConfigWatchRequest { client, labels, groups, secrets } = request.into_inner();
        let held = |held: HeldGroup| Held {
            namespace: namespace(held.namespace),
            group: held.group,
            release: held.release,
        };
        let groups = groups.into_iter().map(held).collect();
        let asked = Watch { client, labels, groups, secrets };
        let told = push::follow(&self.cluster, asked, &author)?;
        Ok(Response::new(self.told(told, message)))
    }
}

fn message(item: push::Item) -> Result<ConfigWatchResponse, Status> {
    let item = match item {
        Item::Snapshot(_, told) => Some(Sent::Snapshot(update(told))),
        Item::Change(_, told) => Some(Sent::Change(update(told))),
        // A client comes back with its releases, so there is nothing else to tell.
        Item::Bookmark(..) | Item::Resync(_) => None,
        Item::Problem(code, detail) => return Err(ended(code, detail)),
    };
    Ok(ConfigWatchResponse { item })
}

fn update(update: Update) -> ConfigUpdate {
    let changed = update.changed.into_iter();
    ConfigUpdate {
        group: update.group,
        revision: update.revision,
        release: update.release,
        canary: update.canary,
        from: update.from,
        changed: changed.map(|item| change(item.item, item.change)).collect(),
        contents: update.contents.map(|contents| ConfigContents { items: items(contents) }),
    }
}

fn change(item: String, turn: Turn) -> ConfigItemChange {
    let change = match turn {
        Turn::Added => "added",
        Turn::Removed => "removed",
        Turn::Changed => "changed",
    };
    ConfigItemChange { item, change: change.to_owned() }
}

/// Publishes what is asked for, or tells what that would come to.
async fn published(
    cluster: &Cluster,
    author: Author,
    ask: ConfigPublishRequest,
) -> Result<ConfigPublishResponse, Refused> {
    let group = group(namespace(ask.namespace), ask.group)?;
    let (base, dry_run) = (ask.base, ask.dry_run);
    let mut items = BTreeMap::new();
    for (name, item) in ask.items {
        let item = put(&name, item)?;
        items.insert(name, Some(item));
    }
    items.extend(ask.removed.into_iter().map(|name| (name, None)));
    let publication = Publication {
        items,
        complete: ask.complete,
        from_drafts: ask.from_drafts,
        note: ask.note,
        canary: ask.canary.map(canary).transpose()?,
    };
    let (centre, editor) = (&cluster.centre, Editor { author, base, dry_run: false });
    if dry_run {
        let diff = centre.preview(&group, &publication, &editor).await?;
        let changed = diff.items.into_iter().map(|item| change(item.item, item.change));
        return Ok(ConfigPublishResponse {
            release: diff.to,
            changed: changed.collect(),
            ..ConfigPublishResponse::default()
        });
    }
    let published = centre.publish(&group, &publication, &editor).await?;
    let changed = published.changed.into_iter().map(|item| change(item.item, item.change));
    Ok(ConfigPublishResponse {
        release: published.release,
        revision: published.revision,
        is_new: published.is_new,
        canary: published.canary,
        changed: changed.collect(),
    })
}

/// An item as documents have it.
fn put(name: &str, item: ConfigItemPut) -> Result<RawItem, Refused> {
    let ConfigItemPut { format, content, secret, schema_json } = item;
    let schema = Some(schema_json).filter(|schema| !schema.is_empty());
    let wrong = |error| Refused::invalid(format!("`schema_json` of `{name}`: {error}"));
    let schema = schema.map(|schema| serde_json::from_str(&schema)).transpose().map_err(wrong)?;
    let format = word("format", format)?.unwrap_or_default();
    Ok(RawItem { format, content, secret, schema })
}

/// A canary as documents have it.
fn canary(canary: ConfigCanary) -> Result<RawCanary, Refused> {
    let ConfigCanary { clients, labels, percent } = canary;
    let percent = serde_json::from_value(percent.into());
    let percent = percent.map_err(|error| Refused::invalid(format!("`canary`: {error}")))?;
    Ok(RawCanary { release: None, clients: clients.into_iter().collect(), labels, percent })
}

fn items(items: BTreeMap<String, Delivered>) -> BTreeMap<String, ConfigItem> {
    let item = |(name, item): (String, Delivered)| {
        let Delivered { format, secret, content } = item;
        let content = content.map(|content| content.to_string());
        (name, ConfigItem { format: format.as_str().to_owned(), secret, content })
    };
    items.into_iter().map(item).collect()
}
