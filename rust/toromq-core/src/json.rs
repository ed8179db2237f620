//! JSON text as far as it is gone over byte by byte: where its strings, numbers and words end, and whether it is JSON at
//! all. What it means is for its readers.
//!
//! All of it takes eight bytes at a time where that pays: a job's data is gone over before the job runs.

/// A byte in each place of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte of a word.
const HIGH: u64 = 0x8080_8080_8080_8080;
/// How many bytes of a long string are looked at together; the compiler makes vector code of it.
const BLOCK: usize = 32;
/// Text nested deeper than this is left to a slower judge.
const DEEPEST: usize = 64;

/// Eight bytes as a number, the first one lowest.
#[inline]
#[must_use]
pub fn word(text: &[u8], at: usize) -> Option<u64> {
    let bytes = text.get(at..at + 8)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// Marks bytes of a word that are 0: right as far as the lowest mark, and so is all that follows from it.
#[inline]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

/// Whether a string can't have this byte as it is: it ends it, begins an escape, or is a control character.
#[inline]
const fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Where the first byte from `at` on stands that a string can't have as it is.
#[inline]
#[must_use]
pub fn plain_end(text: &[u8], at: usize) -> usize {
    let mut end = at;
    while let Some(word) = word(text, end) {
        let quote = zeros(word ^ (ONES * 0x22));
        let backslash = zeros(word ^ (ONES * 0x5c));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | backslash | control) & HIGH;
        if found != 0 {
            return end + (found.trailing_zeros() / 8) as usize;
        }
        end += 8;
        if end == at + BLOCK {
            end = skip_blocks(text, end);
        }
    }
    let rest = text.get(end..).unwrap_or_default().iter();
    end + rest.take_while(|byte| !is_special(**byte)).count()
}

/// Behind the blocks that have nothing special.
fn skip_blocks(text: &[u8], at: usize) -> usize {
    let plain = |block: &&[u8]| {
        !block
            .iter()
            .fold(false, |found, &byte| found | is_special(byte))
    };
    let blocks = text[at..].chunks_exact(BLOCK);
    at + blocks.take_while(plain).count() * BLOCK
}

/// Where the blanks end that begin at `at`.
#[inline]
#[must_use]
pub fn skip_blanks(text: &[u8], at: usize) -> usize {
    // Machines write none.
    if text.get(at).is_none_or(|byte| *byte > b' ') {
        return at;
    }
    let blanks = text[at..].iter();
    at + blanks
        .take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))
        .count()
}

/// Behind the quote that ends the string whose content begins at `at`.
#[inline]
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = plain_end(text, at);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at + 1)?,
            _ => return None,
        }
    }
}

fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = text.get(at + 1..at + 5)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
        }
        _ => None,
    }
}

/// Behind at least one digit.
#[inline]
fn digits_end(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while let Some(word) = word(text, end) {
        let word = word ^ (ONES * 0x30);
        let others = (word.wrapping_add(ONES * 0x76) | word) & HIGH;
        if others != 0 {
            end += (others.trailing_zeros() / 8) as usize;
            return (end > at).then_some(end);
        }
        end += 8;
    }
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    (end > at).then_some(end)
}

