//! Tests of the prior: names and plausible figures. Its errors are in `left_out`.

mod left_out;

use super::*;

fn machine(cpu: &str, packages: u32, threads: u32, memory_gib: f64) -> Machine {
    Machine { cpu: cpu.to_owned(), packages, threads, memory_gib: Some(memory_gib), ..Machine::default() }
}

#[test]
fn names_of_one_processor_are_one() {
    for (written, key) in [
        ("Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", "xeon 8275cl"),
        ("Intel Xeon Platinum 8275CL", "xeon 8275cl"),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", "xeon e5-2686v4"),
        ("Intel Xeon E5-2660V2", "xeon e5-2660v2"),
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", "xeon e5-2670"),
        ("Intel Xeon E5-2699 v3 2.30 GHz", "xeon e5-2699v3"),
        ("Intel(R) Xeon(R) CPU           X5670  @ 2.93GHz", "xeon x5670"),
        ("INTEL(R) XEON(R) PLATINUM 8592+", "xeon 8592+"),
        ("AMD EPYC 7763 64-Core Processor", "epyc 7763"),
        ("AMD EPYC 7763 2.45 GHz", "epyc 7763"),
        ("Quad-Core AMD Opteron(r) Processor 8376 HE", "opteron 8376 he"),
        ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", "ryzen threadripper pro 5995wx"),
        ("AMD Ryzen 7 PRO 4750U with Radeon Graphics", "ryzen 7 pro 4750u"),
        ("AMD Ryzen 9 7940HS w/ Radeon 780M Graphics", "ryzen 9 7940hs"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "core i9-13900k"),
        ("Intel(R) Core(TM) Ultra 7 155H", "core ultra 7 155h"),
        ("Intel Xeon Processor (Cascadelake)", "xeon"),
        ("", ""),
    ] {
        assert_eq!(name::normalise(written), key, "{written}");
    }
}

#[test]
fn the_list_has_what_people_run() {
    for (key, watts) in [
        ("xeon 8275cl", Some(240.0)),
        ("xeon e5-2686v4", Some(145.0)),
        ("xeon 8592+", Some(350.0)),
        ("xeon 5120", Some(105.0)),
        ("epyc 9654", Some(360.0)),
        ("epyc 7763", Some(280.0)),
        ("opteron 8376 he", Some(79.0)),
        ("core i9-13900k", Some(125.0)),
        ("xeon 8252c", None),
        ("xeon", None),
        ("", None),
    ] {
        assert_eq!(name::listed_tdp(key), watts, "{key}");
    }
}

#[test]
fn generations_by_name() {
    for (written, generation) in [
        ("Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", Some("Cascade Lake")),
        ("Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", Some("Skylake")),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", Some("Broadwell")),
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", Some("Sandy Bridge")),
        ("Intel Xeon X5670", Some("Nehalem")),
        ("Intel Xeon L5420", Some("Core")),
        ("Intel Xeon 5160", Some("Core")),
        ("Intel(R) Xeon(R) Gold 5117 CPU @ 2.00GHz", Some("Skylake")),
        ("Intel(R) Xeon(R) Platinum 8376HL", Some("Cooper Lake")),
        ("Intel(R) Xeon(R) Platinum 8488C", Some("Sapphire Rapids")),
        ("INTEL(R) XEON(R) PLATINUM 8592+", Some("Emerald Rapids")),
        ("Intel(R) Xeon(R) 6980P", Some("Granite Rapids")),
        ("Intel(R) Xeon(R) 6975P-C", Some("Granite Rapids")),
        ("Intel(R) Xeon(R) 6780E", Some("Sierra Forest")),
        ("Intel(R) Xeon(R) E-2388G CPU 3.20GHz", Some("Rocket Lake")),
        ("Intel Xeon E3-1260L v5", Some("Skylake")),
        ("AMD EPYC 7R13 Processor", Some("EPYC 3rd Gen")),
        ("AMD EPYC 7571", Some("EPYC 1st Gen")),
        ("AMD EPYC 9V74 80-Core Processor", Some("EPYC 4th Gen")),
        ("AMD EPYC 9965 192-Core Processor", Some("EPYC 5th Gen")),
        ("AMD EPYC-Rome Processor", Some("EPYC 2nd Gen")),
        ("Intel Xeon Processor (Cascadelake)", Some("Cascade Lake")),
        ("Intel Core Processor (Haswell, no TSX)", Some("Haswell")),
        ("13th Gen Intel(R) Core(TM) i9-13900K", Some("Raptor Lake")),
        ("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", Some("Coffee Lake")),
        ("QEMU Virtual CPU version 2.5+", None),
        ("xeon v", None),
        ("xeon é-2300", None),
        ("epyc", None),
        ("core i", None),
    ] {
        assert_eq!(name::generation(written), generation, "{written}");
    }
    assert_eq!(name::ghz("Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz"), Some(3.0));
    assert_eq!(name::ghz("Intel Xeon E5-2660 (2.20 GHz)"), Some(2.2));
    assert!(name::is_server(&name::normalise("AMD EPYC-Milan Processor")));
    assert_eq!((name::ghz("AMD EPYC 7763"), name::ghz("GHz"), name::ghz("@ 99GHz")), (None, None, None));
}

