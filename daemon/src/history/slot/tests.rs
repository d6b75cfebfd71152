use super::*;
use crate::model::units::Microjoules;

fn slot(zones: &[(&str, u64)], rows: &[(SeriesId, &[i64])], rest: &[i64]) -> Slot {
    let mut slot = Slot::empty(0, 60);
    for (name, total) in zones {
        let at = slot.zone_index(name, *name != "core");
        slot.zones[at].energy.total = Microjoules(*total);
    }
    let rows = rows.iter().map(|(id, values)| (*id, values.to_vec())).collect();
    slot.kinds.insert("unit".into(), KindPart { rows, rest: rest.to_vec(), ..KindPart::default() });
    slot
}

#[test]
fn zones_are_added_by_name_whatever_their_order() {
    let mut sum = slot(&[("package", 10), ("core", 4)], &[(1, &[5, 1, 2, 0])], &[1, 0, 0, 0]);
    sum.add(&slot(&[("dram", 3), ("package", 20)], &[(1, &[7, 0, 9, 0]), (2, &[0, 0, 4, 2])], &[-3, 0, 0, 0]));
    let names: Vec<_> = sum.zones.iter().map(|zone| (zone.zone.as_str(), zone.energy.total.0)).collect();
    assert_eq!(names, [("package", 30), ("core", 4), ("dram", 3)]);
    let unit = &sum.kinds["unit"];
    assert_eq!(unit.rows[&1], [14, 1, 2, 0, 7, 0]);
    assert_eq!(unit.rows[&2], [4, 2, 0, 0, 0, 0]);
    assert_eq!(unit.rest, [1, 0, 0, 0, -3, 0]);
}

#[test]
fn folding_small_series_changes_no_sum() {
    let rows: &[(SeriesId, &[i64])] = &[(1, &[5, 1]), (2, &[50, 0]), (3, &[0, 7]), (4, &[-6, 0])];
    let mut part = slot(&[("package", 0)], rows, &[2, 2]).kinds["unit"].clone();
    let before = part.sum();
    part.keep_largest(2);
    assert_eq!((part.rows.keys().copied().collect::<Vec<_>>(), part.sum()), (vec![2, 3], before));
}
