//! The errors of the prior on processors that were left out of the fit, which is made again here: needs the data sets.

use super::super::host::Processor;
use super::super::tables::{self, ByLoad, GENERATIONS};
use super::super::{Machine, Prior, name};
use super::machine;
use std::fmt::Write as _;

/// The folder of the data sets: $JOULED_DATA, else `shared/data` beside the repository; `None`, with a line, where it
/// is not there.
fn data(file: &str) -> Option<Vec<Vec<String>>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let folder = std::env::var_os("JOULED_DATA").map_or_else(|| beside.into(), std::path::PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
        println!("skipped: no data ({file})");
        return None;
    };
    Some(text.lines().skip(1).map(fields).collect())
}

/// Fields of a line of CSV, with quoted ones.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            _ => field.push(character),
        }
    }
    all.push(field);
    all
}

/// One row of Teads' CPUStress: processor, threads, load in per cent, watts of both packages, watts of memory.
type Stress = (String, u32, usize, f64, f64);

fn cpu_stress() -> Option<Vec<Stress>> {
    let number = |text: &str| text.parse::<f64>().unwrap();
    let rows = data("power/ec2-metal.csv")?.into_iter().filter(|row| row[2] == "CPUStress");
    let row = |row: Vec<String>| {
        let (threads, load) = (row[1].parse().unwrap(), row[3].parse().unwrap());
        (row[0].clone(), threads, load, number(&row[4]), number(&row[5]))
    };
    Some(rows.map(row).collect())
}

/// Shape and both factors of full load, fitted as in packaging/dev/fit-prior.py, without one processor.
fn turbo_without(rows: &[Stress], left_out: &str) -> (ByLoad, f64, f64) {
    let mut names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).filter(|name| *name != left_out).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &str, load: usize| {
        let watts: Vec<f64> = rows.iter().filter(|row| row.0 == name && row.2 == load).map(|row| row.3 / 2.0).collect();
        watts.iter().sum::<f64>() / watts.len() as f64
    };
    let shape = std::array::from_fn(|step| {
        let mut parts: Vec<f64> = names.iter().map(|name| of(name, 10 * step) / of(name, 100)).collect();
        parts.sort_by(f64::total_cmp);
        let middle = parts.len() / 2;
        if parts.len() % 2 == 1 { parts[middle] } else { (parts[middle - 1] + parts[middle]) / 2.0 }
    });
    let (mut of_listed, mut listed, mut of_custom) = (0.0, 0.0, 0.0);
    for name in &names {
        let threads = rows.iter().find(|row| row.0 == *name).unwrap().1;
        let description = machine(name, 2, threads, 192.0);
        if let Some(tdp) = name::listed_tdp(&name::normalise(name)) {
            (of_listed, listed) = (of_listed + (of(name, 100) / tdp).ln(), listed + 1.0);
        }
        of_custom += (of(name, 100) / regressed(&description)).ln();
    }
    (shape, (of_listed / (listed + 3.0)).exp(), (of_custom / names.len() as f64).exp())
}

/// The TDP of a package by regression, also where one is listed.
fn regressed(machine: &Machine) -> f64 {
    let row = Processor::of(machine).fitted.unwrap();
    let cores = f64::from(machine.threads / machine.packages) / row.smt;
    let [one, per_cores, per_ghz] = tables::TDP;
    let ghz = name::ghz(&machine.cpu).unwrap();
    (one + per_cores * cores.ln() + per_ghz * (ghz / 2.5).ln() + row.tdp_offset).exp()
}

#[test]
fn packages_of_cloud_bare_metal_each_cpu_type_left_out() {
    let Some(rows) = cpu_stress() else { return };
    let (mut errors, mut covered, mut report) = (Vec::new(), 0, String::new());
    let mut names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (shape, of_listed, of_custom) = turbo_without(&rows, name);
        let of_type: Vec<_> = rows.iter().filter(|row| row.0 == name).collect();
        let full = match name::listed_tdp(&name::normalise(name)) {
            Some(tdp) => tdp * of_listed,
            None => regressed(&machine(name, 2, of_type[0].1, 192.0)) * of_custom,
        };
        let ratio = |row: &&Stress| 2.0 * full * shape[row.2 / 10] / row.3;
        let own: Vec<f64> = of_type.iter().map(ratio).collect();
        let inside = own.iter().filter(|ratio| ratio.ln().abs() <= tables::PACKAGE_SPREAD.ln()).count();
        let mape = own.iter().map(|ratio| (ratio - 1.0).abs()).sum::<f64>() / own.len() as f64 * 100.0;
        let bias = own.iter().map(|ratio| ratio - 1.0).sum::<f64>() / own.len() as f64 * 100.0;
        let _ = write!(report, "\n  {name}: MAPE {mape:.1} %, bias {bias:+.1} %, {inside} of {} inside", own.len());
        assert!(mape <= 20.0, "{name}: {mape}");
        covered += inside;
        errors.extend(own.iter().map(|ratio| (ratio - 1.0).abs()));
    }
    let mape = errors.iter().sum::<f64>() / errors.len() as f64 * 100.0;
    let coverage = covered as f64 / errors.len() as f64 * 100.0;
    println!("prior, package, each CPU type left out: MAPE {mape:.2} %, coverage {coverage:.1} %{report}");
    assert!(mape <= 15.0 && (87.0..=93.0).contains(&coverage), "{mape} {coverage}");
    // What is shipped is the fit on all.
    let (shape, of_listed, of_custom) = turbo_without(&rows, "");
    let near = |a: f64, b: f64| (a - b).abs() < 6e-4 * b.abs().max(1.0);
    assert!(shape.iter().zip(tables::SHAPE).all(|(a, b)| near(*a, b)), "{shape:?}");
    assert!(
        near(of_listed, tables::FULL_OF_LISTED) && near(of_custom, tables::FULL_OF_CUSTOM),
        "{of_listed} {of_custom}"
    );
    // And what is shipped is what the prior says.
    for (name, threads, load, watts, memory) in &rows {
        let prior = Prior::of(&machine(name, 2, *threads, 192.0));
        let says = prior.package(*load as f64 / 100.0);
        assert!(prior.has_turbo() && (says.watts / watts - 1.0).abs() < 0.25, "{name} {load}: {says:?} {watts}");
        assert!(prior.dram(*load as f64 / 100.0).unwrap().high * 2.0 > *memory);
    }
}

