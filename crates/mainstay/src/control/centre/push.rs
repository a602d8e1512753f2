//! Following groups, and telling what became of a release at a client.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream::{self, Stream};
use mainstay_api::config::{self as wire, Report, Watch};
use mainstay_coord::audit::Author;
use mainstay_coord::centre::{Client, Interest, Subscription, Update, Verdict};
use mainstay_coord::name::ClientId;
use mainstay_store::Revision;
use serde_json::{Value, json};

use super::{Of, group, revealed};
use crate::cluster::Cluster;
use crate::control::answer::{Answer, Document, Refused, items};
use crate::control::author::By;
use crate::control::registry::named;
use crate::control::{items, sse};

/// What a stream of groups tells.
pub(in crate::control) type Item = items::Item<Update>;

/// `POST /config/watch`
pub(super) async fn watch(
    State(cluster): State<Arc<Cluster>>,
    By(author): By,
    Document(watch): Document<Watch>,
) -> Result<Response, Refused> {
    Ok(sse::items(follow(&cluster, watch, &author)?))
}

/// What becomes of groups for a client. That `author` is shown secrets is recorded.
pub(in crate::control) fn follow(
    cluster: &Cluster,
    watch: Watch,
    author: &Author,
) -> Result<impl Stream<Item = Item> + Send + use<>, Refused> {
    let Watch { client, labels, groups, secrets } = watch;
    let groups = groups
        .into_iter()
        .map(|held| Ok((group(held.namespace, held.group)?, held.release)))
        .collect::<Result<Vec<_>, Refused>>()?;
    let client = Client { id: named(ClientId::new(client))?, labels };
    let shown: Vec<_> = groups.iter().filter(|_| secrets).map(|(group, _)| group.clone()).collect();
    let subscription = cluster.centre.subscribe(Interest { client, groups, secrets })?;
    // Who is refused is shown nothing.
    for group in &shown {
        revealed(cluster, group, None, author);
    }
    Ok(updates(subscription))
}

fn updates(subscription: Subscription) -> impl Stream<Item = Item> + Send {
    stream::unfold(subscription, |mut subscription| async move {
        let update = subscription.next().await;
        let kind = if update.from == 0 { Item::Snapshot } else { Item::Change };
        Some((kind(Some(Revision::new(update.revision)), update), subscription))
    })
}

/// `POST /config/reports`
pub(super) async fn report(
    State(cluster): State<Arc<Cluster>>,
    Document(report): Document<Report>,
) -> Result<StatusCode, Refused> {
    let Report { client, labels, namespace, group: name, release, verdict } = report;
    let client = Client { id: named(ClientId::new(client))?, labels };
    let verdict = match verdict {
        wire::Verdict::Applied => Verdict::Applied,
        wire::Verdict::Rejected { reason } => Verdict::Rejected { reason },
    };
    cluster.centre.report(&group(namespace, name)?, &client, release, &verdict)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET …/listeners`: who holds which release.
pub(super) async fn listeners(State(cluster): State<Arc<Cluster>>, Of(group): Of) -> Answer {
    let holders = cluster.centre.holders(&group).await?;
    let each = holders.iter().flat_map(|(node, holders)| {
        holders.iter().map(|holder| {
            let mut document = json!(holder);
            if let Some(fields) = document.as_object_mut() {
                fields.insert("node".to_owned(), node.as_str().into());
            }
            document
        })
    });
    Ok(items(each.collect::<Vec<Value>>()))
}
