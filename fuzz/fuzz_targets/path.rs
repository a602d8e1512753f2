//! The form of a path is a fixed point with nothing left to resolve.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_proxy::path::{Options, Parameters, judge};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let parameters = match choice % 3 {
        0 => Parameters::Strip,
        1 => Parameters::Refuse,
        _ => Parameters::Keep,
    };
    let options = Options { parameters, keep_encoded_slash: choice & 0x80 != 0 };
    let Ok(first) = judge(raw, options) else { return };
    let again = judge(first.judged(), options).expect("the form is read alike");
    assert_eq!((again.judged(), again.sent()), (first.judged(), first.judged()));
    let sent = judge(first.sent(), options).expect("what is sent is read alike");
    assert_eq!((sent.judged(), sent.sent()), (first.judged(), first.sent()));
    assert!(!first.judged().contains("//"));
    assert!(first.judged().split('/').all(|segment| segment != "." && segment != ".."));
});
