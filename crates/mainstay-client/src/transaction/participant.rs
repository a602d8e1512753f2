//! Tries and actions of branches, which the initiator calls itself.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use mainstay_api::transaction::Target;
use serde_json::value::RawValue;

use crate::client::Shared;
use crate::control::segment;
use crate::error::ClientError;
use crate::pause::pause;
use crate::registry;

/// For the answer to one try, as the coordinator takes for its own calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often one that is still at it is asked again.
const ONGOING_TRIES: u32 = 20;

/// What a participant said.
#[derive(Debug)]
pub(super) enum Said {
    /// It is done.
    Done(Bytes),
    /// No, or nothing that means either.
    NotDone(String),
}

/// Which branch is called, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called<'a> {
    /// Its transaction.
    pub(super) gid: &'a str,
    /// Its name.
    pub(super) branch: &'a str,
    /// What it is to do.
    pub(super) op: &'a str,
    /// The mode of its transaction.
    pub(super) mode: &'a str,
}

/// Calls `target` for the branch that is `called`.
///
/// # Errors
///
/// [`ClientError`] when it is not known where that is; nothing was sent to it.
pub(super) async fn call(
    shared: &Shared,
    called: Called<'_>,
    target: &Target,
    body: Option<&RawValue>,
) -> Result<Said, ClientError> {
    let mut tries = 0;
    loop {
        let (url, method) = match target {
            Target::Url { url } => (url.clone(), None),
            Target::Service { service, path, method } => {
                let address = registry::pick(shared, service).await?;
                (format!("http://{address}{path}"), method.as_deref())
            }
        };
        let request = request(called, &url, method, body)?;
        match shared.control.call(request, CALL_TIMEOUT).await {
            Ok((StatusCode::TOO_EARLY, _)) if tries < ONGOING_TRIES => {}
            Ok((status, body)) if status.is_success() => return Ok(Said::Done(body)),
            Ok((status, body)) => {
                let text: String = String::from_utf8_lossy(&body).chars().take(512).collect();
                return Ok(Said::NotDone(format!("{url} answered {status} {text}")));
            }
            Err(why) => return Ok(Said::NotDone(format!("{url}: {why}"))),
        }
        tries += 1;
        pause(tries, None).await;
    }
}

fn request(
    Called { gid, branch, op, mode }: Called<'_>,
    url: &str,
    method: Option<&str>,
    body: Option<&RawValue>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let wrong = |what, why| ClientError::Invalid { what, why };
    let document = body.map_or_else(Bytes::new, |json| Bytes::from(json.get().to_owned()));
    let mut request = Request::new(Full::new(document));
    *request.uri_mut() =
        url.parse().map_err(|_invalid| wrong("url", "must be `http://HOST:PORT/PATH`"))?;
    let method = method.map_or(Ok(Method::POST), str::parse);
    *request.method_mut() =
        method.map_err(|_invalid| wrong("method", "must be a method of HTTP"))?;
    let gid = segment(gid).to_string();
    let headers = request.headers_mut();
    for (name, value) in [
        ("mainstay-gid", gid.as_str()),
        ("mainstay-branch", branch),
        ("mainstay-op", op),
        ("mainstay-mode", mode),
        ("idempotency-key", &format!("{gid}:{branch}:{op}")),
    ] {
        let value = HeaderValue::from_str(value);
        headers.insert(name, value.map_err(|_invalid| wrong("branch", "must be visible ASCII"))?);
    }
    if body.is_some() {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
    }
    Ok(request)
}