/// Behind the number that begins at `at`, and whether it is written as a whole one.
#[inline]
#[must_use]
pub fn number_end(text: &[u8], at: usize) -> Option<(usize, bool)> {
    let first = at + usize::from(*text.get(at)? == b'-');
    let mut end = digits_end(text, first)?;
    if text[first] == b'0' && end > first + 1 {
        return None;
    }
    let whole = end;
    if text.get(end) == Some(&b'.') {
        end = digits_end(text, end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let is_signed = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end = digits_end(text, end + 1 + usize::from(is_signed))?;
    }
    Some((end, end == whole))
}

/// Behind `true`, `false` or `null`, where it stands at `at`.
#[inline]
#[must_use]
pub fn word_end(text: &[u8], at: usize, expected: &str) -> Option<usize> {
    let end = at + expected.len();
    (text.get(at..end)? == expected.as_bytes()).then_some(end)
}

/// Behind the colon that follows the key at `at`.
#[inline]
fn key_end(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_blanks(text, at);
    if *text.get(at)? != b'"' {
        return None;
    }
    let at = skip_blanks(text, string_end(text, at + 1)?);
    (*text.get(at)? == b':').then_some(at + 1)
}

/// Whether this text, which is UTF-8, is surely JSON; what is not is still to be judged by a reader that says why, for it
/// may only be nested too deep. Half as long as by such a reader.
#[must_use]
pub fn is_surely_json(text: &str) -> bool {
    end_of_all(text.as_bytes()).is_some()
}

fn end_of_all(text: &[u8]) -> Option<()> {
    let mut at = 0;
    // Of what is open a bit each, the innermost lowest: 1 for an object.
    let mut objects: u64 = 0;
    let mut depth = 0;
    loop {
        at = skip_blanks(text, at);
        at = match *text.get(at)? {
            b'"' => string_end(text, at + 1)?,
            b'-' | b'0'..=b'9' => number_end(text, at)?.0,
            b't' => word_end(text, at, "true")?,
            b'f' => word_end(text, at, "false")?,
            b'n' => word_end(text, at, "null")?,
            open @ (b'{' | b'[') => {
                at = skip_blanks(text, at + 1);
                let is_object = open == b'{';
                if *text.get(at)? != if is_object { b'}' } else { b']' } {
                    if depth == DEEPEST {
                        return None;
                    }
                    depth += 1;
                    objects = objects << 1 | u64::from(is_object);
                    if is_object {
                        at = key_end(text, at)?;
                    }
                    continue;
                }
                at + 1
            }
            _ => return None,
        };
        // Behind a value: what it is in goes on, or ends.
        loop {
            at = skip_blanks(text, at);
            if depth == 0 {
                return (at == text.len()).then_some(());
            }
            let in_object = objects & 1 == 1;
            match *text.get(at)? {
                b',' => {
                    at += 1;
                    if in_object {
                        at = key_end(text, at)?;
                    }
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            at += 1;
            depth -= 1;
            objects >>= 1;
        }
    }
}

/// Puts what the string whose content begins at `at` says behind `said`, and gives where it ends; `None` where it is none,
/// or has a half of a surrogate pair, which is no text.
#[must_use]
pub fn unescape(text: &str, mut at: usize, said: &mut String) -> Option<usize> {
    let bytes = text.as_bytes();
    loop {
        let end = plain_end(bytes, at);
        said.push_str(text.get(at..end)?);
        match bytes.get(end)? {
            b'"' => return Some(end + 1),
            b'\\' => {}
            _ => return None,
        }
        at = escape_end(bytes, end + 1)?;
        said.push(match bytes[end + 1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = unit(bytes, end)?;
                if let Some(alone) = char::from_u32(first) {
                    alone
                } else {
                    let pair = [first, unit(bytes, at)?]
                        .map(|unit| u16::try_from(unit).unwrap_or_default());
                    at += 6;
                    char::decode_utf16(pair).next()?.ok()?
                }
            }
            itself => char::from(itself),
        });
    }
}

/// The number that an escape at `at` gives.
fn unit(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn judges_agree(text: &str) {
        let expected = serde_json::from_str::<IgnoredAny>(text).is_ok();
        assert_eq!(is_surely_json(text), expected, "{text:?}");
    }

    #[test]
    fn it_takes_what_is_json_and_nothing_else() {
        let whole = [
            r#"{"a":[1,-2.5e+3,true,false,null,"x\n\u00e9\ud800"],"b":{},"c":[[],{"d":0}]}"#,
            " [ 1 , { \"a\" : \"b\" } ]\n\t\r",
            "0",
            "-0.0E-1",
            "\"\"",
            "\"Gr\u{fc}\u{df}e, und ein langer Text, der mehr als einen Block f\u{fc}llt, damit auch der gelesen wird\"",
        ];
        for text in whole {
            judges_agree(text);
            assert!(is_surely_json(text), "{text}");
            // Whatever is missing or stands in the wrong place.
            for (at, _) in text.char_indices() {
                judges_agree(&text[..at]);
                judges_agree(&text[at..]);
                for byte in "{}[],:\"\\x0-. \u{1}".chars() {
                    judges_agree(&format!("{}{byte}{}", &text[..at], &text[at..]));
                    let rest = text[at..].chars().skip(1).collect::<String>();
                    judges_agree(&format!("{}{byte}{rest}", &text[..at]));
                }
            }
        }
    }

    #[test]
    fn every_place_of_a_string_is_looked_at() {
        for length in 0..100 {
            for special in ["\"", "\\", "\u{1f}", "\n"] {
                let text = format!("{}{special}yy\"", "x".repeat(length));
                assert_eq!(plain_end(text.as_bytes(), 0), length);
            }
            // What only looks like one of them.
            let text = format!("{}#![]\u{7f}\u{a2}\u{dc} \"", "x".repeat(length));
            assert_eq!(plain_end(text.as_bytes(), 0), text.len() - 1);
        }
    }

    #[test]
    fn deep_text_is_left_to_others() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_surely_json(&nested(DEEPEST + 1)));
        assert!(!is_surely_json(&nested(DEEPEST + 2)));
    }

    #[test]
    fn escapes_are_what_they_stand_for() {
        let of = |text: &str| {
            let mut said = String::new();
            let end = unescape(text, 0, &mut said)?;
            Some((said, &text[end..] == " x"))
        };
        let said = |text: &str| Some((text.to_owned(), true));
        let all = of(r#"a\"\\\/\b\f\n\r\t\u00e9b" x"#);
        assert_eq!(all, said("a\"\\/\u{8}\u{c}\n\r\t\u{e9}b"));
        assert_eq!(of(r#"\uD83D\ude00" x"#), said("\u{1f600}"));
        for none in [
            r#"\ud83d""#,
            r#"\ude00""#,
            r#"\ud83d\u0041""#,
            r#"\ud83dx""#,
            r#"\u+123""#,
            r#"\u12"#,
            r#"\x""#,
            "no end",
            "\n\"",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
