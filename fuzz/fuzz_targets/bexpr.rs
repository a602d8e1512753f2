//! Whatever text comes as `filter`, it is an expression or is refused; and an expression has an
//! answer for whatever element, the same as its double negation.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_coord::consul::filter::{Expression, Field};

static FIELDS: Field = Field::Object(&[
    ("a", &Field::Text),
    ("n", &Field::Number),
    ("f", &Field::Flag),
    ("l", &Field::List),
    ("o", &Field::Objects),
    ("m", &Field::Map(&Field::Text)),
]);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, element) = text.split_once('\n').unwrap_or((text, "null"));
    let Ok(expression) = Expression::new(text, &FIELDS) else { return };
    let element = serde_json::from_str(element).unwrap_or_default();
    let holds = expression.holds(&element);
    if let Ok(twice) = Expression::new(&format!("not not ({text})"), &FIELDS) {
        assert_eq!(twice.holds(&element), holds, "{text}");
    }
});
