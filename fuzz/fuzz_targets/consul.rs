//! Whatever body comes to the door for clients of Consul, it is a document or is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::control::foreign;

fuzz_target!(|data: &[u8]| {
    foreign::consul(data);
});
