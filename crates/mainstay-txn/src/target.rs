//! Where a branch is called.

use std::fmt;

use crate::limits::TARGET_BYTES_MAX;

/// Where a branch is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// At whichever instance of a service can answer.
    Service {
        /// The service.
        service: String,
        /// Path and query, beginning with `/`.
        path: String,
        /// `POST` unless told.
        method: Option<String>,
    },
    /// At a fixed place.
    Url(String),
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("branch target {target:?} {problem}")]
pub struct TargetInvalid {
    target: String,
    problem: &'static str,
}

impl Target {
    /// Checks that it can be called at all; whether it may be is for whoever calls.
    ///
    /// # Errors
    ///
    /// [`TargetInvalid`], which says what is wrong with it.
    pub fn check(&self) -> Result<(), TargetInvalid> {
        let wrong = |problem| Err(TargetInvalid { target: self.to_string(), problem });
        match self {
            Self::Service { service, path, method } => {
                if mainstay_core::name::ServiceName::new(service).is_err() {
                    return wrong("names no service");
                }
                if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
                    return wrong("must have a path that begins with `/`");
                }
                if method.as_ref().is_some_and(|text| text.parse::<http::Method>().is_err()) {
                    return wrong("has a method that is none");
                }
                if TARGET_BYTES_MAX < path.len() {
                    return wrong("is longer than 2,048 bytes");
                }
            }
            Self::Url(url) => {
                if TARGET_BYTES_MAX < url.len() {
                    return wrong("is longer than 2,048 bytes");
                }
                let Ok(uri) = url.parse::<http::Uri>() else {
                    return wrong("is no URL");
                };
                if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
                    return wrong("must begin with http:// or https:// and name a host");
                }
            }
        }
        Ok(())
    }

    /// Bytes of its text.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Service { service, path, method } => {
                service.len() + path.len() + method.as_ref().map_or(0, String::len)
            }
            Self::Url(url) => url.len(),
        }
    }

    /// What calls are counted by, so that one that hangs holds back only itself: the service, or
    /// host and port.
    pub fn peer(&self) -> String {
        match self {
            Self::Service { service, .. } => format!("service:{service}"),
            Self::Url(url) => {
                let uri = url.parse::<http::Uri>().unwrap_or_default();
                let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
                let port = uri.port_u16().unwrap_or(usual);
                format!("{}:{port}", uri.host().unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, path, .. } => write!(f, "service:{service}{path}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_checked_and_counted_by_whom_it_calls() {
        let service = |service: &str, path: &str| Target::Service {
            service: service.to_owned(),
            path: path.to_owned(),
            method: None,
        };
        let url = |text: &str| Target::Url(text.to_owned());
        let good = [
            (service("stock", "/deduct?x=1"), "service:stock"),
            (url("http://10.0.0.1:8080/a"), "10.0.0.1:8080"),
            (url("https://pay.example/a?b"), "pay.example:443"),
            (url("http://pay.example"), "pay.example:80"),
        ];
        for (target, peer) in good {
            assert_eq!(target.check(), Ok(()), "{target}");
            assert_eq!(target.peer(), peer, "{target}");
        }
        let long = format!("http://a/{}", "x".repeat(TARGET_BYTES_MAX));
        for bad in
            [service("", "/"), service("stock", "deduct"), url("ftp://a/b"), url("/a"), url(&long)]
        {
            assert!(bad.check().is_err(), "{bad}");
        }
    }
}
