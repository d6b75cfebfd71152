#!/usr/bin/env python3
"""Fits the prior of power models, and writes its tables: daemon/src/power_model/prior/{tables.rs,tdp.txt}.

    fit-prior.py [DATA]     DATA: folder of the data sets (default: $JOULED_DATA, else ../shared/data beside the repository)
    fit-prior.py --report   prints the errors of what was left out, and writes nothing

It needs numpy. Its inputs, and what is taken from each:

    specpower-load-levels.csv      wall power of servers at 11 loads, published by SPEC: the whole server
    kepler-specpower-curves.csv    kepler-model-db (Apache-2.0), curves fitted to SPEC's results up to 2024: generations after 2021
    cpu-tdp.csv                    TDP by processor, codecarbon (MIT)
    power/ec2-metal.csv            Teads' measurements of cloud bare metal by RAPL (CC0): packages and memory

Every interval is made of errors on processors that were left out of the fit. docs/power-models.md describes the model.
"""

import csv
import os
import pathlib
import re
import sys

import numpy as np

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = TOP / "daemon/src/power_model/prior"
LOADS = range(0, 101, 10)
# SPEC's words, as daemon/src/meter/cpu.rs names the same generation.
ARCHS = {
    "core": "Core", "nehalem": "Nehalem", "sandybridge": "Sandy Bridge", "ivybridge": "Ivy Bridge", "haswell": "Haswell",
    "broadwell": "Broadwell", "skylake": "Skylake", "kabylabe": "Kaby Lake", "coffeelake": "Coffee Lake",
    "cascadelake": "Cascade Lake", "cooperlake": "Cooper Lake", "icelake": "Ice Lake", "rocketlake": "Rocket Lake",
    "opteron": "Opteron", "epyc-gen1": "EPYC 1st Gen", "epyc-gen2": "EPYC 2nd Gen", "epyc-gen3": "EPYC 3rd Gen",
    "epyc": "EPYC 3rd Gen",
}
# A single processor of at most this many watts is one of an entry server: fewer fans, one power supply.
ENTRY_WATTS = 105
# Strength of the ridge: of the standardised features, of the generations.
LAMBDA, LAMBDA_ARCH = 1.0, 1.0
# Sustained power is limited to the TDP by design, so this many processors that keep to it are assumed beside those measured.
KEEP_TO_TDP = 3
FEATURES = ["ln(TDP x packages)", "ln(threads)", "ln(GiB)", "ln(GHz)", "ln(packages)", "entry", "single"]
FILLERS = {"intel", "amd", "cpu", "processor", "apu", "soc", "platinum", "gold", "silver", "bronze", "genuine", "0", "gen"}


def normalise(name):
    """A processor's name without what differs between writers. The same in daemon/src/power_model/prior/name.rs."""
    text = name.lower()
    for mark in ("(r)", "(tm)", "(c)", "®", "™", ","):
        text = text.replace(mark, " ")
    text = text.split("@")[0].split(" with ")[0].split(" w/ ")[0].split("(")[0]
    words = []
    for word in text.split():
        ordinal = re.fullmatch(r"\d+(st|nd|rd|th)", word)
        if word.endswith("ghz"):
            if word == "ghz" and words and re.fullmatch(r"[\d.]+", words[-1]):
                words.pop()
        elif word in FILLERS or ordinal or word.endswith("-core") or word.endswith("-cores"):
            continue
        elif re.fullmatch(r"v\d", word) and words:
            words[-1] += word
        else:
            words.append(word)
    return " ".join(words)


def number(text):
    try:
        return float(text)
    except ValueError:
        return float("nan")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def tdp_table(data):
    """TDP by normalised name. Where the source contradicts itself, the higher figure: two processors of one number."""
    table = {}
    for row in rows(data / "cpu-tdp.csv"):
        key, watts = normalise(row["Name"]), number(row["TDP"])
        if np.isfinite(watts) and watts >= 1:
            table[key] = max(table.get(key, watts), watts)
    for row in rows(data / "specpower-load-levels.csv"):
        key, watts = normalise(row["HW_CPUName"]), number(row["TDP"])
        if np.isfinite(watts):
            table.setdefault(key, watts)
    return table


