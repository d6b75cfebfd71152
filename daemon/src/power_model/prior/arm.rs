//! ARM processors by the names that clouds, vendors and lscpu give them: /proc/cpuinfo has none.

/// An ARM processor whose core has no figures of its own.
pub(super) const OTHER: &str = "ARM";

/// ARM's server cores, as `meter::cpu` names them.
const SERVER_CORES: [&str; 8] = [
    "Cortex-A72",
    "Neoverse N1",
    "Neoverse N2",
    "Neoverse N3",
    "Neoverse V1",
    "Neoverse V2",
    "Neoverse V3",
    "AmpereOne",
];

/// Products and their cores, as their makers publish them. Words are told apart by blanks; the first line that fits
/// counts.
const PRODUCTS: [(&str, &str); 25] = [
    ("ampereone", "AmpereOne"),
    ("altra", "Neoverse N1"),
    ("emag", OTHER),
    ("graviton 2", "Neoverse N1"),
    ("graviton 3", "Neoverse V1"),
    ("graviton 3e", "Neoverse V1"),
    ("graviton 4", "Neoverse V2"),
    ("graviton 1", "Cortex-A72"),
    ("graviton", OTHER),
    ("cobalt 100", "Neoverse N2"),
    ("cobalt 200", "Neoverse V3"),
    ("cobalt", OTHER),
    ("axion", "Neoverse V2"),
    ("nvidia grace", "Neoverse V2"),
    ("yitian 710", "Neoverse N2"),
    ("yitian", OTHER),
    ("kunpeng", OTHER),
    ("thunderx", OTHER),
    ("thunderx2", OTHER),
    ("a64fx", OTHER),
    ("phytium", OTHER),
    ("centriq", OTHER),
    ("neoverse", OTHER),
    ("armv8", OTHER),
    ("aarch64", OTHER),
];

/// Whether a generation is one of ARM's.
pub(super) fn is_arm(generation: &str) -> bool {
    generation == OTHER || is_server_core(generation)
}

/// Whether a generation is a server core of ARM's with figures of its own.
pub(super) fn is_server_core(generation: &str) -> bool {
    SERVER_CORES.contains(&generation)
}

/// The core of an ARM server's processor, by its name; `None`: the name is not one.
pub(super) fn core(name: &str) -> Option<&'static str> {
    // `Neoverse-N1`, `graviton2`, `Ampere(R) Altra(R)`.
    let mut words = String::from(" ");
    for one in name.to_lowercase().replace("(r)", " ").replace("(tm)", " ").chars() {
        words.push(if one.is_alphanumeric() { one } else { ' ' });
    }
    let words = words.replace("graviton", "graviton ");
    let words = format!(" {} ", words.split_whitespace().collect::<Vec<_>>().join(" "));
    let has = |text: &str| words.contains(&format!(" {} ", text.to_lowercase().replace('-', " ")));
    if let Some(core) = SERVER_CORES.into_iter().find(|core| has(core)) {
        return Some(core);
    }
    if let Some((_, core)) = PRODUCTS.iter().find(|(product, _)| has(product)) {
        return Some(core);
    }
    // `ARM Cortex-A76` is a board's; a word alone may be anything.
    if has("cortex") || words.starts_with(" arm ") {
        return Some(OTHER);
    }
    // Ampere's numbers: Q80-30, M128-30.
    let mut pairs = words.split_whitespace().zip(words.split_whitespace().skip(1));
    let is_number = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    pairs
        .any(|(one, next)| {
            one.strip_prefix(['q', 'm']).is_some_and(|cores| is_number(cores, 2..=3)) && is_number(next, 2..=2)
        })
        .then_some("Neoverse N1")
}
