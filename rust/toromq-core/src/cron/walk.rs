//! The search for the next time, from field to field, by the wall clock of the zone.
//!
//! Where clocks do not change it leaps from one listed value to the next. Across a change it goes by the real time that
//! passes, as Node does, and what it meets decides: an hour that does not exist is stood for by the one after it, and an
//! hour that comes twice counts once, unless the pattern takes every hour. The day begins where `Zone::moment_of` says it
//! does, so a midnight that does not exist takes the runs of that hour with it.

use chrono::{Datelike, NaiveDate};

use super::{
    pattern::{Fields, has},
    zone::{DAY, Moment, Zone},
};

/// Farther than any two days of a pattern lie apart: 29 February falls on a given weekday after 40 years at most.
const YEARS: i32 = 100;

/// The first whole second after `ms` that the fields match, and whether its hour stands in for one that does not exist.
pub(super) fn next_after(fields: &Fields, zone: &Zone, ms: i64) -> Option<(Moment, bool)> {
    if !fields.possible() {
        return None;
    }
    let utc = ms.div_euclid(1000);
    let start = zone.at(utc)?;
    let last_year = date(start.day())?.year().saturating_add(YEARS);
    let mut walk = Walk {
        zone,
        at: start,
        stands_in: None,
        repeated: None,
    };
    // Within a second the reference begins with the next one; else with the moment itself, which it then passes over.
    if ms.rem_euclid(1000) != 0 {
        walk.step(1, false, fields)?;
    }
    loop {
        let before = walk.at.utc;
        let today = date(walk.at.day())?;
        if today.year() > last_year {
            return None;
        }
        let hour = walk.at.hour();
        let listed = has(fields.hours, hour) || walk.stands_in == Some(hour);
        let again = listed && !fields.every_hour() && walk.repeated == Some(hour);
        if !has(fields.months, today.month()) {
            walk.next_month(today)?;
        } else if !fields.matches_day(today) {
            walk.next_day()?;
        } else if again || !listed {
            walk.repeated = walk.repeated.filter(|_| !again);
            walk.next_hour(fields)?;
        } else if !has(fields.minutes, walk.at.minute()) {
            walk.next_minute(fields)?;
        } else if !has(fields.seconds, walk.at.second()) || walk.at.utc == utc {
            walk.next_second(fields)?;
        } else {
            return Some((walk.at, !has(fields.hours, hour)));
        }
        if walk.at.utc <= before {
            // No day or hour that came twice may hold the search up.
            walk.at = zone.at(before + 1)?;
        }
    }
}

struct Walk<'a> {
    zone: &'a Zone,
    at: Moment,
    /// The hour that stands for one that does not exist.
    stands_in: Option<u32>,
    /// The hour that the clocks were put back to: where it is met it has been there before. It is passed over once, be it on
    /// a later day, as in the reference.
    repeated: Option<u32>,
}

