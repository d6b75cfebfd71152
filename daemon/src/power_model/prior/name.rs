//! What the name of a processor says: its TDP by a table, its generation, whether it is made for a cloud. Names are
//! those of `model name` in /proc/cpuinfo, and those that vendors and SPEC's results write.

use super::arm;

/// TDP by normalised name; its head says where the figures come from.
const TDP: &str = include_str!("tdp.txt");

/// Words that say nothing about which processor it is.
const FILLERS: [&str; 13] =
    ["intel", "amd", "cpu", "processor", "apu", "soc", "platinum", "gold", "silver", "bronze", "genuine", "0", "gen"];

/// Hardware threads of one package of processors that are made for a cloud, by the published sizes of bare-metal
/// machines that have them.
const HOST_THREADS: [(&str, u32); 13] = [
    ("xeon e5-2686v4", 36),
    ("xeon 8124m", 36),
    ("xeon 8151", 24),
    ("xeon 8175m", 48),
    ("xeon 8252c", 24),
    ("xeon 8259cl", 48),
    ("xeon 8275cl", 48),
    ("xeon 8375c", 64),
    ("xeon 8488c", 96),
    ("epyc 7r13", 96),
    ("epyc 7r32", 96),
    ("epyc 7571", 64),
    ("epyc 9r14", 96),
];

/// A processor's name without what differs between writers: `xeon 8275cl` of `Intel(R) Xeon(R) Platinum 8275CL CPU @
/// 3.00GHz`. The same as in packaging/dev/fit-prior.py, which writes the table.
pub(super) fn normalise(name: &str) -> String {
    let mut text = name.to_lowercase();
    for mark in ["(r)", "(tm)", "(c)", "®", "™", ","] {
        text = text.replace(mark, " ");
    }
    let text =
        ["@", " with ", " w/ ", "("].iter().fold(text.as_str(), |text, end| text.split(end).next().unwrap_or(text));
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        if word.ends_with("ghz") {
            if word == "ghz" && words.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
                words.pop();
            }
        } else if FILLERS.contains(&word) || is_ordinal(word) || word.ends_with("-core") || word.ends_with("-cores") {
        } else if let (true, Some(last)) = (is_version(word), words.last_mut()) {
            last.push_str(word);
        } else {
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}

