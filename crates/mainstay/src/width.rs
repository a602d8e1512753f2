//! How wide a text is on a terminal: Chinese, Japanese and Korean letters take two columns.

/// Columns `text` takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(of).sum()
}

/// Columns of one character, by the wide ranges of Unicode's East Asian Width (UAX #11), cut to
/// the blocks that occur in names and comments.
fn of(c: char) -> usize {
    match u32::from(c) {
        0..=0x1f | 0x7f..=0x9f | 0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0xfeff => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn wide_letters_count_twice_and_marks_not_at_all() {
        let cases = [("order", 5), ("订单", 4), ("订单-2", 6), ("e\u{301}", 1), ("", 0), ("，", 2)];
        for (text, want) in cases {
            assert_eq!(columns(text), want, "{text:?}");
        }
    }
}
