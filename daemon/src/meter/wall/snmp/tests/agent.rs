//! A simulated agent of version 2c on the loopback: a table of values, and faults. Of version 3 it has reports alone;
//! the rest is tested against snmpd.

use super::super::ber::{GET, OCTETS, REPORT, RESPONSE, Reader, SEQUENCE, integer, octets, wrap};
use super::super::usm::User;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

/// A fault of all answers.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// None, ever.
    Silence,
    /// These bytes.
    Bytes(Vec<u8>),
    /// The number of another request.
    OtherRequest,
    /// This error-status where more than one value is asked for.
    Status(u8),
    /// The same for one value, too.
    StatusAlways(u8),
    /// Values of other OIDs.
    OtherOids,
}

/// Its values, by OID, as bytes with tag and length.
type Table = BTreeMap<String, Vec<u8>>;

/// An agent.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) address: String,
    state: Arc<Mutex<(Table, Option<Fault>)>>,
}

/// A Gauge32.
pub(super) fn gauge(value: u32) -> Vec<u8> {
    number(0x42, value)
}

/// A Counter32.
pub(super) fn counter(value: u32) -> Vec<u8> {
    number(0x41, value)
}

fn number(tag: u8, value: u32) -> Vec<u8> {
    let bytes = [&[0], &value.to_be_bytes()[..]].concat();
    wrap(tag, &[bytes])
}

fn object(oid: &str) -> Vec<u8> {
    // A GET has it encoded: the request's number, two zeros, the bindings.
    let get = super::super::ber::get(1, &[super::super::Oid::parse(oid).unwrap()]);
    let mut inside = Reader(Reader(&get).expect(GET).unwrap());
    for _ in 0..3 {
        inside.integer().unwrap();
    }
    let mut bindings = Reader(inside.expect(SEQUENCE).unwrap());
    let binding = bindings.expect(SEQUENCE).unwrap();
    wrap(0x06, &[Reader(binding).expect(0x06).unwrap().to_vec()])
}

/// A response with these values.
pub(super) fn response(request: i64, values: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let bindings = values.iter().map(|(oid, value)| wrap(SEQUENCE, &[object(oid), value.clone()]));
    wrap(RESPONSE, &[integer(request), integer(0), integer(0), wrap(SEQUENCE, &bindings.collect::<Vec<_>>())])
}

/// An engine of version 3, as it says who it is, and why it refuses something.
pub(super) struct Engine {
    pub(super) boots: i64,
    pub(super) time: i64,
}

impl Engine {
    /// A report of usmStats, not signed.
    pub(super) fn report(&self, user: &User, message: i64, number: u8) -> Vec<u8> {
        let id = [0x80, 0, 0x1f, 0x88, 4, 1, 2, 3];
        let binding = wrap(SEQUENCE, &[object(&format!("1.3.6.1.6.3.15.1.1.{number}.0")), gauge(1)]);
        let pdu = wrap(REPORT, &[integer(message), integer(0), integer(0), wrap(SEQUENCE, &[binding])]);
        let scoped = wrap(SEQUENCE, &[octets(&id), octets(&[]), pdu]);
        let name = octets(user.name.as_bytes());
        let security =
            wrap(SEQUENCE, &[octets(&id), integer(self.boots), integer(self.time), name, octets(&[]), octets(&[])]);
        let header = wrap(SEQUENCE, &[integer(message), integer(65507), octets(&[0]), integer(3)]);
        wrap(SEQUENCE, &[integer(3), header, octets(&security), scoped])
    }
}

impl Agent {
    /// Starts one that knows the community `public`.
    pub(super) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new((Table::new(), None)));
        let shared = state.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let (table, fault) = &*shared.lock().unwrap();
                if let Some(answer) = answer(&buffer[..length], table, fault.as_ref()) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self { address, state }
    }

    pub(super) fn set(&self, oid: &str, value: Vec<u8>) {
        self.state.lock().unwrap().0.insert(oid.into(), value);
    }

    pub(super) fn remove(&self, oid: &str) {
        self.state.lock().unwrap().0.remove(oid);
    }

    pub(super) fn fault(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().1 = fault;
    }
}

fn answer(request: &[u8], table: &Table, fault: Option<&Fault>) -> Option<Vec<u8>> {
    let mut message = Reader(Reader(request).expect(SEQUENCE)?);
    let (version, community) = (message.integer()?, message.expect(OCTETS)?);
    if community != b"public" {
        return None;
    }
    let pdu = message.pdu()?;
    let mut status = 0;
    let mut number = pdu.request;
    let mut other = false;
    match fault {
        Some(Fault::Silence) => return None,
        Some(Fault::Bytes(bytes)) => return Some(bytes.clone()),
        Some(Fault::OtherRequest) => number += 1,
        Some(Fault::Status(code)) if pdu.values.len() > 1 => status = *code,
        Some(Fault::StatusAlways(code)) => status = *code,
        Some(Fault::OtherOids) => other = true,
        Some(Fault::Status(_)) | None => {}
    }
    let known: BTreeMap<_, _> = table.iter().map(|(oid, value)| (object(oid), value)).collect();
    let bindings = pdu.values.iter().map(|(oid, _)| {
        let oid = wrap(0x06, &[if other { vec![0x2b, 1] } else { oid.clone() }]);
        let value = known.get(&oid).map_or_else(|| wrap(0x80, &[]), |value| (*value).clone());
        wrap(SEQUENCE, &[oid, value])
    });
    let bindings = wrap(SEQUENCE, &bindings.collect::<Vec<_>>());
    let pdu = wrap(RESPONSE, &[integer(number), integer(status.into()), integer(0), bindings]);
    Some(wrap(SEQUENCE, &[integer(version), octets(community), pdu]))
}
