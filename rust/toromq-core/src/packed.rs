//! MessagePack, as far as we speak it with scripts: many values as one argument, and as one part of a reply.
//!
//! Redis takes in each argument by itself, reads it into an object, and copies that for Lua: eleven of them are 3 of the
//! 20 microseconds of an add. Taken out of one argument they cost it one. It also gives out each part of a reply by itself:
//! the fields of a job cost it 4 of the 40 microseconds of a finish and fetch that way, and one in a packed string.

use redis::Value;

use crate::link::{Call, items};

/// How many bytes go in one piece: so that a large batch of large values is no single string of as much memory.
const PIECE: usize = 64 * 1024;

/// Groups of values on their way to a script, which reads them by `all_packed`.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    full: Vec<Vec<u8>>,
    piece: Vec<u8>,
    values: u32,
}

impl Packed {
    /// A text, or what must arrive as it is.
    pub(crate) fn text(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        let length = value.len();
        match length {
            #[allow(clippy::cast_possible_truncation)]
            0..32 => self.piece.push(0xa0 | length as u8),
            32..0x100 => self.put_length(0xd9, length, 1),
            0x100..0x1_0000 => self.put_length(0xda, length, 2),
            _ => self.put_length(0xdb, length, 4),
        }
        self.piece.extend_from_slice(value);
        self
    }

    /// A number, as text.
    pub(crate) fn number(&mut self, value: impl std::fmt::Display) -> &mut Self {
        self.text(value.to_string())
    }

    /// A small number, as such; `false` for none.
    pub(crate) fn count(&mut self, count: Option<u8>) -> &mut Self {
        match count {
            Some(count @ 0..0x80) => self.piece.push(count),
            Some(count) => self.piece.extend_from_slice(&[0xcc, count]),
            None => return self.flag(false),
        }
        self
    }

    /// True or false.
    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.piece.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    /// What few groups have, by name: nothing, or `false` where there is nothing.
    pub(crate) fn named<V: AsRef<[u8]>>(&mut self, pairs: &[(&str, V)]) -> &mut Self {
        if pairs.is_empty() {
            return self.flag(false);
        }
        self.put_length(0xde, pairs.len(), 2);
        for (name, value) in pairs {
            self.text(name).text(value);
        }
        self
    }

    /// Ends a group of so many values.
    pub(crate) fn end_group(&mut self, values: u32) {
        self.values += values;
        if self.piece.len() >= PIECE {
            self.end_piece();
        }
    }

    /// Adds what was packed to a call.
    pub(crate) fn put(mut self, call: &mut Call) {
        self.end_piece();
        for piece in self.full {
            call.owned(piece);
        }
    }

    fn end_piece(&mut self) {
        if self.values == 0 {
            return;
        }
        let mut piece = Vec::with_capacity(self.piece.len() + 5);
        piece.push(0xdd);
        piece.extend_from_slice(&self.values.to_be_bytes());
        piece.append(&mut self.piece);
        self.full.push(piece);
        self.values = 0;
    }

    /// The last `bytes` of a length, behind what says that it is one.
    fn put_length(&mut self, kind: u8, length: usize, bytes: usize) {
        self.piece.push(kind);
        let length = length.to_be_bytes();
        self.piece
            .extend_from_slice(&length[length.len() - bytes..]);
    }
}

/// The values of a reply that a script packed in pieces; those that can't be read are left out. What was too large to be
/// packed stands in a list behind the pieces, and takes the places that are nil in lists.
pub(crate) fn unpacked(reply: Value) -> Vec<Value> {
    let mut values = Vec::new();
    for piece in items(reply) {
        match piece {
            Value::BulkString(piece) => {
                let mut rest = piece.as_slice();
                if let Some(Value::Array(some)) = take(&mut rest) {
                    values.extend(some);
                }
            }
            Value::Array(large) => put_back(&mut values, large),
            _ => {}
        }
    }
    values
}

fn put_back(values: &mut [Value], large: Vec<Value>) {
    let lists = values.iter_mut().filter_map(|value| match value {
        Value::Array(list) => Some(list),
        _ => None,
    });
    let places = lists.flatten().filter(|value| **value == Value::Nil);
    for (place, value) in places.zip(large) {
        *place = value;
    }
}

