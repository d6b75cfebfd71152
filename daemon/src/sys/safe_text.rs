//! Text from outside (names, firmware, drivers, other hosts) made fit for a terminal, a log line or a label. Pure;
//! not the widths and tables of joulectl.
//!
//! | function | what it does with a harmful character | for |
//! |---|---|---|
//! | [`safe`] | shows its code, `\u{1b}` | text that is shown whole |
//! | [`quoted`], [`excerpt`] | escapes it as in a Rust string, quotation marks too | text of firmware and drivers |
//! | [`replaced`] | puts another character in its place | names that become labels |
//! | [`removed`] | leaves it out | lines of a peer |

/// Whether a character moves the cursor or turns the direction of writing: control characters, line and paragraph
/// separators, marks and overrides of direction.
pub fn is_terminal_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character could do something to a terminal other than appear: control characters as above, and invisible
/// ones that join or hide text.
pub fn acts(c: char) -> bool {
    is_terminal_control(c)
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with everything that acts on a terminal made visible: `\u{1b}`.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
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

/// `text` with `substitute` in place of each character that is_terminal_control, cut to at most `most` bytes.
pub fn replaced(text: &str, substitute: char, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let c = if is_terminal_control(c) { substitute } else { c };
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out
}

/// The first `most` characters of `text` that are no control characters.
pub fn removed(text: &str, most: usize) -> String {
    text.chars().filter(|c| !is_terminal_control(*c)).take(most).collect()
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
