//! JSON text to Python values, as far as it is what machines write: all else is left to the stdlib.
//!
//! Jobs of one queue have the same keys in the same order again and again, as rows of one list have. So each key remembers
//! which one followed it the last time, and where that stands again it need not even be looked for.

use std::sync::{Mutex, TryLockError};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use toromq_core::json::{number_end, plain_end, skip_blanks, unescape, word, word_end};

/// Text nested deeper than what our own writer gives is left to the stdlib.
const DEEPEST: u32 = 512;
/// How many places there are for strings, and for keys.
const PLACES: usize = 1 << 11;
/// Longer strings are not remembered: few of them come again.
const LONGEST: usize = 32;
const LONGEST_KEY: usize = 64;
/// How many keys are remembered.
const KEYS: usize = 1 << 10;
/// After so many keys that were not known and found no room, those known make room.
const MISSES: usize = 16 * KEYS;
/// Whole numbers of so many characters fit into 64 bits.
const SHORT: usize = 18;
/// Numbers of so many digits are exactly a float, and so is the power of ten that they are divided by.
const EXACT: usize = 15;
const POWERS: [f64; EXACT + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Up to 32 bytes: no two of the same length have the same words.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Words {
    length: usize,
    words: [u64; 4],
}

impl Words {
    #[inline]
    fn of(text: &[u8]) -> Self {
        let length = text.len();
        let at = |at| word(text, at).unwrap_or_default();
        let words = match length {
            // The last ones overlap those before them.
            17.. => [at(0), at(8), at(length - 16), at(length - 8)],
            8.. => [at(0), at(length - 8), 0, 0],
            _ => {
                let all = text
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte));
                [all, 0, 0, 0]
            }
        };
        Self { length, words }
    }

    /// Where it is looked for.
    #[inline]
    fn place(&self) -> usize {
        // Nearest to the golden ratio's part of 2^64: neighbours end up far from each other.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let [first, second, third, fourth] = self.words;
        let mix = |mixed: u64, word: u64| (mixed.rotate_left(29) ^ word).wrapping_mul(SPREAD);
        let mut mixed = mix(mix(self.length as u64, first), second);
        if self.length > 16 {
            mixed = mix(mix(mixed, third), fourth);
        }
        #[allow(clippy::cast_possible_truncation)]
        // The highest bits are the best mixed, and no more than there are places.
        let place = (mixed >> (u64::BITS - PLACES.ilog2())) as usize;
        place
    }
}

struct Key {
    /// With the quote that ends it: the first eight bytes, which of them count, and the others.
    head: u64,
    mask: u64,
    rest: Box<[u8]>,
    length: usize,
    text: Py<PyString>,
    /// The key that came behind it the last time.
    next: u16,
}

impl Key {
    fn new(quoted: &[u8], text: Py<PyString>) -> Self {
        let (head, rest) = quoted.split_at(quoted.len().min(8));
        let mut bytes = [0; 8];
        bytes[..head.len()].copy_from_slice(head);
        let mut counts = [0; 8];
        counts[..head.len()].fill(0xff);
        Self {
            head: u64::from_le_bytes(bytes),
            mask: u64::from_le_bytes(counts),
            rest: rest.into(),
            length: quoted.len(),
            text,
            next: 0,
        }
    }

    /// Whether it stands at `at`; not known at the very end of the text.
    #[inline]
    fn stands_at(&self, text: &[u8], at: usize) -> bool {
        word(text, at).is_some_and(|word| (word ^ self.head) & self.mask == 0)
            && (self.rest.is_empty() || text[at + 8..].starts_with(&self.rest))
    }
}

type Known = (Words, Py<PyString>);

/// What was read before.
struct Memory {
    strings: Box<[Option<Known>]>,
    /// The first is none: it comes before all others.
    keys: Vec<Key>,
    /// By a key's place, its number.
    places: Box<[u16]>,
    misses: usize,
}

/// Whoever comes while it is in use goes without: a finaliser that the collector runs in the middle, or a thread meanwhile.
static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

impl Memory {
    fn new(py: Python<'_>) -> Self {
        Self {
            strings: (0..PLACES).map(|_| None).collect(),
            keys: vec![Key::new(b"\0", PyString::new(py, "").unbind())],
            places: vec![0; PLACES].into(),
            misses: 0,
        }
    }

