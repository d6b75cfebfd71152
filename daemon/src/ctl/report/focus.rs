//! A report as CSV with the columns of FOCUS 1.2, the FinOps Open Cost and Usage Specification
//! (https://focus.finops.org/focus-specification/v1-2/), which tools for cloud costs read; OpenCost is one of them.
//!
//! The columns and their units are those of the specification, in its order. jouled issues no invoice: what it does not
//! know is empty, also where FOCUS asks for a value (what was billed, accounts). What FOCUS has no column for is in
//! columns that begin with `x_`, as it asks for.

use super::csv::quoted;
use super::digits::decimal;
use super::{Row, Shown, rows};
use crate::ctl::report::amounts::Cell;
use crate::history::local::Calendar;
use crate::history::report::{By, Part, Query, Report};
use crate::model::entity::Kind;

/// The columns of FOCUS 1.2, in the order of the specification.
pub const COLUMNS: [&str; 57] = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
];

/// jouled's own columns.
const OWN: [&str; 13] = [
    "x_Node",
    "x_Row",
    "x_EnergyMicrojoules",
    "x_DynamicMicrojoules",
    "x_IdleMicrojoules",
    "x_Quality",
    "x_ObservedSeconds",
    "x_MissingSeconds",
    "x_CostFactors",
    "x_Co2eLocationGrams",
    "x_Co2eLocationFactors",
    "x_Co2eMarketGrams",
    "x_Co2eMarketFactors",
];

/// Whether the rows of such a report add up, as those of FOCUS have to.
///
/// # Errors
/// Why they do not.
pub fn check(by: By) -> Result<(), String> {
    let why = match by {
        By::Zone => "zones contain each other and have no cost",
        By::Kind(Kind::Slice) => "slices contain each other",
        _ => return Ok(()),
    };
    Err(format!("--format focus --by {}: {why}, and rows of FOCUS are added up: take another --by", by.as_str()))
}

/// The report as lines: a heading, and a line for each row that has energy. Sums over ConsumedQuantity are the node's
/// energy: the node itself has no line, so that nothing is counted twice.
pub fn lines(report: &Report, query: &Query, shown: &Shown, calendar: &Calendar) -> Vec<String> {
    let mut lines = vec![COLUMNS.iter().chain(&OWN).copied().collect::<Vec<_>>().join(",")];
    for part in &report.parts {
        let rows = rows(part, query, calendar, &report.declared, shown);
        let shown = rows.iter().enumerate().filter(|(_, row)| row.row != "node" && !row.is_0());
        lines.extend(shown.map(|(at, row)| line(report, query, (part, part.lines.get(at)), row, calendar)));
    }
    lines
}

type Entity<'a> = Option<&'a crate::history::report::ReportLine>;

