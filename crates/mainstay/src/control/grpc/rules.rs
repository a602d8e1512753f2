//! Rules and switches over gRPC.

use mainstay_api::grpc::rules_server::Rules;
use mainstay_api::grpc::rules_watch_response::Item as RulesSent;
use mainstay_api::grpc::switch_change::What;
use mainstay_api::grpc::switches_server::Switches;
use mainstay_api::grpc::switches_watch_response::Item as SwitchesSent;
use mainstay_api::grpc::{
    Bookmark, Resync, Rule, RuleName, RulesUpdate, RulesWatchRequest, RulesWatchResponse, Switch,
    SwitchChange, SwitchesSnapshot, SwitchesWatchRequest, SwitchesWatchResponse,
};
use mainstay_api::rules::{Named, Object, Update};
use mainstay_store::Revision;
use tonic::{Request, Response, Status};

use super::{Agreed, Messages, ended, namespace};
use crate::control::items::Item;
use crate::control::rules::watch as rules;
use crate::control::switches::watch::{self as switches, Shown, Told};

#[tonic::async_trait]
impl Rules for Agreed {
    type WatchStream = Messages<RulesWatchResponse>;

    async fn watch(
        &self,
        request: Request<RulesWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let RulesWatchRequest { kinds, namespace, revision } = request.into_inner();
        let which = rules::Which {
            kinds: Some(kinds.join(",")).filter(|kinds| !kinds.is_empty()),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
        };
        let told = rules::follow(&self.shared, which, revision.map(Revision::new)).await?;
        Ok(Response::new(self.told(told, of_rules)))
    }
}

fn of_rules(item: rules::Item) -> Result<RulesWatchResponse, Status> {
    let (revision, item) = match item {
        Item::Snapshot(revision, told) => (revision, RulesSent::Snapshot(update(told))),
        Item::Change(revision, told) => (revision, RulesSent::Change(update(told))),
        Item::Bookmark(at, _) => (Some(at), RulesSent::Bookmark(Bookmark { revision: at.get() })),
        Item::Resync(reason) => (None, RulesSent::Resync(resync(reason))),
        Item::Problem(code, detail) => return Err(ended(code, detail)),
    };
    Ok(RulesWatchResponse { revision: revision.map(Revision::get), item: Some(item) })
}

fn resync(reason: &str) -> Resync {
    Resync { reason: reason.to_owned() }
}

fn update(update: Update) -> RulesUpdate {
    let Update { revision, put, removed, more } = update;
    RulesUpdate {
        revision,
        put: put.into_iter().map(rule).collect(),
        removed: removed.into_iter().map(name).collect(),
        more,
    }
}

fn rule(object: Object) -> Rule {
    let Object { named, revision, at, who, why, content } = object;
    Rule { name: Some(name(named)), revision, at, who, why, content_json: content.to_string() }
}

fn name(named: Named) -> RuleName {
    let Named { kind, namespace, name } = named;
    RuleName { kind, namespace, name }
}

#[tonic::async_trait]
impl Switches for Agreed {
    type WatchStream = Messages<SwitchesWatchResponse>;

    async fn watch(
        &self,
        request: Request<SwitchesWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let SwitchesWatchRequest { namespace: within, revision } = request.into_inner();
        let revision = revision.map(Revision::new);
        let told = switches::follow(&self.cluster, namespace(within), revision).await?;
        Ok(Response::new(self.told(told, of_switches)))
    }
}

fn of_switches(item: switches::Item) -> Result<SwitchesWatchResponse, Status> {
    let (revision, item) = match item {
        Item::Snapshot(revision, told) | Item::Change(revision, told) => (revision, switched(told)),
        Item::Bookmark(at, _) => {
            (Some(at), SwitchesSent::Bookmark(Bookmark { revision: at.get() }))
        }
        Item::Resync(reason) => (None, SwitchesSent::Resync(resync(reason))),
        Item::Problem(code, detail) => return Err(ended(code, detail)),
    };
    Ok(SwitchesWatchResponse { revision: revision.map(Revision::get), item: Some(item) })
}

fn switched(told: Told) -> SwitchesSent {
    match told {
        Told::All { revision, switches } => {
            let switches = switches.into_iter().map(|(name, shown)| (name, switch(shown)));
            SwitchesSent::Snapshot(SwitchesSnapshot { revision, switches: switches.collect() })
        }
        Told::Put { revision, name, put } => {
            let what = Some(What::Put(switch(put)));
            SwitchesSent::Change(SwitchChange { revision, name, what })
        }
        Told::Removed { revision, name, removed } => {
            let what = Some(What::Removed(removed));
            SwitchesSent::Change(SwitchChange { revision, name, what })
        }
    }
}

fn switch(shown: Shown) -> Switch {
    let Shown { revision, content, at, who, why } = shown;
    Switch { revision, content_json: content.to_string(), at, who, why }
}
