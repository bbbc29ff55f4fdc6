//! The metrics `process_*` that every Prometheus client has (Prometheus: "Writing client libraries", "Process metrics"), read
//! from /proc when they are collected.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Ticks of a second in /proc (`USER_HZ`): 100 on every architecture that Rust's standard library runs on.
const TICKS: f64 = 100.0;

/// Reads them.
#[derive(Debug)]
pub struct ProcessCollector;

/// What /proc says of this process.
#[derive(Debug, Default)]
struct ProcessStatus {
    cpu_seconds: f64,
    /// Seconds since 1970.
    start_time: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
    open_fds: i64,
    max_fds: i64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // What can't be read is left out.
        let Some(status) = ProcessStatus::read() else { return Ok(()) };
        let cpu = ConstCounter::new(status.cpu_seconds);
        let help = "Total user and system CPU time spent in seconds.";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let start = ConstGauge::new(status.start_time);
        let help = "Start time of the process since unix epoch in seconds.";
        let name = "process_start_time";
        start.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), start.metric_type())?)?;
        for (name, help, unit, value) in [
            ("process_virtual_memory", "Virtual memory size in bytes.", Some(Unit::Bytes), status.virtual_bytes),
            ("process_resident_memory", "Resident memory size in bytes.", Some(Unit::Bytes), status.resident_bytes),
            ("process_open_fds", "Number of open file descriptors.", None, status.open_fds),
            ("process_max_fds", "Maximum number of open file descriptors.", None, status.max_fds),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

impl ProcessStatus {
    /// See proc(5): /proc/pid/stat, /proc/pid/status, /proc/pid/limits, /proc/stat.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<f64>().ok();
        let booted = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            start_time: booted as f64 + field(22)? / TICKS,
            virtual_bytes: number_after(&status, "VmSize:")?.saturating_mul(1024),
            resident_bytes: number_after(&status, "VmRSS:")?.saturating_mul(1024),
            open_fds: i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
            max_fds: number_after(&limits, "Max open files").unwrap_or(i64::MAX),
        })
    }
}

/// The number behind `start` of a line of `text`.
fn number_after(text: &str, start: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let status = ProcessStatus::read().unwrap();
        assert!(status.open_fds >= 3 && status.max_fds >= status.open_fds, "{status:?}");
        assert!(status.virtual_bytes > status.resident_bytes && status.resident_bytes > 1 << 20, "{status:?}");
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((now - 86400.0..now + 1.0).contains(&status.start_time), "{status:?}");
    }
}