def useful(key):
    """Whether a processor can be met by a daemon of today."""
    family = key.split()[0]
    if re.fullmatch(r"n\d{2,3}", key):
        return True
    if family not in ("xeon", "epyc", "opteron", "core", "ryzen", "atom", "celeron", "pentium", "athlon") or " " not in key:
        return False
    old = r"core (2|duo|solo|m)\b|core 2|core\b.*\bmobile|celeron (d |m |[1-9]\d\d$|dual)|pentium (4|m|d|iii|dual|extreme)|athlon (64|xp|mp|ii|x2|neo)"
    return not re.match(old, key)


def spec(data, tdp):
    """SPEC's servers whose processor is known, as dictionaries."""
    servers = []
    for row in rows(data / "specpower-load-levels.csv"):
        arch, watts = ARCHS.get(row["Architecture"]), number(row["TDP"])
        if arch and np.isfinite(watts):
            servers.append({
                "key": normalise(row["HW_CPUName"]), "arch": arch, "tdp": watts, "chips": number(row["CPUChips"]),
                "threads": number(row["CPUThreads"]), "cores": number(row["CPUCores"]), "gib": number(row["HW_MemAmountGB"]),
                "ghz": number(row["HW_CPUFreq"]) / 1000, "year": number(row["Hardware_Availability_Year"]), "spec": True,
                "watts": [number(row["ActiveIdle" if load == 0 else f"{load}_AvgPower"]) for load in LOADS],
            })
    return servers


def later(data, tdp):
    """Servers of generations after those in SPEC's file, from kepler-model-db: of each group the curve with the least error."""
    best = {}
    for row in rows(data / "kepler-specpower-curves.csv"):
        name = row["processor"].replace("_", " ")
        key = normalise(name)
        arch = None
        if re.fullmatch(r"epyc [89]\d\d4p?n?", key):
            arch = "EPYC 4th Gen"
        elif re.fullmatch(r"xeon [4568]4\d\d[a-z+]*\+?", key):
            arch = "Sapphire Rapids"
        elif re.fullmatch(r"xeon [4568]5\d\d[a-z+]*\+?", key):
            arch = "Emerald Rapids"
        if arch and key in tdp and (row["node_type"] not in best or number(row["mae"]) < best[row["node_type"]]["mae"]):
            best[row["node_type"]] = {
                "key": key, "arch": arch, "tdp": tdp[key], "chips": number(row["chips"]), "mae": number(row["mae"]),
                "threads": number(row["threads"]) * 2, "cores": number(row["threads"]), "gib": number(row["memory_gb"]),
                "ghz": number(row["mhz"]) / 1000, "year": 2023, "spec": False,
                "watts": [number(row[f"w{load}"]) for load in LOADS],
            }
    return list(best.values())


def features(server):
    single = server["chips"] == 1
    return [
        np.log(server["tdp"] * server["chips"]), np.log(server["threads"]), np.log(server["gib"]), np.log(server["ghz"]),
        np.log(server["chips"]), float(single and server["tdp"] <= ENTRY_WATTS), float(single),
    ]


