//! `[store.etcd]`, resolved: every mistake in it is found before anything is started.

use std::path::Path;
use std::time::Duration;

use mainstay_core::problem::Code;
use mainstay_resilience::Invalid;
use mainstay_store_etcd::{Options, OptionsInvalid};

use super::RawEtcd;

/// How etcd is reached; reads the files that are named. Adds what is wrong to `faults`, all of it.
pub(super) fn resolve(raw: &RawEtcd, faults: &mut Vec<Invalid>) -> Options {
    let mut reading = Reading { faults };
    let endpoints = raw.endpoints.as_deref().unwrap_or_default();
    let mut options = match Options::new(endpoints) {
        Ok(options) => options,
        Err(_) if raw.endpoints.is_none() => {
            let problem = "is needed with `backend = \"etcd\"`, as `[\"http://host:2379\"]`";
            reading.fault("endpoints", problem);
            nowhere()
        }
        Err(wrong) => {
            reading.invalid(wrong);
            nowhere()
        }
    };
    if let Some(prefix) = &raw.prefix {
        options = reading.set(options, |options| options.prefix(prefix));
    }
    if let Some(seconds) = raw.request_timeout_seconds {
        let timeout = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        options = reading.set(options, |options| options.request_timeout(timeout));
    }
    let password =
        raw.password_file.as_deref().and_then(|path| reading.file("password_file", path));
    match (&raw.user, &raw.password_file) {
        (Some(user), Some(_)) => {
            let password = String::from_utf8_lossy(password.as_deref().unwrap_or_default());
            options = options.user(user, password.lines().next().unwrap_or_default());
        }
        (Some(_), None) => reading.fault("password_file", "is needed with `user`"),
        (None, Some(_)) => reading.fault("user", "is needed with `password_file`"),
        (None, None) => {}
    }
    tls(raw, options, &mut reading)
}

fn tls(raw: &RawEtcd, options: Options, reading: &mut Reading<'_>) -> Options {
    let mut read = |field, path: &Option<_>| -> Option<Vec<u8>> {
        path.as_deref().and_then(|path| reading.file(field, path))
    };
    let ca = read("ca_file", &raw.ca_file);
    let (cert, key) = (read("cert_file", &raw.cert_file), read("key_file", &raw.key_file));
    match (&raw.cert_file, &raw.key_file) {
        (Some(_), None) => reading.fault("key_file", "is needed with `cert_file`"),
        (None, Some(_)) => reading.fault("cert_file", "is needed with `key_file`"),
        _ => {}
    }
    let is_https = |endpoint: &String| endpoint.starts_with("https://");
    let needs_ca = raw.endpoints.iter().flatten().any(is_https) || raw.cert_file.is_some();
    if needs_ca && raw.ca_file.is_none() {
        reading.fault("ca_file", "is needed with `https` and with a certificate");
    }
    let Some(ca) = ca else { return options };
    let shown = cert.as_deref().zip(key.as_deref());
    reading.set(options, |options| options.tls(&ca, shown))
}

/// Stands for members that could not be read, so that the rest is checked all the same.
fn nowhere() -> Options {
    Options::new(&["http://127.0.0.1:1"]).expect("a loopback address with a port")
}

/// Notes what is wrong.
struct Reading<'a> {
    faults: &'a mut Vec<Invalid>,
}

impl Reading<'_> {
    fn set(
        &mut self,
        options: Options,
        change: impl FnOnce(Options) -> Result<Options, OptionsInvalid>,
    ) -> Options {
        change(options.clone()).unwrap_or_else(|wrong| {
            self.invalid(wrong);
            options
        })
    }

    fn file(&mut self, field: &'static str, path: &Path) -> Option<Vec<u8>> {
        std::fs::read(path)
            .map_err(|error| {
                let path = path.display();
                self.faults.push(Invalid {
                    path: format!("store.etcd.{field}"),
                    code: Code::ConfigFileMissing,
                    problem: format!("`{path}` cannot be read: {error}"),
                });
            })
            .ok()
    }

    fn fault(&mut self, field: &'static str, problem: &str) {
        self.invalid(OptionsInvalid { field, problem: problem.to_owned() });
    }

    fn invalid(&mut self, wrong: OptionsInvalid) {
        self.faults.push(Invalid::range(format!("store.etcd.{}", wrong.field), wrong.problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolving `text` finds faults at these keys, in this order.
    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let mut faults = Vec::new();
        resolve(&toml::from_str(text).unwrap(), &mut faults);
        let found: Vec<&str> =
            faults.iter().map(|fault| fault.path.trim_start_matches("store.etcd.")).collect();
        assert_eq!(found, want, "{text}: {faults:?}");
    }

    #[test]
    fn every_mistake_is_found_at_its_key() {
        check("endpoints = ['http://127.0.0.1:2379']", &[]);
        check("", &["endpoints"]);
        check("endpoints = ['127.0.0.1:2379']\nprefix = 'x'", &["endpoints", "prefix"]);
        check("endpoints = ['https://etcd:2379']", &["ca_file"]);
        let http = "endpoints = ['http://127.0.0.1:2379']\n";
        check(&format!("{http}request_timeout_seconds = 0"), &["request_timeout_seconds"]);
        check(&format!("{http}user = 'root'"), &["password_file"]);
        check(&format!("{http}user = 'root'\npassword_file = '/nowhere'"), &["password_file"]);
        check(&format!("{http}ca_file = '/nowhere'"), &["ca_file"]);
        check(&format!("{http}cert_file = '/dev/null'"), &["key_file", "ca_file"]);
        check(&format!("{http}ca_file = '/dev/null'"), &["ca_file"]);
    }
}