/// A server of SPECpower: its description, what the fit takes of it, and its watts by load.
struct Published {
    machine: Machine,
    generation: String,
    x: Vec<f64>,
    ln_watts: ByLoad,
    year: u32,
}

fn published() -> Option<Vec<Published>> {
    let words = [
        ("core", "Core"),
        ("nehalem", "Nehalem"),
        ("sandybridge", "Sandy Bridge"),
        ("ivybridge", "Ivy Bridge"),
        ("haswell", "Haswell"),
        ("broadwell", "Broadwell"),
        ("skylake", "Skylake"),
        ("kabylabe", "Kaby Lake"),
        ("coffeelake", "Coffee Lake"),
        ("cascadelake", "Cascade Lake"),
        ("cooperlake", "Cooper Lake"),
        ("icelake", "Ice Lake"),
        ("rocketlake", "Rocket Lake"),
        ("opteron", "Opteron"),
        ("epyc-gen1", "EPYC 1st Gen"),
        ("epyc-gen2", "EPYC 2nd Gen"),
        ("epyc-gen3", "EPYC 3rd Gen"),
        ("epyc", "EPYC 3rd Gen"),
    ];
    let number = |text: &str| text.parse::<f64>().ok();
    let rows = data("specpower-load-levels.csv")?;
    let row = |row: &Vec<String>| {
        let generation = words.iter().find(|(word, _)| *word == row[5])?.1;
        let (tdp, chips, threads) = (number(&row[12])?, number(&row[8])?, number(&row[10])?);
        let (gib, ghz) = (number(&row[11])?, number(&row[6])? / 1000.0);
        let flag = |on: bool| f64::from(u8::from(on));
        let single = chips == 1.0;
        let mut x = vec![
            (tdp * chips).ln(),
            threads.ln(),
            gib.ln(),
            ghz.ln(),
            chips.ln(),
            flag(single && tdp <= tables::ENTRY_WATTS),
            flag(single),
        ];
        x.extend(GENERATIONS.iter().map(|one| flag(one.name == generation)));
        // Columns are 100 % first, active idle last.
        let ln_watts = std::array::from_fn(|load| number(&row[29 - load]).unwrap().ln());
        let machine = machine(&row[3], chips as u32, threads as u32, gib);
        Some(Published { machine, generation: generation.to_owned(), x, ln_watts, year: row[16].parse().ok()? })
    };
    Some(rows.iter().filter_map(row).collect())
}

/// Solves a·x = b for eleven right sides by Cholesky's decomposition: `a` is symmetric and positive.
fn solve(a: &[Vec<f64>], b: &[ByLoad]) -> Vec<ByLoad> {
    let n = a.len();
    let mut l = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
            l[i][j] = if i == j { (a[i][i] - sum).sqrt() } else { (a[i][j] - sum) / l[j][j] };
        }
    }
    let mut x = b.to_vec();
    let known = |x: &[ByLoad], of: &mut dyn Iterator<Item = (usize, f64)>| -> ByLoad {
        of.fold([0.0; 11], |sum, (k, factor)| std::array::from_fn(|load| sum[load] + factor * x[k][load]))
    };
    for i in 0..n {
        let sum = known(&x, &mut (0..i).map(|k| (k, l[i][k])));
        x[i] = std::array::from_fn(|load| (x[i][load] - sum[load]) / l[i][i]);
    }
    for i in (0..n).rev() {
        let sum = known(&x, &mut (i + 1..n).map(|k| (k, l[k][i])));
        x[i] = std::array::from_fn(|load| (x[i][load] - sum[load]) / l[i][i]);
    }
    x
}

