//! The ACPI table for guests: a power meter (ACPI000D) that reads the VM's page. `power-meter.asl` beside this file is
//! the same in ASL, with comments: change both. The page is `page`'s.

use super::aml::{self, Access, Space, Term};
use super::aml::{
    above, add, all, and, arg, at_most, below, both, device, differs, divide, either, element, equal, field,
};
use super::aml::{
    give, increment, int, local, method, minus, name, named, or, otherwise, package, region, repeat, scope,
};
use super::aml::{shift_left, store, text, timer, times, when};

/// "It cannot be measured", as `_PMM` says it.
const UNKNOWN: u32 = u32::MAX;
const ZERO: u32 = 0;
const ONE: u32 = 1;

/// The table for a device in this slot of the guest's first PCI bus.
pub(super) fn table(slot: u8) -> Vec<u8> {
    let terms =
        [aml::external_device("\\_SB.PCI0"), scope("\\_SB.PCI0", [shared_page(slot)]), scope("\\_SB", [power_meter()])];
    aml::ssdt(b"JOULED", b"VMPOWER\0", terms)
}

/// The ivshmem-plain device, whose BAR 2 is the page.
fn shared_page(slot: u8) -> Term {
    let words = [("IDEN", 32), ("", 0x18 * 8 - 32), ("BARL", 32), ("BARH", 32)];
    let address = or(and(name("BARL"), int(0xffff_fff0)), shift_left(name("BARH"), int(32)), int(ZERO));
    let base = [
        when(differs(name("IDEN"), int(0x1110_1af4)), [give(int(ZERO))]),
        when(equal(and(name("COMD"), int(2)), int(ZERO)), [or(name("COMD"), int(2), name("COMD"))]),
        give(address),
    ];
    let terms = [
        named("_ADR", int(u32::from(slot) << 16)),
        region("CONF", Space::PciConfig, int(ZERO), int(0x20)),
        field("CONF", Access::DWord, &words),
        field("CONF", Access::Word, &[("", 32), ("COMD", 16)]),
        method("BASE", 0, true, base),
    ];
    device("JOUL", terms)
}

fn power_meter() -> Term {
    let capabilities = [1, 0, 0, 80_000, 1_000, 10_000, 10_000, 0, 0, 0, 0].map(int);
    let names = ["jouled", "-", "jouled"].map(text);
    let [flags, unit, kind, accuracy, sampling, shortest, longest, hysteresis, limit, least, most] = capabilities;
    let [model, serial, maker] = names;
    let capabilities = package([
        flags, unit, kind, accuracy, sampling, shortest, longest, hysteresis, limit, least, most, model, serial, maker,
    ]);
    let terms = [
        named("_HID", text("ACPI000D")),
        named("_UID", text("jouled")),
        named("EPOC", int(ZERO)),
        named("POWR", int(UNKNOWN)),
        named("PERI", int(10_000)),
        named("SEEN", int(ZERO)),
        named("WHEN", int(ZERO)),
        named("FRSH", int(ZERO)),
        named("CAPS", capabilities),
        method("TAKE", 0, true, take()),
        method("_PMC", 0, true, capabilities_now()),
        method("_PMM", 0, true, measure()),
        method("_GAI", 0, true, [name("TAKE"), give(name("PERI"))]),
        method("_PAI", 1, true, [give(differs(arg(0), name("PERI")))]),
        method("_PMD", 0, false, [give(package([name("\\_SB")]))]),
    ];
    device("JPWR", terms)
}

