//! Metrics of the process, by the names of the Prometheus client libraries. They are read from `/proc`, so on Linux
//! only.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Collector that reads the metrics at each scrape. A metric that cannot be read is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut number = |name: &str, help: &str, value: Option<f64>, metric_type: MetricType| {
            let Some(value) = value else { return Ok(()) };
            let metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            match metric_type {
                MetricType::Counter => ConstCounter::new(value).encode(metric),
                _ => ConstGauge::new(value).encode(metric),
            }
        };
        let gauge = MetricType::Gauge;
        number("process_cpu_seconds", "Processor time of the process", Some(cpu_seconds()), MetricType::Counter)?;
        number("process_resident_memory_bytes", "Resident memory of the process", resident_bytes(), gauge)?;
        number("process_open_fds", "Open file descriptors", open_descriptors(), gauge)?;
        number("process_max_fds", "Most file descriptors that may be open", most_descriptors(), gauge)?;
        number("process_start_time_seconds", "Start of the process, in seconds since 1970", started_at(), gauge)
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    number(time.tv_sec) + number(time.tv_nsec) / 1e9
}

/// Reads the line `VmRSS:     1234 kB`.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes: i64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(number(kibibytes) * 1024.0)
}

/// Counts the open descriptors, without the one that reads the directory.
fn open_descriptors() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    i64::try_from(open).ok().map(number)
}

fn most_descriptors() -> Option<f64> {
    getrlimit(Resource::Nofile).current.and_then(|most| i64::try_from(most).ok()).map(number)
}

/// Start of the process: boot time of the machine plus clock ticks.
fn started_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program name is in parentheses and may contain anything. The start time is the twentieth field after it.
    let ticks: i64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let of_machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: i64 = of_machine.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let a_second = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(number(booted) + number(ticks) / number(a_second))
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn number(value: i64) -> f64 {
    value as f64
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_this_process() {
        assert!(cpu_seconds() > 0.0);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e6));
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= before + 40.0, "other tests close some");
        drop(files);
        assert!(most_descriptors().is_some_and(|most| most >= 50.0));
        let started = started_at().unwrap();
        let now = number(crate::model::time::Clock::System.now().0);
        assert!((now - 3600.0..=now + 1.0).contains(&started), "{started} {now}");
    }
}
