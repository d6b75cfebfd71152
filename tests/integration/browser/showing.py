"""What a table of the page has to show, by the metrics page of the same tick, and how a person reads a number."""

import re

UNITS = {"µW": 1e-6, "mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6,
         "µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9}
NUMBER = re.compile(r"([0-9][0-9.,\u2009\u202f ]*)\s*(µW|mW|W|kW|MW|µJ|mJ|J|kJ|MJ|GJ|Wh|kWh|MWh)\b")
# Kepler's names for the kinds that Kepler knows; the label that names an entity.
KINDS = {"process": ("kepler_process_cpu", "pid"), "container": ("kepler_container_cpu", "container_id"), "vm": ("kepler_vm_cpu", "vm_id"),
         "pod": ("kepler_pod_cpu", "pod_id"), "unit": ("jouled_unit", "unit"), "slice": ("jouled_slice", "slice"),
         "session": ("jouled_session", "session"), "user": ("jouled_user", "user"), "user-unit": ("jouled_user_unit", "unit"),
         "tenant": ("jouled_tenant", "tenant"), "job": ("jouled_job", "job_id"), "job-step": ("jouled_job_step", "step_id")}
# The zones that are added up: of the others each joule is in one of these.
BILLED = {"package", "dram", "gpu", "other"}


def quantity(text):
    """Watts or joules of `12.3 W`, with half of the last digit; nothing where there is no number."""
    match = NUMBER.search(text.replace("\u00a0", " "))
    if not match:
        return None
    digits = match[1].strip().replace(",", "").replace(" ", "").replace("\u2009", "").replace("\u202f", "")
    unit = UNITS[match[2]]
    decimals = len(digits.partition(".")[2])
    return float(digits) * unit, 0.5 * 10 ** -decimals * unit


def entities(metrics, kind):
    """Power and energy of each entity of a kind that is not ended, by its labels, over the zones that are added up."""
    name, key = KINDS[kind]
    found = {}
    for which, family in (("watts", f"{name}_watts"), ("joules", f"{name}_joules_total")):
        for labels, value in metrics.all(family):
            if labels["zone"] in BILLED and labels.get("state") != "terminated":
                own = {label: of for label, of in labels.items() if label not in ("zone", "mode", "state", "node_name", "path")}
                entry = found.setdefault(tuple(sorted(own.items())), {"labels": own, "watts": 0.0, "joules": 0.0})
                entry[which] += value
    return list(found.values())


def intervals(kind, metrics):
    """Labels, power and both ends of its interval of each entity: the parts of the zones' intervals that it has of their power."""
    name, key = KINDS[kind]
    ends = {}
    for zone in BILLED:
        domains = {labels["domain"] for labels, _ in metrics.all("jouled_estimate_low_watts", zone=zone)}
        whole = sum(value for _, value in metrics.all("kepler_node_cpu_watts", zone=zone))
        if domains and whole > 0:
            ends[zone] = [sum(value for _, value in metrics.all(f"jouled_estimate_{end}_watts", zone=zone)) / whole for end in ("low", "high")]
    found = {}
    for labels, value in metrics.all(f"{name}_watts"):
        if labels["zone"] in BILLED and labels.get("state") != "terminated":
            own = {label: of for label, of in labels.items() if label not in ("zone", "mode", "state", "node_name", "path")}
            entry = found.setdefault(tuple(sorted(own.items())), [own, 0.0, 0.0, 0.0])
            low, high = ends.get(labels["zone"], (1.0, 1.0))
            for at, part in enumerate((value, value * low, value * high)):
                entry[1 + at] += part
    return [tuple(entry) for entry in found.values()]


def is_between(shown, low, high):
    """Whether `0.80 to 1.90 W`, or `900 mW to 1.20 W`, says these ends."""
    first, _, last = shown.replace("\u00a0", " ").partition(" to ")
    unit = last.rpartition(" ")[2]
    first = first if first.endswith("W") else f"{first} {unit}"
    return near(first, low) and near(last, high)


def near(shown, value):
    """Whether a shown text says this value: to the digits that it has, of a frame that has four."""
    read = quantity(shown)
    if read is None:
        return value < 1e-6
    number, half = read
    return abs(number - value) <= half * 1.02 + 6e-4 * value + 1e-6


def compare(kind, rows, metrics):
    """Faults of a table of rows (name, power, energy as texts) against the metrics page of its tick."""
    wanted = entities(metrics, kind)
    faults, left = [], list(rows)
    for entity in wanted:
        same = [row for row in left if near(row[1], entity["watts"]) and near(row[2], entity["joules"]) and is_named(row[0], entity["labels"], kind)]
        if same:
            left.remove(same[0])
        elif entity["joules"] > 0:
            faults.append(f"{kind}: /metrics has {entity}, and no row shows it: {[row for row in rows if is_named(row[0], entity['labels'], kind)] or rows[:8]}")
    faults += [f"{kind}: the row {row} is not on /metrics" for row in left]
    return faults


def is_named(name, labels, kind):
    """Whether a row's name is one of the entity's."""
    words = [labels.get(label, "") for label in ("unit", "slice", "session", "user", "tenant", "pid", "vm_name", "container_name", "pod_name", "job_id")]
    ids = [labels.get(label, "")[:12] for label in ("container_id", "pod_id", "vm_id")]
    return any(word and word in name for word in words + ids)
