//! One line of CSV as RFC 4180 has it, without line breaks within fields. Pure.

use std::borrow::Cow;

/// The fields of a line, without blanks around them. A field in quotes may have commas in it, and quotes, written
/// twice.
///
/// # Errors
/// Where a quote is not closed, or a text follows it.
pub(super) fn fields(line: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let text = text.trim_start_matches([' ', '\t']);
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = quoted_field(quoted)?;
                let after = after.trim_start();
                if !after.is_empty() && !after.starts_with(',') {
                    let number = fields.len() + 1;
                    return Err(format!("text follows the quote that closes field {number}: write quotes twice"));
                }
                (field, after)
            }
            None => {
                let (field, after) = text.split_at(text.find(',').unwrap_or(text.len()));
                (Cow::Borrowed(field.trim()), after)
            }
        };
        fields.push(field);
        rest = after.strip_prefix(',');
    }
    Ok(fields)
}

/// A field after its first quote, and what follows its last one.
fn quoted_field(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    let mut at = 0;
    while let Some(quote) = text[at..].find('"') {
        at += quote;
        if text[at + 1..].starts_with('"') {
            at += 2;
            continue;
        }
        let field = &text[..at];
        let field = if field.contains('"') { Cow::Owned(field.replace("\"\"", "\"")) } else { Cow::Borrowed(field) };
        return Ok((field, &text[at + 1..]));
    }
    Err("a quote is not closed: fields have no line breaks".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_with_and_without_quotes() {
        for (line, wanted) in [
            ("", &[""][..]),
            ("a, b ,,c", &["a", "b", "", "c"]),
            ("\"a,b\", \"c\"\"d\" ,\"\"", &["a,b", "c\"d", ""]),
            ("a,", &["a", ""]),
            ("é\"x,1", &["é\"x", "1"]),
        ] {
            assert_eq!(fields(line).unwrap(), wanted, "{line}");
        }
        assert!(fields("\"a,b").unwrap_err().contains("not closed"));
        assert!(fields("1,\"a\"b,c").unwrap_err().contains("closes field 2"));
    }

    proptest! {
        #[test]
        fn what_was_quoted_comes_back(values in proptest::collection::vec("[^\\r\\n]{0,8}", 1..5)) {
            let quoted: Vec<String> = values.iter().map(|one| format!("\"{}\"", one.replace('"', "\"\""))).collect();
            let line = quoted.join(",");
            prop_assert_eq!(fields(&line).unwrap(), values);
        }

        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,60}") {
            let _ = fields(&line);
        }
    }
}
