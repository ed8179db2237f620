//! Time zones by name, and the way from a wall clock's reading to the moment it means.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::CronError;

pub(super) const DAY: i64 = 86_400;

/// A zone of the database compiled in, or a constant difference from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    Named(Tz),
    Fixed(i32),
}

impl Zone {
    /// `Europe/Stockholm` in any case, or `UTC+2`, `utc-3:30`.
    pub(super) fn parse(name: &str) -> Result<Self, CronError> {
        let by_name = || {
            let of_any_case = |zone: &&Tz| zone.name().eq_ignore_ascii_case(name);
            name.parse()
                .ok()
                .or_else(|| TZ_VARIANTS.iter().find(of_any_case).copied())
        };
        // Node does not know it: it stands in the database for a machine whose zone was never set.
        if name.eq_ignore_ascii_case("Factory") {
            return Err(unknown(name));
        }
        by_name()
            .map(Self::Named)
            .or_else(|| fixed(name).map(Self::Fixed))
            .ok_or_else(|| unknown(name))
    }

    /// Seconds ahead of UTC at a moment; `None` beyond what the calendar reaches.
    pub(super) fn offset(&self, utc: i64) -> Option<i32> {
        match self {
            Self::Fixed(seconds) => Some(*seconds),
            Self::Named(zone) => {
                let moment = DateTime::from_timestamp(utc, 0)?.naive_utc();
                Some(
                    zone.offset_from_utc_datetime(&moment)
                        .fix()
                        .local_minus_utc(),
                )
            }
        }
    }

    pub(super) fn at(&self, utc: i64) -> Option<Moment> {
        Some(Moment {
            utc,
            offset: self.offset(utc)?,
        })
    }

    /// The moment a wall clock shows `local`, when its offset was `guess` a little before.
    ///
    /// If it shows that twice, `guess` tells which is meant; if it never does, the reading is taken as that many seconds
    /// after the one before the gap. This is what luxon does, on which Node's cron stands.
    pub(super) fn moment_of(&self, local: i64, guess: i32) -> Option<Moment> {
        let first = local - i64::from(guess);
        let second_offset = self.offset(first)?;
        if second_offset == guess {
            return Some(Moment {
                utc: first,
                offset: guess,
            });
        }
        let second = local - i64::from(second_offset);
        let third_offset = self.offset(second)?;
        if third_offset == second_offset {
            return Some(Moment {
                utc: second,
                offset: second_offset,
            });
        }
        Some(Moment {
            utc: local - i64::from(second_offset.min(third_offset)),
            offset: second_offset.max(third_offset),
        })
    }
}

/// A moment, and how far the wall clocks are ahead of UTC then; all in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) utc: i64,
    pub(super) offset: i32,
}

impl Moment {
    /// What the wall clock shows, as if it were UTC.
    pub(super) fn local(self) -> i64 {
        self.utc + i64::from(self.offset)
    }

    /// Days since 1970 on the wall.
    pub(super) fn day(self) -> i64 {
        self.local().div_euclid(DAY)
    }

    /// Seconds since the wall clock's midnight.
    pub(super) fn of_day(self) -> u32 {
        u32::try_from(self.local().rem_euclid(DAY)).unwrap_or(0)
    }

    pub(super) fn hour(self) -> u32 {
        self.of_day() / 3600
    }

    pub(super) fn minute(self) -> u32 {
        self.of_day() / 60 % 60
    }

    pub(super) fn second(self) -> u32 {
        self.of_day() % 60
    }
}

fn fixed(name: &str) -> Option<i32> {
    let prefix = name
        .get(..3)
        .filter(|prefix| prefix.eq_ignore_ascii_case("utc"))?;
    let rest = &name[prefix.len()..];
    let (sign, rest) = match rest.as_bytes().first()? {
        b'+' => (1, &rest[1..]),
        b'-' => (-1, &rest[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "00"));
    let number = |text: &str, least: usize| {
        let digits =
            (least..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i32>().ok()).flatten()
    };
    Some(sign * (number(hours, 1)? * 3600 + number(minutes, 2)? * 60))
}

fn unknown(name: &str) -> CronError {
    let wanted = name.to_ascii_lowercase().replace(' ', "_");
    let city = |zone: &&Tz| {
        let zone = zone.name().to_ascii_lowercase();
        !wanted.is_empty() && (zone.rsplit('/').next() == Some(&wanted))
    };
    CronError::Zone {
        given: name.to_owned(),
        allowed: "it must be a name of the IANA database, like Europe/Stockholm or UTC, or a difference like UTC+2",
        hint: TZ_VARIANTS
            .iter()
            .find(city)
            .map(|zone| format!("; did you mean {}?", zone.name()))
            .unwrap_or_default(),
    }
}
