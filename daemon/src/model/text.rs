//! Text that strangers choose (names of processes, cgroups and VMs, paths of programs), made fit for a label: nothing
//! in it acts on the terminal, the log or the page that shows it. Every value of [`super::entity::Labels`] goes through
//! [`label`]; `sys/safe_text` has other forms.

use std::borrow::Cow;

/// Whether a character moves the cursor or turns the direction of writing: control characters, line and paragraph
/// separators, marks and overrides of direction.
pub fn is_terminal_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character could do something to a terminal other than appear: control characters as above, and invisible
/// ones that join or hide text.
pub fn acts(c: char) -> bool {
    is_terminal_control(c)
        || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with everything that acts on a terminal made visible: `\u{1b}`. Text that is fit is not copied.
pub fn safe(text: &str) -> Cow<'_, str> {
    // Nearly all text is printable ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// `text`, or where it is longer than `most` bytes, its beginning with `…`: up to the end of a clause, else of a word,
/// so that no number is cut and looks like a smaller one.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most.saturating_sub(MARK.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let (kept, next) = text.split_at(end);
    let clause = ["; ", ": ", ", ", ". "].into_iter().filter_map(|end| kept.rfind(end)).max();
    let clause = clause.filter(|at| *at >= most / 2);
    let word = || if next.starts_with(' ') { Some(kept.len()) } else { kept.rfind(' ') };
    // A single word as long as this is no number.
    let at = clause.or_else(word).filter(|at| *at > 0).unwrap_or(kept.len());
    Cow::Owned(format!("{}{MARK}", kept[..at].trim_end()))
}

/// Longest label value, in bytes. Names of cgroups have at most 255 and are longer only where they are escaped.
const LABEL: usize = 512;
/// Of a longer value, the bytes that are kept of each of its ends.
const END: usize = 240;

/// `text` as a label value: [`safe`], and of at most 512 bytes. The middle of a longer text is replaced by a hash of
/// the whole, so that different texts stay different.
pub fn label(text: &str) -> Cow<'_, str> {
    let text = safe(text);
    if text.len() <= LABEL {
        return text;
    }
    // FNV-1a: the value must be the same in each run.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let boundary = |at: &usize| text.is_char_boundary(*at);
    let begin = (0..=END).rev().find(boundary).unwrap_or_default();
    let end = (text.len() - END..=text.len()).find(boundary).unwrap_or(text.len());
    Cow::Owned(format!("{}…{hash:016x}…{}", &text[..begin], &text[end..]))
}

/// Undoes the escapes of systemd's unit names: `\x2d` is `-`. A plain `-` stands for `/` in escaped paths only; machine
/// names are no paths.
pub fn unescape_unit(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2)).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_acts_is_made_visible() {
        assert_eq!(safe("a\u{1b}[2J\n\"b\u{202e}\u{9b}\u{7}"), "a\\u{1b}[2J\\u{a}\"b\\u{202e}\\u{9b}\\u{7}");
        assert_eq!(safe("\u{feff}x\u{200b}\u{e0041}"), "\\u{feff}x\\u{200b}\\u{e0041}");
        for fit in ["", "nginx: worker", "größe", "名前", "a\\x2db", "\u{fffd}"] {
            assert!(matches!(safe(fit), Cow::Borrowed(text) if text == fit), "{fit}");
        }
    }

    #[test]
    fn a_long_label_is_cut_and_stays_its_own() {
        let [one, other] = ["a", "b"].map(|middle| format!("/{}{middle}{}/x", "é".repeat(400), "\u{1b}".repeat(400)));
        assert!(label(&one).len() <= LABEL && label(&one).ends_with("/x") && label(&one) != label(&other));
        assert_eq!(label(&label(&one)), label(&one));
        assert_eq!(label(&"u".repeat(LABEL)), "u".repeat(LABEL));
    }

    proptest! {
        #[test]
        fn any_text_is_fit_and_stays_so(text: String) {
            let once = safe(&text).into_owned();
            prop_assert!(!once.chars().any(acts));
            prop_assert!(matches!(safe(&once), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn a_text_is_cut_where_a_number_is_not() {
        assert_eq!(shortened("short", 5), "short");
        let long = "no power: it stands still; it drew 1234.567 W before";
        assert_eq!(shortened(long, 44), "no power: it stands still…");
        assert_eq!(shortened("it drew about 1234.567 W before that", 22), "it drew about…");
        assert_eq!(shortened("it drew about 1234.567 W", 15), "it drew…");
        assert_eq!(shortened(&"é".repeat(20), 10), "ééé…");
        for most in 0..60 {
            let cut = shortened(long, most);
            assert!(cut.len() <= most.max(3) && !cut.contains("123") || cut.contains("1234.567"), "{most}: {cut}");
        }
    }
}