/// How many values such a reply has.
pub(crate) fn count(reply: &Value) -> usize {
    let Value::Array(pieces) = reply else {
        return 0;
    };
    let of = |piece: &Value| {
        let Value::BulkString(piece) = piece else {
            return None;
        };
        let mut rest = piece.as_slice();
        match *bytes(&mut rest, 1)?.first()? {
            kind @ 0x90..=0x9f => Some(usize::from(kind & 0x0f)),
            0xdc => length(&mut rest, 2),
            0xdd => length(&mut rest, 4),
            _ => None,
        }
    };
    pieces.iter().filter_map(of).sum()
}

/// The value that `rest` begins with.
fn take(rest: &mut &[u8]) -> Option<Value> {
    let kind = *bytes(rest, 1)?.first()?;
    Some(match kind {
        0x00..=0x7f => Value::Int(i64::from(kind)),
        0x80..=0x8f => array(rest, 2 * usize::from(kind & 0x0f))?,
        0x90..=0x9f => array(rest, usize::from(kind & 0x0f))?,
        0xa0..=0xbf => text(rest, usize::from(kind & 0x1f))?,
        0xc0 | 0xc2 => Value::Nil,
        0xc3 => Value::Boolean(true),
        0xcc => Value::Int(i64::try_from(length(rest, 1)?).ok()?),
        0xcd => Value::Int(i64::try_from(length(rest, 2)?).ok()?),
        0xce => Value::Int(i64::try_from(length(rest, 4)?).ok()?),
        0xcf | 0xd3 => Value::Int(i64::from_be_bytes(bytes(rest, 8)?.try_into().ok()?)),
        0xd0 => Value::Int(i64::from(i8::from_be_bytes(
            bytes(rest, 1)?.try_into().ok()?,
        ))),
        0xd1 => Value::Int(i64::from(i16::from_be_bytes(
            bytes(rest, 2)?.try_into().ok()?,
        ))),
        0xd2 => Value::Int(i64::from(i32::from_be_bytes(
            bytes(rest, 4)?.try_into().ok()?,
        ))),
        0xd9 => length(rest, 1).and_then(|length| text(rest, length))?,
        0xda => length(rest, 2).and_then(|length| text(rest, length))?,
        0xdb => length(rest, 4).and_then(|length| text(rest, length))?,
        0xde => length(rest, 2).and_then(|length| array(rest, 2 * length))?,
        0xdc => length(rest, 2).and_then(|length| array(rest, length))?,
        0xdd => length(rest, 4).and_then(|length| array(rest, length))?,
        #[allow(clippy::cast_possible_wrap)]
        0xe0..=0xff => Value::Int(i64::from(kind as i8)),
        _ => return None,
    })
}

fn bytes<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn length(rest: &mut &[u8], size: usize) -> Option<usize> {
    bytes(rest, size).map(|size| {
        size.iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte))
    })
}

fn text(rest: &mut &[u8], length: usize) -> Option<Value> {
    bytes(rest, length).map(|text| Value::BulkString(text.to_vec()))
}

