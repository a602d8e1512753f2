use proptest::prelude::*;
use serde_json::json;

use super::*;

static TEXT: Field = Field::Text;
static OF: Field = Field::Object(&[
    ("Name", &TEXT),
    ("Port", &Field::Number),
    ("Native", &Field::Flag),
    ("Tags", &Field::List),
    ("Checks", &Field::Objects),
    ("Meta", &Field::Map(&TEXT)),
    ("Node", &Field::Object(&[("Meta", &Field::Map(&TEXT))])),
]);

fn element() -> Value {
    json!({
        "Name": "web-1",
        "Port": 80,
        "Native": true,
        "Tags": ["v1", "a b"],
        "Checks": [],
        "Meta": { "rack": "r1", "a.b": "dotted" },
        "Node": { "Meta": { "os": "linux" } },
    })
}

/// Whether the expression holds for [`element`].
#[track_caller]
fn check(text: &str, want: bool) {
    let expression = Expression::new(text, &OF);
    assert_eq!(expression.unwrap().holds(&element()), want, "{text}");
}

#[test]
fn each_operator_says_what_it_says() {
    for (text, want) in [
        (r#"Name == "web-1""#, true),
        ("Name == web-1", true),
        ("Name == `web-1`", true),
        (r#"Name != "web-1""#, false),
        ("Port == 80", true),
        ("Port == 80.0", true),
        ("Port != 81", true),
        ("Native == true", true),
        ("Native == f", false),
        (r#""v1" in Tags"#, true),
        ("v1 in Tags", true),
        (r#""v2" not in Tags"#, true),
        (r#"Tags contains "a b""#, true),
        (r#"Tags not contains "v1""#, false),
        (r#""eb" in Name"#, true),
        (r#"Meta contains "rack""#, true),
        (r#""rack" in Meta"#, true),
        (r#"Meta.rack == "r1""#, true),
        (r#"Meta["a.b"] == "dotted""#, true),
        ("Meta[`a.b`] == dotted", true),
        (r#"Meta.none == "r1""#, false),
        (r#"Meta.none != "r1""#, true),
        ("Meta.none is empty", true),
        ("Node.Meta.os == linux", true),
        ("Checks is empty", true),
        ("Tags is not empty", true),
        ("Name is empty", false),
        (r#"Name matches "^web-[0-9]+$""#, true),
        (r#"Name not matches "^db""#, true),
    ] {
        check(text, want);
    }
}

#[test]
fn not_binds_closer_than_and_and_and_closer_than_or() {
    for (text, want) in [
        ("Port == 1 and Port == 1 or Port == 80", true),
        ("Port == 80 or Port == 1 and Port == 1", true),
        ("(Port == 80 or Port == 1) and Port == 1", false),
        ("not Port == 1 and Port == 80", true),
        ("not (Port == 1 or Port == 80)", false),
        ("not not Port == 80", true),
        (" ( Port==80 ) ", true),
        ("Port==80 and\n\tName==web-1", true),
    ] {
        check(text, want);
    }
}

#[test]
fn what_is_no_expression_is_refused_and_says_why() {
    for (text, want) in [
        ("", "at byte 0: expected a selector"),
        ("Port", "at byte 4: expected an operator"),
        ("Port ==", "at byte 7: expected a value"),
        ("Port == 80 80", "at byte 11: expected `and`, `or` or the end"),
        ("(Port == 80", "at byte 11: expected `)`"),
        ("Port is none", "at byte 8: expected `empty`"),
        (r#"Name == "web"#, "at byte 8: expected a closing quote"),
        ("Other == 1", r#"Selector "Other" is not valid"#),
        ("Node.Other == 1", r#"Selector "Node.Other" is not valid"#),
        ("Port == x", r#"Failed to coerce value "x" for selector "Port""#),
        ("Port contains 1", r#"Invalid match operator "contains" for selector "Port""#),
        ("Node is empty", r#"Invalid match operator "is empty" for selector "Node""#),
        ("Name matches `(`", r#"invalid regular expression "(""#),
    ] {
        let error = Expression::new(text, &OF).unwrap_err();
        assert_eq!(error.to_string(), want, "{text}");
    }
    let deep = format!("{}Port == 80{}", "(".repeat(63), ")".repeat(63));
    check(&deep, true);
    let deeper = format!("({deep})");
    assert_eq!(Expression::new(&deeper, &OF).unwrap_err(), FilterInvalid::TooDeep);
    let long = format!("Name == {}", "x".repeat(BYTES_MAX - 7));
    assert_eq!(Expression::new(&long, &OF).unwrap_err(), FilterInvalid::TooLong);
}

proptest! {
    /// A model that needs no reader: `Port` is 80, so each comparison is true or false as it is
    /// written, and the joined ones come to what Rust's own operators make of them.
    #[test]
    fn joined_comparisons_come_to_what_booleans_come_to(
        ors in prop::collection::vec(prop::collection::vec((any::<bool>(), any::<bool>()), 1..4), 1..4),
    ) {
        let one = |(is_not, holds): &(bool, bool)| {
            format!("{}Port == {}", if *is_not { "not " } else { "" }, if *holds { 80 } else { 1 })
        };
        let all = |ands: &Vec<(bool, bool)>| {
            ands.iter().map(one).collect::<Vec<_>>().join(" and ")
        };
        let text = ors.iter().map(all).collect::<Vec<_>>().join(" or ");
        let want = ors.iter().any(|ands| ands.iter().all(|(is_not, holds)| is_not != holds));
        let got = Expression::new(&text, &OF).unwrap().holds(&element());
        prop_assert_eq!(got, want, "{}", text);
    }

    /// Any text whatsoever can be asked for when it is quoted.
    #[test]
    fn a_quoted_text_is_that_text(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let expression = Expression::new(&format!("Name == {quoted}"), &OF).unwrap();
        let (same, other) = (json!({ "Name": text }), json!({ "Name": format!("{text}x") }));
        prop_assert!(expression.holds(&same));
        prop_assert!(!expression.holds(&other));
    }

    #[test]
    fn nothing_confuses_the_reader(text in r#"[a-zNPTM ()"'`=!.\[\]0-9]{0,60}"#) {
        if let Ok(expression) = Expression::new(&text, &OF) {
            let _either = expression.holds(&element());
        }
    }
}
