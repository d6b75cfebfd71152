//! Output of the benchmarks: tables as they come, and every target with its result at the end.

use crate::Failure;
use std::io::{Stdout, Write};

/// The side of its limit on which a result should be.
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
    /// Prints the machine first.
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

    /// Prints the title of a benchmark.
    pub fn title(&mut self, name: &str, about: &str) -> Result<(), Failure> {
        self.line(&format!("\n{name}: {about}"))
    }

    /// Prints one line.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// Records a result with its target.
    pub fn target(&mut self, what: &str, figure: f64, limit: Limit, unit: &str) {
        let (met, sign, value) = match limit {
            Limit::Most(most) => (figure <= most, "≤", most),
            Limit::Least(least) => (figure >= least, "≥", least),
        };
        let verdict = if met { "ok" } else { "MISSED" };
        self.targets.push(format!("{what:<72}{figure:>9.2}  {sign} {value:<6} {unit:<11}{verdict}"));
    }

    /// Prints every target.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.line("\ntargets")?;
        for target in std::mem::take(&mut self.targets) {
            self.line(&target)?;
        }
        Ok(())
    }
}