fn line(report: &Report, query: &Query, (part, entity): (&Part, Entity<'_>), row: &Row, calendar: &Calendar) -> String {
    let entity = entity.filter(|_| row.row == "entity");
    // The months of the calendar; a part of several months is in no one billing period.
    let month = calendar.month(part.from);
    let period = (part.until.min(query.until) <= month.end).then_some(month);
    let kind = match query.by {
        By::Kind(kind) => kind.as_str(),
        By::Namespace => "namespace",
        By::Zone => "zone",
    };
    let mut costs = row.amounts.iter().filter(|cell| cell.measure == "cost");
    let cost = costs.next().filter(|_| costs.next().is_none());
    let of = |measure: &str| row.amounts.iter().find(|cell| cell.measure == measure);
    let amount = |cell: &Cell| cell.nano.map(|nano| decimal(nano, 9)).unwrap_or_default();
    let factors = |cell: &Cell| cell.factors.to_owned();
    let value = |column: &str| -> String {
        match column {
            "BillingPeriodStart" => period.as_ref().map(|month| utc(month.start)).unwrap_or_default(),
            "BillingPeriodEnd" => period.as_ref().map(|month| utc(month.end)).unwrap_or_default(),
            "ChargePeriodStart" => utc(part.from.max(query.from)),
            "ChargePeriodEnd" => utc(part.until.min(query.until)),
            "ChargeCategory" => "Usage".into(),
            "ChargeFrequency" => "Usage-Based".into(),
            "ChargeDescription" => match row.row {
                "entity" => format!("Energy of the {kind} {}", row.name),
                _ => format!("Energy: {}", row.name),
            },
            "ConsumedQuantity" => kwh(row.microjoules),
            "ConsumedUnit" => "kWh".into(),
            // What was paid is not known; what it is worth by the prices of the time is, where there is one currency.
            "BillingCurrency" => cost.map(|cell| cell.unit.clone()).unwrap_or_default(),
            "EffectiveCost" => cost.map(amount).unwrap_or_default(),
            "ResourceId" => entity.map_or_else(String::new, |line| resource(report, kind, line)),
            "ResourceName" => entity.map(|_| row.name.clone()).unwrap_or_default(),
            "ResourceType" => entity.map(|_| kind.to_owned()).unwrap_or_default(),
            "ServiceCategory" => "Compute".into(),
            "ServiceName" => "Energy".into(),
            "SkuMeter" => "Energy".into(),
            "Tags" if !row.labels.is_empty() => serde_json::to_string(&row.labels).unwrap_or_default(),
            "x_Node" => report.node.clone(),
            "x_Row" => row.row.to_owned(),
            "x_EnergyMicrojoules" => row.microjoules.to_string(),
            "x_DynamicMicrojoules" => row.microjoules_dynamic.to_string(),
            "x_IdleMicrojoules" => row.microjoules_idle.to_string(),
            "x_Quality" => row.quality.to_owned(),
            "x_ObservedSeconds" => row.observed_seconds.to_string(),
            "x_MissingSeconds" => row.missing_seconds.to_string(),
            "x_CostFactors" => cost.map(factors).unwrap_or_default(),
            "x_Co2eLocationGrams" => of("co2e_location").map(amount).unwrap_or_default(),
            "x_Co2eLocationFactors" => of("co2e_location").map(factors).unwrap_or_default(),
            "x_Co2eMarketGrams" => of("co2e_market").map(amount).unwrap_or_default(),
            "x_Co2eMarketFactors" => of("co2e_market").map(factors).unwrap_or_default(),
            _ => String::new(),
        }
    };
    COLUMNS.iter().chain(&OWN).map(|column| quoted(&value(column))).collect::<Vec<_>>().join(",")
}

/// The id of an entity among those of all machines: `node/kind/id`, with what tells two with one id apart.
fn resource(report: &Report, kind: &str, line: &crate::history::report::ReportLine) -> String {
    let identity = line.labels.iter().flat_map(|labels| labels.identity()).collect::<Vec<_>>().join(":");
    let identity = if identity.is_empty() { line.name.clone() } else { identity };
    format!("{}/{kind}/{identity}", report.node)
}

/// Exactly so many µJ in kWh: a kWh has 3.6·10¹² of them, so the digits do not end; 15 after the point tell 1 µJ.
fn kwh(microjoules: i64) -> String {
    const KWH: u128 = 3_600_000_000_000;
    const DIGITS: u128 = 1_000_000_000_000_000;
    let sign = if microjoules < 0 { "-" } else { "" };
    let scaled = (u128::from(microjoules.unsigned_abs()) * DIGITS + KWH / 2) / KWH;
    format!("{sign}{}.{:015}", scaled / DIGITS, scaled % DIGITS)
}

/// A date and time as FOCUS wants it: ISO 8601 in UTC.
fn utc(at: i64) -> String {
    let zoned = Calendar::utc().zoned(at);
    let (date, time) = (zoned.date(), zoned.time());
    format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    /// Cells of a line without quoted commas.
    fn cells(line: &str) -> Vec<&str> {
        line.split(',').collect()
    }

    #[test]
    fn columns_are_those_of_focus_1_2() {
        // Ids of the columns of version 1.2: 57, each once, in the order of the specification, which is the alphabet's.
        let mut sorted = COLUMNS;
        sorted.sort_unstable();
        assert_eq!(sorted, COLUMNS);
        let mandatory = "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd \
             BillingPeriodStart ChargeCategory ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart \
             ContractedCost EffectiveCost InvoiceIssuerName ListCost PricingQuantity PricingUnit ProviderName \
             PublisherName ServiceCategory ServiceName";
        assert!(mandatory.split_whitespace().all(|column| COLUMNS.contains(&column)));
        assert!(OWN.iter().all(|column| column.starts_with("x_")), "custom columns");
    }

    #[test]
    fn quantities_add_up_to_the_node_and_what_is_not_known_is_empty() {
        let (report, query) = report();
        let lines = lines(&report, &query, &Shown::default(), &Calendar::utc());
        let heading = cells(&lines[0]);
        let column =
            |line: &str, name: &str| cells(line)[heading.iter().position(|column| *column == name).unwrap()].to_owned();
        let lines: Vec<&String> = lines[1..].iter().filter(|line| !line.contains('"')).collect();
        let others: i64 = lines.iter().map(|line| column(line, "x_EnergyMicrojoules").parse::<i64>().unwrap()).sum();
        assert_eq!(others, 20_000_001 - 12_600_001, "the entities have commas in their tags");
        let idle = lines.iter().find(|line| column(line, "x_Row") == "idle").unwrap();
        let of = |name: &str| column(idle, name);
        assert_eq!(of("ConsumedQuantity"), "0.000001944444444");
        let known = [of("ConsumedUnit"), of("ChargePeriodStart"), of("ChargePeriodEnd"), of("BillingPeriodEnd")];
        assert_eq!(known, ["kWh", "1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z", "1970-02-01T00:00:00Z"]);
        for name in ["BilledCost", "EffectiveCost", "ListCost", "BillingCurrency", "InvoiceId", "RegionId", "Tags"] {
            assert_eq!(of(name), "", "{name}");
        }
        assert_eq!((of("x_Quality").as_str(), of("x_MissingSeconds").as_str()), ("estimated", "12"));
    }

    #[test]
    fn entities_have_tags_in_json_and_no_formula() {
        let (report, query) = report();
        let lines = lines(&report, &query, &Shown::default(), &Calendar::utc());
        let line = lines.iter().find(|line| line.contains("a.service")).unwrap();
        assert!(line.contains(r#""{""slice"":""system.slice"",""unit"":""a.service""}""#), "{line}");
        assert!(line.contains(",n/unit/a.service:system.slice,a.service,unit,"), "{line}");
        assert!(lines.iter().any(|line| line.contains(",'=cmd(),unit,")), "{lines:#?}");
    }

    #[test]
    fn kilowatt_hours_tell_a_microjoule() {
        assert_eq!(kwh(3_600_000_000_000), "1.000000000000000");
        assert_eq!((kwh(-1).as_str(), kwh(0).as_str()), ("-0.000000000000278", "0.000000000000000"));
        assert_eq!(kwh(i64::MAX), "2562047.788015215501944");
    }
}
