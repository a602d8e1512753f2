//! Words of other tools.
//!
//! Whoever comes from Consul, Sentinel, Envoy or kubectl types that tool's word first. It gets the
//! line to type here instead of "unknown"; it never runs anything, because a word that almost
//! fits may do something else than its user is used to.

/// What a word stands for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// As other tools have it.
    pub given: &'static str,
    /// What takes its place in the line: a noun, a noun with its verb, or a verb.
    pub instead: &'static str,
    /// Whether it stands in a verb's place, after a noun.
    pub verb: bool,
}

const fn noun(given: &'static str, instead: &'static str) -> Word {
    Word { given, instead, verb: false }
}

const fn verb(given: &'static str, instead: &'static str) -> Word {
    Word { given, instead, verb: true }
}

/// Every word that is answered.
pub const WORDS: [Word; 38] = [
    noun("breaker", "circuit"),
    noun("circuit-breaker", "circuit"),
    noun("fuse", "circuit"),
    noun("bulkhead", "limit"),
    noun("throttle", "limit"),
    noun("ratelimit", "limit"),
    noun("rate-limit", "limit"),
    noun("quota", "limit"),
    noun("txn", "transaction"),
    noun("saga", "transaction"),
    noun("kv", "config"),
    noun("intention", "policy"),
    noun("ban", "isolate"),
    noun("node", "instance"),
    noun("endpoint", "instance"),
    noun("backend", "upstream"),
    noun("cluster", "upstream"),
    noun("ingress", "route"),
    noun("virtualservice", "route"),
    noun("downgrade", "fallback"),
    noun("degrade", "fallback"),
    noun("chaos", "fault"),
    noun("inject", "fault set"),
    noun("doctor", "check"),
    noun("health", "check"),
    noun("lint", "settings validate"),
    noun("configtest", "settings validate"),
    noun("reload", "settings reload"),
    noun("completion", "completions"),
    noun("why", "explain"),
    verb("ls", "list"),
    verb("rm", "remove"),
    verb("delete", "remove"),
    verb("get", "show"),
    verb("describe", "show"),
    verb("open", "force-open"),
    verb("trip", "force-open"),
    verb("close", "force-close"),
];

/// The line to type instead of `line`, whose word number `at` nobody knows; the word it is about.
///
/// `at` 0 is the first word after the program's name. A verb's word in a noun's place (`ls`) is
/// answered with the verb alone, for the noun is not known.
pub fn answer(line: &[&str], at: usize) -> Option<(&'static Word, String)> {
    let given = line.get(at)?;
    let word = WORDS.iter().find(|word| word.given == *given && word.verb == (0 < at)).or_else(
        // `mainstay ls`: right word, wrong place.
        || WORDS.iter().find(|word| word.given == *given),
    )?;
    let mut better: Vec<&str> = line.to_vec();
    *better.get_mut(at)? = word.instead;
    if at == 0 && word.verb {
        better.insert(0, "NOUN");
    }
    Some((word, format!("mainstay {}", better.join(" "))))
}
