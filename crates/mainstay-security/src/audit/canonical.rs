//! One text for one value: the JSON Canonicalization Scheme (RFC 8785).
//!
//! No white space; members in the order of their names as UTF-16; numbers as ECMAScript writes them.
//! An integer beyond 2⁵³ would not come through a reader that knows only doubles, so it is written
//! as a text.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Beyond this a double does not have every integer.
const INTEGER_MAX: u64 = 1 << 53;

/// `value` as its one text.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    put(&mut text, value);
    text
}

fn put(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(is_so) => text.push_str(if *is_so { "true" } else { "false" }),
        Value::Number(number) => put_number(text, number),
        Value::String(string) => put_string(text, string),
        Value::Array(elements) => {
            text.push('[');
            for (at, element) in elements.iter().enumerate() {
                if 0 < at {
                    text.push(',');
                }
                put(text, element);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if 0 < at {
                    text.push(',');
                }
                put_string(text, name);
                text.push(':');
                put(text, value);
            }
            text.push('}');
        }
    }
}

fn put_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            control if control < ' ' => {
                write!(text, "\\u{:04x}", u32::from(control)).expect("a text takes everything");
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

fn put_number(text: &mut String, number: &Number) {
    let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    match (magnitude, number.as_f64()) {
        (Some(magnitude), _) if INTEGER_MAX < magnitude => put_string(text, &number.to_string()),
        (Some(_), _) | (None, None) => text.push_str(&number.to_string()),
        (None, Some(double)) => put_double(text, double),
    }
}

/// As `Number::toString` of ECMAScript (ECMA-262, 6.1.6.1.20): the shortest digits that come back to
/// the same double, with an exponent below 10⁻⁶ and from 10²¹ on.
fn put_double(text: &mut String, double: f64) {
    if double == 0.0 {
        text.push('0');
        return;
    }
    if double < 0.0 {
        text.push('-');
    }
    let shortest = format!("{:e}", double.abs());
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits = digits.replace('.', "");
    // Where the point stands, counted from before the first digit.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    match point {
        point if count <= point && point <= 21 => {
            text.push_str(&digits);
            text.push_str(&zeros(point - count));
        }
        1..=21 => {
            let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or(0));
            text.push_str(whole);
            text.push('.');
            text.push_str(rest);
        }
        -5..=0 => {
            text.push_str("0.");
            text.push_str(&zeros(-point));
            text.push_str(&digits);
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            text.push_str(first);
            if !rest.is_empty() {
                text.push('.');
                text.push_str(rest);
            }
            let sign = if point < 1 { '-' } else { '+' };
            write!(text, "e{sign}{}", (point - 1).abs()).expect("a text takes everything");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_come_out_as_there() {
        // RFC 8785, 3.2.2 to 3.2.4.
        let mut value: Value = serde_json::from_str(
            r#"{
                "numbers": [],
                "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
                "literals": [null, true, false]
            }"#,
        )
        .unwrap();
        // 333333333.33333329 of the RFC is this double.
        value["numbers"] = json!([333_333_333.333_333_3, 1E30, 4.50, 2e-3, 1e-27]);
        assert_eq!(
            canonical(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let names = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet",
            "1": "One", "\u{1f600}": "Emoji", "\u{80}": "Control", "\u{f6}": "Latin",
        });
        let text = canonical(&names);
        let order = ["\\r", "1", "\u{80}", "\u{f6}", "\u{20ac}", "\u{1f600}", "\u{fb33}"];
        let places = order.map(|name| text.find(&format!("\"{name}\":")).unwrap());
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        // RFC 8785, appendix B, and the edges of 6.1.6.1.20.
        for (bits, want) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            let mut text = String::new();
            put_double(&mut text, f64::from_bits(bits));
            assert_eq!(text, want, "{bits:016x}");
        }
        assert_eq!(
            canonical(&json!([1.0, -7, 9_007_199_254_740_992_u64])),
            "[1,-7,9007199254740992]"
        );
        let beyond = json!([u64::MAX, i64::MIN]);
        assert_eq!(canonical(&beyond), "[\"18446744073709551615\",\"-9223372036854775808\"]");
    }

    proptest! {
        /// What is written is read as the same value, and every double by the same digits.
        #[test]
        fn nothing_is_lost(text in "\\PC*", double in prop::num::f64::NORMAL, whole in -1000i64..1000) {
            let value = json!({ "text": &text, "whole": whole, text: [] });
            let written = canonical(&value);
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
            let mut digits = String::new();
            put_double(&mut digits, double);
            prop_assert_eq!(digits.parse::<f64>().unwrap().to_bits(), double.to_bits());
        }
    }
}
