//! Parses /proc/PID/fdinfo/FD of a DRM client (the kernel's Documentation/gpu/drm-usage-stats.rst). Pure; opens no
//! files.

use crate::model::source::PciAddress;
use std::collections::BTreeMap;

/// No driver has more engines.
const ENGINES_MAX: usize = 64;

/// Use of one engine, or class of engines, by one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Time for which the engine worked for the client, in nanoseconds, cumulative. `None`: the driver counts cycles
    /// instead.
    pub busy: Option<u64>,
    /// Cycles for which it worked for the client, and all cycles that passed (xe), cumulative.
    pub cycles: Option<(u64, u64)>,
}

/// One DRM client: an open file of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Driver: `amdgpu`, `i915`, `xe`.
    pub driver: String,
    /// PCI address of the GPU.
    pub gpu: PciAddress,
    /// Id of the client on that GPU; the same in copies of the file, in other processes too.
    pub id: u64,
    /// Its engines by name.
    pub engines: BTreeMap<String, Engine>,
}

/// Parses the text; `None` where it is not that of a client of a PCI GPU.
pub fn parse(text: &str) -> Option<Client> {
    let (mut driver, mut gpu, mut id) = (None, None, None);
    let mut engines: BTreeMap<String, Engine> = BTreeMap::new();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) =
            line.split_once(':').and_then(|(key, value)| Some((key.strip_prefix("drm-")?, value.trim())))
        else {
            continue;
        };
        let number = || value.split_ascii_whitespace().next()?.parse::<u64>().ok();
        let fits =
            |engines: &BTreeMap<String, Engine>, name: &str| engines.len() < ENGINES_MAX || engines.contains_key(name);
        match key {
            "driver" => driver = Some(value.to_owned()),
            "pdev" => gpu = value.parse().ok(),
            "client-id" => id = number(),
            _ => {
                // `engine-capacity-NAME` is the number of engines, not a time.
                let engine = key.strip_prefix("engine-").filter(|name| !name.starts_with("capacity-"));
                if let Some(name) = engine.filter(|name| fits(&engines, name)) {
                    engines.entry(name.to_owned()).or_default().busy = number();
                } else if let Some(name) = key.strip_prefix("total-cycles-") {
                    totals.extend(number().map(|total| (name, total)));
                } else if let Some(name) = key.strip_prefix("cycles-").filter(|name| fits(&engines, name)) {
                    engines.entry(name.to_owned()).or_default().cycles = number().map(|cycles| (cycles, 0));
                }
            }
        }
    }
    for (name, engine) in &mut engines {
        engine.cycles = engine.cycles.and_then(|(cycles, _)| Some((cycles, *totals.get(name.as_str())?)));
    }
    engines.retain(|_, engine| engine.busy.is_some() || engine.cycles.is_some());
    Some(Client { driver: driver?, gpu: gpu?, id: id?, engines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amdgpu_and_i915_count_nanoseconds() {
        let client = parse(
            "pos:\t0\nflags:\t02400002\nmnt_id:\t27\nino:\t713\ndrm-driver:\tamdgpu\ndrm-client-id:\t42\ndrm-pdev:\t0000:03:00.0\n\
             pasid:\t32770\ndrm-memory-vram:\t14252 KiB\ndrm-engine-gfx:\t1234567890 ns\ndrm-engine-compute:\t5 ns\n\
             drm-engine-capacity-compute:\t4\namd-evicted-vram:\t0 KiB\n",
        )
        .unwrap();
        assert_eq!(
            (client.driver.as_str(), client.gpu.to_string().as_str(), client.id),
            ("amdgpu", "0000:03:00.0", 42)
        );
        let busy: Vec<_> = client.engines.iter().map(|(name, engine)| (name.as_str(), engine.busy)).collect();
        assert_eq!(busy, [("compute", Some(5)), ("gfx", Some(1_234_567_890))]);
    }

    #[test]
    fn xe_counts_cycles() {
        let client = parse(
            "drm-driver: xe\ndrm-client-id: 3\ndrm-pdev: 0000:03:00.0\ndrm-total-gtt: 192 KiB\ndrm-cycles-rcs: 28257900\n\
             drm-total-cycles-rcs: 7655183225\ndrm-cycles-vcs: 0\ndrm-total-cycles-vcs: 7655183225\ndrm-engine-capacity-vcs: 2\n\
             drm-cycles-odd: 7\n",
        )
        .unwrap();
        let cycles: Vec<_> = client.engines.iter().map(|(name, engine)| (name.as_str(), engine.cycles)).collect();
        assert_eq!(cycles, [("rcs", Some((28_257_900, 7_655_183_225))), ("vcs", Some((0, 7_655_183_225)))]);
    }

    #[test]
    fn other_files_are_not_clients() {
        for text in [
            "",
            "pos:\t0\nflags:\t02\n",
            "drm-driver: vgem\ndrm-client-id: 1\n",
            "drm-driver: amdgpu\ndrm-pdev: 0000:03:00.0\n",
            "drm-driver: amdgpu\ndrm-pdev: nonsense\ndrm-client-id: 1\n",
            "drm-driver: amdgpu\ndrm-pdev: 0000:03:00.0\ndrm-client-id: -1\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_without_a_panic(text in "((drm-)?(driver|pdev|client-id|engine-|cycles-|total-cycles-)?[a-z0-9-]{0,9}:? ?[\\PC]{0,20}\n){0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_number_is_read(busy: u64, id: u64) {
            let client = parse(&format!("drm-driver:x\ndrm-pdev:00:02.0\ndrm-client-id:{id}\ndrm-engine-render:{busy} ns")).unwrap();
            prop_assert_eq!((client.id, client.engines["render"].busy), (id, Some(busy)));
        }
    }
}
