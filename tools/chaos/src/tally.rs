//! The records of a run: goodput, percentiles, and how many ended in which way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::stats::{percent, percentile};

use crate::driver::{End, Kind, Record};

/// Some of the records of a run.
#[derive(Debug, Default, Clone)]
pub struct Tally(pub Vec<Record>);

impl Tally {
    pub fn of(&self, kinds: &[Kind]) -> Self {
        self.only(|record| kinds.contains(&record.kind))
    }

    /// Those that were scheduled between two moments.
    pub fn between(&self, from: Duration, until: Duration) -> Self {
        self.only(|record| record.scheduled >= from && record.scheduled < until)
    }

    pub fn only(&self, keep: impl Fn(&Record) -> bool) -> Self {
        Self(self.0.iter().filter(|record| keep(record)).copied().collect())
    }

    pub fn count(&self, keep: impl Fn(&Record) -> bool) -> usize {
        self.0.iter().filter(|record| keep(record)).count()
    }

    /// Percent that were 200 within 250 ms.
    pub fn goodput(&self) -> f64 {
        percent(self.count(Record::is_good), self.0.len())
    }

    /// Percent that were 200, however late.
    pub fn success(&self) -> f64 {
        percent(self.count(Record::is_ok), self.0.len())
    }

    /// A percentile of all latencies, in milliseconds.
    pub fn p(&self, share: f64) -> f64 {
        percentile(&mut self.0.iter().map(Record::millis).collect::<Vec<_>>(), share)
    }

    /// How late the driver itself was, in milliseconds: when this is large, the machine was too small for the test.
    pub fn lag_p99(&self) -> f64 {
        percentile(&mut self.0.iter().map(|record| record.lag.as_secs_f64() * 1000.0).collect::<Vec<_>>(), 0.99)
    }

    /// `200:990 503RA:10`, the most frequent first.
    pub fn ends(&self) -> String {
        counted(self.0.iter().map(|record| record.end))
    }

    /// Writes one line for each request.
    pub fn record(&self, directory: &Path, name_of_run: &str) -> anyhow::Result<()> {
        let path = directory.join(format!("{name_of_run}.tsv"));
        let fault = || path.display().to_string();
        let mut file = BufWriter::new(File::create(&path).with_context(fault)?);
        writeln!(file, "scheduled_us\treplica\tkind\tend\tlatency_us\tdriver_lag_us").with_context(fault)?;
        for record in &self.0 {
            let Record { scheduled, replica, kind, end, latency, lag, .. } = record;
            let (scheduled, latency, lag) = (scheduled.as_micros(), latency.as_micros(), lag.as_micros());
            writeln!(file, "{scheduled}\t{replica}\t{kind:?}\t{}\t{latency}\t{lag}", name(*end)).with_context(fault)?;
        }
        file.flush().with_context(fault)
    }
}

/// How often each end came, the most frequent first.
pub fn counted(ends: impl Iterator<Item = End>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for end in ends {
        *counts.entry(name(end)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<String> = counts.iter().map(|(end, count)| format!("{end}:{count}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(" ") }
}

/// `RA` stands for `Retry-After`.
fn name(end: End) -> String {
    match end {
        End::Status(status, retry_after) => format!("{status}{}", if retry_after { "RA" } else { "" }),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(millis: u64, end: End) -> Record {
        let latency = Duration::from_millis(millis);
        Record { scheduled: latency, replica: 0, kind: Kind::Warm, end, first: None, latency, lag: Duration::ZERO }
    }

    #[test]
    fn a_late_token_is_no_goodput() {
        let tally = Tally(vec![
            record(10, End::Status(200, false)),
            record(251, End::Status(200, false)),
            record(5, End::Status(503, true)),
            record(5, End::Status(503, false)),
        ]);
        assert!((tally.goodput() - 25.0).abs() < 1e-9 && (tally.success() - 50.0).abs() < 1e-9);
        assert_eq!(tally.count(Record::is_polite_refusal), 1);
        assert_eq!(tally.ends(), "200:2 503:1 503RA:1");
        assert_eq!(tally.between(Duration::from_millis(5), Duration::from_millis(10)).0.len(), 2);
        assert_eq!(tally.of(&[Kind::Cold]).ends(), "none");
    }
}
