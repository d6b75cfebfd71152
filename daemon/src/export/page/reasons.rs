//! The row of the troubleshooting page that explains a reason.

/// Lines `ID<tab>WORDS`; `…` in the words stands for what varies.
static REASONS: &str = include_str!(concat!(env!("OUT_DIR"), "/page_reasons.txt"));
/// Fewest letters that say something.
const FEWEST: usize = 6;

/// The id of the row whose words are in `reason`; of several, the one with the most. `None`: no row has it.
pub(super) fn row_of(reason: &str) -> Option<&'static str> {
    if reason.is_empty() {
        return None;
    }
    let rows = REASONS.lines().filter_map(|line| line.split_once('\t'));
    let fits = rows.filter_map(|(id, words)| Some((id, fit(reason, words)?)));
    fits.filter(|(_, length)| *length >= FEWEST).max_by_key(|(_, length)| *length).map(|(id, _)| id)
}

/// How many bytes of `words` are in `reason`, where all its pieces are in their order.
fn fit(reason: &str, words: &str) -> Option<usize> {
    let mut rest = reason;
    let mut length = 0;
    for piece in words.split('…').map(str::trim).filter(|piece| !piece.is_empty()) {
        rest = &rest[rest.find(piece)? + piece.len()..];
        length += piece.len();
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_the_row_with_the_most_of_its_words() {
        let rapl = row_of("open /sys/class/powercap/intel-rapl:0/energy_uj: only root may read it").unwrap();
        assert!(REASONS.contains(&format!("{rapl}\tonly root may read it")));
        assert!(row_of("").is_none() && row_of("zzz").is_none());
        assert_eq!(fit("no RAPL zone in /sys/x", "no RAPL zone in …"), Some(15));
        assert_eq!(fit("3 of 4 domains cannot be read", "… of … domains cannot be read"), Some(24));
        assert_eq!(fit("domains of 4", "… of … domains"), None);
    }

    #[test]
    fn every_row_of_reasons_is_known() {
        assert!(REASONS.lines().count() > 200, "{}", REASONS.lines().count());
        assert!(REASONS.lines().all(|line| line.starts_with("r-") && line.contains('\t')));
    }
}
