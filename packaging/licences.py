#!/usr/bin/env python3
"""Crates of a program and their licences: checks them against deny.toml, and writes THIRD-PARTY (for people) and an SBOM.

It reads `cargo metadata`, Cargo.lock and the sources that cargo has fetched. Only cargo uses the network, and no tool has to be built.

    licences.py                        checks jouled, jouled-libvirt and jouled-containers against deny.toml
    licences.py --write DIR            also writes DIR/PROGRAM/THIRD-PARTY and DIR/PROGRAM/PROGRAM.cdx.json (CycloneDX 1.5)
    licences.py --spdx --program NAME  prints the SPDX expression of all crates of a program
    licences.py --self-test            runs its own tests

It counts crates that are linked into the program, and procedural macros, which generate code of it. It does not count crates that only
build or test the program.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

TOP = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = {"jouled": TOP / "Cargo.toml", "jouled-libvirt": TOP / "daemon/libvirt/Cargo.toml",
            "jouled-containers": TOP / "daemon/containers/Cargo.toml"}
# Words in the names of files that hold the text of a licence.
HINTS = {"Apache-2.0": "apache", "MIT": "mit", "ISC": "isc", "Zlib": "zlib", "BSL-1.0": "bsl|boost", "Unicode-3.0": "unicode",
         "BSD-2-Clause": "bsd", "BSD-3-Clause": "bsd", "LGPL-2.1": "lgpl"}


class Refused(Exception):
    """A licence or a crate is refused; the text says why."""


def choose(expression, allow):
    """The licences under which a crate is used: for each OR the first in the order of deny.toml, for each AND all. None if none is allowed."""
    # The old way to write OR.
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(r"\s*/\s*", " OR ", expression))

    def either(at):
        found, at = every(at)
        options = [found]
        while at < len(tokens) and tokens[at] == "OR":
            found, at = every(at + 1)
            options.append(found)
        allowed = [option for option in options if option is not None]
        rank = lambda option: max(allow.index(licence) for licence in option)
        return (min(allowed, key=rank) if allowed else None), at

    def every(at):
        found, at = one(at)
        while at < len(tokens) and tokens[at] == "AND":
            more, at = one(at + 1)
            found = None if found is None or more is None else found + [licence for licence in more if licence not in found]
        return found, at

    def one(at):
        if at >= len(tokens) or tokens[at] in ("OR", "AND", "WITH", ")"):
            raise Refused(f"{expression!r} is no licence expression")
        if tokens[at] == "(":
            found, at = either(at + 1)
            if at >= len(tokens) or tokens[at] != ")":
                raise Refused(f"{expression!r} is no licence expression")
            return found, at + 1
        name, at = tokens[at], at + 1
        if at + 1 < len(tokens) and tokens[at] == "WITH":
            name, at = f"{name} WITH {tokens[at + 1]}", at + 2
        return ([name] if name in allow else None), at

    found, at = either(0)
    if at != len(tokens):
        raise Refused(f"{expression!r} is no licence expression")
    return found


def metadata(manifest, target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", manifest, "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(tree, root):
    """Ids of what a package is made of, itself first, and what each depends on."""
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    edges, todo = {}, [root]
    while todo:
        package = todo.pop()
        if package in edges:
            continue
        normal = (dep for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"]))
        edges[package] = sorted({dep["pkg"] for dep in normal})
        todo += edges[package]
    return edges


def texts(package, licences, elsewhere=()):
    """Texts that have to go with a crate. That of the Apache licence is the same for all and is written once; a NOTICE is not.

    `elsewhere`: licences whose text, the same for all, is there with another crate.
    """
    folder = pathlib.Path(package["manifest_path"]).parent
    is_licence = re.compile(r"(licen[cs]e|copying|unlicense|copyright|notice)", re.I)
    files = {file.name: file for file in folder.iterdir() if is_licence.match(file.name) and file.is_file()}
    if package["license_file"]:
        files[package["license_file"]] = folder / package["license_file"]
    wanted = {name for name in files if name.lower().startswith("notice")}
    for licence in licences:
        if licence.startswith("Apache-2.0"):
            continue
        hinted = {name for name in files if re.search(HINTS[licence], name, re.I)}
        others = "|".join(hint for of, hint in HINTS.items() if of != licence)
        found = hinted or {name for name in files if not re.search(f"{others}|notice|unlicense", name, re.I)}
        if not found and licence not in elsewhere:
            raise Refused(f"{package['name']} {package['version']}: it is used under {licence}, and its sources have no text of that")
        wanted |= found
    return [files[name].read_text(errors="replace").replace("\r\n", "\n").strip("\n") for name in sorted(wanted)]


class Program:
    """One program: its crates, each with the licences that it is used under."""

    def __init__(self, name, manifest, target, policy):
        tree = metadata(manifest, target)
        packages = {package["id"]: package for package in tree["packages"]}
        self.root = next(package for package in tree["packages"] if package["name"] == name)
        self.edges = linked(tree, self.root["id"])
        order = lambda package: (package["name"], package["version"])
        self.packages = sorted((packages[found] for found in self.edges), key=order)
        self.licences, refused = {}, []
        for package in self.packages:
            try:
                if not package["license"]:
                    raise Refused("it names no licence")
                more = [licence for rule in policy.get("exceptions", ()) if rule["crate"] == package["name"] for licence in rule["allow"]]
                found = choose(package["license"], policy["allow"] + more)
                if found is None:
                    raise Refused(f"{package['license']!r} is not among those that deny.toml allows")
                self.licences[package["id"]] = found
            except Refused as error:
                refused.append(f"{package['name']} {package['version']}: {error}")
        if refused:
            raise Refused("\n".join(refused))
        lock = tomllib.loads((pathlib.Path(manifest).parent / "Cargo.lock").read_text())
        self.checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}

    def spdx(self):
        """The licences of all, jouled's own first. LGPL-2.1 is what crates say; its name is LGPL-2.1-only."""
        found = {licence for licences in self.licences.values() for licence in licences} - {"Apache-2.0"}
        return ["Apache-2.0", *sorted("LGPL-2.1-only" if licence == "LGPL-2.1" else licence for licence in found)]

    def has_text(self, package, licence):
        return licence in self.licences[package["id"]] and bool(texts(package, [licence], [licence]))

    def third_party(self):
        lines = [f"What {self.root['name']} {self.root['version']} is made of, and under which licences.", ""]
        by_text = {}
        # A text without names of holders, which one crate of a repository has for all.
        elsewhere = {"LGPL-2.1"} if any(self.has_text(package, "LGPL-2.1") for package in self.packages) else ()
        for package in self.packages:
            if not package["source"]:
                continue
            name = f"{package['name']} {package['version']}"
            lines.append(f"{name}: {' and '.join(self.licences[package['id']])}")
            for text in texts(package, self.licences[package["id"]], elsewhere):
                by_text.setdefault(text, []).append(name)
        lines += ["the Rust standard library: Apache-2.0", ""]
        if any("LGPL-2.1" in licences for licences in self.licences.values()):
            lines += [f"{self.root['name']} is linked with crates under the LGPL. Its own source and how to build it with other versions of them",
                      f"are at {self.root['repository']}; theirs are published with each of their versions.", ""]
        lines += ["The text of the Apache License 2.0 is in the file LICENSE; on Debian systems in /usr/share/common-licenses/Apache-2.0.",
                  "The LLVM exception takes conditions of it away for what is compiled."]
        for text, names in sorted(by_text.items(), key=lambda item: item[1]):
            lines += ["", "-" * 78, *wrap("Of " + ", ".join(names) + ":"), "", text]
        return "\n".join(lines) + "\n"

    def sbom(self, time, compiler):
        """CycloneDX 1.5. Its serial number follows from what it says, so that the same program has the same."""
        refs = {package["id"]: purl(package) for package in self.packages}
        std = {"type": "library", "bom-ref": "rust-std", "name": "std", "version": compiler, "description": "the Rust standard library",
               "scope": "required", "licenses": [{"expression": "MIT OR Apache-2.0"}],
               "externalReferences": [{"type": "vcs", "url": "https://github.com/rust-lang/rust"}]}
        others = [package for package in self.packages if package["id"] != self.root["id"]]
        bom = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "component": self.component(self.root, refs, "application"),
            },
            "components": [self.component(package, refs, "library") for package in others] + [std],
            "dependencies": [
                {"ref": refs[package["id"]], "dependsOn": sorted(refs[found] for found in self.edges[package["id"]])}
                for package in self.packages
            ] + [{"ref": "rust-std"}],
        }
        seed = hashlib.sha256(json.dumps(bom, sort_keys=True).encode()).hexdigest()
        bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}"
        return json.dumps(bom, indent=1, sort_keys=True) + "\n"

    def component(self, package, refs, kind):
        ref = refs[package["id"]]
        made = {"type": kind, "bom-ref": ref, "name": package["name"], "version": package["version"], "purl": ref,
                "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]}
        if kind == "library":
            made["scope"] = "required"
        if package["description"]:
            made["description"] = " ".join(package["description"].split())
        checksum = self.checksums.get((package["name"], package["version"]))
        if checksum:
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return made


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def wrap(text):
    import textwrap
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def rustc(*arguments):
    return subprocess.run(["rustc", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def self_test():
    allow = ["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "ISC"]
    cases = {
        "MIT": ["MIT"],
        "MIT OR Apache-2.0": ["Apache-2.0"],
        "MIT/Apache-2.0": ["Apache-2.0"],
        "Apache-2.0 / MIT": ["Apache-2.0"],
        "GPL-3.0-only": None,
        "GPL-3.0-only OR MIT": ["MIT"],
        "GPL-3.0-only AND MIT": None,
        "Apache-2.0 AND ISC": ["Apache-2.0", "ISC"],
        "(MIT OR GPL-2.0-only) AND ISC": ["MIT", "ISC"],
        # OR binds less than AND.
        "GPL-3.0-only AND MIT OR ISC": ["ISC"],
        "Apache-2.0 WITH LLVM-exception": ["Apache-2.0 WITH LLVM-exception"],
        "Apache-2.0 WITH Other-exception": None,
        "Apache-2.0 WITH Other-exception OR ISC": ["ISC"],
    }
    for expression, expected in cases.items():
        found = choose(expression, allow)
        assert found == expected, f"{expression}: {found}, not {expected}"
    for nonsense in ("", "MIT OR", "MIT ISC", "(MIT", "OR", "MIT WITH", ")"):
        try:
            found = choose(nonsense, allow)
        except Refused:
            continue
        raise AssertionError(f"{nonsense!r}: {found}")
    print(f"licences: {len(cases)} expressions are understood, nonsense is not")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--target", metavar="TRIPLE", help="default: this machine's")
    parser.add_argument("--policy", metavar="FILE", type=pathlib.Path, default=TOP / "deny.toml")
    parser.add_argument("--program", metavar="NAME", choices=PROGRAMS, help="one of them")
    parser.add_argument("--spdx", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    given = parser.parse_args()
    if given.self_test:
        return self_test()
    target = given.target or re.search(r"^host: (.*)$", rustc("-vV"), re.M)[1]
    compiler = re.search(r"^release: (.*)$", rustc("-vV"), re.M)[1]
    policy = tomllib.loads(given.policy.read_text())["licenses"]
    for name in [given.program] if given.program else PROGRAMS:
        try:
            program = Program(name, str(PROGRAMS[name]), target, policy)
            third_party = program.third_party()
        except Refused as error:
            sys.exit("".join(f"licences: {name}: {line}\n" for line in str(error).splitlines()).rstrip())
        if given.spdx:
            print(" AND ".join(program.spdx()))
            continue
        print(f"licences: {name}: {len(program.packages) - 1} crates, all under licences that deny.toml allows")
        if given.write:
            folder = given.write / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "THIRD-PARTY").write_text(third_party)
            time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
            (folder / f"{name}.cdx.json").write_text(program.sbom(time, compiler))


main()
