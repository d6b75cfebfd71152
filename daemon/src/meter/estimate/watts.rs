//! Watts per hardware thread by microarchitecture: a table, its source, and substitutes for processors that it lacks.
//! Published values, not measurements of this machine.
//!
//! Source: SPECpower_ssj2008 results published by SPEC (spec.org), wall power of whole servers at active idle and at
//! 100 % load, divided by hardware threads and averaged by microarchitecture by the Cloud Carbon Footprint project
//! (Apache-2.0). `Ice Lake` and `Cooper Lake` are not among that project's coefficients: they are the same mean over
//! its list of results (8 each; Platinum 8380, 8352Y and Gold 6336Y; Platinum 8376HL, 8380H and 8380HL). Graviton2 was
//! never measured this way: the project sets it equal to the second EPYC generation.

use super::super::cpu::{Class, CpuModel};

/// Wall power of a server per hardware thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Watts {
    /// At active idle, in watts.
    pub(super) idle: f64,
    /// At full load, in watts.
    pub(super) full: f64,
}

const TABLE: [(&str, Watts); 13] = [
    ("Sandy Bridge", Watts { idle: 2.1694, full: 8.5754 }),
    ("Ivy Bridge", Watts { idle: 3.0369, full: 8.2486 }),
    ("Haswell", Watts { idle: 1.9006, full: 6.0129 }),
    ("Broadwell", Watts { idle: 0.7128, full: 3.6853 }),
    ("Skylake", Watts { idle: 0.6446, full: 4.1934 }),
    ("Cascade Lake", Watts { idle: 0.6389, full: 3.9673 }),
    ("Cooper Lake", Watts { idle: 0.8224, full: 4.4548 }),
    ("Ice Lake", Watts { idle: 0.9401, full: 4.2456 }),
    ("Coffee Lake", Watts { idle: 1.1384, full: 5.4218 }),
    ("EPYC 1st Gen", Watts { idle: 0.8227, full: 2.5531 }),
    ("EPYC 2nd Gen", Watts { idle: 0.4743, full: 1.6930 }),
    ("EPYC 3rd Gen", Watts { idle: 0.4454, full: 2.0193 }),
    ("Graviton2", Watts { idle: 0.4743, full: 1.6930 }),
];

/// Processors without published results in that list, and the closest entry of the table.
const NEAREST: [(&str, &str); 14] = [
    ("Sapphire Rapids", "Ice Lake"),
    ("Emerald Rapids", "Ice Lake"),
    ("Granite Rapids", "Ice Lake"),
    ("Sierra Forest", "EPYC 3rd Gen"),
    ("Clearwater Forest", "EPYC 3rd Gen"),
    ("EPYC 4th Gen", "EPYC 3rd Gen"),
    ("EPYC 5th Gen", "EPYC 3rd Gen"),
    ("Neoverse N1", "Graviton2"),
    ("Neoverse N2", "Graviton2"),
    ("Neoverse N3", "Graviton2"),
    ("Neoverse V1", "Graviton2"),
    ("Neoverse V2", "Graviton2"),
    ("Neoverse V3", "Graviton2"),
    ("AmpereOne", "Graviton2"),
];

/// Client processors: the only desktop-class entry of the table.
const CLIENT: &str = "Coffee Lake";
/// All others: the middle of the table's server processors since 2017.
const UNKNOWN: &str = "Cascade Lake";

/// The watts of a processor, the name of the table's entry, and the processor's own microarchitecture if known.
pub(super) fn lookup(model: &CpuModel) -> (Watts, &'static str, Option<&'static str>) {
    let known = model.microarchitecture();
    let name = match known {
        None => UNKNOWN,
        Some((name, class)) => match (row(name), NEAREST.iter().find(|(from, _)| *from == name), class) {
            (Some(_), ..) => name,
            (None, Some((_, to)), _) => to,
            (None, None, Class::Client) => CLIENT,
            (None, None, Class::Server) => UNKNOWN,
        },
    };
    // Every name above is in the table (tested); the constant only satisfies the type.
    (row(name).unwrap_or(Watts { idle: 0.6389, full: 3.9673 }), name, known.map(|(name, _)| name))
}

/// The highest watts at full load of any processor.
pub(super) fn highest() -> f64 {
    TABLE.iter().map(|(_, watts)| watts.full).fold(0.0, f64::max)
}

fn row(name: &str) -> Option<Watts> {
    TABLE.iter().find(|(row, _)| *row == name).map(|(_, watts)| *watts)
}

#[cfg(test)]
mod tests {
    use super::super::super::cpu::Vendor;
    use super::*;

    #[test]
    fn every_stand_in_is_in_the_table() {
        let stand_ins = NEAREST.iter().map(|(_, to)| *to).chain([CLIENT, UNKNOWN]);
        assert!(stand_ins.clone().all(|name| row(name).is_some()));
        assert!(NEAREST.iter().all(|(from, _)| row(from).is_none()));
        assert!(TABLE.iter().all(|(_, watts)| 0.0 < watts.idle && watts.idle < watts.full));
    }

    #[test]
    fn stand_ins() {
        let amd = |family, model, name: &str| CpuModel {
            vendor: Vendor::Amd,
            family,
            model,
            name: name.to_owned(),
            ..CpuModel::default()
        };
        assert_eq!(lookup(&amd(23, 49, "AMD EPYC 7742")).1, "EPYC 2nd Gen");
        assert_eq!(
            (lookup(&amd(25, 17, "AMD EPYC 9654")).1, lookup(&amd(25, 17, "AMD EPYC 9654")).2),
            ("EPYC 3rd Gen", Some("EPYC 4th Gen"))
        );
        assert_eq!(lookup(&amd(25, 33, "AMD Ryzen 9 5950X")).1, CLIENT);
        assert_eq!((lookup(&CpuModel::default()).1, lookup(&CpuModel::default()).2), (UNKNOWN, None));
    }
}
