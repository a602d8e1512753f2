//! Help, completions, and the answer to a line that is none.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Ended, Session, arguments, usage, words};
use crate::exit::Exit;
use crate::output::Format;
use crate::report::Report;

/// What is told about a command line that could not be parsed; returns the exit code.
pub(super) fn answer_parse_error(
    arguments: &[OsString],
    error: &clap::Error,
    session: &mut Session<'_>,
) -> u8 {
    let line: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    if json_wanted(&line) {
        session.global.output = Some(Format::Json);
    }
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        drop(write!(session.out, "{}", error.render().ansi()));
        return Exit::Done.code();
    }
    let path = command_path(&line);
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let mut paragraphs = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = paragraphs.next().unwrap_or("the command line is not complete");
    let report = match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_word(&line, error, first),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let line = [&["mainstay"], path.as_slice()].concat().join(" ");
            usage(format!("`{line}` needs a word more")).help(verbs(&path).unwrap_or_default())
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = paragraphs.take_while(|line| !line.starts_with("Usage"));
            usage(format!("missing: {}", missing.collect::<Vec<_>>().join(", ")))
        }
        _ => {
            let report = usage(lower_first(first));
            paragraphs.filter_map(|line| line.strip_prefix("tip: ")).fold(report, Report::help)
        }
    };
    let help = [&["mainstay"], path.as_slice(), &["--help"]].concat().join(" ");
    let report = if report.next.is_empty() { report.next(help) } else { report };
    session.fail(&report.into())
}

/// Whether the line asks for JSON, seen without parsing it.
fn json_wanted(line: &[&str]) -> bool {
    let is_json = |word: &str| matches!(word, "json" | "jsonl");
    line.windows(2).any(|two| matches!(two[0], "-o" | "--output") && is_json(two[1]))
        || line.iter().any(|word| {
            let value = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
            value.is_some_and(is_json)
        })
}

fn unknown_word(line: &[&str], error: &clap::Error, first: &str) -> Report {
    let given = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(given)) => given.as_str(),
        _ => "",
    };
    let bare: Vec<&str> = without_flags_before(line, given);
    let Some(at) = bare.iter().position(|word| *word == given) else { return usage(first) };
    if let Some((word, better)) = words::answer(&bare, at) {
        let report = usage(format!("there is no `{given}` here; the word is `{}`", word.instead));
        let words: Vec<&str> = better.split(' ').skip(1).collect();
        let until = at + word.instead.split(' ').count();
        let path = words.get(..until).unwrap_or(&words);
        return if at == 0 && word.verb || find(path).is_some() {
            report.next(better)
        } else {
            let missing = path.join(" ");
            report.help(format!("this version has no `{missing}` yet; its line will be `{better}`"))
        };
    }
    let report = usage(format!("there is no `{given}`"));
    match error.get(ContextKind::SuggestedSubcommand) {
        // The likeliest stands last.
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            report.help(format!("did you mean `{}`?", near[near.len() - 1]))
        }
        _ => match verbs(&command_path(line)) {
            Some(verbs) => report.help(verbs),
            None => report,
        },
    }
}

/// The line without the flags in front of `given`; what follows it stays as typed.
fn without_flags_before<'l>(line: &[&'l str], given: &str) -> Vec<&'l str> {
    let end = line.iter().position(|word| *word == given).unwrap_or(line.len());
    let (before, after) = line.split_at(end);
    let mut bare = Vec::new();
    let mut value_follows = false;
    for word in before {
        if word.starts_with('-') {
            let takes_value = ["-o", "--output", "--color", "--control"].contains(word);
            value_follows = takes_value;
        } else if !std::mem::take(&mut value_follows) {
            bare.push(*word);
        }
    }
    bare.extend(after);
    bare
}

/// The words of the line that are commands.
fn command_path<'l>(line: &[&'l str]) -> Vec<&'l str> {
    let mut path = Vec::new();
    for word in line.iter().filter(|word| !word.starts_with('-')) {
        path.push(*word);
        if find(&path).is_none() {
            path.pop();
        }
    }
    path
}

/// `one of: list, show`, for a command that has any.
fn verbs(path: &[&str]) -> Option<String> {
    let command = find(path)?;
    let names: Vec<&str> = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    (!names.is_empty()).then(|| format!("one of: {}", names.join(", ")))
}

/// The command at `path`.
fn find(path: &[&str]) -> Option<clap::Command> {
    path.iter()
        .try_fold(arguments::command(), |command, word| command.find_subcommand(word).cloned())
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// `mainstay help`, `help flags`, `help NOUN VERB`.
pub(super) fn show(topic: &[String], session: &mut Session<'_>) -> Ended {
    if matches!(topic, [word] if word == "flags") {
        return session.print(&flags());
    }
    let mut command = arguments::command();
    command.build();
    for word in topic {
        let Some(inner) = command.find_subcommand(word) else {
            return Err(usage(format!("there is no `{word}` to help with"))
                .next("mainstay help")
                .into());
        };
        command = inner.clone();
    }
    session.print(&command.render_help().to_string())
}

/// The flags every command takes.
pub(super) fn flags() -> String {
    let command = arguments::command();
    let mut text =
        "Flags every command takes; each `--x-y` also as variable `MAINSTAY_CLI_X_Y`:\n\n"
            .to_owned();
    for arg in command.get_arguments().filter(|arg| arg.is_global_set()) {
        let short = arg.get_short().map_or_else(|| "    ".to_owned(), |c| format!("-{c}, "));
        let long = arg.get_long().unwrap_or_default();
        let takes_value = arg.get_action().takes_values();
        let value = arg.get_value_names().filter(|_| takes_value).and_then(|names| names.first());
        let value = value.map_or_else(String::new, |name| format!(" <{name}>"));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let words: Vec<String> =
            arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        let words = if takes_value && !words.is_empty() {
            format!(" [{}]", words.join(", "))
        } else {
            String::new()
        };
        let flag = format!("{short}--{long}{value}");
        text.extend([&format!("  {flag:<24} "), &help, &words, "\n"]);
    }
    text
}

pub(super) fn completions(shell: clap_complete::Shell, session: &mut Session<'_>) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "mainstay", &mut script);
    session.print(&String::from_utf8_lossy(&script))
}
