//! A report in every form: table, CSV, JSON and FOCUS of joulectl, HTTP and D-Bus of the daemon, and statements. All
//! have the same sums to the last digit, with carbon and cost by factors that change, stand in for others, are negative
//! or are missing. The history is written beforehand, so that it has what a test cannot wait for.

use crate::common::{Bus, Daemon, Policy, World, get, joulectl, output, said, until};
use jouled::history::collector::{Closed, SeriesName};
use jouled::history::db::Db;
use jouled::history::local::Calendar;
use jouled::history::slot::{AmountPart, AmountSource, KindPart, Slot};
use jouled::model::domain::NodeEnergy;
use jouled::model::entity::UnitLabels;
use jouled::model::units::{Microjoules, Nanos};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// Units, the last of which is one that a spreadsheet would take for a formula.
const UNITS: [&str; 3] = ["web.service", "db.service", "=sum.service"];

/// A minute with odd energies. `factors`: carbon and price, in millionths by kWh, and whether these stand in.
fn minute(number: i64, begin: i64, factors: &[(&str, &str, Option<i64>, bool)]) -> Closed {
    let from = begin + number * 60;
    let mut slot = Slot { observed_ms: 60_000, ..Slot::empty(from, from + 60) };
    let odd = |of: i64| (number * 7_919 + of * 104_729 + 3) % 9_973 * 1_000_003;
    let mut all = [0; 2];
    let mut part = KindPart { rest: vec![0, 0, -odd(9) / 50, 0, 11, 0], ..KindPart::default() };
    for id in 1..=3_u64 {
        let row = [odd(id.cast_signed()), odd(id.cast_signed() + 3) / 7, odd(id.cast_signed() + 6) / 3];
        part.rows.insert(id, vec![5, 0, row[0], row[1], row[2], 0]);
        all[0] += row[0] + row[1];
        all[1] += row[2];
    }
    slot.kinds.insert("unit".into(), part);
    for (zone, sum) in [("core", 17), ("package", all[0]), ("dram", all[1])] {
        let at = slot.zone_index(zone, zone != "core");
        let (idle, unattributed) = (sum / 3 + 1, 101);
        let active = Microjoules((sum + 1_000_001).unsigned_abs());
        let idle = Microjoules(idle.unsigned_abs());
        let energy = NodeEnergy { total: idle + active, idle, active, unattributed: Microjoules(unattributed) };
        slot.zones[at].energy = energy;
        slot.zones[at].measured = energy.total.0;
    }
    for (measure, unit, rate, fallback) in factors {
        let energy = slot.billed().total.0;
        let source = AmountSource { source: format!("{rate:?}"), fallback: *fallback, energy, amount: 0 };
        slot.amounts.push(AmountPart {
            measure: (*measure).into(),
            unit: (*unit).into(),
            uniform: Some(rate.unwrap_or_default()),
            sources: rate.iter().map(|_| source.clone()).collect(),
            uncounted: if rate.is_none() { energy } else { 0 },
            ..AmountPart::default()
        });
    }
    slot.apply_uniform();
    let name = |(id, unit): (usize, &&str)| {
        let labels = UnitLabels { unit, slice: "system.slice" }.into();
        (id as u64 + 1, SeriesName { labels, since: Nanos(1) })
    };
    let named = if number == 0 { UNITS.iter().enumerate().map(name).collect() } else { Vec::new() };
    Closed { slot, named, ..Closed::default() }
}

/// A factor: measure, unit, its value as in [`AmountPart::uniform`], and whether it stands in.
type Factor = (&'static str, &'static str, Option<i64>, bool);

/// Writes minutes that begin some hours ago; when that is, in seconds since 1970.
fn prepare(state: &Path, factors: &[&[Factor]]) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let begin = (now / 3600 - 5) * 3600;
    std::fs::create_dir_all(state).unwrap();
    let path = state.join("history.redb");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    let db = Db::open(file, Calendar::system(), 200_000_000).unwrap();
    let minutes: Vec<Closed> = (0..).zip(factors).map(|(number, factors)| minute(number, begin, factors)).collect();
    db.write(&minutes).unwrap();
    begin
}

/// By row and name: microjoules, and billionths by measure.
type Sums = BTreeMap<(String, String), (i64, BTreeMap<String, i64>)>;

fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value}"))
}

