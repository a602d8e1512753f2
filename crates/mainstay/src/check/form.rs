//! The answers of checks, as people and other programs want them.

use clap::ValueEnum;

use super::{Checked, State};

/// Form of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One line a check.
    Text,
    /// One document.
    Json,
    /// One line, and the exit codes of a Nagios plugin.
    Nagios,
    /// Metrics in text format.
    Prometheus,
}

impl Form {
    /// The answers in this form.
    pub fn render(self, checked: &[Checked]) -> String {
        match self {
            Self::Text => text(checked),
            Self::Json => format!("{:#}", serde_json::json!({ "items": checked })),
            Self::Nagios => nagios(checked),
            Self::Prometheus => prometheus(checked),
        }
    }
}

/// The exit code: in Nagios' own numbers, or 1 when a state is at least `fail_on`.
pub fn exit_code(form: Form, checked: &[Checked], fail_on: State) -> u8 {
    if form == Form::Nagios {
        return match worst(checked) {
            State::Pass | State::Skip => 0,
            State::Warn => 1,
            State::Fail => 2,
            State::Unknown => 3,
        };
    }
    u8::from(checked.iter().any(|checked| fail_on <= checked.state))
}

fn worst(checked: &[Checked]) -> State {
    checked.iter().map(|checked| checked.state).max().unwrap_or(State::Unknown)
}

fn count(checked: &[Checked], state: State) -> usize {
    checked.iter().filter(|checked| checked.state == state).count()
}

fn text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for Checked { id, category, state, summary, evidence, next } in checked {
        let evidence = evidence.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
        let next = next.as_ref().map(|n| format!("\n         next: {n}")).unwrap_or_default();
        let name = format!("{category}/{id}");
        text.extend([
            &format!("{:<8} {name:<24} {summary}", state.as_str()),
            &evidence,
            &next,
            "\n",
        ]);
    }
    text
}

fn nagios(checked: &[Checked]) -> String {
    let word = match worst(checked) {
        State::Pass | State::Skip => "OK",
        State::Warn => "WARNING",
        State::Fail => "CRITICAL",
        State::Unknown => "UNKNOWN",
    };
    let [pass, warn, fail, unknown] =
        [State::Pass, State::Warn, State::Fail, State::Unknown].map(|state| count(checked, state));
    let parts = [(fail, "fail"), (warn, "warn"), (unknown, "unknown")];
    let parts = parts.iter().filter(|(count, _)| 0 < *count);
    let parts: Vec<String> = parts.map(|(count, word)| format!("{count} {word}, ")).collect();
    let parts = parts.concat();
    format!(
        "MAINSTAY {word} - {parts}{pass} pass | pass={pass} warn={warn} fail={fail} unknown={unknown}"
    )
}

fn prometheus(checked: &[Checked]) -> String {
    let mut text = "# HELP mainstay_check_state 0 pass, 1 warn, 2 fail, 3 unknown.\n\
                    # TYPE mainstay_check_state gauge\n"
        .to_owned();
    for Checked { id, category, state, .. } in checked {
        let number = match state {
            State::Pass => "0",
            State::Warn => "1",
            State::Fail => "2",
            State::Unknown => "3",
            State::Skip => continue,
        };
        let labels = format!("{{check=\"{id}\",category=\"{category}\"}} {number}\n");
        text.extend(["mainstay_check_state", &labels]);
    }
    text
}
