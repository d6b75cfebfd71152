//! Where makers of PDUs and UPSs put power and energy: OIDs, and what one count of each is. As in their MIBs.

use super::SnmpMeter;
use super::ber::Oid;
use serde::Deserialize;

/// Whose OIDs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Those of the entry.
    #[default]
    Oids,
    /// APC and Schneider: rack PDUs of three generations, and UPSs.
    Apc,
    /// Raritan PX2 to PX4, and Server Technology PRO4X.
    Raritan,
    /// Server Technology (Sentry4-MIB).
    Sentry4,
    /// Eaton ePDU.
    Eaton,
    /// HPE G3 (CPQPOWER-MIB).
    Hpe,
    /// CyberPower (ePDU2).
    Cyberpower,
    /// Any device with ENTITY-SENSOR-MIB (RFC 3433).
    EntitySensor,
}

/// Whether a state says that there is a reading.
type IsValid = fn(i128) -> bool;

/// A number of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) oid: Oid,
    /// One count is 10 to the power of this, in W or Wh (of `oids`: in the unit of the entry).
    pub(super) exponent: i32,
    /// An OID whose value says a finer scale: of these decimals.
    pub(super) decimals: Option<Oid>,
    /// An OID whose value says the scale of RFC 3433: 9 is a unit, 8 a thousandth of it.
    pub(super) scale: Option<Oid>,
    /// An OID whose value has to be this one: the unit, with its name.
    pub(super) unit: Option<(Oid, i128, &'static str)>,
    /// An OID whose value says whether there is a reading, and the values of it that say so.
    pub(super) state: Option<(Oid, IsValid)>,
    /// An OID whose value is the time of the reading, seconds since 1970.
    pub(super) time: Option<Oid>,
    /// An OID whose value says since when an energy is counted.
    pub(super) since: Option<Oid>,
}

impl Field {
    fn new(oid: Oid, exponent: i32) -> Self {
        Self { oid, exponent, decimals: None, scale: None, unit: None, state: None, time: None, since: None }
    }

    /// All of its OIDs.
    pub(super) fn oids(&self) -> Vec<Oid> {
        let Self { oid, exponent: _, decimals, scale, unit, state, time, since } = self;
        let more = [
            decimals.as_ref(),
            scale.as_ref(),
            unit.as_ref().map(|(oid, ..)| oid),
            state.as_ref().map(|(oid, _)| oid),
            time.as_ref(),
            since.as_ref(),
        ];
        std::iter::once(oid).chain(more.into_iter().flatten()).cloned().collect()
    }
}

/// What is read of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it is, for the operator.
    pub(super) what: &'static str,
    pub(super) power: Option<Field>,
    pub(super) energy: Option<Field>,
}

