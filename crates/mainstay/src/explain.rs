//! The page behind every code, embedded, so that it can be read when nothing else works.
//!
//! A page stands in `docs/problems/<code>.md`, or `docs/problems/zh/<code>.md` in Chinese. Which
//! pages there are is written here once; a test compares the list with the folder and with every
//! code there is.

use crate::settings::suggest;

/// A language of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// 简体中文.
    Chinese,
}

impl Language {
    /// By a tag or the value of `LANG`: `zh`, `zh_CN.UTF-8`, `zh-Hans`.
    pub fn of(tag: &str) -> Self {
        if tag.to_lowercase().starts_with("zh") { Self::Chinese } else { Self::English }
    }
}

/// A page, in the language there is.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Its language: English where nobody has translated it.
    pub language: Language,
    /// Markdown.
    pub text: &'static str,
}

/// The page of `code`, in `language` if there is one.
pub fn page(code: &str, language: Language) -> Option<Page> {
    let of = |pages: &[(&str, &'static str)]| {
        pages.iter().find(|(name, _)| *name == code).map(|(_, text)| *text)
    };
    let chinese = || of(CHINESE).map(|text| Page { language: Language::Chinese, text });
    let english = || of(ENGLISH).map(|text| Page { language: Language::English, text });
    match language {
        Language::Chinese => chinese().or_else(english),
        Language::English => english(),
    }
}

/// The code `subject` was probably meant to be.
pub fn nearest(subject: &str) -> Option<&'static str> {
    suggest::nearest(subject, ENGLISH.iter().map(|(code, _)| *code))
}

macro_rules! pages {
    ($name:ident, $folder:literal: $($code:literal)*) => {
        const $name: &[(&str, &str)] = &[$((
            $code,
            include_str!(concat!("../../../docs/problems/", $folder, $code, ".md")),
        )),*];
    };
}

pages! { ENGLISH, "":
    "address-refused" "app-not-healthy" "audit-proof-range" "audit-tampered" "audit-unavailable"
    "audit-unreadable" "backup-invalid" "batch-too-large"
    "body-timeout" "body-too-large" "branch-already-ended" "branch-id-invalid"
    "branch-ongoing" "branch-refused" "branch-target-denied" "canary-not-found"
    "canary-running" "cancelled" "check-audit-outbox" "check-circuits-open" "check-clock-sane" "check-data-dir-writable"
    "check-disk-free" "check-gateway-state-age" "check-heuristic-outcomes" "check-instances" "check-instances-expiring"
    "check-kernel" "check-keyring-mode" "check-limits-saturated" "check-lock-lease-short" "check-lock-waiters-long" "check-memory" "check-open-files" "check-panic-active"
    "check-ports-free" "check-protection-active" "check-retry-budget-spent" "check-prepared-orphans" "check-rm-reachable" "check-services-without-health" "check-settings-loaded" "check-settings-valid"
    "check-store-compaction" "check-store-quorum" "check-store-reachable" "check-store-size"
    "check-store-revision-moving" "check-store-writable" "check-transactions-in-doubt" "check-watch-lag"
    "circuit-open" "compacted" "config-contradiction" "config-duplicate-key" "config-file-missing"
    "config-loading" "config-not-found" "config-out-of-range" "config-syntax" "config-unknown-key"
    "config-unknown-reference" "config-wrong-type" "connect-failed" "connect-timeout"
    "context-file-open" "control-unreachable" "cost-exceeds-quota" "credential-missing"
    "data-dir-in-use" "deadline-exceeded" "degraded" "delay-queue-full" "dev-not-loopback"
    "duplicate-key" "egress-refused" "expectation-failed" "fencing-token-stale" "format-invalid"
    "future-revision" "gateway-draining" "head-timeout" "headers-too-large" "host-not-allowed"
    "instance-not-found" "internal" "invalid-request" "invalid-rule" "key-invalid" "keyring-differs"
    "jwks-unavailable" "jwt-invalid" "check-jwks-state" "unauthenticated"
    "keyring-open" "keyring-unreadable" "kind-conflict" "lease-exists" "lease-full"
    "lease-not-found" "limited" "lock-already-held" "lock-busy" "lock-lost" "lock-not-held"
    "lock-upgrade-refused" "lock-wait-timeout" "log-format-newer" "malformed-request"
    "managed-elsewhere" "method-not-allowed" "misdirected-host" "network-congestion" "no-instance"
    "not-found" "not-recorded" "optimistic-conflict" "outcome-unknown" "path-ambiguous"
    "payload-too-large" "permission-missing" "plan-active" "plan-conflict" "plan-inactive"
    "port-in-use" "reason-required" "refused-by-upstream" "refused-stream" "registry-full"
    "registry-loading" "release-not-found" "resource-cannot-prepare" "resource-cannot-purge" "resource-unknown"
    "resource-unreachable" "response-truncated" "revision-moved"
    "route-ambiguous" "route-not-found" "rule-in-use" "rules-full" "schema-violation"
    "secret-unreadable" "semaphore-limit-differs" "service-in-use" "service-not-found"
    "session-not-found" "sessions-full" "shed" "store-busy" "store-closed" "store-corrupt" "store-failed"
    "store-format-newer" "store-full" "store-incomplete" "store-locked" "store-regressed"
    "store-unavailable" "switch-in-use" "switch-type" "switched-off" "too-many-streams" "transaction-aborted"
    "transaction-branch-taken" "transaction-branch-unknown" "transaction-committed"
    "transaction-deadline-passed" "transaction-gid-invalid" "transaction-gid-taken"
    "transaction-invalid" "transaction-log-behind" "transaction-log-overloaded" "transaction-log-unavailable"
    "transaction-mixed" "transaction-not-active" "transaction-overloaded"
    "transaction-owner-unknown" "transaction-too-large" "transaction-too-old" "transaction-unknown"
    "transaction-verb-not-allowed" "ttl-invalid" "upgrade-refused" "upstream-malformed"
    "upstream-timeout" "uri-too-long" "usage" "value-too-large"
}

