//! A `traceparent` that is read has ids, and is read again as what it was written as.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::header::{Scribe, TraceParent};

fuzz_target!(|input: &[u8]| {
    let Some(parent) = std::str::from_utf8(input).ok().and_then(TraceParent::parse) else { return };
    assert!(parent.trace != 0 && parent.span != 0);
    let value = parent.to_value(&mut Scribe::new()).expect("hexadecimal digits are legal");
    assert_eq!(TraceParent::parse(value.to_str().expect("ASCII")), Some(parent));
});