class Ridge:
    """ln(watts) at eleven loads: an intercept, a slope for each feature, an offset for each generation."""

    def __init__(self, servers, archs):
        raw = np.array([features(server) for server in servers])
        self.mean, self.deviation = raw.mean(0), raw.std(0)
        self.archs, self.width = archs, len(FEATURES)
        x = self.matrix(servers)
        penalty = np.diag([0.0] + [LAMBDA] * self.width + [LAMBDA_ARCH] * len(archs))
        self.all, self.x, self.y = x.T @ x + penalty, x, np.log([server["watts"] for server in servers])
        self.right = x.T @ self.y
        self.beta = np.linalg.solve(self.all, self.right)

    def matrix(self, servers):
        raw = (np.array([features(server) for server in servers]) - self.mean) / self.deviation
        dummies = np.array([[server["arch"] == arch for arch in self.archs] for server in servers], float)
        return np.hstack([np.ones((len(servers), 1)), raw, dummies])

    def left_out(self, groups):
        """ln(true / predicted) of every server, each group of them left out of the fit."""
        groups, residuals = np.array(groups), np.empty_like(self.y)
        for group in set(groups):
            out = groups == group
            x, y = self.x[out], self.y[out]
            beta = np.linalg.solve(self.all - x.T @ x, self.right - x.T @ y)
            residuals[out] = y - x @ beta
        return residuals


def percent(residuals):
    return np.abs(np.exp(-residuals) - 1).mean() * 100


def quantiles(residuals):
    return np.quantile(residuals, 0.05, axis=0), np.quantile(residuals, 0.95, axis=0)


def nested_coverage(residuals, groups, classes):
    """Share of left-out values inside of the interval of the other groups' errors, and the coverage of the worst class."""
    groups, inside = np.array(groups), np.zeros(residuals.shape, bool)
    for group in set(groups):
        out = groups == group
        for name in set(classes[out]):
            low, high = quantiles(residuals[~out & (classes == name)])
            rows_ = out & (classes == name)
            inside[rows_] = (residuals[rows_] >= low) & (residuals[rows_] <= high)
    by_class = {str(name): round(float(inside[classes == name].mean()) * 100, 1) for name in sorted(set(classes))}
    return round(float(inside.mean()) * 100, 1), by_class


def tdp_regression(servers):
    """ln(TDP of a package) from cores, GHz and generation, one observation for each processor model."""
    models = {server["key"]: server for server in servers}
    models = list(models.values())
    archs = sorted({server["arch"] for server in models})
    x = np.array([[1.0, np.log(m["cores"] / m["chips"]), np.log(m["ghz"] / 2.5)] + [float(m["arch"] == a) for a in archs] for m in models])
    y = np.log([m["tdp"] for m in models])
    penalty = np.diag([0, 0.1, 0.1] + [1.0] * len(archs))
    beta = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    errors = []
    for at in range(len(models)):
        keep = np.arange(len(models)) != at
        b = np.linalg.solve(x[keep].T @ x[keep] + penalty, x[keep].T @ y[keep])
        errors.append(y[at] - x[at] @ b)
    return archs, beta, np.array(errors)


def regressed(fit, cores, ghz, arch):
    archs, beta, _ = fit
    offset = beta[3 + archs.index(arch)] if arch in archs else 0.0
    return float(np.exp(beta[0] + beta[1] * np.log(cores) + beta[2] * np.log(ghz / 2.5) + offset))


# What the names in ec2-metal.csv do not say: the generation, and memory of the instances in GiB.
EC2 = {"8275CL": ("Cascade Lake", 192), "8175M": ("Skylake", 384), "8151": ("Skylake", 384), "8252C": ("Cascade Lake", 192)}


def ec2(data, tdp, fit):
    """Types of cloud bare metal: package watts of one package and DRAM watts per GiB by load, and stress of memory."""
    types = {}
    for row in rows(data / "power/ec2-metal.csv"):
        name = row["cpu"].split()[3]
        one = types.setdefault(name, {"runs": {}, "stress": []})
        if row["test"] == "CPUStress":
            one["runs"].setdefault(row["run"], []).append((number(row["package_watts"]) / 2, number(row["dram_watts"]) / EC2[name][1]))
        elif row["test"] == "VMStress":
            one["stress"].append(number(row["dram_watts"]) / EC2[name][1])
        ghz = float(row["cpu"].split("@")[1].strip(" GHz"))
        one["regressed"] = regressed(fit, int(row["threads"]) / 4, ghz, EC2[name][0])
        one["listed"] = tdp.get(normalise(row["cpu"]))
    for one in types.values():
        one["watts"] = np.mean([[watts for watts, _ in run] for run in one["runs"].values()], axis=0)
        one["dram"] = np.mean([[watts for _, watts in run] for run in one["runs"].values()], axis=0)
    return types