    /// Those that are known may be of jobs that come no more. Not while something is read: keys are meant by their numbers.
    fn make_room(&mut self) {
        if self.misses > MISSES {
            self.keys.truncate(1);
            self.keys[0].next = 0;
            self.places.fill(0);
            self.misses = 0;
        }
    }
}

enum Found<'py> {
    Known(usize),
    New(Bound<'py, PyString>),
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Not as wide as `at`: both would be read as one that was written as two, which the processor has to wait for.
    depth: u32,
    /// The items of all lists that are being read.
    items: Vec<Bound<'py, PyAny>>,
    /// What a string with escapes says.
    said: String,
    memory: &'a mut Memory,
    /// The key that was read last.
    last: usize,
}

/// Reads JSON text; `None` for what is to be left to the stdlib: what is no JSON, or is nothing that machines write.
pub(crate) fn read<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut shared = match MEMORY.try_lock() {
        Ok(memory) => Some(memory),
        Err(TryLockError::Poisoned(memory)) => Some(memory.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    let mut own = None;
    let memory = shared.as_deref_mut().unwrap_or(&mut own);
    let memory = memory.get_or_insert_with(|| Memory::new(py));
    memory.make_room();
    let mut reader = Reader {
        py,
        text,
        bytes: text.as_bytes(),
        at: 0,
        depth: 0,
        items: Vec::new(),
        said: String::new(),
        memory,
        last: 0,
    };
    let value = reader.value()?;
    (skip_blanks(reader.bytes, reader.at) == reader.bytes.len()).then_some(value)
}

impl<'py> Reader<'_, 'py> {
    /// The next byte that is no blank.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        self.at = skip_blanks(self.bytes, self.at);
        self.bytes.get(self.at).copied()
    }

    fn value(&mut self) -> Option<Bound<'py, PyAny>> {
        match self.peek()? {
            b'"' => self.string().map(Bound::into_any),
            b'{' => self.object(),
            b'[' => self.array(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", PyBool::new(self.py, true).to_owned().into_any()),
            b'f' => self.word("false", PyBool::new(self.py, false).to_owned().into_any()),
            b'n' => self.word("null", self.py.None().into_bound(self.py)),
            _ => None,
        }
    }

    fn word(&mut self, word: &str, value: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        self.at = word_end(self.bytes, self.at, word)?;
        Some(value)
    }

    fn number(&mut self) -> Option<Bound<'py, PyAny>> {
        let (end, is_whole) = number_end(self.bytes, self.at)?;
        let text = &self.text[self.at..end];
        let (digits, is_negative) = match text.strip_prefix('-') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        self.at = end;
        if !is_whole {
            let value = exact(digits).map(|value| if is_negative { -value } else { value });
            // Either is the float that is nearest.
            let value = value.or_else(|| text.parse().ok())?;
            return Some(PyFloat::new(self.py, value).into_any());
        }
        if text.len() > SHORT {
            // What it refuses the stdlib refuses as well, and says why.
            return self.py.get_type::<PyInt>().call1((text,)).ok();
        }
        let add = |value: i64, digit| value * 10 + i64::from(digit - b'0');
        let value = digits.bytes().fold(0, add);
        let value = if is_negative { -value } else { value };
        let Ok(value) = value.into_pyobject(self.py);
        Some(value.into_any())
    }

    /// Where the plain string ends whose content begins here; none where it has escapes, or no end.
    #[inline]
    fn plain_string(&self) -> Option<usize> {
        let end = plain_end(self.bytes, self.at);
        (self.bytes.get(end) == Some(&b'"')).then_some(end)
    }

    #[inline]
    fn string(&mut self) -> Option<Bound<'py, PyString>> {
        self.at += 1;
        let Some(end) = self.plain_string() else {
            return self.escaped();
        };
        let text = &self.text[self.at..end];
        self.at = end + 1;
        Some(remembered(self.py, &mut self.memory.strings, text))
    }

    fn escaped(&mut self) -> Option<Bound<'py, PyString>> {
        self.said.clear();
        self.at = unescape(self.text, self.at, &mut self.said)?;
        Some(remembered(self.py, &mut self.memory.strings, &self.said))
    }

    #[inline]
    fn key(&mut self) -> Option<Found<'py>> {
        self.at += 1;
        let next = usize::from(self.memory.keys[self.last].next);
        let expected = &self.memory.keys[next];
        if expected.stands_at(self.bytes, self.at) {
            self.at += expected.length;
            self.last = next;
            return Some(Found::Known(next));
        }
        self.other_key()
    }

    /// A key that is not the one that came here the last time.
    fn other_key(&mut self) -> Option<Found<'py>> {
        let Some(end) = self.plain_string() else {
            return self.escaped().map(Found::New);
        };
        let (text, quoted) = (&self.text[self.at..end], &self.bytes[self.at..=end]);
        let begin = self.at;
        self.at = end + 1;
        if text.len() > LONGEST_KEY {
            return Some(Found::New(PyString::new(self.py, text)));
        }
        let memory = &mut *self.memory;
        let place = &mut memory.places[Words::of(text.as_bytes()).place()];
        let known = &memory.keys[usize::from(*place)];
        if !(known.length == quoted.len() && known.stands_at(self.bytes, begin)) {
            let made = PyString::new(self.py, text);
            // As many as there are numbers for.
            let Some(number) = u16::try_from(memory.keys.len())
                .ok()
                .filter(|number| usize::from(*number) < KEYS)
            else {
                memory.misses += 1;
                return Some(Found::New(made));
            };
            *place = number;
            memory.keys.push(Key::new(quoted, made.unbind()));
        }
        memory.keys[self.last].next = *place;
        self.last = usize::from(*place);
        Some(Found::Known(self.last))
    }

    fn enter(&mut self) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        (self.depth <= DEEPEST).then_some(())
    }

    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    fn object(&mut self) -> Option<Bound<'py, PyAny>> {
        self.enter()?;
        let dict = PyDict::new(self.py);
        let mut next = self.peek()?;
        while next != b'}' {
            if next != b'"' {
                return None;
            }
            let key = self.key()?;
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            let value = self.value()?;
            match &key {
                Found::Known(number) => {
                    let key = self.memory.keys[*number].text.bind(self.py);
                    dict.set_item(key, value)
                }
                Found::New(key) => dict.set_item(key, value),
            }
            .ok()?;
            next = self.next_of(b'}')?;
        }
        self.leave();
        Some(dict.into_any())
    }

    fn array(&mut self) -> Option<Bound<'py, PyAny>> {
        self.enter()?;
        let first = self.items.len();
        let mut next = self.peek()?;
        while next != b']' {
            let value = self.value()?;
            self.items.push(value);
            next = self.next_of(b']')?;
        }
        self.leave();
        let list = PyList::new(self.py, self.items.drain(first..)).ok()?;
        Some(list.into_any())
    }

    /// What stands where the next of a container stands, or its end, after one of it was read.
    #[inline]
    fn next_of(&mut self, end: u8) -> Option<u8> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                // An end here would be one too early.
                self.peek().filter(|next| *next != end)
            }
            next if next == end => Some(end),
            _ => None,
        }
    }
}

/// A string, which may be one that was read before: many are names of kinds, states, languages. Such a one costs a third of
/// a new one.
#[inline]
fn remembered<'py>(
    py: Python<'py>,
    strings: &mut [Option<Known>],
    text: &str,
) -> Bound<'py, PyString> {
    if text.len() > LONGEST {
        return PyString::new(py, text);
    }
    let words = Words::of(text.as_bytes());
    let place = &mut strings[words.place()];
    if let Some((known, text)) = place
        && *known == words
    {
        return text.bind(py).clone();
    }
    let made = PyString::new(py, text);
    *place = Some((words, made.clone().unbind()));
    made
}

/// The float that `digits` are, a point among them, where that can be told by a division of two whole numbers.
#[inline]
fn exact(digits: &str) -> Option<f64> {
    if digits.len() > EXACT + 1 {
        return None;
    }
    let (mut value, mut after) = (0u64, None);
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(byte - b'0');
                after = after.map(|digits| digits + 1);
            }
            b'.' => after = Some(0usize),
            _ => return None,
        }
    }
    #[allow(clippy::cast_precision_loss)] // Of so few digits none is lost.
    Some(value as f64 / POWERS[after?])
}