pages! { CHINESE, "zh/":
    "circuit-open" "config-out-of-range" "config-unknown-key" "connect-failed"
    "deadline-exceeded" "limited" "malformed-request" "no-instance" "port-in-use"
    "route-not-found" "shed" "upstream-timeout"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use mainstay_core::problem::Code;

    use super::*;

    /// Codes of the command line that are not in the shared list.
    const OWN: [&str; 1] = ["context-file-open"];

    fn folder(name: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/problems").join(name);
        let names = fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("can be listed").file_name().to_string_lossy().into_owned());
        names.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect()
    }

    fn names(pages: &[(&str, &str)]) -> BTreeSet<String> {
        pages.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let checks = crate::check::PRE.iter().map(|check| format!("check-{}", check.id));
        let codes = Code::ALL.iter().map(|code| code.as_str().to_owned());
        let own = OWN.iter().map(|code| (*code).to_owned());
        let live = crate::check::LIVE.iter().map(|id| format!("check-{id}"));
        let want: BTreeSet<String> = codes
            .chain(own)
            .chain(checks)
            .chain(live)
            .chain(["check-settings-valid".to_owned()])
            .collect();
        assert_eq!(folder(""), want, "left: pages there are; right: codes there are");
        assert_eq!(names(ENGLISH), want);
        assert_eq!(names(CHINESE), folder("zh"));
        assert!(names(CHINESE).is_subset(&want));
    }

    #[test]
    fn every_page_says_what_it_means_why_what_to_do_and_shows_an_example() {
        let check = |pages: &[(&str, &str)], parts: [&str; 4]| {
            for (code, text) in pages {
                assert!(text.starts_with(&format!("# {code}\n")), "{code}: title");
                for part in parts {
                    assert!(text.contains(&format!("\n## {part}\n")), "{code}: no {part}");
                }
                let lines = text.lines().count();
                assert!((14..=60).contains(&lines), "{code}: {lines} lines");
            }
        };
        check(ENGLISH, ["Meaning", "Cause", "What to do", "Example"]);
        check(CHINESE, ["含义", "原因", "怎么办", "示例"]);
    }

    #[test]
    fn the_language_is_told_by_the_tag_and_falls_back_to_english() {
        let cases =
            [("zh", "limited", true), ("zh_CN.UTF-8", "limited", true), ("C", "limited", false)];
        for (tag, code, chinese) in cases {
            let page = page(code, Language::of(tag)).expect("there is a page");
            assert_eq!(page.language == Language::Chinese, chinese, "{tag}");
        }
        let page = page("usage", Language::Chinese).expect("in English at least");
        assert_eq!(page.language, Language::English);
        assert!(super::page("nonsense", Language::English).is_none());
    }
}
