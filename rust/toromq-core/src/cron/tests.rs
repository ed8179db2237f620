use chrono::DateTime;

use super::*;

fn ms(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text)
        .unwrap()
        .timestamp_millis()
}

/// The next fires as `MM-DDTHH:MM`, in UTC.
fn fires(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::parse(pattern, zone, None).unwrap();
    std::iter::successors(cron.next_after(ms(after)), |fired| cron.next_after(*fired))
        .take(count)
        .map(|fired| {
            let text = format!("{:?}", DateTime::from_timestamp_millis(fired).unwrap());
            text["2026-".len().."2026-01-01T00:00".len()].to_owned()
        })
        .collect()
}

#[test]
fn patterns_fire_when_those_of_node_do() {
    // Pattern, zone, after, the next fires in UTC.
    let rows = [
        (
            "*/15 * * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-01T00:15 01-01T00:30",
        ),
        (
            "30 2 * * *",
            "Europe/Stockholm",
            "2026-03-28T00:00:00Z",
            "03-28T01:30 03-29T01:30 03-30T00:30",
        ),
        (
            "30 2 * * *",
            "Europe/Stockholm",
            "2026-10-24T00:00:00Z",
            "10-24T00:30 10-25T00:30 10-26T01:30",
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            "03-08T07:30 03-09T06:30",
        ),
        (
            "0 * * * *",
            "Europe/Stockholm",
            "2026-10-24T23:30:00Z",
            "10-25T00:00 10-25T01:00 10-25T02:00",
        ),
        (
            "0 0 1,15 * 5",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-02T00:00 01-09T00:00 01-15T00:00 01-16T00:00",
        ),
        (
            "0 0 L * *",
            "UTC",
            "2026-01-31T00:00:00Z",
            "02-28T00:00 03-31T00:00",
        ),
        (
            "0 0 * * 5L",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-30T00:00 02-27T00:00",
        ),
        (
            "0 0 * * 1#1",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-05T00:00 02-02T00:00",
        ),
        (
            "5/20 * * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-01T00:05 01-01T00:25 01-01T00:45",
        ),
        (
            "* * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-01T00:01 01-01T00:02",
        ),
        (
            "30 0 * * *",
            "America/Havana",
            "2026-03-07T12:00:00Z",
            "03-09T04:30 03-10T04:30",
        ),
        (
            "0 0 * * *",
            "Asia/Beirut",
            "2026-03-28T12:00:00Z",
            "03-29T21:00 03-30T21:00",
        ),
        (
            "0 1-3 * * *",
            "Europe/Stockholm",
            "2026-03-28T12:00:00Z",
            "03-29T00:00 03-29T01:00 03-29T23:00",
        ),
        (
            "0 1-3 * * *",
            "Europe/Stockholm",
            "2026-10-24T12:00:00Z",
            "10-24T23:00 10-25T00:00 10-25T02:00",
        ),
        (
            "0 */2 * * *",
            "Europe/Stockholm",
            "2026-10-24T21:00:00Z",
            "10-24T22:00 10-25T00:00 10-25T03:00 10-25T05:00",
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            "11-01T05:30 11-02T06:30",
        ),
        (
            "0 0 L * 5",
            "UTC",
            "2026-01-20T00:00:00Z",
            "01-23T00:00 01-30T00:00 01-31T00:00 02-06T00:00",
        ),
        (
            "0 0 * * 5L,1L",
            "UTC",
            "2026-01-20T00:00:00Z",
            "01-26T00:00 01-30T00:00 02-23T00:00",
        ),
        (
            "0 0 ? * 5",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-02T00:00 01-09T00:00",
        ),
        (
            "0 0 */1 * 5",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-02T00:00 01-03T00:00",
        ),
        (
            "0/5 * * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "01-01T00:05 01-01T00:10",
        ),
        (
            "@weekdays",
            "UTC",
            "2026-01-02T00:00:00Z",
            "01-05T00:00 01-06T00:00",
        ),
    ];
    for (pattern, zone, after, expected) in rows {
        let expected: Vec<_> = expected.split(' ').collect();
        assert_eq!(
            fires(pattern, zone, after, expected.len()),
            expected,
            "{pattern} in {zone}"
        );
    }
}

