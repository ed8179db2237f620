//! MessagePack, as far as we speak it with scripts: many values as one argument.
//!
//! Redis takes in each argument by itself, reads it into an object, and copies that for Lua: eleven of them are 3 of the
//! 20 microseconds of an add. Taken out of one argument they cost it one.

use crate::link::Call;

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
}
