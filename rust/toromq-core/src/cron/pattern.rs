//! The text of a pattern as the values of its fields.
//!
//! In the reference `*`, `?`, `H` and names stand for the text of the numbers they mean, and what comes out is read. So is it
//! here, since a pattern that Node's workers take must not stop at ours: `5*` is `50-59`, for better or worse.

use chrono::{Datelike, NaiveDate};

use super::{CronError, seed::Draws};

/// The values of a pattern's fields, as bits, and what else decides about a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) seconds: u64,
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) months: u64,
    days: u64,
    last_day: bool,
    weekdays: u64,
    last_weekdays: u64,
    nth: Nth,
    any_day: bool,
    any_weekday: bool,
}

/// Which of a month's Mondays, say, are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Nth {
    #[default]
    Every,
    The(u32),
    /// `1#1.5`, which the reference takes.
    None,
}

pub(super) fn has(bits: u64, value: u32) -> bool {
    value < 64 && bits >> value & 1 == 1
}

impl Fields {
    pub(super) fn parse(pattern: &str, hash_seed: Option<&str>) -> Result<Self, CronError> {
        let about = |reason: String| CronError::Pattern {
            pattern: pattern.to_owned(),
            reason,
        };
        let text = NAMED
            .iter()
            .find_map(|(name, meaning)| (*name == pattern).then_some(*meaning));
        let given: Vec<_> = text
            .unwrap_or(pattern)
            .split(is_space)
            .filter(|field| !field.is_empty())
            .collect();
        if given.is_empty() {
            return Err(about(
                "it is empty; it must have up to 6 fields, like 0 15 3 * * *".into(),
            ));
        }
        if given[0].starts_with('@') {
            let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            return Err(about(format!(
                "the names are {}, alone and in lower case",
                names.join(", ")
            )));
        }
        if given.len() > KINDS.len() {
            let count = given.len();
            return Err(about(format!(
                "it has {count} fields, and 6 are the most: second minute hour day-of-month month day-of-week"
            )));
        }
        let mut texts = ["0", "*", "*", "*", "*", "*"];
        let missing = texts.len() - given.len();
        texts[missing..].copy_from_slice(&given);

        let refuse = |index: usize, reason: String| CronError::Field {
            pattern: pattern.to_owned(),
            field: KINDS[index].name,
            given: texts[index].to_owned(),
            reason,
        };
        let mut draws = Draws::new(hash_seed);
        let mut read = |index: usize| {
            let draw = draws.draw();
            KINDS[index]
                .read(texts[index], draw)
                .map_err(|reason| refuse(index, reason))
        };
        // In the order in which the reference draws for `H`.
        let (seconds, minutes, hours, months) = (read(0)?, read(1)?, read(2)?, read(4)?);
        let (mut days, weekdays) = (read(3)?, read(5)?);
        // The reference looks for the letter alone: it counts in `1-3L` too.
        let last_day = texts[3].contains('L');
        if months.bits.is_power_of_two() {
            // It drops the days that a single month does not have, if others are left, before it looks for repetitions.
            let there = (2 << longest(months.bits.trailing_zeros())) - 1;
            if last_day || days.bits & there != 0 {
                days.bits &= there;
                days.twice &= there;
            }
        }
        for (index, twice) in [
            seconds.twice,
            minutes.twice,
            hours.twice,
            days.twice,
            months.twice,
            weekdays.twice,
        ]
        .into_iter()
        .enumerate()
        {
            if twice != 0 {
                return Err(refuse(
                    index,
                    format!("a value stands in it twice: {}", twice.trailing_zeros()),
                ));
            }
        }
        let fields = Self {
            seconds: seconds.bits,
            minutes: minutes.bits,
            hours: hours.bits,
            months: months.bits,
            days: days.bits,
            last_day,
            weekdays: weekdays.bits,
            last_weekdays: weekdays.last_bits,
            nth: weekdays.nth,
            any_day: is_any(texts[3]),
            any_weekday: is_any(texts[5]),
        };
        // As the reference does it: a day that no month of several has is found out only by searching.
        if fields.any_weekday && fields.months.is_power_of_two() && !fields.possible() {
            let month = fields.months.trailing_zeros();
            return Err(refuse(
                3,
                format!("month {month} has {} days at most", longest(month)),
            ));
        }
        Ok(fields)
    }