#[test]
fn any_description_has_an_answer_that_rises_with_load() {
    let names = [
        "",
        "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz",
        "AMD EPYC 9965 192-Core Processor",
        "Magic 9000",
        "Intel(R) N100",
    ];
    let generations = [None, Some("Neoverse V2"), Some("Sierra Forest"), Some("Zen 5 client"), Some("Skylake")];
    for cpu in names {
        for generation in generations {
            for (packages, threads, memory_gib) in
                [(1, 1, None), (2, 96, Some(192.0)), (64, 8192, Some(1e5)), (1, 4, Some(0.0))]
            {
                for guest in [false, true] {
                    for policy in [Policy::Unknown, Policy::Turbo, Policy::Efficient] {
                        let machine = Machine {
                            cpu: cpu.into(),
                            generation,
                            server: None,
                            packages,
                            threads,
                            memory_gib,
                            guest,
                            policy,
                        };
                        let prior = Prior::of(&machine);
                        let mut before = (0.0, 0.0);
                        for load in 0..=100 {
                            let (package, platform) =
                                (prior.package(f64::from(load) / 100.0), prior.platform(f64::from(load) / 100.0));
                            for one in [Some(package), Some(platform), prior.dram(f64::from(load) / 100.0)]
                                .into_iter()
                                .flatten()
                            {
                                assert!(
                                    one.low >= 0.0 && one.low <= one.watts && one.watts <= one.high,
                                    "{machine:?} {one:?}"
                                );
                                assert!(one.high.is_finite(), "{machine:?} {one:?}");
                            }
                            assert!(package.watts >= before.0 && platform.watts >= before.1, "{machine:?} {load}");
                            assert!(package.watts <= platform.watts, "{machine:?} {load} {package:?} {platform:?}");
                            before = (package.watts, platform.watts);
                        }
                        assert!((0.01..0.9).contains(&prior.idle_to_full_ratio()), "{machine:?}");
                        assert_eq!(prior.dram(0.5).is_some(), memory_gib.is_some());
                    }
                }
            }
        }
    }
}

#[test]
fn a_vm_has_its_part_of_a_host() {
    let name = "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz";
    let host = Prior::of(&machine(name, 2, 96, 192.0));
    let vm = Prior::of(&Machine { guest: true, ..machine(name, 1, 4, 8.0) });
    for load in [0.0, 0.33, 1.0] {
        assert!((vm.package(load).watts * 24.0 / host.package(load).watts - 1.0).abs() < 1e-9);
        assert!((vm.platform(load).watts * 24.0 / host.platform(load).watts - 1.0).abs() < 1e-9);
        assert!((vm.dram(load).unwrap().watts * 24.0 / host.dram(load).unwrap().watts - 1.0).abs() < 1e-9);
    }
    assert!(vm.description().contains("a VM: its 4 vCPUs' part of a host with 96 threads"), "{}", vm.description());
}

#[test]
fn the_whole_is_at_least_its_parts() {
    for (cpu, packages, threads, memory_gib) in [
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", 2, 72, 512.0),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 2, 96, 384.0),
        ("AMD EPYC 7R13 Processor", 2, 192, 768.0),
        ("AMD EPYC 7763 64-Core Processor", 2, 256, 2048.0),
        ("AMD EPYC 9965 192-Core Processor", 2, 768, 1536.0),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 1, 32, 64.0),
    ] {
        for guest in [false, true] {
            let prior = Prior::of(&Machine { guest, ..machine(cpu, packages, threads, memory_gib) });
            for load in [0.0, 0.05, 0.5, 1.0] {
                let parts = prior.package(load).watts + prior.dram(load).unwrap().watts;
                assert!(parts <= prior.platform(load).watts, "{cpu} {load}: {parts} {:?}", prior.platform(load));
            }
        }
    }
}

#[test]
fn a_package_stays_near_a_listed_tdp() {
    // A generation without results, and more threads than any server that was fitted.
    let prior = Prior::of(&machine("AMD EPYC 9965 192-Core Processor", 2, 768, 1536.0));
    assert!(prior.package(1.0).high <= 1500.0 && prior.package(1.0).extrapolating, "{:?}", prior.package(1.0));
    // A cloud's own processor that no list has.
    let prior = Prior::of(&machine("Intel(R) Xeon(R) Platinum 8488C", 2, 192, 768.0));
    assert!(prior.has_turbo() && !prior.tdp_is_listed());
    assert!((400.0..1000.0).contains(&prior.package(1.0).watts), "{:?}", prior.package(1.0));
    // One of AMD's list is as SPECpower's servers are.
    assert!(!Prior::of(&machine("AMD EPYC 7443P 24-Core Processor", 1, 48, 128.0)).has_turbo());
}

#[test]
fn the_description_says_where_the_figures_are_from() {
    for (machine, said) in [
        (
            machine("Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", 2, 96, 192.0),
            "(Cascade Lake), TDP 240 W (codecarbon's list), load curve of cloud bare metal by Teads (turbo on)",
        ),
        (
            machine("Intel(R) Xeon(R) Platinum 8252C CPU @ 3.80GHz", 2, 48, 192.0),
            "W (by cores, frequency and generation)",
        ),
        (
            machine("AMD EPYC 7763 64-Core Processor", 2, 256, 512.0),
            "TDP 280 W (codecarbon's list), load curve of SPECpower's servers (turbo off)",
        ),
        (machine("Magic 9000", 1, 10, 8.0), "\"Magic 9000\", TDP 54 W (not listed: by threads alone)"),
        (
            Machine { generation: Some("Neoverse N1"), ..machine("", 1, 64, 64.0) },
            "Neoverse N1, wall watts per thread of published ARM servers",
        ),
    ] {
        let prior = Prior::of(&machine);
        assert!(prior.description().contains(said), "{} {said}", prior.description());
    }
}
