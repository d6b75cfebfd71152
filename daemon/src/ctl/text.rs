//! Text for terminals: safe names, tables, JSON. Quantities are `words`'. Not for anything of a snapshot.

pub use crate::sys::date_time::rfc3339;
use crate::sys::safe_text::acts;
pub use crate::sys::safe_text::safe;
pub use crate::words::quantity::{joules, share, span, watts};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};
use unicode_width::UnicodeWidthChar as _;

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub columns: usize,
    /// Height.
    pub rows: usize,
}

/// The size of the terminal that is standard output; `None` where that is not a terminal.
pub fn terminal_size() -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A serial console does not know its size.
    let or = |value: u16, usual| {
        if value == 0 { usual } else { usize::from(value) }
    };
    Some(Size { columns: or(size.ws_col, 80), rows: or(size.ws_row, 24) })
}

/// Indented JSON that is safe on a terminal: serde_json leaves DEL, C1 controls and reordering characters as they are.
pub fn json(value: &impl Serialize) -> String {
    inert(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// As [`json`], on one line.
pub fn json_line(value: &impl Serialize) -> String {
    inert(&serde_json::to_string(value).unwrap_or_default())
}

fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if acts(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Columns that `text` takes on a terminal.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// `text`, cut to at most `columns`; a cut shows as `…`.
pub fn cut(text: &str, columns: usize) -> String {
    // Marks without width could otherwise make a line endless.
    let bound = columns.saturating_mul(4);
    if width(text) <= columns && text.chars().nth(bound).is_none() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars().take(bound) {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Lines up `rows` under each other: column 0 to the left, and cut where `columns` are too few; the others by `right`.
pub fn table(rows: &[Vec<String>], right: bool, columns: Option<usize>) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count).map(widest).collect();
    if let (Some(columns), Some((first, others))) = (columns, widths.split_first_mut()) {
        let others: usize = others.iter().map(|width| width + 2).sum();
        *first = (*first).min(columns.saturating_sub(others).max(8));
    }
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let cell = if column == 0 { cut(cell, widths[0]) } else { cell.clone() };
            let pad = " ".repeat(widths[column].saturating_sub(width(&cell)));
            let gap = if column == 0 { "" } else { "  " };
            let _ =
                if right && column > 0 { write!(line, "{gap}{pad}{cell}") } else { write!(line, "{gap}{cell}{pad}") };
        }
        let line = line.trim_end();
        columns.map_or_else(|| line.to_owned(), |columns| cut(line, columns))
    };
    rows.iter().map(line).collect()
}

/// `text` in lines of at most `columns`, broken between words.
pub fn wrap(text: &str, columns: Option<usize>) -> Vec<String> {
    let Some(columns) = columns else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if width(&lines[last]) + 1 + width(word) <= columns {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| cut(line, columns)).collect()
}

/// Writes lines in one go, so that a terminal never shows half of them.
///
/// # Errors
/// Where `out` cannot be written.
pub fn write_lines(out: &mut dyn Write, lines: &[String]) -> io::Result<()> {
    let mut text = lines.join("\n");
    text.push('\n');
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(safe("a\x1b[2Jb\u{9b}c\u{202e}d\x7f\r\n"), "a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\u{7f}\\u{d}\\u{a}");
        assert_eq!(safe("dev-sda.device \\x2d 日本 ü"), "dev-sda.device \\x2d 日本 ü");
        let shown = json_line(&"\u{1b}\u{9b}\u{7f}\u{e0001}\u{202e}");
        assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{1b}\u{9b}\u{7f}\u{e0001}\u{202e}");
    }

    #[test]
    fn columns_stay_in_line() {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let rows = [row("NAME", "W"), row("日本語の長い名前", "1.00 W"), row("ascii", "22.0 mW")];
        let lines = table(&rows, true, Some(20));
        assert_eq!(lines[0], "NAME               W");
        assert_eq!(lines[1], "日本語の長…   1.00 W");
        assert!(lines.iter().all(|line| width(line) == 20), "{lines:?}");
        assert_eq!(table(&rows, true, None)[2], "ascii             22.0 mW");
    }

    proptest! {
        #[test]
        fn a_cut_always_fits(text in any::<String>(), columns in 0usize..40) {
            let shown = cut(&safe(&text), columns);
            prop_assert!(width(&shown) <= columns);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