/// `13th` of `13th Gen Intel(R) Core(TM)`.
fn is_ordinal(word: &str) -> bool {
    ["st", "nd", "rd", "th"].iter().any(|end| {
        word.strip_suffix(end).is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// `v4` of `E5-2686 v4`.
fn is_version(word: &str) -> bool {
    matches!(word.as_bytes(), [b'v', digit] if digit.is_ascii_digit())
}

/// TDP of one package in watts, by the normalised name; `None`: not in the table.
pub(super) fn listed_tdp(key: &str) -> Option<f64> {
    let (family, name) = key.split_once(' ').unwrap_or(("-", key));
    let name = name.replace(' ', "_");
    TDP.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (head, names) = line.split_once(':')?;
        let watts = head.strip_prefix(family)?.strip_prefix(' ')?;
        names.split_whitespace().any(|one| one == name).then(|| watts.parse().ok())?
    })
}

/// Hardware threads of one package, where they are known by the name alone.
pub(super) fn threads_of_a_package(key: &str) -> Option<u32> {
    HOST_THREADS.iter().find(|(name, _)| *name == key).map(|(_, threads)| *threads)
}

/// Nominal frequency in GHz, where the name has one: `@ 3.00GHz`, `2.30 GHz`.
pub(super) fn ghz(name: &str) -> Option<f64> {
    let lower = name.to_lowercase();
    let before = lower.split("ghz").next().filter(|before| before.len() < lower.len())?;
    let number = before.trim_end().rsplit(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    number.parse().ok().filter(|ghz| (0.1..10.0).contains(ghz))
}

/// Whether a processor is made for one cloud, and is in no vendor's list or in a list without a vendor's limit. Clouds
/// run them with turbo.
pub(super) fn is_made_for_a_cloud(key: &str) -> bool {
    match key.split_once(' ') {
        // The second place of AMD's numbers has a cloud's letter: 7R13, 7B12, 7V13, 9R14. F and H are AMD's own.
        Some(("epyc", id)) => {
            key == "epyc 7571" || id.as_bytes().get(1).is_some_and(|b| b.is_ascii_lowercase() && !b"fh".contains(b))
        }
        Some(("xeon", id)) => {
            let scalable = id.len() > 4 && id.bytes().take(4).all(|b| b.is_ascii_digit());
            let suffix = id.get(4..).unwrap_or_default();
            (scalable && ["c", "cl", "p-c"].contains(&suffix))
                || ["8124m", "8151", "8171m", "8175m", "e5-2666v3", "e5-2673v3", "e5-2673v4", "e5-2676v3", "e5-2686v4"]
                    .contains(&id)
        }
        _ => false,
    }
}

/// Whether the name has a model number, so that it is of one processor: `xeon` alone is not.
pub(super) fn has_number(key: &str) -> bool {
    key.split_once(' ').is_some_and(|(_, id)| id.bytes().any(|b| b.is_ascii_digit()))
}

/// Whether the name is one of a server's processor.
pub(super) fn is_server(key: &str) -> bool {
    // QEMU names its models `epyc-milan`.
    ["xeon", "epyc", "opteron"].iter().any(|family| key.split([' ', '-']).next() == Some(family))
}

/// The generation, as `meter::cpu` names it; `None`: the name does not say.
pub(super) fn generation(name: &str) -> Option<&'static str> {
    if let Some(core) = arm::core(name) {
        return Some(core);
    }
    let key = normalise(name);
    match key.split_once(' ') {
        Some(("xeon", id)) => xeon(id),
        Some(("epyc", id)) => epyc(id),
        Some(("opteron", _)) => Some("Opteron"),
        Some(("core", id)) => core(id),
        _ => None,
    }
    .or_else(|| of_a_virtual_cpu(name))
}

fn xeon(id: &str) -> Option<&'static str> {
    let version = id.rsplit_once('v').and_then(|(_, version)| version.parse::<u32>().ok());
    let by_version = |first| match version {
        None => Some(first),
        Some(2) => Some("Ivy Bridge"),
        Some(3) => Some("Haswell"),
        Some(4) => Some("Broadwell"),
        Some(5) => Some("Skylake"),
        Some(6) => Some("Kaby Lake"),
        Some(_) => None,
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if id.starts_with("e3-") || id.starts_with("e5-") {
        return by_version("Sandy Bridge");
    }
    if id.starts_with("e7-") {
        return by_version("Nehalem");
    }
    if let Some((kind, number)) = id.split_once('-') {
        return match (kind, number.get(..2).unwrap_or_default()) {
            ("e", "21" | "22") => Some("Coffee Lake"),
            ("e", "23") => Some("Rocket Lake"),
            ("e", "24") | ("w3" | "w5" | "w7" | "w9", "24" | "34") => Some("Sapphire Rapids"),
            ("d", "15" | "16") => Some("Broadwell"),
            ("d", "21") | ("w", "21" | "31") => Some("Skylake"),
            ("w", "22" | "32") => Some("Cascade Lake"),
            ("d", "17" | "18" | "27" | "28") | ("w", "33") => Some("Ice Lake"),
            // `6975p-c`: a number of four digits, with a cloud's suffix.
            _ if digits(kind) == 4 => scalable(kind),
            _ => None,
        };
    }
    match id.as_bytes() {
        [b'x' | b'e' | b'l' | b'w', rest @ ..] if rest.len() >= 4 && digits(id.get(1..)?) == 4 => match id.get(1..3)? {
            "34" | "35" | "36" | "55" | "56" | "65" | "75" => Some("Nehalem"),
            _ => Some("Core"),
        },
        _ if digits(id) == 4 => scalable(id),
        _ => None,
    }
}

/// Numbers of four digits: the second is the generation. `Xeon 6` continues with 67xx and 69xx.
fn scalable(id: &str) -> Option<&'static str> {
    let suffix = id.get(4..)?;
    match (id.get(..1)?, id.get(1..2)?) {
        ("6", "5" | "7" | "9") if suffix.starts_with('p') => Some("Granite Rapids"),
        ("6", "7" | "9") if suffix.starts_with('e') => Some("Sierra Forest"),
        // The first dual-core Xeons: 3040 to 3085, 5110 to 5160, 70xx, 71xx.
        ("3" | "5" | "7", "0") | ("7", _) => Some("Core"),
        ("5", "1") if ["5110", "5130", "5140", "5150", "5160"].contains(&id) => Some("Core"),
        (_, "1") => Some("Skylake"),
        (_, "2") => Some("Cascade Lake"),
        (_, "3") if suffix.starts_with('h') => Some("Cooper Lake"),
        (_, "3") => Some("Ice Lake"),
        (_, "4") => Some("Sapphire Rapids"),
        (_, "5") => Some("Emerald Rapids"),
        _ => None,
    }
}

