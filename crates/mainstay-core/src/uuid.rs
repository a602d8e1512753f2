//! Names nobody has used.

/// A UUID of version 7 (RFC 9562): the moment, in milliseconds of Unix time, then what was drawn;
/// so that names sort by time.
pub fn v7(unix_millis: u64, draw: u128) -> String {
    let time = u128::from(unix_millis) << 80;
    let drawn = draw & 0x0fff_3fff_ffff_ffff_ffff;
    let uuid = time | drawn | (0x7 << 76) | (0b10 << 62);
    let hex = format!("{uuid:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_of_version_7_and_sorts_by_time() {
        // The example of RFC 9562, appendix A.6.
        let draw = 0x0cc3_18c4_dc0c_0c07_398f;
        let name = super::v7(0x017f_22e2_79b0, draw);
        assert_eq!(name, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert!(name < super::v7(0x017f_22e2_79b1, 0));
    }
}