/// The plans of an entry, in the order in which they are tried: the first with a value is kept.
pub(super) fn plans(config: &SnmpMeter) -> Vec<Plan> {
    let (inlet, outlet) = (config.inlet, config.outlet);
    // Eaton numbers the PDUs of a chain from 0, all others from 1.
    let pdu = config.pdu.unwrap_or(u16::from(config.preset != Preset::Eaton));
    let of_outlet =
        |base: &str, middle: &str| outlet.map_or_else(|| base.to_owned(), |outlet| format!("{middle}.{outlet}"));
    match config.preset {
        Preset::Oids => {
            let field = |text: &Option<String>| Some(Field::new(Oid::parse(text.as_deref()?)?, 0));
            vec![Plan { what: "by OIDs", power: field(&config.power), energy: field(&config.energy) }]
        }
        Preset::Apc => {
            let rpdu2 = "1.3.6.1.4.1.318.1.1.26.4.3.1";
            let mut all = vec![
                fixed("APC rPDU2", (&format!("{rpdu2}.5.{pdu}"), 1), Some((&format!("{rpdu2}.9.{pdu}"), 2))),
                fixed("APC ePDU", (&format!("1.3.6.1.4.1.318.1.1.30.2.1.1.7.{pdu}"), 0), None),
                fixed("APC rPDU", ("1.3.6.1.4.1.318.1.1.12.1.16.0", 0), None),
                fixed("APC UPS", ("1.3.6.1.4.1.318.1.1.1.4.2.8.0", 0), Some(("1.3.6.1.4.1.318.1.1.1.4.2.12.0", 3))),
            ];
            if let Some(energy) = &mut all[0].energy {
                energy.since = Oid::parse(&format!("{rpdu2}.10.{pdu}"));
            }
            all
        }
        Preset::Raritan => {
            let (values, sensors) = ("1.3.6.1.4.1.13742.6.5", "1.3.6.1.4.1.13742.6.3");
            let (value, sensor, index) = match outlet {
                None => ("2.3.1", "3.4.1", format!("{pdu}.{inlet}")),
                Some(outlet) => ("4.3.1", "5.4.1", format!("{pdu}.{outlet}")),
            };
            let field = |number: u8, unit: i128, name| {
                let of_value = |column: u8| Oid::parse(&format!("{values}.{value}.{column}.{index}.{number}"));
                let of_sensor = |column: u8| Oid::parse(&format!("{sensors}.{sensor}.{column}.{index}.{number}"));
                Some(Field {
                    decimals: of_sensor(7),
                    unit: of_sensor(6).map(|oid| (oid, unit, name)),
                    // unavailable(-1); the others are a value, and what a threshold makes of it.
                    state: of_value(3).map(|oid| (oid, (|state| state >= 0) as IsValid)),
                    time: of_value(5),
                    ..Field::new(of_value(4)?, 0)
                })
            };
            vec![Plan { what: "Raritan PX", power: field(5, 3, "W"), energy: field(8, 5, "Wh") }]
        }
        Preset::Sentry4 => {
            let base = "1.3.6.1.4.1.1718.4.1";
            let index = format!("{pdu}.{inlet}");
            vec![match outlet {
                None => fixed(
                    "Sentry4 cord",
                    (&format!("{base}.3.3.1.3.{index}"), 0),
                    Some((&format!("{base}.3.3.1.10.{index}"), 2)),
                ),
                Some(outlet) => fixed(
                    "Sentry4 outlet",
                    (&format!("{base}.8.3.1.7.{index}.{outlet}"), 0),
                    Some((&format!("{base}.8.3.1.14.{index}.{outlet}"), 0)),
                ),
            }]
        }
        Preset::Eaton => {
            let base = "1.3.6.1.4.1.534.6.6.7";
            if let Some(outlet) = outlet {
                return vec![fixed("Eaton ePDU outlet", (&format!("{base}.6.5.1.3.{pdu}.{outlet}"), 0), None)];
            }
            // The total; else that of all phases, of one phase, or the phase itself, by model.
            let mut all = vec![fixed("Eaton ePDU", (&format!("{base}.3.5.1.4.{pdu}.{inlet}"), 0), None)];
            all.extend(
                [4, 2, 1].map(|phase| fixed("Eaton ePDU", (&format!("{base}.3.4.1.4.{pdu}.{inlet}.{phase}"), 0), None)),
            );
            all
        }
        Preset::Hpe => {
            let base = "1.3.6.1.4.1.232.165.11";
            let power = of_outlet(&format!("{base}.2.1.1.5.{pdu}"), &format!("{base}.5.1.1.13.{pdu}"));
            vec![fixed("HPE PDU", (&power, 0), None)]
        }
        Preset::Cyberpower => {
            let base = "1.3.6.1.4.1.3808.1.1.6.3.4.1";
            vec![fixed("CyberPower ePDU2", (&format!("{base}.18.{pdu}"), 0), Some((&format!("{base}.9.{pdu}"), 2)))]
        }
        Preset::EntitySensor => {
            let of = |column: u8| Oid::parse(&format!("1.3.6.1.2.1.99.1.1.1.{column}.{}", config.sensor));
            let power = of(4).map(|oid| Field {
                decimals: of(3),
                scale: of(2),
                unit: of(1).map(|oid| (oid, 6, "watts")),
                // ok(1); unavailable(2), nonoperational(3).
                state: of(5).map(|oid| (oid, (|state| state == 1) as IsValid)),
                ..Field::new(oid, 0)
            });
            vec![Plan { what: "ENTITY-SENSOR-MIB", power, energy: None }]
        }
    }
}

/// A plan of OIDs that need nothing else: each with the exponent of one count, in W and Wh.
fn fixed(what: &'static str, power: (&str, i32), energy: Option<(&str, i32)>) -> Plan {
    let field = |(oid, exponent): (&str, i32)| Oid::parse(oid).map(|oid| Field::new(oid, exponent));
    Plan { what, power: field(power), energy: energy.and_then(field) }
}
