//! The table, and the figures in it.

use std::time::Duration;

/// Prints a row: what, the figure, and what is wanted of it.
pub(crate) fn row(what: &str, figure: &str, wanted: &str) {
    println!("| {what} | {figure} | {wanted} |");
}

/// Times of the same thing, done several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, others: Times) {
        self.0.extend(others.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many took longer than this.
    pub(crate) fn above(&self, limit: Duration) -> usize {
        self.0.iter().filter(|time| **time > limit).count()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.0.clone();
        times.sort();
        match times.len().checked_sub(1) {
            Some(last) => times[last * percent / 100],
            None => Duration::ZERO,
        }
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// How many times as long each took as the one at the same place of the others, as the median.
    pub(crate) fn ratio_to(&self, others: &Times) -> f64 {
        let ratios = self.ratios_to(others);
        ratios.get(ratios.len() / 2).copied().unwrap_or_default()
    }

    /// The same of each, the smallest first.
    pub(crate) fn ratios_to(&self, others: &Times) -> Vec<f64> {
        let pairs = self.0.iter().zip(&others.0);
        let mut ratios: Vec<f64> = pairs
            .map(|(this, other)| this.as_secs_f64() / other.as_secs_f64().max(1e-9))
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// The median, and between what nine of ten lie.
    pub(crate) fn spread(&self) -> String {
        let [low, middle, high] = [5, 50, 95].map(|p| millis(self.percentile(p)));
        format!("{middle} ({low} to {high})")
    }

    /// The median, and the one that is as good as the worst.
    pub(crate) fn tail(&self) -> String {
        let [middle, high] = [50, 99].map(|p| micros(self.percentile(p)));
        format!("p50 {middle}, p99 {high}")
    }
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

pub(crate) fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

/// How many times as long.
pub(crate) fn ratio(this: Duration, other: Duration) -> String {
    format!("{:.2}", this.as_secs_f64() / other.as_secs_f64().max(1e-9))
}
