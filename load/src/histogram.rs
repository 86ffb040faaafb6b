//! Latencies in buckets that are a few percent wide, however long they are.

use std::time::Duration;

/// Counts durations. Each power of two of nanoseconds has 64 buckets, so a quantile is off by 1.6 % at most.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (64 - FINE as usize + 1) << FINE], total: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, others) in self.counts.iter_mut().zip(&other.counts) {
            *mine += others;
        }
        self.total += other.total;
    }

    /// The duration that this share of all was no longer than, in microseconds; 0 when nothing was counted.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^52"
    )]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(bucket) / 1e3;
            }
        }
        0.0
    }
}

/// Small values have a bucket each; above, the highest bits choose one.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(FINE + 1);
    let upper = u64::from(shift) << FINE;
    usize::try_from(upper + (nanos >> shift)).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a bucket is wider than the loss")]
fn middle(bucket: usize) -> f64 {
    let shift = (bucket >> FINE).saturating_sub(1);
    let mantissa = bucket - (shift << FINE);
    (mantissa as f64 + 0.5) * (1_u64 << shift) as f64
}

/// Bits below the highest that tell buckets apart.
const FINE: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_a_bucket_near_it() {
        for nanos in (0..60).flat_map(|bit| [0, 1, 3].map(|more| (1_u64 << bit) + (more << bit) / 7)) {
            let found = middle(bucket(nanos));
            #[expect(clippy::cast_precision_loss, reason = "compared with a tolerance")]
            let nanos = nanos as f64;
            assert!((found - nanos).abs() <= (nanos * 0.016).max(0.6), "{nanos} was read as {found}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        assert!((histogram.quantile_us(0.5) - 500.0).abs() < 10.0);
        assert!((histogram.quantile_us(0.99) - 990.0).abs() < 18.0);
        let mut other = Histogram::default();
        other.record(Duration::from_secs(1));
        other.merge(&histogram);
        assert!(other.quantile_us(1.0) > 980_000.0);
    }
}