#[test]
fn whole_servers_each_cpu_model_left_out() {
    let Some(mut servers) = published() else { return };
    // Standardised, with an intercept, as in packaging/dev/fit-prior.py, on SPEC's file alone.
    for column in 0..7 {
        let mean = servers.iter().map(|one| one.x[column]).sum::<f64>() / servers.len() as f64;
        let variance = servers.iter().map(|one| (one.x[column] - mean).powi(2)).sum::<f64>() / servers.len() as f64;
        servers.iter_mut().for_each(|one| one.x[column] = (one.x[column] - mean) / variance.sqrt());
    }
    servers.iter_mut().for_each(|one| one.x.insert(0, 1.0));
    let width = servers[0].x.len();
    let sums = |chosen: &dyn Fn(&Published) -> bool| {
        let (mut a, mut b) = (vec![vec![0.0; width]; width], vec![[0.0; 11]; width]);
        for one in servers.iter().filter(|one| chosen(one)) {
            for i in (0..width).filter(|i| one.x[*i] != 0.0) {
                (0..width).for_each(|j| a[i][j] += one.x[i] * one.x[j]);
                (0..11).for_each(|load| b[i][load] += one.x[i] * one.ln_watts[load]);
            }
        }
        (a, b)
    };
    let (mut all, right) = sums(&|_| true);
    (1..width).for_each(|i| all[i][i] += 1.0);
    let keys: Vec<String> = servers.iter().map(|one| name::normalise(&one.machine.cpu)).collect();
    let mut models: Vec<&String> = keys.iter().collect();
    models.sort_unstable();
    models.dedup();
    let mut errors = Vec::new();
    let mut by_load = [0.0; 11];
    let (mut recent, mut worst) = (Vec::new(), (0.0, String::new()));
    let (mut inside, mut inside_entry) = ((0, 0), (0, 0));
    for model in &models {
        let is_model = |one: &Published| name::normalise(&one.machine.cpu) == **model;
        let (own, own_right) = sums(&is_model);
        let a: Vec<Vec<f64>> = (0..width).map(|i| (0..width).map(|j| all[i][j] - own[i][j]).collect()).collect();
        let b: Vec<ByLoad> =
            (0..width).map(|i| std::array::from_fn(|load| right[i][load] - own_right[i][load])).collect();
        let beta = solve(&a, &b);
        let mut of_model = Vec::new();
        for one in servers.iter().filter(|one| is_model(one)) {
            let entry = one.x[6] > 0.0;
            let (low, high) = if entry { &tables::ENTRY } else { &tables::SERVER };
            let tally = if entry { &mut inside_entry } else { &mut inside };
            for load in 0..11 {
                let says: f64 = one.x.iter().zip(&beta).map(|(x, beta)| x * beta[load]).sum();
                let ratio = (says - one.ln_watts[load]).exp();
                let error = (ratio - 1.0).abs() * 100.0;
                by_load[load] += error / servers.len() as f64;
                of_model.push(error);
                *tally = (tally.0 + usize::from((low[load]..=high[load]).contains(&ratio.recip())), tally.1 + 1);
                if one.year >= 2017 {
                    recent.push(error);
                }
            }
        }
        let mean = of_model.iter().sum::<f64>() / of_model.len() as f64;
        if mean > worst.0 {
            worst = (mean, (*model).clone());
        }
        errors.extend(of_model);
    }
    let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
    let coverage = |(inside, of): (usize, usize)| inside as f64 / of as f64 * 100.0;
    let both = coverage((inside.0 + inside_entry.0, inside.1 + inside_entry.1));
    println!(
        "prior, whole server, each of {} CPU models left out: MAPE {:.2} %, from 2017 {:.2} %; by load {:.1?}; coverage \
         {both:.1} % (entry servers {:.1} %, others {:.1} %); worst: {} with {:.0} %",
        models.len(),
        mean(&errors),
        mean(&recent),
        by_load,
        coverage(inside_entry),
        coverage(inside),
        worst.1,
        worst.0
    );
    assert!(servers.len() > 600 && mean(&errors) <= 13.7, "{}", mean(&errors));
    assert!((87.0..=93.0).contains(&both), "{both}");
    assert!((85.0..=95.0).contains(&coverage(inside_entry)), "{inside_entry:?}");
}

#[test]
fn the_prior_says_of_published_servers_what_the_fit_does() {
    let Some(servers) = published() else { return };
    let mut errors = Vec::new();
    for one in &servers {
        let prior = Prior::of(&one.machine);
        for load in 0..11 {
            let says = prior.platform(load as f64 / 10.0);
            assert!(says.low <= says.watts && says.watts <= says.high && says.low > 0.0);
            errors.push((says.watts / one.ln_watts[load].exp() - 1.0).abs() * 100.0);
        }
    }
    let named =
        servers.iter().filter(|one| name::generation(&one.machine.cpu) == Some(one.generation.as_str())).count();
    let mape = errors.iter().sum::<f64>() / errors.len() as f64;
    println!(
        "prior by name, whole server, fitted on the same: MAPE {mape:.2} %; {named} generations of {}",
        servers.len()
    );
    assert!(mape <= 13.7 && named * 100 >= servers.len() * 95, "{mape} {named}");
}
