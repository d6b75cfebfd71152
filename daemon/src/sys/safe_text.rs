//! Text from outside (names, firmware, drivers, other hosts) made fit for a terminal, a log line or a label. Pure;
//! not the widths and tables of joulectl.
//!
//! | function | what it does with a harmful character | for |
//! |---|---|---|
//! | [`safe`] | shows its code, `\u{1b}` | text that is shown whole |
//! | [`quoted`], [`excerpt`] | escapes it as in a Rust string, quotation marks too | text of firmware and drivers |
//! | [`replaced`] | puts another character in its place | names that become labels |
//! | [`removed`] | leaves it out | lines of a peer |

pub use crate::model::text::{acts, is_terminal_control};

/// Whether it is a word that may be part of names: 1 to 64 ASCII letters, digits, '-', '_' and '.'.
pub fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 64 && text.chars().all(plain)
}

/// `text` with everything that acts on a terminal made visible: `\u{1b}`.
pub fn safe(text: &str) -> String {
    crate::model::text::safe(text).into_owned()
}

/// The first `most` characters of `text`, escaped as in a Rust string.
pub fn quoted(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::escape_debug).collect()
}

/// As [`quoted`], at most twice as long as `most`, with `…` where something is left out.
pub fn excerpt(text: &str, most: usize) -> String {
    let mut shown = quoted(text, most);
    if text.chars().nth(most).is_some() || shown.chars().nth(2 * most).is_some() {
        shown = shown.chars().take(2 * most).collect();
        shown.push('…');
    }
    shown
}

/// `text` with `substitute` in place of each character that [`acts`], cut to at most `most` bytes.
pub fn replaced(text: &str, substitute: char, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let c = if acts(c) { substitute } else { c };
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out
}

/// The first `most` characters of `text` that do not act on a terminal.
pub fn removed(text: &str, most: usize) -> String {
    text.chars().filter(|c| !acts(*c)).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HARMFUL: &str = "a\u{1b}[2J\n\"b\u{202e}\u{9b}";

    #[test]
    fn each_way_makes_text_harmless() {
        assert_eq!(safe(HARMFUL), "a\\u{1b}[2J\\u{a}\"b\\u{202e}\\u{9b}");
        assert_eq!(quoted(HARMFUL, 100), "a\\u{1b}[2J\\n\\\"b\\u{202e}\\u{9b}");
        assert_eq!(quoted(HARMFUL, 2), "a\\u{1b}");
        assert_eq!(replaced(HARMFUL, ' ', 100), "a [2J \"b  ");
        assert_eq!(removed(HARMFUL, 100), "a[2J\"b");
    }

    #[test]
    fn an_excerpt_says_that_it_is_one() {
        assert_eq!((excerpt("abc", 3).as_str(), excerpt("abcd", 3).as_str()), ("abc", "abc…"));
        assert_eq!(excerpt("\u{1b}\u{1b}", 2), "\\u{1…");
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_without_controls(text: String, most in 0usize..80) {
            let all = [quoted(&text, most), excerpt(&text, most), replaced(&text, ' ', most), removed(&text, most)];
            for out in all {
                prop_assert!(!out.chars().any(char::is_control), "{out:?}");
            }
            prop_assert!(replaced(&text, ' ', most).len() <= most && removed(&text, most).chars().count() <= most);
            prop_assert!(!safe(&text).chars().any(acts));
        }
    }
}
