//! Instances that fail the calls of this program, told to the registry.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use mainstay_api::registry::{InstanceName, Observed};
use mainstay_call::failing::{Failed, Failing};

use crate::client::Client;
use crate::control::Call;
use crate::error::ClientError;
use crate::events::NotReported;

/// How long a report may take. The registry forgets one after 30 s.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Tells the registry once what this program met at an instance.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; telling it again does no harm.
    ///
    /// # Cancel safety
    ///
    /// Whether it was told is open.
    pub async fn observed(&self, observed: &Observed) -> Result<(), ClientError> {
        let path = "/registry/observations".to_owned();
        let call = Call::new(Method::POST, path, REPORT_TIMEOUT).document(observed);
        self.shared.control.ask::<()>(&call).await
    }

    /// Tells the registry of the instances that `failing` hears of, until this client shuts down;
    /// `named` says which one the registry knows, if it does. Give `failing` to
    /// [`Calls`](mainstay_call::calls::Calls) as their observer. Must be called within a tokio
    /// runtime.
    ///
    /// A report that does not arrive is not sent again: an instance that goes on failing is reported
    /// anew.
    pub fn report(
        &self,
        failing: Arc<Failing>,
        named: impl Fn(&Failed) -> Option<InstanceName> + Send + 'static,
    ) {
        let client = self.clone();
        let owner = &self.shared.owner;
        let reporter = format!("{}/{}/{}", owner.host, owner.pid, owner.name);
        self.shared.tasks.spawn("failing instances", move |stop| async move {
            while let Some(failed) = stop.run_until_cancelled(failing.next()).await {
                for failed in failed {
                    let Some(instance) = named(&failed) else { continue };
                    let (reporter, why) = (reporter.clone(), failed.why);
                    let observed = Observed { instance, reporter, callers: 1, why };
                    let Some(told) = stop.run_until_cancelled(client.observed(&observed)).await
                    else {
                        return;
                    };
                    if let Err(error) = told {
                        let (instance, why) = (&*failed.instance, &*error.to_string());
                        NotReported { instance, why }.emit();
                    }
                }
            }
        });
    }
}
