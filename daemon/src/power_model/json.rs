//! JSON of files and requests: what is wrong with it, said for whoever wrote it. Pure.

/// The byte order mark of UTF-8, which some editors put before a text.
pub const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of `bytes`, without a byte order mark before it.
///
/// # Errors
/// Where it is not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err("it is UTF-16, not UTF-8: save it as UTF-8".to_owned()),
        _ => {}
    }
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        format!("it is not UTF-8: byte {} (0x{:02x}) is no part of a character", place + 1, bytes[place])
    })
}

/// Why `text` cannot be read, without the place, which `error` has.
pub fn why(error: &serde_json::Error, text: &str) -> String {
    // serde_json adds the place itself.
    let why = error.to_string();
    let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
    if why.starts_with("recursion limit") {
        return "lists or objects are nested more than 127 deep".to_owned();
    }
    if why.starts_with("number out of range") {
        return "the number is larger than any that can be read (about 1.8e308)".to_owned();
    }
    if error.is_syntax() && is_no_number(text, error.line(), error.column()) {
        return "NaN and infinity are no numbers of JSON".to_owned();
    }
    why.to_owned()
}

/// Whether the word at a place, counted from 1, is one of those that languages write for what is no number.
fn is_no_number(text: &str, line: usize, column: usize) -> bool {
    let bytes = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default().as_bytes();
    let at = column.saturating_sub(1).min(bytes.len());
    let of_word = |byte: &&u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'+');
    let before = bytes[..at].iter().rev().take_while(of_word).count();
    let after = bytes[at..].iter().take_while(of_word).count();
    let word = String::from_utf8_lossy(&bytes[at - before..at + after]).to_lowercase();
    matches!(word.trim_start_matches(['-', '+']), "nan" | "inf" | "infinity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_the_fault() {
        let of = |text: &str| why(&serde_json::from_str::<serde_json::Value>(text).unwrap_err(), text);
        for text in ["NaN", "[1,\n nan]", "{\"a\": -Infinity}", "[Infinity]", "[+inf]", "[-NaN]"] {
            assert_eq!(of(text), "NaN and infinity are no numbers of JSON", "{text}");
        }
        assert!(of(&"[".repeat(200)).contains("nested more than 127 deep"));
        assert!(of("[1e999]").contains("larger than any"));
        for text in ["{a: 1}", "[1 2]", "[tru]", "{\"a\" 1}", "[1,]", "\u{feff}{}"] {
            assert!(!of(text).contains("NaN") && !of(text).contains(" at line "), "{text}: {}", of(text));
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_fault() {
        assert_eq!(text(b"\xef\xbb\xbf{}"), Ok("{}"));
        assert_eq!(text(b"{}"), Ok("{}"));
        assert!(text(b"\xff\xfe{\0}\0").unwrap_err().contains("UTF-16"));
        assert!(text(b"{\"\xff\"}").unwrap_err().contains("byte 3 (0xff)"));
    }
}