def turbo(types):
    """The curve of load as shares of full load; full load in units of the TDP where that is listed, and of the regressed
    TDP where it is not."""
    shape = np.median([one["watts"] / one["watts"][-1] for one in types.values()], axis=0)
    listed = [np.log(one["watts"][-1] / one["listed"]) for one in types.values() if one["listed"]]
    custom = [np.log(one["watts"][-1] / one["regressed"]) for one in types.values()]
    return shape, float(np.exp(sum(listed) / (len(listed) + KEEP_TO_TDP))), float(np.exp(np.mean(custom)))


def turbo_left_out(types):
    """ln(true / predicted) by type: rows of loads."""
    residuals = {}
    for name, one in types.items():
        shape, listed, custom = turbo({other: types[other] for other in types if other != name})
        full = one["listed"] * listed if one["listed"] else one["regressed"] * custom
        residuals[name] = np.array([np.log(np.array([watts for watts, _ in run]) / (shape * full)) for run in one["runs"].values()])
    return residuals


def dram(types):
    """Watts per GiB at rest, those added by full load of the CPUs, and how load adds them."""
    rest = float(np.exp(np.mean([np.log(one["dram"][0]) for one in types.values()])))
    added = float(np.exp(np.mean([np.log(one["dram"][-1] - one["dram"][0]) for one in types.values()])))
    shape = np.median([(one["dram"] - one["dram"][0]) / (one["dram"][-1] - one["dram"][0]) for one in types.values()], axis=0)
    return rest, added, np.maximum.accumulate(shape)


def dram_left_out(types):
    residuals = {}
    for name, one in types.items():
        rest, added, shape = dram({other: types[other] for other in types if other != name})
        residuals[name] = np.array([np.log(np.array([w for _, w in run]) / (rest + added * shape)) for run in one["runs"].values()])
    return residuals


def spread(residuals, share):
    """Quantile of |ln(true / predicted)| over all rows that were left out."""
    return float(np.quantile(np.concatenate([np.abs(part).ravel() for part in residuals.values()]), share))


def rust(value):
    return f"{value:.4f}".rstrip("0") + ("0" if f"{value:.4f}".rstrip("0").endswith(".") else "")


def array(values):
    return "[" + ", ".join(rust(value) for value in values) + "]"


