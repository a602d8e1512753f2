//! `mainstay check`: this machine with `--pre`, a running control plane without.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::arguments::{Check, ConfigFile, FailOn};
use super::{Ended, Session, settings};
use crate::check::{self, Checked, Form, PRE, State, Subject};
use crate::control_client::default_data_dir;
use crate::output::{Format, items};

/// Control, gateway, DNS.
const TCP_PORTS: [u16; 3] = [7400, 7480, 7453];

/// DNS.
const UDP_PORTS: [u16; 1] = [7453];

pub(super) fn run(arguments: Check, session: &mut Session<'_>) -> Ended {
    let Check { file, pre, live, category, fail_on, format, data_dir } = arguments;
    if live {
        session.control()?.get("/api/v1/live")?;
        return session.print("live");
    }
    let mut checked = if pre {
        before_start(&file, data_dir, session)
    } else {
        let answer = session.control()?.get("/api/v1/checks")?;
        items(&answer).into_iter().map(of_document).collect()
    };
    if !category.is_empty() {
        checked.retain(|checked| category.contains(&checked.category));
    }
    let form = match (format, session.global.output) {
        (Form::Text, Some(Format::Json | Format::Jsonl)) => Form::Json,
        _ => format,
    };
    session.print(&form.render(&checked))?;
    let fail_on = match fail_on {
        FailOn::Fail => State::Fail,
        FailOn::Warn => State::Warn,
    };
    Ok(check::exit_code(form, &checked, fail_on))
}

fn before_start(
    file: &ConfigFile,
    data_dir: Option<PathBuf>,
    session: &Session<'_>,
) -> Vec<Checked> {
    let default = || default_data_dir(session.variable).unwrap_or_else(std::env::temp_dir);
    let subject = Subject {
        data_dir: data_dir.unwrap_or_else(default),
        tcp_ports: TCP_PORTS.to_vec(),
        udp_ports: UDP_PORTS.to_vec(),
    };
    let mut checked = check::run(&PRE, &subject);
    let verdict = settings::is_valid(file).map_err(|errors| {
        let first = errors.reports.first();
        let place = first.and_then(|report| report.place.as_ref());
        let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{place}{}", first.map_or("", |report| report.message.as_str()))
    });
    checked.push(check::settings_valid(verdict));
    checked
}

fn of_document(item: &Json) -> Checked {
    let field = |name: &str| item.get(name).and_then(Json::as_str).map(str::to_owned);
    Checked {
        id: field("id").unwrap_or_default(),
        category: field("category").unwrap_or_default(),
        state: State::parse(&field("state").unwrap_or_default()),
        summary: field("summary").unwrap_or_default(),
        evidence: field("evidence"),
        next: field("next"),
    }
}
