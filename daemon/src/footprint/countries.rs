//! Yearly carbon intensity of electricity by country: `countries.csv` beside this file, made of Our World in Data's
//! table of Ember's data (CC BY 4.0), of which it has the latest year of each country, to a gram.

/// Name of the table where one of its values is used.
pub const SOURCE: &str = "Ember, Our World in Data";

const TABLE: &str = include_str!("countries.csv");

/// A country's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Country {
    /// ISO 3166-1 alpha-3, or `WLD` for the world and `EU27` for the European Union.
    pub code: &'static str,
    /// ISO 3166-1 alpha-2, where there is one.
    pub short: &'static str,
    /// The year that the value is of.
    pub year: u16,
    /// gCO2e/kWh, of the whole life cycle.
    pub grams: f64,
}

/// All countries of the table.
pub fn all() -> impl Iterator<Item = Country> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut cells = line.split(',');
        let (code, short) = (cells.next()?, cells.next()?);
        Some(Country { code, short, year: cells.next()?.parse().ok()?, grams: cells.next()?.parse().ok()? })
    })
}

/// A country by either code, in capitals or not.
pub fn find(code: &str) -> Option<Country> {
    let is_it = |one: &Country| one.code.eq_ignore_ascii_case(code) || one.short.eq_ignore_ascii_case(code);
    all().find(|one| !code.is_empty() && is_it(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_have_the_published_values() {
        for (code, grams) in [("DEU", 344.0), ("de", 344.0), ("FRA", 44.0), ("US", 384.0), ("POL", 615.0)] {
            let found = find(code).unwrap();
            assert_eq!((found.grams, found.year), (grams, 2024), "{code}");
        }
        assert_eq!(find("WLD").unwrap().grams, 473.0);
        assert!(find("").is_none() && find("XX").is_none());
        assert!(all().count() > 190);
        assert!(all().all(|one| one.year >= 2022 && one.grams > 0.0 && one.grams < 2_000.0));
    }
}
