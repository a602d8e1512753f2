use proptest::prelude::*;

use super::*;

/// What `raw` is judged as, or the rule that refuses it.
fn judged(raw: &str, options: Options) -> String {
    match judge(raw, options) {
        Ok(judged) => judged.judged().to_owned(),
        Err(ambiguous) => ambiguous.rule().to_owned(),
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (raw, want) in cases {
        assert_eq!(judged(raw, Options::default()), *want, "{raw:?}");
    }
}

#[test]
fn the_table_of_the_specification() {
    check(&[
        ("/a/./b/../c", "/a/c"),
        ("/%61dmin", "/admin"),
        ("//admin//x", "/admin/x"),
        ("/admin;x=1/y", "/admin/y"),
        ("/a/%2e%2e/b", "/b"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/a%2fb", "path-encoded-slash"),
        ("/a%252fb", "path-encoded-twice"),
        ("/a/..;/admin", "path-dot-parameter"),
        ("/a\\b", "path-backslash"),
        ("/a%5cb", "path-backslash"),
        ("/../b", "path-above-root"),
        ("/%c0%ae", "path-utf8"),
    ]);
    let keep = Options { keep_encoded_slash: true, ..Options::default() };
    assert_eq!(judged("/a%2fb", keep), "/a%2Fb");
}

#[test]
fn everything_else_that_is_read_alike() {
    check(&[
        ("/", "/"),
        ("*", "*"),
        ("/a?b/../c", "/a"),
        ("/a/b/", "/a/b/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/.", "/"),
        ("//", "/"),
        ("/.a/..b/...", "/.a/..b/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/;x", "/a/"),
        ("/;x", "/"),
        ("/;x/a", "/a"),
        ("/a;b;c=d/", "/a/"),
        ("/a%3bb", "/a%3Bb"),
        ("/100%25", "/100%25"),
        ("/100%25x", "/100%25x"),
        ("/a%20b", "/a%20b"),
        ("/%7euser/%2D", "/~user/-"),
        ("/%e4%bd%a0/%f0%9f%a6%80", "/%E4%BD%A0/%F0%9F%A6%80"),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
    ]);
}

#[test]
fn everything_else_that_is_not() {
    check(&[
        ("", "path-relative"),
        ("a", "path-relative"),
        ("%2Fa", "path-relative"),
        ("/%", "path-triplet"),
        ("/%4", "path-triplet"),
        ("/%4g", "path-triplet"),
        ("/%%41", "path-triplet"),
        ("/%u0041", "path-triplet"),
        ("/a#b", "path-fragment"),
        ("/a%00", "path-control"),
        ("/a%0d%0a", "path-control"),
        ("/a%7f", "path-control"),
        ("/a\tb", "path-control"),
        ("/a b", "path-control"),
        ("/caf\u{e9}", "path-raw-byte"),
        ("/%25%32%66", "path-encoded-twice"),
        ("/%25%34%31", "path-encoded-twice"),
        ("/%ff", "path-utf8"),
        ("/%c3", "path-utf8"),
        ("/%c3x%a9", "path-utf8"),
        ("/%80", "path-utf8"),
        ("/%e0%80%af", "path-utf8"),
        ("/%ed%a0%80", "path-utf8"),
        ("/%f5%80%80%80", "path-utf8"),
        ("/..", "path-above-root"),
        ("/%2e%2e", "path-above-root"),
        ("/a/../..", "path-above-root"),
        ("/a/../../b", "path-above-root"),
        ("/a//../b", "path-empty-segment"),
        ("/a/;x/../b", "path-empty-segment"),
        ("/a/%2e%2e;x=1/b", "path-dot-parameter"),
        ("/a/.;/b", "path-dot-parameter"),
    ]);
}

#[test]
fn what_is_sent_keeps_what_is_not_judged() {
    for (raw, sent) in
        [("//admin//x", "//admin//x"), ("/%61;x=1/y", "/a;x=1/y"), ("/a;%2e%2F/./y", "/a;.%2F/y")]
    {
        let options = Options { keep_encoded_slash: true, ..Options::default() };
        assert_eq!(judge(raw, options).map(|j| j.sent().to_owned()).as_deref(), Ok(sent), "{raw}");
    }
    for (parameters, want) in [
        (Parameters::Strip, "/a/b"),
        (Parameters::Keep, "/a;x/b"),
        (Parameters::Refuse, "path-parameter"),
    ] {
        assert_eq!(judged("/a;x//b", Options { parameters, ..Options::default() }), want);
    }
}

#[test]
fn the_usual_path_is_borrowed() {
    for raw in ["/orders/42", "/.well-known/x?y=1", "/caf%C3%A9", "/a%20b"] {
        let judged = judge(raw, Options::default()).expect("one reading");
        assert!(matches!(judged, Judged { sent: Cow::Borrowed(_), judged: None }), "{raw}");
    }
}

fn options() -> impl Strategy<Value = Options> {
    let parameters =
        prop::sample::select(vec![Parameters::Strip, Parameters::Refuse, Parameters::Keep]);
    (parameters, any::<bool>())
        .prop_map(|(parameters, keep_encoded_slash)| Options { parameters, keep_encoded_slash })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The form is a fixed point, and nothing in it can be resolved any further.
    #[test]
    fn there_is_one_form(
        raw in "/([a.;/%x]|%2[eEfF5]|%41|%3[bB]|%5[cC]|%[cC]3%[aA]9|%25){0,12}",
        options in options(),
    ) {
        let Ok(first) = judge(&raw, options) else { return Ok(()) };
        let again = judge(first.judged(), options).expect("the form is read alike");
        prop_assert_eq!(again.judged(), first.judged());
        prop_assert_eq!(again.sent(), first.judged());
        let sent = judge(first.sent(), options).expect("what is sent is read alike");
        prop_assert_eq!(sent.sent(), first.sent());
        prop_assert_eq!(sent.judged(), first.judged());
        prop_assert!(!first.judged().contains("//"));
        for path in [first.judged(), first.sent()] {
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn any_text_will_do(raw in any::<String>(), options in options()) {
        drop(judge(&raw, options));
    }
}
