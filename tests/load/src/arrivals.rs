//! When requests are due: evenly, or at random with the same mean.
//!
//! Owns the times alone; the same seed gives the same times. Keeps no clock.

use std::time::Duration;

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The same gap every time.
    Even,
    /// Gaps drawn from the exponential distribution, as those of many independent callers are.
    Poisson,
}

/// Times at which requests are due, counted from the beginning; it never ends.
#[derive(Debug, Clone)]
pub struct Arrivals {
    spread: Spread,
    mean_gap: f64,
    at: f64,
    state: u64,
}

impl Arrivals {
    /// So many a second in the mean. Nothing where that is no positive number.
    pub fn new(spread: Spread, per_second: f64, seed: u64) -> Option<Self> {
        (per_second.is_finite() && per_second > 0.0).then(|| Self {
            spread,
            mean_gap: 1.0 / per_second,
            at: 0.0,
            state: seed,
        })
    }

    /// A number within 0 (excluded) and 1, from the generator splitmix64 (Steele et al., OOPSLA 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let value = ((bits >> 11) + 1) as f64;
        value / (1_u64 << 53) as f64
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let gaps = match self.spread {
            Spread::Even => 1.0,
            Spread::Poisson => -self.uniform().ln(),
        };
        self.at += gaps * self.mean_gap;
        Duration::try_from_secs_f64(self.at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(spread: Spread, seed: u64) -> Vec<f64> {
        let times: Vec<f64> = Arrivals::new(spread, 100.0, seed)
            .unwrap()
            .take(20_000)
            .map(|at| at.as_secs_f64())
            .collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn even_arrivals_keep_their_gap() {
        assert!(gaps(Spread::Even, 1).iter().all(|gap| (gap - 0.01).abs() < 1e-6));
    }

    #[test]
    fn random_arrivals_have_the_mean_and_the_spread_of_independent_callers() {
        let gaps = gaps(Spread::Poisson, 7);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!((mean / 0.01 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn the_same_seed_gives_the_same_times_and_another_gives_others() {
        assert_eq!(gaps(Spread::Poisson, 3), gaps(Spread::Poisson, 3));
        assert_ne!(gaps(Spread::Poisson, 3), gaps(Spread::Poisson, 4));
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Arrivals::new(Spread::Even, rate, 0).is_none(), "{rate}");
        }
    }
}
