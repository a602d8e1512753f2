//! One call of the API, in the words of `OpenAPI`.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_core::problem::Code;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::PROBLEM;

/// Schemas by name, as components.
#[derive(Debug, Default)]
pub(super) struct Schemas(Map<String, Value>);

impl Schemas {
    /// A reference to the schema of `T`, which is taken in with all it refers to.
    pub(super) fn reference<T: ToSchema>(&mut self) -> Value {
        let mut all: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            let schema = json!(schema);
            let before = self.0.entry(name).or_insert_with(|| schema.clone());
            // Two types of one name would each be taken for the other.
            debug_assert_eq!(*before, schema, "two schemas have one name");
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// All of them.
    pub(super) fn into_inner(self) -> Map<String, Value> {
        self.0
    }
}

/// Makes a schema, taking in what it refers to.
pub(super) type Reference = fn(&mut Schemas) -> Value;

/// What an answer holds.
#[derive(Debug)]
enum Content {
    Nothing,
    Json(Reference),
    /// `{"items": […]}`
    Items(Reference),
    Other(&'static str),
    /// Server-sent events, by name.
    Events(Vec<(&'static str, Reference)>),
}

/// A call, described.
#[derive(Debug)]
pub(super) struct Call {
    method: &'static str,
    path: String,
    id: String,
    tag: &'static str,
    summary: String,
    parameters: Vec<Value>,
    body: Option<(Vec<&'static str>, Option<Reference>)>,
    answers: BTreeMap<u16, (String, Content)>,
    headers: Map<String, Value>,
    codes: BTreeSet<Code>,
    is_open: bool,
}

/// A call: `get("registry", "listServices", "/registry/services", "Lists …")`.
pub(super) fn call(
    method: &'static str,
    tag: &'static str,
    id: impl Into<String>,
    path: impl Into<String>,
    summary: impl Into<String>,
) -> Call {
    Call {
        method,
        path: path.into(),
        id: id.into(),
        tag,
        summary: summary.into(),
        parameters: Vec::new(),
        body: None,
        answers: BTreeMap::new(),
        headers: Map::new(),
        codes: BTreeSet::from([Code::CredentialMissing, Code::HostNotAllowed]),
        is_open: false,
    }
}

impl Call {
    /// Parameters of the query, by the type that reads them.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        for parameter in T::into_params(|| Some(ParameterIn::Query)) {
            let mut parameter = json!(parameter);
            // Of a query, what is not there is not sent: null is none of its values.
            if let Some(kinds) = parameter["schema"]["type"].as_array_mut() {
                kinds.retain(|kind| kind != "null");
                if let [kind] = kinds.as_slice() {
                    parameter["schema"]["type"] = kind.clone();
                }
            }
            self.parameters.push(parameter);
        }
        self.codes.insert(Code::InvalidRequest);
        self
    }

    /// A header it may be sent with.
    pub(super) fn header(mut self, name: &str, required: bool, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name,
            "in": "header",
            "required": required,
            "description": description,
            "schema": { "type": "string" },
        }));
        self
    }

    /// It is a change by somebody, who may say why.
    pub(super) fn by(self) -> Self {
        self.refuses(&[Code::ReasonRequired]).header(
            "Mainstay-Reason",
            false,
            "Why, percent-encoded: 3 to 500 characters. The reason of the document goes before it.",
        )
    }

    /// It takes `If-Match`.
    pub(super) fn compares(self, what: &str) -> Self {
        let description = format!(
            "Only if {what} is still this, in quotes: `\"41\"`. `\"0\"` is one that is not there."
        );
        self.refuses(&[Code::RevisionMoved]).header("If-Match", false, &description)
    }

    /// It resumes a stream.
    pub(super) fn resumes(self) -> Self {
        self.header(
            "Last-Event-ID",
            false,
            "The `id` of the last event seen: the stream goes on there.",
        )
    }

    /// The document sent.
    pub(super) fn takes<T: ToSchema>(self) -> Self {
        self.takes_as(Schemas::reference::<T>)
    }

    /// The document sent, which is no type's.
    pub(super) fn takes_as(mut self, schema: Reference) -> Self {
        self.body = Some((vec!["application/json"], Some(schema)));
        self.refuses(&[Code::InvalidRequest, Code::BodyTooLarge])
    }

    /// What is sent instead of JSON.
    pub(super) fn takes_too(mut self, media_type: &'static str) -> Self {
        self.body.get_or_insert((Vec::new(), None)).0.push(media_type);
        self.refuses(&[Code::BodyTooLarge])
    }

    fn answer(mut self, status: u16, description: impl Into<String>, content: Content) -> Self {
        self.answers.insert(status, (description.into(), content));
        self
    }

    /// It is answered with a document.
    pub(super) fn gives<T: ToSchema>(self, status: u16, description: &str) -> Self {
        self.answer(status, description, Content::Json(Schemas::reference::<T>))
    }

    /// It is answered with a document that is no type's: `schema` says what it holds.
    pub(super) fn gives_as(self, status: u16, description: &str, schema: Reference) -> Self {
        self.answer(status, description, Content::Json(schema))
    }

    /// It is answered with `{"items": […]}` of what `schema` says.
    pub(super) fn lists_as(self, description: &str, schema: Reference) -> Self {
        self.answer(200, description, Content::Items(schema))
    }

    /// It is answered with `{"items": […]}`.
    pub(super) fn lists<T: ToSchema>(self, description: &str) -> Self {
        self.answer(200, description, Content::Items(Schemas::reference::<T>))
    }