/// Reads the page into `EPOC`, `POWR` and `PERI`; 1: what it read belongs together.
fn take() -> [Term; 8] {
    let fields = ["MAGC", "VERS", "BEGN", "MILW", "PERD", "ENDE"].map(|name| (name, 32));
    let consistent = when(equal(name("BEGN"), local(2)), [store(local(2), name("EPOC")), give(int(ONE))]);
    [
        store(name("\\_SB.PCI0.JOUL.BASE"), local(0)),
        when(equal(local(0), int(ZERO)), [give(int(ZERO))]),
        region("PAGE", Space::Memory, local(0), int(0x18)),
        field("PAGE", Access::DWord, &fields),
        when(
            either(differs(name("MAGC"), int(super::page::MAGIC)), differs(name("VERS"), int(super::page::VERSION))),
            [give(int(ZERO))],
        ),
        store(int(ZERO), local(1)),
        repeat(
            below(local(1), int(8)),
            [
                store(name("ENDE"), local(2)),
                store(name("MILW"), name("POWR")),
                store(name("PERD"), name("PERI")),
                consistent,
                increment(local(1)),
            ],
        ),
        give(int(ZERO)),
    ]
}

/// `_PMC`: the capabilities, with the times of the page.
fn capabilities_now() -> [Term; 7] {
    let set = |value: Term, index| store(value, element(name("CAPS"), index));
    [
        name("TAKE"),
        divide(name("PERI"), int(10), local(0)),
        when(above(local(0), int(1_000)), [store(int(1_000), local(0))]),
        set(local(0), 4),
        set(name("PERI"), 5),
        set(name("PERI"), 6),
        give(name("CAPS")),
    ]
}

/// `_PMM`: the power in mW, where the page is fresh.
fn measure() -> [Term; 8] {
    const SECOND: u32 = 10_000_000;
    let since = || minus(local(0), name("WHEN"));
    let went_on = times(minus(name("EPOC"), name("SEEN")), int(SECOND), local(2));
    let fresh = both(differs(name("SEEN"), int(ZERO)), at_most(since(), add(local(1), local(2), int(ZERO))));
    [
        when(equal(name("TAKE"), int(ZERO)), [give(int(UNKNOWN))]),
        store(timer(), local(0)),
        // Three periods, of milliseconds.
        times(name("PERI"), int(3 * SECOND / 1_000), local(1)),
        when(below(local(1), int(30 * SECOND)), [store(int(30 * SECOND), local(1))]),
        when(
            differs(name("EPOC"), name("SEEN")),
            [
                store(int(ZERO), local(2)),
                when(above(name("EPOC"), name("SEEN")), [went_on]),
                store(fresh, name("FRSH")),
                store(name("EPOC"), name("SEEN")),
                store(local(0), name("WHEN")),
            ],
        ),
        otherwise([when(above(since(), local(1)), [store(int(ZERO), name("FRSH"))])]),
        when(equal(name("FRSH"), int(ZERO)), [give(int(UNKNOWN))]),
        give(all([name("POWR")])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The header has the name and version of what made the table, and the sum over all.
    fn without_maker(table: &[u8]) -> Vec<u8> {
        [&table[..9], &table[10..28], &table[36..]].concat()
    }

    #[test]
    fn the_table_is_what_iasl_makes_of_its_source() {
        let source = include_str!("power-meter.asl");
        for slot in [1, 24, 31] {
            let dir = tempfile::tempdir().unwrap();
            let asl = source.replace("(_ADR, 0x00180000)", &format!("(_ADR, 0x{slot:04X}0000)"));
            std::fs::write(dir.path().join("meter.asl"), asl).unwrap();
            // -we: warnings are errors.
            let ran = Command::new("iasl").args(["-we", "-p", "meter", "meter.asl"]).current_dir(dir.path()).output();
            let Ok(ran) = ran else {
                println!("skipped: no iasl (Debian: acpica-tools)");
                return;
            };
            let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{said}");
            let compiled = std::fs::read(dir.path().join("meter.aml")).unwrap();
            assert_eq!(without_maker(&table(slot)), without_maker(&compiled), "slot {slot}");
        }
    }

    #[test]
    fn a_table_adds_up_to_zero() {
        for slot in [1, 24, 31] {
            let table = table(slot);
            assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            assert_eq!(u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize, table.len());
        }
    }
}