def write_tdp(tdp):
    lines = [
        "# TDP in watts by processor: FAMILY WATTS: NAME NAME ... Blanks in names are written as _.",
        "# Written by packaging/dev/fit-prior.py. Sources: codecarbon's table (MIT), SPEC's published results.",
        "# codecarbon: Copyright (c) 2019 Mila, BCG Gamma, CometML, Haverford College; (c) 2023 Code Carbon NGO.",
    ]
    grouped = {}
    for key, watts in tdp.items():
        if useful(key):
            family, name = key.split(" ", 1) if " " in key else ("-", key)
            grouped.setdefault((family, watts), []).append(name.replace(" ", "_"))
    for (family, watts), names in sorted(grouped.items()):
        head = f"{family} {watts:g}:"
        line = head
        for name in sorted(names):
            if len(line) + len(name) >= 118:
                lines.append(line)
                line = head
            line += f" {name}"
        lines.append(line)
    (OUT / "tdp.txt").write_text("\n".join(lines) + "\n")


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--report"]
    data = pathlib.Path(arguments[0] if arguments else os.environ.get("JOULED_DATA", TOP.parent / "shared/data"))
    tdp = tdp_table(data)
    published = spec(data, tdp)
    servers = published + later(data, tdp)
    archs = sorted({server["arch"] for server in servers})
    ridge = Ridge(servers, archs)
    is_spec = np.array([server["spec"] for server in servers])
    entry = np.array(["entry" if server["chips"] == 1 and server["tdp"] <= ENTRY_WATTS else "server" for server in servers])
    by_model = [server["key"] for server in servers]
    residuals = ridge.left_out(by_model)
    by_arch = ridge.left_out([server["arch"] for server in servers])
    year = np.array([server["year"] for server in servers])
    print(f"whole server, each of {len(set(np.array(by_model)[is_spec]))} CPU models left out: {percent(residuals[is_spec]):.2f} % over "
          f"{is_spec.sum()} servers and 11 loads; by load {[round(float(percent(residuals[is_spec][:, at])), 1) for at in range(11)]}; "
          f"from 2017 {percent(residuals[is_spec & (year >= 2017)]):.2f} %; later generations {percent(residuals[~is_spec]):.2f} %")
    print("  coverage of 90 %:", nested_coverage(residuals[is_spec], np.array(by_model)[is_spec], entry[is_spec]))
    print(f"whole server, each generation left out: {percent(by_arch[is_spec]):.2f} %; later ones {percent(by_arch[~is_spec]):.2f} %")
    fit = tdp_regression(servers)
    print(f"TDP by regression, each CPU model left out: {percent(fit[2]):.1f} %")
    types = ec2(data, tdp, fit)
    shape, listed, custom = turbo(types)
    package = turbo_left_out(types)
    everything = np.concatenate([part.ravel() for part in package.values()])
    print(f"package, each CPU type left out: {percent(everything):.2f} %", {name: (round(float(percent(part)), 1), round(float((np.exp(-part) - 1).mean()) * 100, 1)) for name, part in package.items()})
    width = spread(package, 0.9)
    print(f"  full load {listed:.3f} x TDP, {custom:.3f} x regressed; interval x/: {np.exp(width):.3f}, coverage {np.mean(np.abs(everything) <= width) * 100:.1f} %",
          {name: round(np.mean(np.abs(part) <= width) * 100) for name, part in package.items()})
    rest, added, use = dram(types)
    memory = dram_left_out(types)
    everything = np.concatenate([part.ravel() for part in memory.values()])
    stress = float(np.max([value for one in types.values() for value in one["stress"]]))
    memory_width = spread(memory, 0.9)
    print(f"dram, each CPU type left out: {percent(everything):.2f} %; {rest:.3f} + {added:.3f} W/GiB, stress of memory up to {stress:.2f}; x/: {np.exp(memory_width):.3f}")
    if "--report" in sys.argv:
        return
    low, high = {}, {}
    for name in ("entry", "server"):
        low[name], high[name] = quantiles(residuals[entry == name])
    low["new"], high["new"] = quantiles(by_arch)
    typical = {}
    for arch in archs:
        of = [server for server in servers if server["arch"] == arch]
        typical[arch] = [np.median([s["tdp"] * s["chips"] / s["threads"] for s in of]), np.median([s["ghz"] for s in of]),
                         np.median([s["gib"] / s["threads"] for s in of]), np.median([s["threads"] / s["cores"] for s in of])]
    ridge_archs = ridge.beta[1 + len(FEATURES):]
    slopes = ridge.beta[1:1 + len(FEATURES)] / ridge.deviation[:, None]
    intercept = ridge.beta[0] - (ridge.mean[:, None] * slopes).sum(0)
    text = f'''//! The prior's figures. Written by packaging/dev/fit-prior.py from SPEC's published results, kepler-model-db's curves
//! of them (Apache-2.0), codecarbon's table of TDPs (MIT) and Teads' measurements of cloud bare metal (CC0). Arrays of
//! eleven are by load: 0, 10, … 100 %. Logarithms are natural ones.

/// Eleven figures, by load.
pub(super) type ByLoad = [f64; 11];

/// A generation of processors.
pub(super) struct Generation {{
    /// Its name, as in `meter::cpu`.
    pub(super) name: &'static str,
    /// What it adds to ln(wall watts).
    pub(super) offset: ByLoad,
    /// What it adds to ln(TDP) of a package.
    pub(super) tdp_offset: f64,
    /// TDP of a hardware thread in watts, the median of its servers.
    pub(super) watts_per_thread: f64,
    /// Nominal frequency in GHz, the median.
    pub(super) ghz: f64,
    /// Memory of a hardware thread in GiB, the median.
    pub(super) gib_per_thread: f64,
    /// Hardware threads of a core, the median.
    pub(super) smt: f64,
}}

/// A single package of at most so many watts of TDP is one of an entry server.
pub(super) const ENTRY_WATTS: f64 = {ENTRY_WATTS:.1f};
/// ln(wall watts) of a server where all features are 0.
pub(super) const INTERCEPT: ByLoad = {array(intercept)};
/// What each feature adds to it: {", ".join(FEATURES)}.
pub(super) const SLOPES: [ByLoad; {len(FEATURES)}] = [{", ".join(array(slope) for slope in slopes)}];
/// Factors from wall watts to the ends of the interval, an entry server: errors on CPU models left out.
pub(super) const ENTRY: (ByLoad, ByLoad) = ({array(np.exp(low["entry"]))}, {array(np.exp(high["entry"]))});
/// The same, other servers.
pub(super) const SERVER: (ByLoad, ByLoad) = ({array(np.exp(low["server"]))}, {array(np.exp(high["server"]))});
/// The same, errors on whole generations left out: for a generation without a line in [`GENERATIONS`].
pub(super) const NEW: (ByLoad, ByLoad) = ({array(np.exp(low["new"]))}, {array(np.exp(high["new"]))});
/// ln(TDP) of a package: at one core of 2.5 GHz, for each ln(cores), for each ln(GHz / 2.5).
pub(super) const TDP: [f64; 3] = {array(fit[1][:3])};
/// Power of a package by load over that at full load, with turbo.
pub(super) const SHAPE: ByLoad = {array(shape)};
/// Full load over the listed TDP, with turbo.
pub(super) const FULL_OF_LISTED: f64 = {listed:.3f};
/// Full load over the TDP by regression, with turbo, of processors that are made for a cloud and are in no list.
pub(super) const FULL_OF_CUSTOM: f64 = {rust(custom)};
/// Factor from a package's watts to the upper end of its interval, and from the lower end to them.
pub(super) const PACKAGE_SPREAD: f64 = {rust(np.exp(width))};
/// Watts of memory per GiB: at rest, and what full load of the CPUs adds.
pub(super) const DRAM: [f64; 2] = {array([rest, added])};
/// The part of that by load.
pub(super) const DRAM_SHAPE: ByLoad = {array(use)};
/// Factor from memory's watts to the ends of its interval.
pub(super) const DRAM_SPREAD: f64 = {rust(np.exp(memory_width))};
/// Watts of memory per GiB under loads that do little but use memory: the highest of all measured.
pub(super) const DRAM_STRESS: f64 = {rust(stress)};
/// Every generation that was fitted.
pub(super) const GENERATIONS: [Generation; {len(archs)}] = [
'''
    for at, arch in enumerate(archs):
        tdp_offset = fit[1][3 + fit[0].index(arch)] if arch in fit[0] else 0.0
        text += (f'Generation {{ name: "{arch}", offset: {array(ridge_archs[at])}, tdp_offset: {rust(tdp_offset)}, watts_per_thread: {rust(typical[arch][0])}, '
                 f'ghz: {rust(typical[arch][1])}, gib_per_thread: {rust(typical[arch][2])}, smt: {rust(typical[arch][3])} }},\n')
    OUT.mkdir(exist_ok=True)
    (OUT / "tables.rs").write_text(text + "];\n")
    os.system(f"rustfmt --edition 2024 --config-path {TOP} {OUT / 'tables.rs'}")
    write_tdp(tdp)


if __name__ == "__main__":
    main()
