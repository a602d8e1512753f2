//! Texts with placeholders: `{name}`, and `{{` and `}}` for the braces themselves.

use mainstay_resilience::Invalid;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<P> {
    /// Stands as it is.
    Literal(Box<str>),
    /// Is filled in.
    Placeholder(P),
}

/// Splits `text` at its placeholders; `known` tells what each one stands for, or which there are.
///
/// # Errors
///
/// [`Invalid`] at `path` for a brace without its partner and for a placeholder nobody knows.
pub(crate) fn parse<P>(
    path: &str,
    text: &str,
    known: impl Fn(&str) -> Result<P, String>,
) -> Result<Vec<Part<P>>, Invalid> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.find(['{', '}']).map(|at| rest.split_at(at)) {
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some((name, after)) = from.strip_prefix('{').and_then(|f| f.split_once('}')) {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            let found = known(name).map_err(|known| {
                Invalid::range(path, format!("unknown placeholder `{{{name}}}`; there is {known}"))
            })?;
            parts.push(Part::Placeholder(found));
            rest = after;
        } else {
            let problem = format!("has a brace without its partner, found `{text}`");
            return Err(Invalid::range(path, problem));
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// Says which placeholders there are: `{a}, {b}`, or `none here`.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{{{name}}}`")).collect();
    if names.is_empty() { "none here".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows literals as they are and placeholders in angle brackets; only `a` is known.
    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        let known = |name: &str| if name == "a" { Ok(()) } else { Err("`{a}`".to_owned()) };
        let shown = parse("x", text, known).ok().map(|parts| {
            let show = |part: Part<()>| match part {
                Part::Literal(text) => text.into_string(),
                Part::Placeholder(()) => "<a>".to_owned(),
            };
            parts.into_iter().map(show).collect::<String>()
        });
        assert_eq!(shown.as_deref(), want, "{text}");
    }

    #[test]
    fn placeholders_are_found_and_braces_escaped() {
        check("", Some(""));
        check("x", Some("x"));
        check("{a}", Some("<a>"));
        check("x{a}y{a}", Some("x<a>y<a>"));
        check("{{a}}", Some("{a}"));
        check("{{{a}}}", Some("{<a>}"));
        for bad in ["{", "}", "{a", "a}", "{b}", "{}", "{A}"] {
            check(bad, None);
        }
    }
}
