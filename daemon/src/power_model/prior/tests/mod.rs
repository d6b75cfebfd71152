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

#[test]
fn arm_servers_by_the_names_that_people_write() {
    for (written, core) in [
        ("Ampere Altra", "Neoverse N1"),
        ("Ampere(R) Altra(R) Max Processor", "Neoverse N1"),
        ("Ampere Altra Q80-30", "Neoverse N1"),
        ("M128-30", "Neoverse N1"),
        ("AmpereOne A192-32X", "AmpereOne"),
        ("AWS Graviton2", "Neoverse N1"),
        ("aws graviton3e", "Neoverse V1"),
        ("AWS Graviton4", "Neoverse V2"),
        ("Graviton", "ARM"),
        ("Graviton9", "ARM"),
        ("Neoverse-N1", "Neoverse N1"),
        ("ARM Neoverse_V2", "Neoverse V2"),
        ("Neoverse-E1", "ARM"),
        ("Microsoft Azure Cobalt 100", "Neoverse N2"),
        ("Google Axion", "Neoverse V2"),
        ("NVIDIA Grace CPU Superchip", "Neoverse V2"),
        ("Alibaba Yitian 710", "Neoverse N2"),
        ("HUAWEI Kunpeng 920", "ARM"),
        ("Marvell ThunderX2 CN9980", "ARM"),
        ("Cortex-A72", "Cortex-A72"),
        ("Cortex-A76", "ARM"),
        ("ARMv8 Processor rev 1 (v8l)", "ARM"),
    ] {
        assert_eq!(name::generation(written), Some(core), "{written}");
        let prior = Prior::of(&machine(written, 1, 64, 256.0));
        assert!(prior.is_server() && !prior.has_turbo(), "{written}: {}", prior.description());
        // 0.7 to 1.9 W per thread.
        let (rest, full) = (prior.platform(0.0).watts, prior.platform(1.0).watts);
        assert!((40.0..60.0).contains(&rest) && (110.0..130.0).contains(&full), "{written}: {rest} to {full} W");
    }
    for other in ["Intel Xeon M5-2020", "AMD EPYC 7763", "Charm 9000", "Intel(R) Core(TM) m3-7Y30", ""] {
        assert!(!name::generation(other).is_some_and(arm::is_arm), "{other}");
    }
}

#[test]
fn clients_have_the_intervals_of_what_is_not_known() {
    // Watts of the package under a load of all its threads that lasts, and of the whole at rest, as reviewers and
    // owners have measured them; 0: not known.
    for (cpu, threads, memory_gib, package, rest) in [
        ("Apple M1", 8, 16.0, 20.0, 7.0),
        ("Apple M3 Max", 16, 64.0, 55.0, 10.0),
        ("Intel(R) N100", 4, 16.0, 11.0, 7.0),
        ("Intel(R) N95", 4, 8.0, 15.0, 7.0),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", 8, 16.0, 28.0, 6.0),
        ("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", 8, 8.0, 20.0, 5.0),
        ("Intel(R) Core(TM) i7-1065G7 CPU @ 1.30GHz", 8, 16.0, 20.0, 5.0),
        ("13th Gen Intel(R) Core(TM) i7-1360P", 16, 32.0, 40.0, 6.0),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 32, 64.0, 253.0, 0.0),
        ("12th Gen Intel(R) Core(TM) i5-12400", 12, 16.0, 65.0, 0.0),
        ("AMD Ryzen 7 5800U with Radeon Graphics", 16, 16.0, 25.0, 5.0),
        ("AMD Ryzen 9 7950X 16-Core Processor", 32, 64.0, 220.0, 0.0),
        ("Intel(R) Core(TM) Ultra 9 285K", 24, 64.0, 250.0, 0.0),
    ] {
        let prior = Prior::of(&machine(cpu, 1, threads, memory_gib));
        let full = prior.package(1.0);
        assert!(full.low < package && package < full.high, "{cpu}: {full:?}, {}", prior.description());
        assert!(full.high / full.low > 4.0, "{cpu}: {full:?}");
        let whole = prior.platform(0.0);
        assert!(rest == 0.0 || (whole.low < rest && rest < whole.high), "{cpu}: {whole:?}, {}", prior.description());
        if client::letters(&name::normalise(cpu)).is_some_and(|letters| letters.mobile) {
            assert!(whole.watts < 12.0, "{cpu}: {whole:?}, {}", prior.description());
        }
        assert!(!prior.is_server(), "{cpu}");
    }
    // What is known by nothing but its threads has the widest one.
    let unknown = Prior::of(&machine("Magic 9000", 1, 8, 16.0)).package(1.0);
    assert!(unknown.high / unknown.low > 10.0, "{unknown:?}");
}