    /// Whether some day of some year is meant.
    pub(super) fn possible(&self) -> bool {
        let restricted_weekday = !self.any_weekday
            && (self.last_weekdays != 0 || (self.weekdays != 0 && self.nth != Nth::None));
        let unrestricted = self.any_day && self.any_weekday;
        let lowest = self.days.trailing_zeros();
        restricted_weekday
            || unrestricted
            || (!self.any_day
                && (self.last_day
                    || (1..=12).any(|month| has(self.months, month) && lowest <= longest(month))))
    }

    pub(super) fn every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// Whether a day counts; its month is another question. Where both its fields say something, one of them is enough.
    pub(super) fn matches_day(&self, date: NaiveDate) -> bool {
        match (self.any_day, self.any_weekday) {
            (true, true) => true,
            (false, true) => self.matches_day_of_month(date),
            (true, false) => self.matches_weekday(date),
            (false, false) => self.matches_day_of_month(date) || self.matches_weekday(date),
        }
    }

    fn matches_day_of_month(&self, date: NaiveDate) -> bool {
        let length = u32::from(date.num_days_in_month());
        has(self.days, date.day()) || (self.last_day && date.day() == length)
    }

    fn matches_weekday(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        let in_time = match self.nth {
            Nth::Every => true,
            Nth::The(number) => (date.day() - 1) / 7 + 1 == number,
            Nth::None => false,
        };
        let last = date.day() + 7 > u32::from(date.num_days_in_month());
        (in_time && has(self.weekdays, weekday)) || (last && has(self.last_weekdays, weekday))
    }
}

const NAMED: [(&str, &str); 10] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
    ("@minutely", "0 * * * * *"),
    ("@secondly", "* * * * * *"),
    ("@weekdays", "0 0 0 * * 1-5"),
    ("@weekends", "0 0 0 * * 0,6"),
];

const NAMES: [(&str, u32); 19] = [
    ("jan", 1),
    ("feb", 2),
    ("mar", 3),
    ("apr", 4),
    ("may", 5),
    ("jun", 6),
    ("jul", 7),
    ("aug", 8),
    ("sep", 9),
    ("oct", 10),
    ("nov", 11),
    ("dec", 12),
    ("sun", 0),
    ("mon", 1),
    ("tue", 2),
    ("wed", 3),
    ("thu", 4),
    ("fri", 5),
    ("sat", 6),
];

/// What JavaScript splits words at.
fn is_space(character: char) -> bool {
    (character.is_whitespace() && character != '\u{85}') || character == '\u{feff}'
}

fn is_any(text: &str) -> bool {
    text == "*" || text == "?"
}