fn array(rest: &mut &[u8], count: usize) -> Option<Value> {
    // Each value takes a byte at least, so a count that lies reserves no more than there is.
    let mut values = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        values.push(take(rest)?);
    }
    Some(Value::Array(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(mut packed: Packed) -> Vec<Vec<u8>> {
        packed.end_piece();
        packed.full
    }

    #[test]
    fn values_are_packed_behind_their_number() {
        let mut packed = Packed::default();
        packed.text("a").number(-12).flag(true);
        packed.named::<&str>(&[]).named(&[("b", "c")]);
        packed.end_group(5);
        let expected = b"\xdd\0\0\0\x05\xa1a\xa3-12\xc3\xc2\xde\0\x01\xa1b\xa1c";
        assert_eq!(pieces(packed), [expected]);
    }

    #[test]
    fn long_texts_say_how_long_they_are() {
        for (length, head) in [
            (31, &b"\xbf"[..]),
            (32, b"\xd9\x20"),
            (255, b"\xd9\xff"),
            (256, b"\xda\x01\0"),
            (65_535, b"\xda\xff\xff"),
            (65_536, b"\xdb\0\x01\0\0"),
        ] {
            let mut packed = Packed::default();
            packed.text("x".repeat(length)).end_group(1);
            let piece = pieces(packed).remove(0);
            assert!(piece[5..].starts_with(head), "{length}");
            assert_eq!(piece.len(), 5 + head.len() + length);
        }
    }

    #[test]
    fn much_goes_in_pieces() {
        let mut packed = Packed::default();
        for _ in 0..5 {
            packed.text("x".repeat(PIECE / 2)).flag(false).end_group(2);
        }
        let counts: Vec<Vec<u8>> = pieces(packed)
            .into_iter()
            .map(|piece| piece[..5].to_vec())
            .collect();
        assert_eq!(
            counts,
            [b"\xdd\0\0\0\x04", b"\xdd\0\0\0\x04", b"\xdd\0\0\0\x02"]
        );
    }

    #[test]
    fn nothing_packed_is_no_argument() {
        assert!(pieces(Packed::default()).is_empty());
    }

    #[test]
    fn values_are_counted_without_being_read() {
        let of = |pieces: &[&[u8]]| {
            let pieces = pieces.iter().map(|piece| Value::BulkString(piece.to_vec()));
            count(&Value::Array(pieces.collect()))
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[b"\x93\xa1a"]), 3);
        assert_eq!(
            of(&[b"\xdc\x01\x02", b"\x96", b"\xdd\0\x01\0\0"]),
            258 + 6 + 65_536
        );
        assert_eq!(of(&[b"", b"\xa1a", b"\xdc\0", b"\x9f"]), 15);
        assert_eq!(count(&Value::Nil), 0);
    }

    fn read(pieces: Vec<Vec<u8>>) -> Vec<Value> {
        unpacked(Value::Array(
            pieces.into_iter().map(Value::BulkString).collect(),
        ))
    }

    #[test]
    fn what_was_too_large_takes_its_place() {
        let text = |text: &str| Value::BulkString(text.into());
        let piece = |packed: &[u8]| Value::BulkString(packed.to_vec());
        let reply = Value::Array(vec![
            piece(b"\x93\xa11\x01\x94\xa1a\xc2\xa1b\xa1x"),
            piece(b"\x93\xa12\xc2\x92\xa1a\xc2"),
            Value::Array(vec![text("first"), text("second")]),
        ]);
        assert_eq!(count(&reply), 6);
        let list = |values: &[&str]| Value::Array(values.iter().map(|value| text(value)).collect());
        assert_eq!(
            unpacked(reply),
            [
                text("1"),
                Value::Int(1),
                list(&["a", "first", "b", "x"]),
                text("2"),
                // Of a list's values alone.
                Value::Nil,
                list(&["a", "second"]),
            ]
        );
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let texts = [0, 1, 31, 32, 255, 256, 65_535, 65_536].map(|length| "x".repeat(length));
        let mut packed = Packed::default();
        for text in &texts {
            packed.text(text).flag(true).end_group(2);
        }
        packed.count(Some(127)).count(Some(128)).count(None);
        packed.named(&[("name", "value")]).end_group(4);
        let text = |text: &str| Value::BulkString(text.into());
        let expected: Vec<Value> = texts
            .iter()
            .flat_map(|long| [text(long), Value::Boolean(true)])
            .chain([Value::Int(127), Value::Int(128), Value::Nil])
            .chain([Value::Array(vec![text("name"), text("value")])])
            .collect();
        let pieces = pieces(packed);
        assert!(pieces.len() > 1);
        assert_eq!(read(pieces), expected);
    }

    #[test]
    fn numbers_of_all_sizes() {
        for (packed, number) in [
            (vec![0x91, 0x07], 7),
            (vec![0x91, 0xcc, 0xff], 255),
            (vec![0x91, 0xcd, 0x01, 0x00], 256),
            (vec![0x91, 0xce, 0x00, 0x01, 0x00, 0x00], 65_536),
            (vec![0x91, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
            (vec![0x91, 0xfb], -5),
            (vec![0x91, 0xd0, 0x97], -105),
            (vec![0x91, 0xd1, 0xff, 0x00], -256),
        ] {
            let reply = Value::Array(vec![Value::BulkString(packed)]);
            assert_eq!(unpacked(reply), [Value::Int(number)]);
        }
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let whole = vec![0xdc, 0x00, 0x02, 0xa1, b'x', 0xd9, 0x02, b'y', b'z'];
        for end in 0..whole.len() {
            let reply = Value::Array(vec![Value::BulkString(whole[..end].to_vec())]);
            assert_eq!(unpacked(reply), []);
        }
    }
}
