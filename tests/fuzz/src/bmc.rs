//! What a BMC sends: IPMI data and Redfish resources.

use crate::text::{is_safe, lossy};
use jouled::meter::bmc::ipmi::dcmi::{PowerReading, TimestampCheck, manages_power};
use jouled::meter::bmc::ipmi::link::{Command, Link, LinkError};
use jouled::meter::bmc::ipmi::repository::{cannot_read_text, sensors_in_watts};
use jouled::meter::bmc::ipmi::sdr::{self, Sensor};
use jouled::meter::bmc::redfish;
use jouled::model::domain::Reading;
use jouled::model::units::Nanos;

/// Most power that a BMC is believed, in µW: 1 MW.
const MOST: u64 = 1_000_000_000_000;

/// Data of the DCMI commands, and time stamps one after the other.
pub fn dcmi(data: &[u8]) {
    let _ = manages_power(data);
    match PowerReading::parse(data).and_then(|reading| reading.power()) {
        Ok(power) => assert!(power.0 > 0 && power.0 < 65_535_000_000),
        Err(why) => assert!(is_safe(&why), "{why:?}"),
    }
    let mut check = TimestampCheck::default();
    let mut now = 0u64;
    for chunk in data.chunks_exact(6) {
        now += u64::from(u16::from_le_bytes([chunk[4], chunk[5]])) * 100_000_000;
        let _ = check.check(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]), Nanos(now));
    }
}

/// Sensor data records, and readings of these sensors.
pub fn sdr(data: &[u8]) {
    let mut sensors = Vec::new();
    for record in data.chunks(64) {
        sdr::is_in_watts(record);
        let Some(sensor) = Sensor::parse(record) else { continue };
        check(&sensor);
        for raw in 0..=u8::MAX {
            if let Ok(power) = sensor.power(&[raw, 0x40, 0]) {
                assert!(power.0 <= MOST, "{power:?}");
            }
        }
        let _ = sensor.power(data);
        sensor.step();
        sensors.push(sensor);
    }
    sdr::choose(&sensors);
}

fn check(sensor: &Sensor) {
    let shown = sensor.shown();
    assert!(shown.chars().count() <= 40 && is_safe(&shown), "{shown:?}");
}

/// Answers of a BMC, taken from the input one after the other.
struct Answers {
    data: Vec<u8>,
    at: usize,
    asked: usize,
}

impl Link for Answers {
    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, LinkError> {
        self.asked += 1;
        assert!(self.asked < 1_200_000, "asks without end");
        command.request();
        let rest = self.data.get(self.at..).unwrap_or_default();
        let Some((&head, rest)) = rest.split_first() else { return Err(LinkError::Refused(0xC1)) };
        if head >= 0xC0 {
            self.at += 1;
            return Err(LinkError::Refused(head));
        }
        let length = usize::from(head).min(rest.len());
        self.at += 1 + length;
        Ok(rest[..length].to_vec())
    }
}

/// The walk through the sensor data repository: it ends, whatever the BMC answers.
pub fn sdr_repository(data: &[u8]) {
    let mut link = Answers { data: data.to_vec(), at: 0, asked: 0 };
    match sensors_in_watts(&mut link) {
        Ok(sensors) => {
            sensors.iter().for_each(check);
            sdr::choose(&sensors);
        }
        Err(error) => assert!(is_safe(&cannot_read_text(&error))),
    }
}

/// A Redfish resource, as every kind that there is.
pub fn redfish(data: &[u8]) {
    for reading in redfish::read_as_every_kind(data) {
        match reading {
            Ok(Reading::Gauge { power }) => assert!(power.0 <= MOST * 256, "{power:?}"),
            Ok(_) => {}
            Err(why) => assert!(is_safe(&why) && why.len() < 4000, "{why:?} of {:?}", lossy(data)),
        }
    }
}
