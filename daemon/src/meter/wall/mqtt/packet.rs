//! Packets of MQTT 3.1.1, as far as a subscriber of one topic at QoS 0 needs them. Pure. Reads any bytes and never
//! panics.

/// Longest packet that is read, in bytes.
pub(super) const LONGEST: usize = 256 << 10;
/// Bits of the first byte: a PUBLISH that the broker had kept.
const RETAIN: u8 = 1;
/// The same: its QoS, two bits.
const QOS: u8 = 0b110;
/// The number of the only SUBSCRIBE.
const SUBSCRIPTION: [u8; 2] = [0, 1];

/// What a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// The answer to CONNECT; 0: welcome.
    Connected(u8),
    /// The answer to SUBSCRIBE; 0x80: refused.
    Subscribed(u8),
    /// A message. `retained`: it is of some earlier time.
    Message { payload: Vec<u8>, retained: bool },
    /// Something else.
    Other,
}

/// A text with its length.
fn text(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &text[..usize::from(length)]].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// CONNECT, with a clean session. `login`: user and password.
pub(super) fn connect(client: &str, keep_alive: u16, login: Option<(&str, &str)>) -> Vec<u8> {
    let flags = if login.is_some() { 0b1100_0010 } else { 0b10 };
    let mut body = [&text(b"MQTT")[..], &[4, flags], &keep_alive.to_be_bytes(), &text(client.as_bytes())].concat();
    if let Some((user, password)) = login {
        body.extend([text(user.as_bytes()), text(password.as_bytes())].concat());
    }
    packet(0x10, &body)
}

/// SUBSCRIBE to a topic at QoS 0.
pub(super) fn subscribe(topic: &str) -> Vec<u8> {
    packet(0x82, &[&SUBSCRIPTION[..], &text(topic.as_bytes()), &[0]].concat())
}

/// PINGREQ.
pub(super) fn ping() -> Vec<u8> {
    packet(0xc0, &[])
}

/// PUBLISH at QoS 0.
#[cfg(test)]
pub(super) fn publish(topic: &str, payload: &[u8], retained: bool) -> Vec<u8> {
    packet(0x30 | u8::from(retained), &[&text(topic.as_bytes())[..], payload].concat())
}

/// Makes packets of what arrives.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Adds what arrived.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether what arrived first can be the answer to CONNECT.
    pub(super) fn is_broker(&self) -> bool {
        self.bytes.first().is_none_or(|first| *first == 0x20)
    }

    /// The next packet; `None`: it is not complete.
    ///
    /// # Errors
    /// What arrives is no MQTT, or too long.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, String> {
        let Some(first) = self.bytes.first().copied() else { return Ok(None) };
        let (mut length, mut at) = (0_usize, 1);
        loop {
            let Some(byte) = self.bytes.get(at) else { return Ok(None) };
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if at > 4 {
                return Err("what answers there is no MQTT broker".into());
            }
        }
        if length > LONGEST {
            return Err(format!("a message is longer than {LONGEST} bytes: not read"));
        }
        if self.bytes.len() < at + length {
            return Ok(None);
        }
        let body = self.bytes[at..at + length].to_vec();
        self.bytes.drain(..at + length);
        read(first, &body).ok_or_else(|| "what answers there is no MQTT broker".to_owned()).map(Some)
    }
}

fn read(first: u8, body: &[u8]) -> Option<Packet> {
    Some(match (first >> 4, body) {
        (2, [_, code]) => Packet::Connected(*code),
        (9, [_, _, code]) => Packet::Subscribed(*code),
        (3, [high, low, rest @ ..]) => {
            let topic = usize::from(u16::from_be_bytes([*high, *low]));
            // A message at another QoS than 0 has a number here.
            let number = if first & QOS == 0 { 0 } else { 2 };
            let payload = rest.get(topic + number..)?.to_vec();
            Packet::Message { payload, retained: first & RETAIN != 0 }
        }
        (2 | 3 | 9 | 0 | 15, _) => return None,
        _ => Packet::Other,
    })
}
