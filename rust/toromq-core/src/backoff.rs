//! How long to wait before the next try: pure functions, attempt number in, delay out.

use serde_json::Value;

/// The delay in milliseconds before retry `attempt` (1 for the first); `random` is uniform in [0, 1).
///
/// `None` when the type is not a built-in one: the user's own strategy decides.
#[must_use]
pub fn delay_ms(backoff: Option<&Value>, attempt: i64, random: f64) -> Option<f64> {
    let (kind, delay, jitter) = match backoff {
        None | Some(Value::Null) => return Some(0.0),
        Some(Value::Number(delay)) => ("fixed", delay.as_f64().unwrap_or(0.0), 0.0),
        Some(Value::Object(backoff)) => (
            backoff
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("fixed"),
            backoff.get("delay").and_then(Value::as_f64).unwrap_or(0.0),
            backoff.get("jitter").and_then(Value::as_f64).unwrap_or(0.0),
        ),
        Some(Value::String(kind)) => (kind.as_str(), 0.0, 0.0),
        Some(_) => return None,
    };
    let base = match kind {
        "fixed" => delay,
        // Doubling past 2^52 says nothing any more, and a power past 1023 is no number.
        "exponential" => {
            let power = i32::try_from(attempt.clamp(1, 53) - 1).unwrap_or(52);
            (2f64.powi(power) * delay).round()
        }
        _ => return None,
    };
    Some(if jitter > 0.0 {
        (random * base * jitter + base * (1.0 - jitter)).floor()
    } else {
        base
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn built_in_strategies_give_the_delays_of_the_reference() {
        let cases = [
            (
                json!({"type": "fixed", "delay": 1000, "jitter": 0.5}),
                1,
                750.0,
            ),
            (
                json!({"type": "exponential", "delay": 1000, "jitter": 0.25}),
                3,
                3500.0,
            ),
            (json!({"type": "exponential", "delay": 1000}), 4, 8000.0),
            (json!(500), 7, 500.0),
            (json!({"type": "fixed"}), 1, 0.0),
            (Value::Null, 1, 0.0),
        ];
        for (backoff, attempt, expected) in cases {
            assert_eq!(
                delay_ms(Some(&backoff), attempt, 0.5),
                Some(expected),
                "{backoff} at attempt {attempt}"
            );
        }
    }

    #[test]
    fn an_unknown_type_is_left_to_the_user() {
        assert_eq!(
            delay_ms(Some(&json!({"type": "mine", "delay": 5})), 1, 0.5),
            None
        );
    }
}