/// The days of a month in the year that has most of them.
fn longest(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[derive(Default)]
struct Values {
    bits: u64,
    /// Those that more than one item has.
    twice: u64,
    /// The weekdays of `5L`.
    last_bits: u64,
    nth: Nth,
    /// The items with an `L`.
    seen: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Extra {
    Nothing,
    Names,
    Last,
    NamesAndLast,
}

struct Kind {
    name: &'static str,
    least: u32,
    most: u32,
    extra: Extra,
}

const KINDS: [Kind; 6] = [
    Kind::new("second", 0, 59, Extra::Nothing),
    Kind::new("minute", 0, 59, Extra::Nothing),
    Kind::new("hour", 0, 23, Extra::Nothing),
    Kind::new("day-of-month", 1, 31, Extra::Last),
    Kind::new("month", 1, 12, Extra::Names),
    Kind::new("day-of-week", 0, 7, Extra::NamesAndLast),
];

impl Kind {
    const fn new(name: &'static str, least: u32, most: u32, extra: Extra) -> Self {
        Self {
            name,
            least,
            most,
            extra,
        }
    }

    fn takes_names(&self) -> bool {
        matches!(self.extra, Extra::Names | Extra::NamesAndLast)
    }

    fn takes_last(&self) -> bool {
        matches!(self.extra, Extra::Last | Extra::NamesAndLast)
    }

    fn is_weekday(&self) -> bool {
        self.extra == Extra::NamesAndLast
    }

    fn allowed(&self) -> String {
        let mut text = format!(
            "allowed are numbers from {} to {}, * ? H, ranges, lists and steps",
            self.least, self.most
        );
        text.push_str(match self.extra {
            Extra::Nothing => "",
            Extra::Names => ", and the names JAN to DEC",
            Extra::Last => ", and L for the last day",
            Extra::NamesAndLast => {
                ", the names SUN to SAT, 5L for the last Friday and 5#2 for the second"
            }
        });
        text
    }

    /// The values of one field, or what is wrong with it.
    fn read(&self, given: &str, draw: f64) -> Result<Values, String> {
        let mut values = Values::default();
        let mut text = given.to_owned();
        if self.is_weekday() && text.contains('#') {
            let (weekday, nth) = split_nth(given)?;
            values.nth = nth;
            text = weekday.to_owned();
        }
        if self.takes_names() {
            text = numbers_for_names(&text)?;
        }
        self.check_characters(&text)?;
        text = text.replace(['*', '?'], &format!("{}-{}", self.least, self.most));
        text = self.values_for_hashes(&text, draw)?;
        for item in text.split(',') {
            self.add(item, &mut values)?;
        }
        Ok(values)
    }

    fn check_characters(&self, text: &str) -> Result<(), String> {
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if let Some((_, _, after)) = hash_range(rest) {
                rest = after;
                continue;
            }
            let fits = character.is_ascii_digit()
                || "*?,/-H".contains(character)
                || (self.takes_last() && character == 'L');
            if !fits {
                return Err(format!(
                    "{character:?} has no meaning there; {}",
                    self.allowed()
                ));
            }
            rest = &rest[character.len_utf8()..];
        }
        if text.is_empty() {
            return Err(format!("there is no value; {}", self.allowed()));
        }
        Ok(())
    }

    /// Every `H`, `H(1-5)`, `H/15` and `H(0-29)/10` as the numbers it stands for, all from one draw.
    fn values_for_hashes(&self, text: &str, draw: f64) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('H') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let (mut low, mut high) = (self.least, self.most);
            if let Some((from, to, after)) = hash_range(rest) {
                if from > to {
                    return Err(format!(
                        "the range H({from}-{to}) falls; {}",
                        self.allowed()
                    ));
                }
                if from > self.most || to < self.least {
                    return Err(format!(
                        "the range H({from}-{to}) has no value in it; {}",
                        self.allowed()
                    ));
                }
                (low, high) = (from.max(self.least), to.min(self.most));
                rest = after;
            } else {
                rest = &rest[1..];
            }
            let digits = rest.strip_prefix('/').map_or(0, leading_digits);
            if digits == 0 {
                out.push_str(&drawn(low, high, draw).to_string());
                continue;
            }
            let step = number(&rest[1..=digits]);
            rest = &rest[1 + digits..];
            if step == 0 {
                return Err(format!("the step is 0; {}", self.allowed()));
            }
            let phase = scaled(step, draw);
            let listed: Vec<_> = (low..=high)
                .filter(|value| value % step == phase)
                .map(|value| value.to_string())
                .collect();
            if listed.is_empty() {
                out.push_str(&drawn(low, high, draw).to_string());
            } else {
                out.push_str(&listed.join(","));
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn add(&self, item: &str, values: &mut Values) -> Result<(), String> {
        if item.is_empty() {
            return Err(format!(
                "there is a comma without a value; {}",
                self.allowed()
            ));
        }
        let (range, step) = match item.split_once('/') {
            None => (item.to_owned(), 1),
            Some((_, step)) if step.contains('/') => {
                return Err("there are two steps in one item".to_owned());
            }
            Some((range, step)) => {
                let Some(size) = leading_number(step).filter(|size| *size > 0) else {
                    return Err(format!("the step must be a number from 1, not {step:?}"));
                };
                // From a value on, as far as the field goes.
                let open = if range.contains('-') {
                    String::new()
                } else {
                    format!("-{}", self.most)
                };
                (format!("{range}{open}"), size)
            }
        };
        let bits = match range.split_once('-') {
            Some((low, high)) => self.range(low, high, step)?,
            None if item.bytes().all(|byte| byte.is_ascii_digit()) => 1 << self.value(item)?,
            None => return self.add_last(item, values),
        };
        // Sunday is 0 and 7.
        let bits = if self.is_weekday() {
            (bits | bits >> 7) & 0x7f
        } else {
            bits
        };
        values.twice |= values.bits & bits;
        values.bits |= bits;
        Ok(())
    }

    fn range(&self, low: &str, high: &str, step: u32) -> Result<u64, String> {
        let low = self.value(low)?;
        let high = self.value(high)?;
        if low > high {
            return Err(format!("the range {low}-{high} falls; {}", self.allowed()));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        Ok((low..=high)
            .step_by(step)
            .fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let value = leading_number(text).ok_or_else(|| {
            let what = if text.is_empty() {
                "nothing".to_owned()
            } else {
                format!("{text:?}")
            };
            format!("{what} where a number must be; {}", self.allowed())
        })?;
        if (self.least..=self.most).contains(&value) {
            return Ok(value);
        }
        Err(format!(
            "{} is out of range; {}",
            text.trim_end_matches('L'),
            self.allowed()
        ))
    }

    /// `L` for the last day of the month, `5L` for its last Friday.
    fn add_last(&self, item: &str, values: &mut Values) -> Result<(), String> {
        let digits = item.strip_suffix('L').unwrap_or("?");
        if digits.len() > 2 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{item:?} is no value; {}", self.allowed()));
        }
        if values.seen.iter().any(|seen| seen == item) {
            return Err(format!("a value stands in it twice: {item}"));
        }
        values.seen.push(item.to_owned());
        if !self.is_weekday() {
            return Ok(());
        }
        // The reference looks at the first digit only.
        let Some(first) = digits.bytes().next() else {
            return Err("L needs the day it is the last of, like 5L".to_owned());
        };
        values.last_bits |= 1 << ((first - b'0') % 7);
        Ok(())
    }
}

/// `H(1-5)` at the start of a text: its bounds, and what follows.
fn hash_range(text: &str) -> Option<(u32, u32, &str)> {
    let rest = text.strip_prefix("H(")?;
    let (low, rest) = rest.split_at(leading_digits(rest));
    let rest = rest.strip_prefix('-')?;
    let (high, rest) = rest.split_at(leading_digits(rest));
    let rest = rest.strip_prefix(')')?;
    (!low.is_empty() && !high.is_empty()).then(|| (number(low), number(high), rest))
}

fn drawn(low: u32, high: u32, draw: f64) -> u32 {
    low + scaled(high - low + 1, draw)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(span: u32, draw: f64) -> u32 {
    (draw * f64::from(span)) as u32
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The number that digits spell; as good as infinite where they are many.
fn number(digits: &str) -> u32 {
    digits.parse().unwrap_or(u32::MAX)
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = leading_digits(text);
    (digits > 0).then(|| number(&text[..digits]))
}

fn numbers_for_names(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let word = rest
            .get(..3)
            .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()));
        if let Some(word) = word {
            let known = NAMES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word));
            let (_, value) = known.ok_or_else(|| {
                format!("{word:?} is no name; the names are JAN to DEC and SUN to SAT, of three letters each")
            })?;
            out.push_str(&value.to_string());
            rest = &rest[3..];
        } else {
            out.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    Ok(out)
}

/// `1#2` as its two halves.
fn split_nth(given: &str) -> Result<(&str, Nth), String> {
    if given.contains([',', '-', '/']) {
        return Err("# goes with one day only, not with lists, ranges or steps".to_owned());
    }
    let wrong =
        || "after # there must be a number from 1 to 5, like 1#2 for the second Monday".to_owned();
    let (weekday, number) = given.split_once('#').ok_or_else(wrong)?;
    let number = javascript_number(number).filter(|number| (1.0..=5.0).contains(number));
    let number = number.ok_or_else(wrong)?;
    let nth = (1..=5).find(|nth| f64::from(*nth) == number);
    Ok((weekday, nth.map_or(Nth::None, Nth::The)))
}

/// A number in any spelling JavaScript takes, of those without a sign in front or a minus.
fn javascript_number(text: &str) -> Option<f64> {
    let prefixed = |prefix: &str, radix| {
        let head = text
            .get(..2)
            .filter(|head| head.eq_ignore_ascii_case(prefix))?;
        u32::from_str_radix(&text[head.len()..], radix)
            .ok()
            .map(f64::from)
    };
    if let Some(number) = prefixed("0x", 16)
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0b", 2))
    {
        return Some(number);
    }
    // What Rust would read and JavaScript would not: `inf`, `nan` are out of range for the caller in any case.
    text.parse().ok()
}
