//! Which environment variables are not jouled's, although their names begin with `JOULED_`: those that Kubernetes sets
//! in each container for a Service whose name begins with `jouled` ("Service environment variables" in its
//! documentation), and Docker for a link of such a name. Reads no configuration.
//!
//! A name alone does not tell: `JOULED_PORT=28283` is a mistake that a person made, `JOULED_PORT=tcp://10.0.0.1:28283`
//! is a Service's. So the value, and variables of the same Service, decide.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Protocols of a Service's ports.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// This process's variables that begin with `JOULED_`.
pub(super) fn own() -> impl Iterator<Item = (String, String)> {
    let begins = |name: &str| name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("JOULED_"));
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value))).filter(move |(name, _)| begins(name))
}

/// The names of variables, without the prefix `JOULED_` and in lower case, that belong to a Service or a link.
/// `variables`: the environment variables whose names begin with `JOULED_`, in either case.
pub(super) fn of_services(variables: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let upper = |(name, value): (String, String)| (name.to_ascii_uppercase(), value);
    let all: BTreeMap<String, String> = variables.into_iter().map(upper).collect();
    let services = services(&all);
    let is_ones = |name: &str, value: &str| {
        let rest_of = |service: &&str| name.strip_prefix(*service)?.strip_prefix('_');
        services.iter().filter_map(rest_of).any(|rest| is_set_for_service(rest, value))
    };
    let theirs = all.iter().filter(|(name, value)| is_ones(name, value));
    theirs.filter_map(|(name, _)| Some(name.strip_prefix("JOULED_")?.to_ascii_lowercase())).collect()
}

/// The names of the Services, as in the names of their variables (`JOULED`, `JOULED_WEB`): each has its address in
/// `_SERVICE_HOST`, or a link's in `_PORT`.
fn services(all: &BTreeMap<String, String>) -> Vec<&str> {
    let name = |(key, value): (&str, &str)| match key.strip_suffix("_SERVICE_HOST") {
        Some(service) => is_address(value).then_some(service.len()),
        None => key.strip_suffix("_PORT").filter(|_| is_url(value)).map(str::len),
    };
    let named = all.iter().filter_map(|(key, value)| Some(&key[..name((key, value))?]));
    // A name of a Service does not end in a dash.
    named.filter(|service| service.starts_with("JOULED") && !service.ends_with('_')).collect()
}

/// Whether a Service has such a variable, with such a value. `rest`: what comes behind its name.
fn is_set_for_service(rest: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if let Some(name) = rest.strip_prefix("SERVICE_PORT") {
        // Named ports: `SERVICE_PORT_METRICS`.
        return (name.is_empty() || name.starts_with('_')) && is_port(value);
    }
    let Some(port) = rest.strip_prefix("PORT") else { return rest == "SERVICE_HOST" && is_address(value) };
    let words: Vec<&str> = port.split('_').collect();
    match words.as_slice() {
        [""] => is_url(value),
        ["", number, protocol, of @ ..] if is_port(number) && PROTOCOLS.contains(protocol) => match of {
            [] => is_url(value),
            ["PROTO"] => value.eq_ignore_ascii_case(protocol),
            ["PORT"] => is_port(value),
            ["ADDR"] => is_address(value),
            _ => false,
        },
        _ => false,
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// `tcp://10.0.0.1:80`.
fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(protocol, address)| {
        PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) && address.parse::<SocketAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs(variables: &[(&str, &str)]) -> Vec<String> {
        of_services(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    /// What Kubernetes sets for a Service with two ports.
    fn service(name: &str, address: &str) -> Vec<(String, String)> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut all = vec![
            ("SERVICE_HOST".to_owned(), address.to_owned()),
            ("SERVICE_PORT".into(), "28282".into()),
            ("SERVICE_PORT_HTTP_METRICS".into(), "28282".into()),
            ("SERVICE_PORT_DNS".into(), "53".into()),
            ("PORT".into(), format!("tcp://{host}:28282")),
        ];
        for (port, protocol) in [("28282", "tcp"), ("53", "udp"), ("9", "sctp")] {
            let key = format!("PORT_{port}_{}", protocol.to_uppercase());
            all.push((key.clone(), format!("{protocol}://{host}:{port}")));
            all.push((format!("{key}_PROTO"), protocol.into()));
            all.push((format!("{key}_PORT"), port.into()));
            all.push((format!("{key}_ADDR"), address.into()));
        }
        all.into_iter().map(|(key, value)| (format!("{name}_{key}"), value)).collect()
    }

    #[test]
    fn all_variables_of_a_service_are_its() {
        for name in ["JOULED", "JOULED_X", "JOULED__X", "JOULED_NODE__EXPORTER_2", "JOULED_PORT", "JOULED_SERVICE"] {
            for address in ["10.0.0.1", "fd00::1"] {
                let all = service(name, address);
                assert_eq!(of_services(all.clone()).len(), all.len(), "{name}: {:?}", of_services(all.clone()));
                // Alone, a link's address is known by its value, and names the Service for the others.
                let link: Vec<_> = all.into_iter().filter(|(key, _)| !key.contains("_SERVICE_")).collect();
                assert!(of_services(link.clone()).len() >= link.len(), "{name}: {:?}", of_services(link.clone()));
            }
        }
        assert_eq!(theirs(&[("JOULED_PORT", "udp://10.0.0.1:53")]), ["port"]);
    }

    #[test]
    fn what_a_person_sets_is_not() {
        for (name, value) in [
            ("JOULED_PORT", "28283"),
            ("JOULED_PORT", "tcp://example.org:80"),
            ("JOULED_PORT", "http://10.0.0.1:80"),
            ("JOULED_SERVICE_HOST", "node-1"),
            ("JOULED_SERVICE_PORT", "80"),
            ("JOULED_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("JOULED_EXPORT__GUEST__PORT", "28281"),
            ("JOULED_EXPORT__GUEST__PORT", "tcp://10.0.0.1:80"),
            ("JOULED_INTERVAL", "2s"),
        ] {
            assert!(theirs(&[(name, value)]).is_empty(), "{name}={value}");
        }
        // Also beside a Service.
        let set = |name: &str, value: &str| {
            let mut all = service("JOULED", "10.0.0.1");
            all.retain(|(known, _)| known != name);
            all.push((name.into(), value.into()));
            of_services(all)
        };
        for (name, value) in [
            ("JOULED_PORT", "28283"),
            ("JOULED_PORT_28282_TCP_PROTO", "udp"),
            ("JOULED_PORT_METRICS", "80"),
            ("JOULED_SERVICES", "80"),
            ("JOULED_LISTEN", "[\"10.0.0.1:80\"]"),
            ("JOULED_SERVICE_PORT", "x"),
        ] {
            let key = name.strip_prefix("JOULED_").unwrap().to_lowercase();
            assert!(!set(name, value).contains(&key), "{name}={value}");
        }
    }
}
