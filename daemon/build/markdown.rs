//! The Markdown that docs/troubleshooting.md is written in, as HTML: headings, paragraphs, lists, tables, blocks of
//! code; in a line code, emphasis and links. Not Markdown as a whole.

use std::fmt::Write;

/// A page in HTML.
pub struct Help {
    /// What is in the body.
    pub html: String,
    /// For each row of a table of reasons its id, and words that the reason contains, with `…` for what varies.
    pub reasons: Vec<(String, String)>,
}

/// The page of `text`. Links to other pages of the documentation are shown as their text.
pub fn html(text: &str) -> Help {
    let mut help = Help { html: String::new(), reasons: Vec::new() };
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        if line.trim().is_empty() {
            continue;
        } else if line.starts_with("```") {
            let end = lines[at..].iter().position(|line| line.starts_with("```")).map_or(lines.len(), |end| at + end);
            let code = lines[at..end].iter().map(|line| escape(line) + "\n").collect::<String>();
            let _ = write!(help.html, "<pre tabindex=\"0\"><code>{code}</code></pre>");
            at = end + 1;
        } else if line.starts_with('#') {
            let level = line.chars().take_while(|c| *c == '#').count();
            let title = line[level..].trim();
            let _ = writeln!(help.html, "<h{level} id=\"{}\">{}</h{level}>", slug(title), inline(title));
        } else if line.starts_with('|') {
            let end = lines[at..].iter().position(|line| !line.starts_with('|')).map_or(lines.len(), |end| at + end);
            table(&mut help, line, &lines[(at + 1).min(end)..end]);
            at = end;
        } else if is_item(line) {
            let ordered = line.starts_with(|c: char| c.is_ascii_digit());
            let tag = if ordered { "ol" } else { "ul" };
            let _ = write!(help.html, "<{tag}>");
            let mut item = line.to_owned();
            loop {
                let next = lines.get(at).copied().unwrap_or_default();
                let goes_on = next.starts_with("  ") && !next.trim().is_empty();
                if goes_on {
                    item = format!("{item} {}", next.trim());
                    at += 1;
                    continue;
                }
                let words = item.split_once(' ').map_or("", |(_, words)| words);
                let _ = write!(help.html, "<li>{}</li>", inline(words));
                if !is_item(next) {
                    break;
                }
                item = next.to_owned();
                at += 1;
            }
            let _ = writeln!(help.html, "</{tag}>");
        } else {
            let mut words = line.trim().to_owned();
            while let Some(next) = lines.get(at).filter(|next| goes_on(next)) {
                words = format!("{words} {}", next.trim());
                at += 1;
            }
            let _ = writeln!(help.html, "<p>{}</p>", inline(&words));
        }
    }
    help
}

fn goes_on(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with(['#', '|', '`']) && !is_item(line)
}

fn is_item(line: &str) -> bool {
    let numbered = line.split_once(". ").is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    line.starts_with("- ") || numbered
}

fn table(help: &mut Help, heads: &str, rows: &[&str]) {
    let heads = cells(heads);
    let of_reasons = heads.first().is_some_and(|head| head.contains("reason"));
    help.html.push_str("<div class=\"wide\" tabindex=\"0\"><table><thead><tr>");
    for head in &heads {
        let _ = write!(help.html, "<th scope=\"col\">{}</th>", inline(head));
    }
    help.html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        let cells = cells(row);
        let first = cells.first().cloned().unwrap_or_default();
        // The same words have the same id also when rows are added above.
        let id = format!("r-{:08x}", hash(&first));
        let _ = write!(help.html, "<tr id=\"{id}\">");
        if of_reasons {
            help.reasons.extend(codes(&first).map(|words| (id.clone(), words.to_owned())));
        }
        for (column, cell) in cells.iter().enumerate() {
            let tag = if column == 0 { "th scope=\"row\"" } else { "td" };
            let _ = write!(help.html, "<{tag}>{}</{}>", inline(cell), &tag[..2]);
        }
        help.html.push_str("</tr>\n");
    }
    help.html.push_str("</tbody></table></div>\n");
}

/// The cells of a row; `\|` is a `|` in one.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row).replace("\\|", "\u{0}");
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// What is between backticks.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The anchor of a heading, as GitHub makes it.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// A line: code, emphasis, links.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        out.push_str(&escape(&rest[..at]));
        let (mark, after) = rest[at..].split_at(1);
        let (html, left) = match mark {
            "`" => match after.split_once('`') {
                Some((code, left)) => (format!("<code>{}</code>", escape(code)), left),
                None => (mark.to_owned(), after),
            },
            "*" if after.starts_with('*') => match after[1..].split_once("**") {
                Some((words, left)) => (format!("<strong>{}</strong>", inline(words)), left),
                None => (mark.to_owned(), after),
            },
            "*" => match after.split_once('*') {
                Some((words, left)) if !words.is_empty() && !words.starts_with(' ') => {
                    (format!("<em>{}</em>", inline(words)), left)
                }
                _ => (mark.to_owned(), after),
            },
            _ => match link(after) {
                Some((words, target, left)) if target.starts_with('#') => {
                    (format!("<a href=\"{}\">{}</a>", escape(target), inline(words)), left)
                }
                // The other pages are not in the binary: no link leads to another host.
                Some((words, target, left)) => {
                    let page = target.split('#').next().unwrap_or_default();
                    let words = inline(words);
                    (if words == page { words } else { format!("{words} ({})", escape(page)) }, left)
                }
                None => (mark.to_owned(), after),
            },
        };
        out.push_str(&html);
        rest = left;
    }
    out + &escape(rest)
}

/// `words](target)rest`
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (words, after) = text.split_once("](")?;
    let (target, rest) = after.split_once(')')?;
    (!words.contains('[')).then_some((words, target, rest))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
