//! Python values to JSON text and back.
//!
//! The text is what other clients of the queue read, so a value that JSON cannot hold is refused
//! here, with the place where it stands. The stdlib would write `NaN`, which no other client can
//! parse, and other fast writers put `null` in its place without a word.

use std::fmt::Write as _;

use pyo3::exceptions::{PyRecursionError, PyUnicodeEncodeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use toromq_core::json::plain_end;

use crate::json_reader;

pyo3::import_exception!(toromq.errors, SerializationError);

/// Values nested deeper than this are refused.
///
/// Because the reader must take what the writer gives: the stdlib reader, which reads what goes
/// beyond the fast one, shares Python's recursion limit of 1,000 with the program that calls it.
const MAX_DEPTH: usize = 512;

/// Room for a small payload, so that it is written without growing the buffer.
const INITIAL_CAPACITY: usize = 128;

/// The longest path shown in a message; a deeply nested value has one that nobody reads.
const MAX_PATH_CHARS: usize = 160;

/// Writes a Python value as JSON text, without blanks.
///
/// Takes dict, list, tuple, str, int, float, bool and None, and their subclasses. Keys that are
/// int, float, bool or None become text the way Python's own `json` does it. `root` is what the
/// path in an error message begins with, such as `data`.
///
/// # Errors
///
/// `SerializationError` for what JSON cannot hold: NaN, infinities, lone surrogates, values that
/// contain themselves, values nested too deep, and every other type.
pub(crate) fn to_json(py: Python<'_>, value: &Bound<'_, PyAny>, root: &str) -> PyResult<Vec<u8>> {
    let mut writer = Writer {
        py,
        text: Vec::with_capacity(INITIAL_CAPACITY),
        open: Vec::new(),
    };
    match writer.value(value) {
        Ok(()) => Ok(writer.text),
        Err(refusal) => Err(refusal.into_error(root)),
    }
}

/// Reads JSON text into Python values, with whole numbers of any size.
///
/// Reads all that Python's own `json` reads, including the lone surrogates that Node writes as
/// escapes and the `NaN` that the stdlib writes: a worker must be able to take any job that another
/// client could add. Of equal keys the last wins.
///
/// # Errors
///
/// `SerializationError` when the text is not JSON.
pub(crate) fn from_json<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // The fast reader knows only what it is sure of; the stdlib has the last word.
    json_reader::read(py, text).map_or_else(
        || from_json_by_stdlib(py, text).map_err(|error| unreadable(py, error)),
        Ok,
    )
}

fn from_json_by_stdlib<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // Decoded here, because `json.loads` guesses at UTF-16 when it is given bytes.
    let text =
        PyBytes::new(py, text).call_method1(intern!(py, "decode"), ("utf-8", "surrogatepass"))?;
    py.import(intern!(py, "json"))?
        .call_method1(intern!(py, "loads"), (text,))
}

fn unreadable(py: Python<'_>, cause: PyErr) -> PyErr {
    let message = if cause.is_instance_of::<PyRecursionError>(py) {
        "the JSON text is nested too deep to be read".to_owned()
    } else if cause.is_instance_of::<PyValueError>(py) {
        format!("the text is not JSON: {}", cause.value(py))
    } else {
        // Out of memory or interrupted: not a matter of the text.
        return cause;
    };
    let error = SerializationError::new_err(message);
    error.set_cause(py, Some(cause));
    error
}

struct Writer<'py> {
    py: Python<'py>,
    text: Vec<u8>,
    /// The identities of the containers being written, outermost first.
    open: Vec<usize>,
}