/// The last digit of AMD's numbers is the generation.
fn epyc(id: &str) -> Option<&'static str> {
    let number = id.split([' ', '-']).next()?;
    match number.bytes().rfind(u8::is_ascii_digit)? {
        b'1' => Some("EPYC 1st Gen"),
        b'2' => Some("EPYC 2nd Gen"),
        b'3' => Some("EPYC 3rd Gen"),
        b'4' => Some("EPYC 4th Gen"),
        b'5' => Some("EPYC 5th Gen"),
        _ => None,
    }
}

/// `i7-8700k`: what is before the last three digits.
fn core(id: &str) -> Option<&'static str> {
    let number = id.split_once('-')?.1;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    match digits.get(..digits.len().checked_sub(3)?)? {
        "2" => Some("Sandy Bridge"),
        "3" => Some("Ivy Bridge"),
        "4" => Some("Haswell"),
        "5" => Some("Broadwell"),
        "6" => Some("Skylake"),
        "7" => Some("Kaby Lake"),
        "8" | "9" => Some("Coffee Lake"),
        "10" => Some("Comet Lake"),
        "11" => Some("Rocket Lake"),
        "12" => Some("Alder Lake"),
        "13" | "14" => Some("Raptor Lake"),
        _ => None,
    }
}

/// CPU models of QEMU name the generation: `Intel Xeon Processor (Cascadelake)`, `AMD EPYC-Rome Processor`.
fn of_a_virtual_cpu(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let known = [
        ("sandybridge", "Sandy Bridge"),
        ("sandy bridge", "Sandy Bridge"),
        ("ivybridge", "Ivy Bridge"),
        ("ivy bridge", "Ivy Bridge"),
        ("haswell", "Haswell"),
        ("broadwell", "Broadwell"),
        ("cascadelake", "Cascade Lake"),
        ("cooperlake", "Cooper Lake"),
        ("skylake", "Skylake"),
        ("icelake", "Ice Lake"),
        ("sapphirerapids", "Sapphire Rapids"),
        ("graniterapids", "Granite Rapids"),
        ("sierraforest", "Sierra Forest"),
        ("epyc-rome", "EPYC 2nd Gen"),
        ("epyc-milan", "EPYC 3rd Gen"),
        ("epyc-genoa", "EPYC 4th Gen"),
        ("epyc-turin", "EPYC 5th Gen"),
        ("nehalem", "Nehalem"),
        ("westmere", "Nehalem"),
    ];
    known.iter().find(|(text, _)| lower.contains(text)).map(|(_, generation)| *generation)
}
