//! Finding the bytes that matter, eight at a time where it pays.
//!
//! Names and targets are short and go through a table; values and the search for LF go through
//! words of eight bytes, with the old trick for "has a byte below n" (Warren, *Hacker's Delight*,
//! section 6-1). A borrow can only mark bytes above the first true hit, so the lowest mark is exact.

/// The first position at or after `from` that does not hold a token byte (RFC 9110 section 5.6.2).
pub(crate) fn token_end(bytes: &[u8], from: usize) -> usize {
    span(bytes, from, TOKEN)
}

/// The first position at or after `from` whose byte no request target may hold.
pub(crate) fn target_end(bytes: &[u8], from: usize) -> usize {
    let end = span(bytes, from, PATH);
    if bytes.get(end) == Some(&b'?') { span(bytes, end, QUERY) } else { end }
}

/// The first position at or after `from` whose byte no field value may hold: a control byte other
/// than tab, or DEL. Bytes from 0x80 are legal (obs-text).
pub(crate) fn value_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = first(bytes, at, |x| below_space(x) | equal(x, 0x7F), |b| b < 0x20 || b == 0x7F);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// The first LF at or after `from`.
pub(crate) fn find_lf(bytes: &[u8], from: usize) -> Option<usize> {
    let at = first(bytes, from, |x| equal(x, b'\n'), |b| b == b'\n');
    (at < bytes.len()).then_some(at)
}

fn span(bytes: &[u8], from: usize, class: u8) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let len = rest.iter().position(|&b| CLASS[usize::from(b)] & class == 0);
    from + len.unwrap_or(rest.len())
}

/// The first position at or after `from` that `word` marks by the top bit of its byte, the last
/// seven bytes at most by `byte`.
#[inline]
fn first(bytes: &[u8], from: usize, word: impl Fn(u64) -> u64, byte: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let (words, tail) = rest.as_chunks::<8>();
    for (index, chunk) in words.iter().enumerate() {
        let marks = word(u64::from_le_bytes(*chunk));
        if marks != 0 {
            return from + index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let len = tail.iter().position(|&b| byte(b)).unwrap_or(tail.len());
    from + words.len() * 8 + len
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);

fn below_space(x: u64) -> u64 {
    x.wrapping_sub(ONES * 0x20) & !x & TOPS
}

fn equal(x: u64, byte: u8) -> u64 {
    let zero_where_equal = x ^ (ONES * u64::from(byte));
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & TOPS
}

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;

/// Which bytes a token and a target may hold. A target may hold what `http::Uri` takes for one,
/// less the fragment sign: whatever passes here must not be refused, or cut, further on.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7F {
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[byte as usize] |= TOKEN;
        }
        if !matches!(byte, b'#' | b'<' | b'>' | b'?' | b'`') {
            table[byte as usize] |= PATH;
        }
        if !matches!(byte, b'"' | b'#' | b'<' | b'>') {
            table[byte as usize] |= QUERY;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_find_what_a_plain_loop_finds(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            from in 0_usize..70,
        ) {
            let plain = |stops: fn(u8) -> bool| {
                (from..bytes.len()).find(|&i| stops(bytes[i])).unwrap_or_else(|| from.max(bytes.len()))
            };
            let end = plain(|b| (b < 0x20 && b != b'\t') || b == 0x7F);
            prop_assert_eq!(value_end(&bytes, from), end);
            prop_assert_eq!(find_lf(&bytes, from).unwrap_or_else(|| from.max(bytes.len())), plain(|b| b == b'\n'));
        }
    }
}