fn of_json(rows: &Value) -> Sums {
    let amount = |cell: &Value| {
        Some((format!("{} {}", cell["measure"].as_str()?, cell["unit"].as_str()?), cell["nano"].as_i64()?))
    };
    let row = |row: &Value| {
        let name = if row["row"] == "entity" { row["name"].as_str().unwrap() } else { "" };
        let amounts = row["amounts"].as_array().into_iter().flatten().filter_map(amount).collect();
        ((row["row"].as_str().unwrap().to_owned(), name.to_owned()), (integer(&row["microjoules"]), amounts))
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// The answer of `/v1/report`.
fn of_http(report: &Value) -> Sums {
    let part = &report["parts"][0];
    let whole = |sum: &Value| integer(&sum["dynamic"]) + integer(&sum["idle"]);
    let measures: Vec<&Value> = part["amounts"].as_array().into_iter().flatten().collect();
    let name = |line: &Value| format!("{} {}", line["measure"].as_str().unwrap(), line["unit"].as_str().unwrap());
    let all = |of: &dyn Fn(usize, &Value) -> i64| {
        measures.iter().enumerate().map(|(at, line)| (name(line), of(at, line))).collect::<BTreeMap<_, _>>()
    };
    let mut sums = Sums::new();
    for line in part["lines"].as_array().unwrap() {
        let key = ("entity".to_owned(), line["name"].as_str().unwrap().to_owned());
        sums.insert(key, (whole(&line["energy"]), all(&|at, _| whole(&line["amounts"][at]))));
    }
    for row in ["rest", "outside"] {
        sums.insert((row.into(), String::new()), (whole(&part[row]), all(&|_, line| whole(&line[row]))));
    }
    for row in ["idle", "unattributed"] {
        sums.insert((row.into(), String::new()), (integer(&part[row]), all(&|_, line| integer(&line[row]))));
    }
    let node = (integer(&part["node"]["total"]), all(&|_, line| integer(&line["node"])));
    sums.insert(("node".into(), String::new()), node);
    sums
}

/// What busctl prints of GetReport.
fn of_dbus(answer: &Value) -> Sums {
    let row = |row: &Value| {
        let number = |name: &str| integer(&row[4][name]["data"]);
        let amounts = row[4]["Amounts"]["data"].as_array().into_iter().flatten();
        let amount =
            |one: &Value| (format!("{} {}", one[0].as_str().unwrap(), one[1].as_str().unwrap()), integer(&one[2]));
        let key = (row[1].as_str().unwrap().to_owned(), row[2].as_str().unwrap().to_owned());
        (key, (number("DynamicMicrojoules") + number("IdleMicrojoules"), amounts.map(amount).collect()))
    };
    answer["data"][0].as_array().unwrap().iter().map(row).collect()
}

/// What busctl prints of GetStatement, of one entity.
fn statement_of_dbus(answer: &Value) -> (i64, BTreeMap<String, i64>) {
    let numbers = &answer["data"][0][0][2];
    let number = |name: &str| integer(&numbers[name]["data"]);
    let amount = |one: &Value| {
        (format!("{} {}", one[0].as_str().unwrap(), one[1].as_str().unwrap()), integer(&one[2]) + integer(&one[3]))
    };
    let amounts: BTreeMap<String, i64> =
        numbers["Amounts"]["data"].as_array().into_iter().flatten().map(amount).collect();
    // Runs add up to the whole, in the order of amounts.
    let runs = numbers["Runs"]["data"].as_array().unwrap();
    let energy: i64 = runs.iter().map(|run| integer(&run[1]) + integer(&run[2])).sum();
    assert_eq!(energy, number("DynamicMicrojoules") + number("IdleMicrojoules"), "{answer}");
    let of_runs: i64 = runs.iter().flat_map(|run| run[3].as_array().unwrap()).map(integer).sum();
    assert_eq!(of_runs, amounts.values().sum::<i64>(), "{answer}");
    (energy, amounts)
}

/// The cells of lines of CSV, by the names of the first line.
fn cells(csv: &str) -> Vec<BTreeMap<String, String>> {
    let split = |line: &str| {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        for letter in line.chars() {
            match letter {
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                letter => cells.last_mut().unwrap().push(letter),
            }
        }
        cells
    };
    let mut lines = csv.lines().map(split);
    let names = lines.next().unwrap();
    lines.map(|cells| names.iter().cloned().zip(cells).collect()).collect()
}

/// A decimal number in units of its last digit.
fn digits(number: &str) -> i64 {
    number.replace('.', "").parse().unwrap_or_else(|_| panic!("{number:?}"))
}

fn of_csv(csv: &str) -> Sums {
    let row = |row: BTreeMap<String, String>| {
        let names = [("cost EUR", "cost_EUR"), ("co2e_location gCO2e", "co2e_location_g")];
        let amounts = names.iter().filter_map(|(name, column)| {
            let cell = row.get(*column).filter(|cell| !cell.is_empty())?;
            Some(((*name).to_owned(), digits(cell)))
        });
        let name = if row["row"] == "entity" { row["name"].trim_start_matches('\'').to_owned() } else { String::new() };
        ((row["row"].clone(), name), (row["microjoules"].parse().unwrap(), amounts.collect()))
    };
    cells(csv).into_iter().map(row).collect()
}

fn of_focus(csv: &str) -> Sums {
    let row = |row: BTreeMap<String, String>| {
        let names = [("cost EUR", "EffectiveCost"), ("co2e_location gCO2e", "x_Co2eLocationGrams")];
        let amounts = names.iter().filter(|(_, column)| !row[*column].is_empty());
        let amounts = amounts.map(|(name, column)| ((*name).to_owned(), digits(&row[*column])));
        let name = row["ResourceName"].trim_start_matches('\'').to_owned();
        ((row["x_Row"].clone(), name), (row["x_EnergyMicrojoules"].parse().unwrap(), amounts.collect()))
    };
    cells(csv).into_iter().map(row).collect()
}

/// That all rows but the node's add up to it, in energy and in each measure.
fn adds_up(sums: &Sums) {
    let node = &sums[&("node".to_owned(), String::new())];
    let others = || sums.iter().filter(|((row, _), _)| row != "node").map(|(_, sums)| sums);
    assert_eq!(others().map(|(energy, _)| energy).sum::<i64>(), node.0);
    for (measure, amount) in &node.1 {
        assert_eq!(others().map(|(_, amounts)| amounts[measure]).sum::<i64>(), *amount, "{measure}");
    }
}

/// What FOCUS has: no line for the node, and none for what is 0.
fn without_node(sums: &Sums) -> Sums {
    let is_0 = |(energy, amounts): &(i64, BTreeMap<String, i64>)| *energy == 0 && amounts.values().all(|one| *one == 0);
    let kept = sums.iter().filter(|((row, _), sums)| row != "node" && !is_0(sums));
    kept.map(|(key, sums)| (key.clone(), sums.clone())).collect()
}

/// That each column of numbers of a table adds up to the last line, the node's.
fn table_adds_up(text: &str, columns: usize) {
    let rows = text.lines().skip(2).take_while(|line| !line.contains("; jouled ran for"));
    let numbers: Vec<Vec<i64>> = rows
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "%").rev().collect();
            words[..columns].iter().map(|word| digits(word)).collect()
        })
        .collect();
    let (node, others) = numbers.split_last().unwrap_or_else(|| panic!("{text}"));
    assert!(others.len() > 3, "{text}");
    for column in 0..columns {
        assert_eq!(others.iter().map(|row| row[column]).sum::<i64>(), node[column], "{text}");
    }
}

