//! The values that `H` stands for: a stream of numbers that follows from a text, the same as Node's.

/// Numbers in [0, 1), one for each field.
pub(super) struct Draws(u32);

impl Draws {
    /// The numbers that belong to `seed`, or other ones each time.
    pub(super) fn new(seed: Option<&str>) -> Self {
        Self(match seed {
            // FNV-1a over UTF-16, a unit at a time.
            Some(seed) if !seed.is_empty() => {
                seed.encode_utf16().fold(0x811c_9dc5, |hash, unit| {
                    (hash ^ u32::from(unit)).wrapping_mul(0x0100_0193)
                })
            }
            _ => rand::random(),
        })
    }

    /// The next number, by the generator known as mulberry32.
    pub(super) fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x6d2b_79f5);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 15)).wrapping_mul(mixed | 1);
        mixed ^= mixed.wrapping_add((mixed ^ (mixed >> 7)).wrapping_mul(mixed | 61));
        f64::from(mixed ^ (mixed >> 14)) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_numbers_that_node_draws_from_it() {
        let scaled = |seed| {
            let mut draws = Draws::new(Some(seed));
            [60.0, 60.0, 24.0, 12.0, 31.0, 8.0].map(|span| (draws.draw() * span).floor())
        };
        // "H H H H H H" in cron-parser 5.10; its month is drawn before its day of the month.
        assert_eq!(scaled("a"), [37.0, 18.0, 8.0, 7.0, 27.0, 5.0]);
        assert_eq!(scaled("😀"), [55.0, 31.0, 9.0, 0.0, 30.0, 0.0]);
    }

    #[test]
    fn without_a_seed_the_numbers_differ() {
        let first = (0..8).map(|_| Draws::new(None).draw().to_bits());
        assert!(first.collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
