//! What expressions may ask about, list by list.

use mainstay_coord::consul::filter::Field;

static TEXTS: Field = Field::Map(&Field::Text);

/// Addresses by name, each with its port.
static TAGGED: Field =
    Field::Map(&Field::Object(&[("Address", &Field::Text), ("Port", &Field::Number)]));

static WEIGHTS: Field = Field::Object(&[("Passing", &Field::Number), ("Warning", &Field::Number)]);

static PROXY: Field = Field::Object(&[
    ("DestinationServiceName", &Field::Text),
    ("DestinationServiceID", &Field::Text),
    ("LocalServiceAddress", &Field::Text),
    ("LocalServicePort", &Field::Number),
    ("Mode", &Field::Text),
]);

static CONNECT: Field = Field::Object(&[("Native", &Field::Flag)]);

pub(super) static NODE: Field = Field::Object(&[
    ("ID", &Field::Text),
    ("Node", &Field::Text),
    ("Address", &Field::Text),
    ("Datacenter", &Field::Text),
    ("TaggedAddresses", &TEXTS),
    ("Meta", &TEXTS),
    ("CreateIndex", &Field::Number),
    ("ModifyIndex", &Field::Number),
]);

pub(super) static SERVICE: Field = Field::Object(&[
    ("Kind", &Field::Text),
    ("ID", &Field::Text),
    ("Service", &Field::Text),
    ("Tags", &Field::List),
    ("Meta", &TEXTS),
    ("Port", &Field::Number),
    ("Address", &Field::Text),
    ("TaggedAddresses", &TAGGED),
    ("Weights", &WEIGHTS),
    ("EnableTagOverride", &Field::Flag),
    ("Datacenter", &Field::Text),
    ("Proxy", &PROXY),
    ("Connect", &CONNECT),
    ("CreateIndex", &Field::Number),
    ("ModifyIndex", &Field::Number),
]);

pub(super) static HEALTH: Field =
    Field::Object(&[("Node", &NODE), ("Service", &SERVICE), ("Checks", &Field::Objects)]);

pub(super) static NAMED: Field =
    Field::Object(&[("ServiceName", &Field::Text), ("ServiceTags", &Field::List)]);

pub(super) static FLAT: Field = Field::Object(&[
    ("ID", &Field::Text),
    ("Node", &Field::Text),
    ("Address", &Field::Text),
    ("Datacenter", &Field::Text),
    ("TaggedAddresses", &TEXTS),
    ("NodeMeta", &TEXTS),
    ("ServiceKind", &Field::Text),
    ("ServiceID", &Field::Text),
    ("ServiceName", &Field::Text),
    ("ServiceTags", &Field::List),
    ("ServiceAddress", &Field::Text),
    ("ServicePort", &Field::Number),
    ("ServiceMeta", &TEXTS),
    ("ServiceWeights", &WEIGHTS),
    ("ServiceTaggedAddresses", &TAGGED),
    ("ServiceEnableTagOverride", &Field::Flag),
    ("ServiceProxy", &PROXY),
    ("ServiceConnect", &CONNECT),
    ("CreateIndex", &Field::Number),
    ("ModifyIndex", &Field::Number),
]);

pub(super) static CHECK: Field = Field::Object(&[
    ("Node", &Field::Text),
    ("CheckID", &Field::Text),
    ("Name", &Field::Text),
    ("Status", &Field::Text),
    ("Notes", &Field::Text),
    ("Output", &Field::Text),
    ("ServiceID", &Field::Text),
    ("ServiceName", &Field::Text),
    ("ServiceTags", &Field::List),
    ("Type", &Field::Text),
    ("CreateIndex", &Field::Number),
    ("ModifyIndex", &Field::Number),
]);