#[test]
fn it_is_the_first_whole_second_after_the_moment() {
    let every = Cron::parse("* * * * * *", "UTC", None).unwrap();
    assert_eq!(every.next_after(0), Some(1000));
    assert_eq!(every.next_after(999), Some(1000));
    assert_eq!(every.next_after(1000), Some(2000));
    assert_eq!(every.next_after(-1500), Some(-1000));
    assert_eq!(every.next_after(i64::MAX), None);
    assert_eq!(every.next_after(i64::MIN), None);
}

#[test]
fn what_is_rare_is_found_and_what_never_is_is_given_up() {
    let next = |pattern: &str, after: &str| {
        Cron::parse(pattern, "UTC", None)
            .unwrap()
            .next_after(ms(after))
    };
    assert_eq!(
        next("0 0 29 2 *", "2096-03-01T00:00:00Z"),
        Some(ms("2104-02-29T00:00:00Z"))
    );
    assert_eq!(
        next("0 0 * 2 1#5", "2072-03-01T00:00:00Z"),
        Some(ms("2112-02-29T00:00:00Z"))
    );
    assert_eq!(next("0 0 31 4,6 *", "2026-01-01T00:00:00Z"), None);
    assert_eq!(next("0 0 * * 1#1.5", "2026-01-01T00:00:00Z"), None);
}

#[test]
fn a_time_that_stands_in_for_another_says_so() {
    let cron = Cron::parse("30 2 * * *", "Europe/Madrid", None).unwrap();
    let moved = cron.fire_after(ms("2026-03-29T00:00:00Z")).unwrap();
    assert_eq!(
        (moved.ms, moved.offset, moved.stands_in),
        (ms("2026-03-29T03:30:00+02:00"), 7200, true)
    );
    assert!(!cron.fire_after(moved.ms).unwrap().stands_in);
}

#[test]
fn a_refusal_says_the_field_what_was_given_and_what_is_allowed() {
    let refused =
        |pattern: &str, zone: &str| Cron::parse(pattern, zone, None).unwrap_err().to_string();
    assert_eq!(
        refused("0 22-2 * * *", "UTC"),
        "cron pattern \"0 22-2 * * *\": the hour field is \"22-2\": the range 22-2 falls; allowed are numbers from 0 to 23, \
         * ? H, ranges, lists and steps"
    );
    for (pattern, part) in [
        ("* * * * * * *", "it has 7 fields, and 6 are the most"),
        ("@reboot", "the names are @yearly, @annually,"),
        ("@HOURLY", "alone and in lower case"),
        ("", "it is empty"),
        (" \t ", "it is empty"),
        (
            "0 0 30 2 *",
            "the day-of-month field is \"30\": month 2 has 29 days at most",
        ),
        (
            "61 * * * *",
            "the minute field is \"61\": 61 is out of range",
        ),
        ("0 0 15W * *", "'W' has no meaning there"),
        ("0 0 L-2 * *", "\"L\" where a number must be"),
        ("0 0 29-L * *", "\"L\" where a number must be"),
        ("*/0 * * * *", "the step must be a number from 1, not \"0\""),
        ("0 0 * jan,foo *", "\"foo\" is no name"),
        ("0 0 * * 1,1", "a value stands in it twice: 1"),
        ("0 0 * * 1#6", "a number from 1 to 5"),
        ("0 0 * * L", "L needs the day it is the last of"),
    ] {
        let message = refused(pattern, "UTC");
        assert!(message.contains(part), "{message}");
    }
    let zone = refused("* * * * *", "Stockholm");
    assert!(
        zone.contains("\"Stockholm\" is not known")
            && zone.ends_with("did you mean Europe/Stockholm?"),
        "{zone}"
    );
}

#[test]
fn zones_are_found_in_any_case_and_as_differences() {
    let noon = |zone: &str| fires("0 12 * * *", zone, "2026-01-01T00:00:00Z", 1).remove(0);
    assert_eq!(noon("europe/STOCKHOLM"), "01-01T11:00");
    assert_eq!(noon("UTC+2"), "01-01T10:00");
    assert_eq!(noon("utc-5:30"), "01-01T17:30");
    for zone in [
        "", " UTC", "+02:00", "GMT+1", "UTC+", "UTC+1:3", "UTC+123", "local", "Factory", "é",
        "Europe",
    ] {
        assert!(
            matches!(
                Cron::parse("* * * * *", zone, None),
                Err(CronError::Zone { .. })
            ),
            "{zone}"
        );
    }
}