#[test]
fn letters_of_clients() {
    for (written, watts, mobile) in [
        ("Intel(R) Core(TM) i7-10875H CPU @ 2.30GHz", 45.0, true),
        ("Intel(R) Core(TM) i5-2380P CPU @ 3.10GHz", 65.0, false),
        ("12th Gen Intel(R) Core(TM) i7-1260P", 28.0, true),
        ("Intel(R) Core(TM) m3-7Y30 CPU @ 1.00GHz", 5.0, true),
        ("Intel(R) Core(TM) Ultra 7 258V", 15.0, true),
        ("Intel(R) Core(TM) 5 120U", 15.0, true),
        ("AMD Ryzen 9 7940HS w/ Radeon 780M Graphics", 35.0, true),
        ("AMD Ryzen 7 PRO 4750U with Radeon Graphics", 15.0, true),
        ("AMD Ryzen AI 9 HX 370 w/ Radeon 890M", 28.0, true),
        ("AMD Ryzen 7 5700G with Radeon Graphics", 65.0, false),
        ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", 280.0, false),
        ("Intel(R) Celeron(R) N5105 @ 2.00GHz", 6.0, true),
        ("Intel(R) N97", 6.0, true),
    ] {
        let found = client::letters(&name::normalise(written)).unwrap();
        assert_eq!((found.watts, found.mobile), (watts, mobile), "{written}");
    }
    for none in ["", "magic 9000", "xeon 8275cl", "core", "ryzen", "core i"] {
        assert_eq!(client::letters(none), None, "{none}");
    }
    assert_eq!((name::listed_tdp("n100"), name::listed_tdp("n97")), (Some(6.0), Some(12.0)));
}

#[test]
fn no_part_has_more_than_the_whole_at_any_end() {
    for cpu in
        ["Intel(R) Xeon(R) Gold 5117", "AMD EPYC 7763", "Intel(R) N100", "Apple M1", "Neoverse-N1", "Xeon E-2388G", "x"]
    {
        for (packages, threads) in [(1, 8), (2, 128)] {
            for memory_gib in [8.0, 512.0, 4096.0, 65_536.0] {
                for policy in [Policy::Unknown, Policy::Turbo, Policy::Efficient] {
                    for guest in [false, true] {
                        let described = Machine { policy, guest, ..machine(cpu, packages, threads, memory_gib) };
                        let prior = Prior::of(&described);
                        for load in [0.0, 0.25, 0.6, 1.0] {
                            let (dram, whole) = (prior.dram(load).unwrap(), prior.platform(load));
                            assert!(dram.high <= whole.high, "{described:?} {load}: {dram:?} {whole:?}");
                            let package = prior.package(load);
                            assert!(package.high <= whole.high, "{described:?} {load}: {package:?} {whole:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_frequency_that_no_server_has_is_taken_for_the_nearest() {
    let rest = |cpu: &str| Prior::of(&machine(cpu, 2, 64, 256.0)).platform(0.0);
    let (slowest, absurd) = (rest("Intel Xeon Gold 6230 @ 1.60GHz"), rest("Intel Xeon Gold 6230 @ 0.10GHz"));
    assert_eq!(slowest.watts, absurd.watts);
    assert!(absurd.extrapolating && !slowest.extrapolating && absurd.high > slowest.high);
}

#[test]
fn a_vm_is_never_more_than_its_host() {
    let vm = |threads| Prior::of(&Machine { guest: true, ..machine("Intel Xeon Platinum 8259CL", 1, threads, 64.0) });
    let text = vm(384).description().to_owned();
    assert!(text.contains("384 vCPUs' part of a host with 384 threads"), "{text}");
}