fn start(world: &World, bus: Option<&Bus>) -> Daemon {
    let mut command: Command = world.jouled();
    if let Some(bus) = bus {
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address).env("JOULED_EXPORT__DBUS__USE", "on");
    }
    Daemon::start(&mut command, &world.state)
}

#[test]
fn all_forms_have_the_same_sums_to_the_last_digit() {
    let world = World::new();
    let (carbon, cost) = (("co2e_location", "gCO2e"), ("cost", "EUR"));
    let of = |(measure, unit): (&'static str, &'static str), rate, fallback| (measure, unit, rate, fallback);
    let begin = prepare(
        &world.state,
        &[
            &[of(carbon, Some(212_000_000), false), of(cost, Some(300_000), false)],
            &[of(carbon, Some(342_123_456), true), of(cost, Some(-52_001), false)],
            // The factors of carbon are missing, and the order is another one.
            &[of(cost, Some(211_111), true), of(carbon, None, false)],
            &[of(carbon, Some(0), false), of(cost, Some(300_000), false)],
            // No factor was configured.
            &[],
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), Policy::Open);
    let daemon = start(&world, bus.as_ref());
    let at = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap().to_string();
    let (from, until) = (at(begin), at(begin + 600));
    let times = ["--from", &from, "--to", &until];
    let report = |more: &[&str]| until_said(&daemon, &[&["report", "--by", "unit"], times.as_slice(), more].concat());
    let sums = of_json(&serde_json::from_str(&report(&["--format", "json"])).unwrap());
    adds_up(&sums);
    let node = &sums[&("node".to_owned(), String::new())];
    assert_eq!(node.1.len(), 2, "{sums:?}");
    assert!(sums.contains_key(&("entity".into(), "=sum.service".into())), "{sums:?}");

    // joulectl.
    let csv = report(&["--format", "csv"]);
    assert_eq!(of_csv(&csv), sums);
    let kwh: Vec<i64> = cells(&csv).iter().map(|row| digits(&row["kwh"])).collect();
    let (last, others) = kwh.split_last().unwrap();
    assert_eq!(others.iter().sum::<i64>(), *last, "kWh of CSV");
    assert!(cells(&csv).iter().all(|row| row["co2e_location_g_factors"] == "incomplete"), "{csv}");
    assert_eq!(of_focus(&report(&["--format", "focus"])), without_node(&sums));
    let table = report(&[]);
    // kWh, share, and two amounts.
    table_adds_up(&table, 4);
    for words in
        ["without a carbon intensity: its CO2e is not", "(fallback)", "CO2e (location-based): of the machine's energy"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
    // Cut lines go to `other`, and nothing is lost.
    let short = of_json(&serde_json::from_str(&report(&["--limit", "1", "--format", "json"])).unwrap());
    adds_up(&short);
    assert_eq!(&short[&("node".to_owned(), String::new())], node);

    // HTTP, on the metrics page's listener.
    let path = format!("/v1/report?from={begin}&until={}&by=unit&limit=1000", begin + 600);
    let answer: Value = serde_json::from_str(&get(daemon.address, &path, &[]).body).unwrap();
    assert_eq!(of_http(&answer), sums);

    // D-Bus.
    if let Some(bus) = &bus {
        let micros = |seconds: i64| (seconds * 1_000_000).to_string();
        let (from, until) = (micros(begin), micros(begin + 600));
        let call = ["--json=short", "call", "org.jouled1", "/org/jouled1", "org.jouled1.Manager", "GetReport", "ttssu"];
        let call = [call.as_slice(), &[&from, &until, "unit", "", "0"]].concat();
        if let Some(mut busctl) = bus.busctl(&call) {
            let answer: Value = serde_json::from_str(&said(output(&mut busctl))).unwrap();
            assert_eq!(of_dbus(&answer), sums);
            let amounts = &answer["data"][1][0][2]["Amounts"]["data"];
            let of_node = amounts.as_array().unwrap().iter().find(|one| one[0] == "cost").unwrap();
            assert_eq!(integer(&of_node[2]), node.1["cost EUR"]);
            let sources: i64 = of_node[4].as_array().unwrap().iter().map(|one| integer(&one[3])).sum();
            assert_eq!(sources, node.1["cost EUR"], "by source: {of_node}");
            for unit in UNITS {
                let call = ["--json=short", "call", "org.jouled1", "/org/jouled1", "org.jouled1.Manager"];
                let call = [call.as_slice(), &["GetStatement", "ttss", &from, &until, "unit", unit]].concat();
                let answer: Value = serde_json::from_str(&said(output(&mut bus.busctl(&call).unwrap()))).unwrap();
                let row = &sums[&("entity".to_owned(), unit.to_owned())];
                assert_eq!(statement_of_dbus(&answer), *row, "{unit}: {answer}");
            }
        }
    }

    // Statements: each is as the row of its entity.
    for unit in UNITS {
        let row = &sums[&("entity".to_owned(), unit.to_owned())];
        let entity = format!("unit/{unit}");
        let args = [["report", "statement", &entity, "--json"].as_slice(), &times].concat();
        let statement: Value = serde_json::from_str(&until_said(&daemon, &args)).unwrap();
        let one = &statement["statements"][0];
        let mut as_row = one.clone();
        as_row["row"] = "entity".into();
        let of_one = of_json(&Value::Array(vec![as_row]));
        assert_eq!(of_one.values().next(), Some(row), "{one}");
        let path =
            format!("/v1/statement?from={begin}&until={}&kind=unit&name={}", begin + 600, unit.replace('=', "%3D"));
        let answer: Value = serde_json::from_str(&get(daemon.address, &path, &[]).body).unwrap();
        let amounts = answer["entities"][0]["amounts"].as_array().unwrap();
        for amount in amounts {
            let name = format!("{} {}", amount["measure"].as_str().unwrap(), amount["unit"].as_str().unwrap());
            let sum = integer(&amount["amount"]["dynamic"]) + integer(&amount["amount"]["idle"]);
            assert_eq!(sum, row.1[&name], "{name}");
        }
    }

    // Times a PUE: of all forms of joulectl, in sums that match.
    let pue = |format: &str| report(&["--pue", "1.3", "--format", format]);
    let times_pue = of_json(&serde_json::from_str(&pue("json")).unwrap());
    adds_up(&times_pue);
    assert_eq!(of_csv(&pue("csv")), times_pue);
    assert_eq!(of_focus(&pue("focus")), without_node(&times_pue));
    table_adds_up(&pue("table"), 4);
    assert_eq!(times_pue.values().map(|sums| sums.0).sum::<i64>(), sums.values().map(|sums| sums.0).sum::<i64>());

    // What would not add up is no FOCUS.
    for by in ["slice", "zone"] {
        let refused = joulectl(&daemon.state, &["report", "--by", by, "--format", "focus"]);
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && why.contains("contain each other"), "{why}");
    }
    daemon.stop();
}

/// What joulectl prints. While the file is being opened, there is no history yet.
fn until_said(daemon: &Daemon, args: &[&str]) -> String {
    until("a report", || {
        let output = joulectl(&daemon.state, args);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
}