impl<'py> Writer<'py> {
    fn value(&mut self, value: &Bound<'py, PyAny>) -> Written {
        // Exact types first: they are nearly all there is, and each check is one comparison.
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.string(text)
        } else if let Ok(number) = value.cast_exact::<PyInt>() {
            self.int(number)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict)
        } else if value.is_none() {
            self.literal("null")
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.literal(if truth.is_true() { "true" } else { "false" })
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.float(number)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.array(value, list.iter())
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.array(value, tuple.iter())
        } else {
            self.value_of_subclass(value)
        }
    }

    /// `StrEnum` and `IntEnum` members, named tuples, ordered dicts and the like.
    fn value_of_subclass(&mut self, value: &Bound<'py, PyAny>) -> Written {
        if let Ok(text) = value.cast::<PyString>() {
            self.string(text)
        } else if let Ok(number) = value.cast::<PyInt>() {
            self.int(number)
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.float(number)
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.dict(dict)
        } else if let Ok(list) = value.cast::<PyList>() {
            self.array(value, list.iter())
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.array(value, tuple.iter())
        } else {
            Err(Refusal::of_type(value))
        }
    }

    fn literal(&mut self, text: &str) -> Written {
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, value: &Bound<'py, PyString>) -> Written {
        write_string(&mut self.text, utf8(value, "the text")?);
        Ok(())
    }

    fn int(&mut self, value: &Bound<'py, PyInt>) -> Written {
        if let Ok(number) = value.extract::<i64>() {
            let mut buffer = itoa::Buffer::new();
            return self.literal(buffer.format(number));
        }
        let digits = int_text(value)?;
        self.literal(digits.to_str()?)
    }

    fn float(&mut self, value: &Bound<'py, PyFloat>) -> Written {
        let number = value.value();
        check_finite(number)?;
        let mut buffer = ryu::Buffer::new();
        self.literal(buffer.format_finite(number))
    }

    fn array(
        &mut self,
        container: &Bound<'py, PyAny>,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> Written {
        self.enter(container)?;
        self.text.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            self.value(&item)
                .map_err(|refusal| refusal.inside(Step::Index(index)))?;
        }
        self.text.push(b']');
        self.open.pop();
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>) -> Written {
        self.enter(dict.as_any())?;
        self.text.push(b'{');
        let mut is_first = true;
        for (key, value) in dict.iter() {
            if !is_first {
                self.text.push(b',');
            }
            is_first = false;
            self.key(&key)?;
            self.text.push(b':');
            self.value(&value)
                .map_err(|refusal| refusal.inside(Step::key(&key)))?;
        }
        self.text.push(b'}');
        self.open.pop();
        Ok(())
    }

    fn key(&mut self, key: &Bound<'py, PyAny>) -> Written {
        if let Ok(text) = key.cast::<PyString>() {
            write_string(&mut self.text, utf8(text, "a key")?);
            return Ok(());
        }
        // None of these texts has anything to escape.
        self.text.push(b'"');
        if key.is_none() {
            self.literal("null")?;
        } else if let Ok(truth) = key.cast::<PyBool>() {
            self.literal(if truth.is_true() { "true" } else { "false" })?;
        } else if let Ok(number) = key.cast::<PyInt>() {
            self.int(number)?;
        } else if let Ok(number) = key.cast::<PyFloat>() {
            check_finite(number.value())?;
            // A key is text for its readers, so it must be spelled as Python's `json` spells it.
            let text = self
                .py
                .get_type::<PyFloat>()
                .call_method1(intern!(self.py, "__repr__"), (number,))?;
            self.literal(text.cast::<PyString>().map_err(PyErr::from)?.to_str()?)?;
        } else {
            let message = format!("a key of type {} is not JSON; use a str", type_name(key));
            return Err(Refusal::new(message));
        }
        self.text.push(b'"');
        Ok(())
    }

    /// Notes that a container has been begun, unless it is being written already.
    fn enter(&mut self, container: &Bound<'py, PyAny>) -> Written {
        let identity = container.as_ptr().addr();
        if self.open.contains(&identity) {
            return Err(Refusal::new(
                "the value contains itself; JSON has no references",
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Refusal::new(format!(
                "the value is nested deeper than {MAX_DEPTH} levels"
            )));
        }
        self.open.push(identity);
        Ok(())
    }
}

fn utf8<'a>(text: &'a Bound<'_, PyString>, what: &str) -> Result<&'a str, Refusal> {
    text.to_str().map_err(|error| {
        if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
            Refusal::new(format!(
                "{what} has a lone surrogate, which UTF-8 cannot hold"
            ))
        } else {
            error.into()
        }
    })
}

fn check_finite(number: f64) -> Written {
    let name = if number.is_nan() {
        "NaN"
    } else if number == f64::INFINITY {
        "Infinity"
    } else if number == f64::NEG_INFINITY {
        "-Infinity"
    } else {
        return Ok(());
    };
    Err(Refusal::new(format!(
        "{name} is not JSON; use None or a string"
    )))
}

