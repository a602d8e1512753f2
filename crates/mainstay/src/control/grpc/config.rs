//! The config centre over gRPC.

use std::collections::BTreeMap;

use mainstay_api::config::{Held, Watch};
use mainstay_api::grpc::config_server::Config;
use mainstay_api::grpc::config_watch_response::Item as Sent;
use mainstay_api::grpc::{
    ConfigContents, ConfigGetRequest, ConfigItem, ConfigItemChange, ConfigRelease, ConfigUpdate,
    ConfigWatchRequest, ConfigWatchResponse, HeldGroup,
};
use mainstay_coord::centre::{Client, Delivered, Turn, Update};
use mainstay_coord::name::ClientId;
use tonic::{Request, Response, Status};

use super::{Agreed, Messages, ended, namespace};
use crate::control::answer::Refused;
use crate::control::author::author;
use crate::control::centre::{group, push, revealed};
use crate::control::items::Item;
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
    let change = |turn| match turn {
        Turn::Added => "added",
        Turn::Removed => "removed",
        Turn::Changed => "changed",
    };
    let changed = update.changed.into_iter();
    ConfigUpdate {
        group: update.group,
        revision: update.revision,
        release: update.release,
        canary: update.canary,
        from: update.from,
        changed: changed
            .map(|item| ConfigItemChange {
                item: item.item,
                change: change(item.change).to_owned(),
            })
            .collect(),
        contents: update.contents.map(|contents| ConfigContents { items: items(contents) }),
    }
}

fn items(items: BTreeMap<String, Delivered>) -> BTreeMap<String, ConfigItem> {
    let item = |(name, item): (String, Delivered)| {
        let Delivered { format, secret, content } = item;
        let content = content.map(|content| content.to_string());
        (name, ConfigItem { format: format.as_str().to_owned(), secret, content })
    };
    items.into_iter().map(item).collect()
}