impl Walk<'_> {
    fn next_month(&mut self, today: NaiveDate) -> Option<()> {
        let (year, month) = match today.month() {
            12 => (today.year().checked_add(1)?, 1),
            month => (today.year(), month + 1),
        };
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let length = i64::from(first.num_days_in_month());
        let clamped = day_number(first) + i64::from(today.day()).min(length) - 1;
        self.begin_day(clamped, day_number(first))
    }

    fn next_day(&mut self) -> Option<()> {
        let tomorrow = self.at.day() + 1;
        let same_time = tomorrow * DAY + i64::from(self.at.of_day());
        let there = self.zone.moment_of(same_time, self.at.offset)?;
        self.begin(self.zone.moment_of(there.day() * DAY, there.offset)?)
    }

    /// Goes to the start of `day`, by way of the present time of day on `through`, whose offset decides.
    fn begin_day(&mut self, through: i64, day: i64) -> Option<()> {
        let same_time = through * DAY + i64::from(self.at.of_day());
        let there = self.zone.moment_of(same_time, self.at.offset)?;
        self.begin(self.zone.moment_of(day * DAY, there.offset)?)
    }

    fn begin(&mut self, start: Moment) -> Option<()> {
        self.at = start;
        self.stands_in = None;
        Some(())
    }

    fn next_hour(&mut self, fields: &Fields) -> Option<()> {
        let hour = self.at.hour();
        let Some(listed) = next_bit(fields.hours, hour) else {
            return self.next_day();
        };
        let begun = i64::from(self.at.of_day() % 3600);
        if self.leap(i64::from(listed - hour) * 3600 - begun, 3600)? {
            return Some(());
        }
        let before = self.at;
        self.step(3600, listed - hour > 1, fields)?;
        // A gap that ends at midnight takes the runs of its hour with it, unless the hour before it has runs too.
        self.stands_in = self.stands_in.filter(|_| self.at.day() == before.day());
        if has(fields.hours, self.at.hour()) {
            self.settle_minute(before, fields)?;
        }
        Some(())
    }

    /// Goes, within the hour reached, to its first listed minute; or where that leads if there is no such minute.
    fn settle_minute(&mut self, before: Moment, fields: &Fields) -> Option<()> {
        let local = self.at.local();
        let first = i64::from(fields.minutes.trailing_zeros());
        let hour = local - local.rem_euclid(3600);
        let there = self.zone.moment_of(hour + first * 60, self.at.offset)?;
        if there.utc > before.utc {
            self.at = there;
        }
        Some(())
    }

    fn next_minute(&mut self, fields: &Fields) -> Option<()> {
        let minute = self.at.minute();
        let begun = i64::from(self.at.second());
        if let Some(listed) = next_bit(fields.minutes, minute) {
            if !self.leap(i64::from(listed - minute) * 60 - begun, 60)? {
                let hour = self.at.local() - self.at.local().rem_euclid(3600);
                let there = self
                    .zone
                    .moment_of(hour + i64::from(listed) * 60, self.at.offset)?;
                if there.utc > self.at.utc {
                    self.arrive(there);
                } else {
                    self.step(60, false, fields)?;
                }
            }
            return Some(());
        }
        // The next hour, at once at its first listed minute: what the next step makes of a change depends on it.
        let first = i64::from(fields.minutes.trailing_zeros());
        if !self.leap((i64::from(60 - minute) + first) * 60 - begun, 3600)? {
            let before = self.at;
            self.step(3600, false, fields)?;
            self.settle_minute(before, fields)?;
        }
        Some(())
    }

    fn next_second(&mut self, fields: &Fields) -> Option<()> {
        let second = self.at.second();
        let listed = next_bit(fields.seconds, second);
        let unit = if listed.is_some() { 1 } else { 60 };
        if self.leap(i64::from(listed.unwrap_or(60) - second), unit)? {
            return Some(());
        }
        self.step(unit, false, fields)
    }

    /// Goes `seconds` on if the clocks do not change on the way, nor before a `unit` has passed, which is how a step goes.
    fn leap(&mut self, seconds: i64, unit: i64) -> Option<bool> {
        let there = self.zone.at(self.at.utc.checked_add(seconds)?)?;
        if there.offset != self.at.offset
            || self.zone.offset(self.at.utc.checked_add(unit)?)? != self.at.offset
        {
            return Some(false);
        }
        self.arrive(there);
        Some(true)
    }

    /// Goes on by one unit of real time, then to the unit's start on the wall clock.
    fn step(&mut self, unit: i64, far: bool, fields: &Fields) -> Option<()> {
        let before = self.at;
        let there = self.zone.at(before.utc.checked_add(unit)?)?;
        let start = there.local() - there.local().rem_euclid(unit);
        let mut there = self.zone.moment_of(start, there.offset)?;
        if there.utc <= before.utc {
            // Part of an hour is repeated and its start lies before it: on, instead, to where a wall clock's hour begins.
            let left = unit - before.local().rem_euclid(unit);
            there = self.zone.at(before.utc.checked_add(left)?)?;
        }
        let hour = there.hour();
        let missing = (hour + 24 - before.hour()) % 24;
        if (2..12).contains(&missing) {
            let listed = (1..missing).any(|past| has(fields.hours, (before.hour() + past) % 24));
            self.stands_in = listed.then_some(hour);
        }
        let back = there.day() == before.day()
            && match unit {
                3600 if far => hour <= before.hour(),
                3600 => hour == before.hour(),
                _ => hour == before.hour() && there.local() < before.local() && there.minute() == 0,
            };
        self.arrive(there);
        if back {
            self.repeated = Some(hour);
        }
        Some(())
    }

    fn arrive(&mut self, there: Moment) {
        if there.day() != self.at.day() {
            self.stands_in = self.stands_in.filter(|hour| *hour == there.hour());
        }
        self.at = there;
    }
}

/// The lowest bit above `value`.
fn next_bit(bits: u64, value: u32) -> Option<u32> {
    let above = bits & (u64::MAX << value << 1);
    (above != 0).then(|| above.trailing_zeros())
}

const EPOCH: i32 = 719_163;

fn date(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(day).ok()?.checked_add(EPOCH)?)
}

fn day_number(date: NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce() - EPOCH)
}