    /// It is answered without a document.
    pub(super) fn done(self, status: u16, description: &str) -> Self {
        self.answer(status, description, Content::Nothing)
    }

    /// It is answered with something that is no JSON.
    pub(super) fn gives_other(self, media_type: &'static str, description: &str) -> Self {
        self.answer(200, description, Content::Other(media_type))
    }

    /// It is answered with events.
    pub(super) fn streams(self, events: Vec<(&'static str, Reference)>) -> Self {
        self.answer(200, "Events, until either side ends it.", Content::Events(events))
            .refuses(&[Code::TooManyStreams])
    }

    /// A header of its good answers.
    pub(super) fn tells(mut self, name: &str, description: &str) -> Self {
        let header = json!({ "description": description, "schema": { "type": "string" } });
        self.headers.insert(name.to_owned(), header);
        self
    }

    /// Its answer bears the revision as its `ETag`.
    pub(super) fn tagged(self) -> Self {
        self.tells("ETag", "Its revision in quotes: what `If-Match` compares.")
    }

    /// Problems it may end in, besides those of every call.
    pub(super) fn refuses(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// It asks or changes what nodes agree on.
    pub(super) fn agreed(self) -> Self {
        self.refuses(&[
            Code::StoreUnavailable,
            Code::StoreClosed,
            Code::StoreBusy,
            Code::OutcomeUnknown,
            Code::StoreFull,
            Code::StoreFailed,
            Code::StoreRegressed,
        ])
    }

    /// It changes something that has an audit record.
    pub(super) fn audited(self) -> Self {
        self.agreed().by().refuses(&[Code::AuditUnavailable])
    }

    /// It needs no token.
    pub(super) fn open(mut self) -> Self {
        self.is_open = true;
        self.codes.clear();
        self
    }

    /// Its path, its method, and what `OpenAPI` calls an operation.
    pub(super) fn into_parts(mut self, schemas: &mut Schemas) -> (String, &'static str, Value) {
        let named = self.path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": meaning(name),
                "schema": { "type": if name == "release" { "integer" } else { "string" } },
            }))
        });
        let mut parameters: Vec<Value> = named.collect();
        if !parameters.is_empty() {
            self.codes.insert(Code::InvalidRequest);
        }
        parameters.append(&mut self.parameters);
        let mut responses = Map::new();
        for (status, (description, content)) in &self.answers {
            let mut response = json!({ "description": description });
            if let Some(content) = content.described(schemas) {
                response["content"] = content;
            }
            if !self.headers.is_empty() {
                response["headers"] = json!(self.headers);
            }
            responses.insert(status.to_string(), response);
        }
        responses.extend(problems(&self.codes));
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": responses,
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some((media_types, reference)) = &self.body {
            operation["requestBody"] = body(media_types, *reference, schemas);
        }
        if self.is_open {
            operation["security"] = json!([]);
        }
        (self.path, self.method, operation)
    }
}

impl Content {
    fn described(&self, schemas: &mut Schemas) -> Option<Value> {
        Some(match self {
            Self::Nothing => return None,
            Self::Json(reference) => {
                json!({ "application/json": { "schema": reference(schemas) } })
            }
            Self::Items(reference) => {
                let items = json!({ "type": "array", "items": reference(schemas) });
                let schema = json!({
                    "type": "object",
                    "required": ["items"],
                    "properties": { "items": items },
                });
                json!({ "application/json": { "schema": schema } })
            }
            Self::Other(media_type) => json!({ *media_type: { "schema": {} } }),
            Self::Events(events) => {
                let named: Map<String, Value> =
                    events.iter().map(|(name, of)| ((*name).to_owned(), of(schemas))).collect();
                let schema = json!({
                    "type": "string",
                    "description": "Server-sent events; `x-events` has the data of each by its name.",
                    "x-events": named,
                });
                json!({ "text/event-stream": { "schema": schema } })
            }
        })
    }
}

fn body(media_types: &[&str], reference: Option<Reference>, schemas: &mut Schemas) -> Value {
    let content = media_types.iter().map(|media_type| {
        let schema = match reference {
            Some(reference) if *media_type == "application/json" => reference(schemas),
            _ => json!({ "type": "string" }),
        };
        ((*media_type).to_owned(), json!({ "schema": schema }))
    });
    json!({ "content": content.collect::<Map<String, Value>>() })
}

/// The problems of a call by their status.
fn problems(codes: &BTreeSet<Code>) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.http()).or_default().push(*code);
    }
    let of_status = |(status, codes): (u16, Vec<Code>)| {
        let each = codes.iter().map(|code| format!("`{code}`: {}.", code.title()));
        let mut response = json!({
            "description": each.collect::<Vec<_>>().join(" "),
            "content": { PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } } },
            "x-codes": codes.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
        });
        if status == 503 {
            response["headers"] = json!({
                "Retry-After": {
                    "description": "When trying again may help, in seconds.",
                    "schema": { "type": "integer" },
                },
            });
        }
        (status.to_string(), response)
    };
    by_status.into_iter().map(of_status).collect()
}

fn meaning(name: &str) -> &'static str {
    match name {
        "namespace" => "A namespace; `default` unless you have others.",
        "service" => "A service.",
        "group" => "A group of configuration.",
        "item" => "An item of the group.",
        "release" => "The number of a release.",
        "tile" => "Level or `entries`, and number: `0/000`, `entries/x001/067`, `1/002.p/7`.",
        "subject" => "A code, service, limit, route, fallback, circuit, or the id of a request.",
        "name" => "Its name, as one segment: `/` is sent as `%2F`.",
        _ => "Its id, as one segment: `/` is sent as `%2F`.",
    }
}
