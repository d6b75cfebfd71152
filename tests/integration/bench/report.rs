//! What the benchmarks print: tables as they come, and every target beside its result at the end.

use crate::Failure;
use std::io::{Stdout, Write};

/// Which side of its limit a figure should be on.
#[derive(Clone, Copy)]
pub enum Limit {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
}

/// The output.
pub struct Report {
    out: Stdout,
    targets: Vec<String>,
}

impl Report {
    /// Begins with the machine.
    pub fn new() -> Result<Self, Failure> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let virtual_machine = cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
        let mut report = Self { out: std::io::stdout(), targets: Vec::new() };
        let cpus = std::thread::available_parallelism()?;
        let which = if virtual_machine { ", a virtual machine" } else { "" };
        report.line(&format!("{model}, {cpus} CPUs{which}, Linux {}", kernel.trim()))?;
        Ok(report)
    }

    /// Begins a benchmark.
    pub fn title(&mut self, name: &str, about: &str) -> Result<(), Failure> {
        self.line(&format!("\n{name}: {about}"))
    }

    /// One line, now.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// A figure that has a target.
    pub fn target(&mut self, what: &str, figure: f64, limit: Limit, unit: &str) {
        let (met, sign, value) = match limit {
            Limit::Most(most) => (figure <= most, "≤", most),
            Limit::Least(least) => (figure >= least, "≥", least),
        };
        let verdict = if met { "ok" } else { "MISSED" };
        self.targets.push(format!("{what:<72}{figure:>9.2}  {sign} {value:<6} {unit:<11}{verdict}"));
    }

    /// Every target.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.line("\ntargets")?;
        for target in std::mem::take(&mut self.targets) {
            self.line(&target)?;
        }
        Ok(())
    }
}