/// The digits of an integer that does not fit into 64 bits.
fn int_text<'py>(value: &Bound<'py, PyInt>) -> Result<Bound<'py, PyString>, Refusal> {
    let py = value.py();
    // Of `int` itself, because an enumeration member has a `__repr__` of its own.
    let text = py
        .get_type::<PyInt>()
        .call_method1(intern!(py, "__repr__"), (value,));
    match text {
        Ok(text) => Ok(text.cast_into::<PyString>().map_err(PyErr::from)?),
        // Python limits the digits it will convert, since the time grows with their square.
        Err(error) if error.is_instance_of::<PyValueError>(py) => Err(Refusal::new(
            "the integer has too many digits to be converted; use a string",
        )),
        Err(error) => Err(error.into()),
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut written = 0;
    loop {
        let end = plain_end(bytes, written);
        out.extend_from_slice(&bytes[written..end]);
        let Some(byte) = bytes.get(end) else {
            break;
        };
        write_escape(out, *byte);
        written = end + 1;
    }
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

type Written = Result<(), Refusal>;

/// Why a value cannot be written, and where it stands.
///
/// In a box, because nearly every call succeeds and should not move a large result around.
struct Refusal(Box<RefusalParts>);

struct RefusalParts {
    reason: Reason,
    /// The way from the value to the root, so innermost first.
    steps: Vec<Step>,
}

enum Reason {
    /// JSON cannot hold the value.
    NotJson(String),
    /// Python failed on the way: out of memory, or interrupted.
    Python(PyErr),
}

enum Step {
    Key(String),
    Index(usize),
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self::from_reason(Reason::NotJson(message.into()))
    }

    fn from_reason(reason: Reason) -> Self {
        Self(Box::new(RefusalParts {
            reason,
            steps: Vec::new(),
        }))
    }

    fn of_type(value: &Bound<'_, PyAny>) -> Self {
        let name = type_name(value);
        let hint = hint_for(value).unwrap_or("use dict, list, str, int, float, bool or None");
        Self::new(format!("a value of type {name} is not JSON; {hint}"))
    }

    fn inside(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    fn into_error(self, root: &str) -> PyErr {
        match self.0.reason {
            Reason::Python(error) => error,
            Reason::NotJson(message) => {
                let path = path_text(root, &self.0.steps);
                SerializationError::new_err(format!("{path}: {message}"))
            }
        }
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::from_reason(Reason::Python(error))
    }
}

impl Step {
    fn key(key: &Bound<'_, PyAny>) -> Self {
        // A key that has been written can be shown; the empty text is for the compiler.
        Self::Key(
            key.str()
                .map(|text| text.to_string_lossy().into_owned())
                .unwrap_or_default(),
        )
    }
}

/// `data.items[3]["unit price"]`
fn path_text(root: &str, steps: &[Step]) -> String {
    let mut path = root.to_owned();
    for step in steps.iter().rev() {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(key) if is_identifier(key) => write!(path, ".{key}"),
            Step::Key(key) => write!(path, "[{key:?}]"),
        };
    }
    if let Some((cut, _)) = path.char_indices().nth(MAX_PATH_CHARS) {
        path.truncate(cut);
        path.push_str("...");
    }
    path
}

fn is_identifier(key: &str) -> bool {
    let is_start = |c: char| c.is_alphabetic() || c == '_';
    key.starts_with(is_start) && key.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().qualname();
    name.map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What to write instead of a value of a well-known type.
///
/// Found by name, so that nothing is imported that the program does not use.
fn hint_for(value: &Bound<'_, PyAny>) -> Option<&'static str> {
    let bases = value.get_type().mro();
    bases.iter().find_map(|base| {
        let base = base.cast_into::<PyType>().ok()?;
        let (module, name) = (base.module().ok()?, base.name().ok()?);
        let package = module.to_str().ok()?.split('.').next()?;
        match (package, name.to_str().ok()?) {
            ("builtins", "bytes" | "bytearray" | "memoryview") => {
                Some("use bytes.decode(), or base64 for what is not text")
            }
            ("builtins", "set" | "frozenset") => Some("use list(value)"),
            ("datetime", "date" | "time") => Some("use value.isoformat()"),
            ("datetime", "timedelta") => Some("use value.total_seconds()"),
            ("uuid", "UUID") | ("decimal", "Decimal") | ("pathlib", "PurePath") => {
                Some("use str(value)")
            }
            ("enum", "Enum") => Some("use value.value"),
            _ => None,
        }
    })
}
