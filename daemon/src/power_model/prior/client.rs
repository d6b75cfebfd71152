//! Processors of laptops, desktops and small boards: what the letters of their names say of their TDP. The letters are
//! Intel's and AMD's own; watts are the usual TDP of a letter in codecarbon's table.

/// TDP in watts and whether it is a laptop's or a small board's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Letters {
    pub(super) watts: f64,
    pub(super) mobile: bool,
}

const fn mobile(watts: f64) -> Option<Letters> {
    Some(Letters { watts, mobile: true })
}

const fn desktop(watts: f64) -> Option<Letters> {
    Some(Letters { watts, mobile: false })
}

/// What the letters of a normalised name say; `None`: nothing.
pub(super) fn letters(key: &str) -> Option<Letters> {
    let (family, rest) = key.split_once(' ').unwrap_or((key, ""));
    match family {
        "core" => intel(rest),
        "ryzen" => amd(rest),
        "celeron" | "pentium" => {
            let small = rest.split([' ', '-']).any(|word| is_number_after(word, &['n', 'j']));
            if small { mobile(6.0) } else { desktop(54.0) }
        }
        "atom" => mobile(6.0),
        // N100, N97: of small boards and cheap laptops.
        _ if is_number_after(key, &['n']) => mobile(6.0),
        _ => None,
    }
}

/// Whether it is one of Apple's, whose TDP nobody publishes.
pub(super) fn is_apple(key: &str) -> bool {
    key.starts_with("apple m")
}

fn is_number_after(word: &str, letters: &[char]) -> bool {
    word.strip_prefix(letters).is_some_and(|rest| rest.len() >= 2 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Digits of the number at the start of `text`, and what follows it.
fn number(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `i7-1165g7`, `ultra 7 155h`, `m3-7y30`, `i3-n305`, `5 120u`.
fn intel(id: &str) -> Option<Letters> {
    let word = id.split(' ').next_back()?;
    let (kind, model) = word.split_once('-').unwrap_or(("", word));
    if matches!(kind, "m3" | "m5" | "m7") {
        return mobile(5.0);
    }
    if is_number_after(model, &['n']) {
        return mobile(10.0);
    }
    let (digits, letters) = number(model);
    if digits.len() < 3 {
        // `7y30`: the letter is within.
        return if letters.starts_with('y') { mobile(5.0) } else { None };
    }
    match letters {
        "y" => mobile(7.0),
        "u" | "ul" | "ue" | "um" | "v" | "g1" | "g4" | "ng4" | "ng7" => mobile(15.0),
        "g7" => mobile(28.0),
        "m" => mobile(35.0),
        "h" | "hk" | "hq" | "hs" | "he" | "hl" | "qm" | "mq" | "eq" => mobile(45.0),
        "hx" | "xm" | "mx" => mobile(55.0),
        // Of the 12th and 13th generation laptops; `i5-2380p` is a desktop's.
        "p" if digits.len() == 4 && digits.starts_with('1') => mobile(28.0),
        "t" | "te" => desktop(35.0),
        "k" | "kf" | "ks" => desktop(125.0),
        "x" | "xe" => desktop(140.0),
        _ => desktop(65.0),
    }
}

/// `7 5800u`, `9 7940hs`, `ai 9 hx 370`, `threadripper pro 5995wx`.
fn amd(id: &str) -> Option<Letters> {
    if id.contains("threadripper") {
        return desktop(280.0);
    }
    let mut words = id.split(' ').filter(|word| *word != "pro");
    // `ai max+ 395` is a large one of a laptop.
    if id.starts_with("ai ") {
        return mobile(if id.contains("max") { 55.0 } else { 28.0 });
    }
    let (_, letters) = number(words.rfind(|word| number(word).0.len() >= 3)?);
    match letters {
        "u" | "c" | "e" => mobile(15.0),
        "hs" => mobile(35.0),
        "h" => mobile(45.0),
        "hx" | "hx3d" => mobile(55.0),
        "ge" => desktop(35.0),
        "x" | "x3d" | "xt" => desktop(105.0),
        _ => desktop(65.0),
    }
}
