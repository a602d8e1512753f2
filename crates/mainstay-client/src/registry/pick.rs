//! One instance of a service, for one call.

use std::time::Duration;

use http::Method;
use mainstay_api::registry::ServiceView;
use mainstay_call::draw;
use mainstay_core::Effect;
use mainstay_core::problem::Code;

use super::following;
use crate::client::Shared;
use crate::control::{Call, segment};
use crate::error::ClientError;
use crate::pause::pause;
use crate::problem::problem;

/// For the answer to one try.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a server is asked before it is given up.
const TRIES: u32 = 4;

/// `host:port` of an instance of `service`, each with its share of the calls.
///
/// # Errors
///
/// [`ClientError`]: no server answered, or nobody can take a call.
pub(crate) async fn pick(shared: &Shared, service: &str) -> Result<String, ClientError> {
    let namespace = segment(&shared.namespace);
    let path = format!("/registry/{namespace}/services/{}", segment(service));
    let call = Call::new(Method::GET, path, ANSWER_TIMEOUT);
    let mut tries = 0;
    let view: ServiceView = loop {
        tries += 1;
        match shared.control.ask(&call).await {
            Err(error) if error.is_passing() && tries < TRIES => {
                pause(tries, error.retry_after()).await;
            }
            // The registry has never heard of it.
            Err(ClientError::Refused(refused)) if refused.status == 404 => {
                return Err(nobody(service));
            }
            answer => break answer?,
        }
    };
    let listed = view.instances.iter().map(following::instance);
    let listed: Vec<_> = listed.filter(|one| one.usable && 0 < one.weight).collect();
    let all: u64 = listed.iter().map(|one| u64::from(one.weight)).sum();
    let mut draw = draw::next().checked_rem(all).unwrap_or(0);
    for instance in &listed {
        match draw.checked_sub(u64::from(instance.weight)) {
            Some(left) => draw = left,
            None => return Ok(instance.address.to_string()),
        }
    }
    Err(nobody(service))
}

fn nobody(service: &str) -> ClientError {
    let detail = format!("no instance of `{service}` takes calls");
    ClientError::Refused(Box::new(problem(Code::NoInstance, detail, Some(Effect::None))))
}
